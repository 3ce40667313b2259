//! Metrics in the text format of Prometheus (version 0.0.4), for the textfile collector of its node exporter: a file needs no server
//! in this process. No I/O: the rooms that have the numbers say them, and write the text.

use std::fmt::Write as _;

/// Gauges as text.
#[derive(Debug, Default)]
pub struct Metrics(String);

/// A gauge whose samples are being added.
#[derive(Debug)]
pub struct Gauge<'a> {
    text: &'a mut String,
    name: &'static str,
    /// Its help, until the first sample.
    help: Option<&'static str>,
}

impl Metrics {
    /// Begins the gauge `name`, which is not in the text before its first sample. `help` is one line.
    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Gauge<'_> {
        Gauge { text: &mut self.0, name, help: Some(help) }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

impl Gauge<'_> {
    /// Adds a sample. No two samples of a gauge have the same labels.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let Self { text, name, help } = self;
        if let Some(help) = help.take() {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        }
        text.push_str(name);
        for (at, (label, of)) in labels.iter().enumerate() {
            let begin = if at == 0 { '{' } else { ',' };
            let _ = write!(text, "{begin}{label}=\"{}\"", escaped(of));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

/// The text as the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_a_gauge_without_samples_is_left_out() {
        let mut metrics = Metrics::default();
        metrics.gauge("clavel_a_seconds", "Says a.").sample(&[], 7);
        metrics.gauge("clavel_b", "Says b.").sample(&[("x", "a\\b\"c\nd"), ("y", "")], 0);
        metrics.gauge("clavel_c", "Says c.");
        let expected = r#"# HELP clavel_a_seconds Says a.
# TYPE clavel_a_seconds gauge
clavel_a_seconds 7
# HELP clavel_b Says b.
# TYPE clavel_b gauge
clavel_b{x="a\\b\"c\nd",y=""} 0
"#;
        assert_eq!(metrics.into_text(), expected);
    }
}
