//! Prints: data on standard output; errors, progress and remarks on standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::exit::{Code, Exit};

/// A line of data.
pub(super) fn line(text: impl Display) -> Result<(), Exit> {
    written(writeln!(io::stdout().lock(), "{text}"))
}

/// Bytes of data, as they are.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Exit> {
    written(io::stdout().lock().write_all(bytes))
}

/// One JSON document.
pub(super) fn json(value: &impl Serialize) -> Result<(), Exit> {
    bytes(&crate::model::json::render(value))
}

fn written(written: io::Result<()>) -> Result<(), Exit> {
    match written {
        // Whoever read it has read enough: `clavel list | head -1`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Exit::silent(Code::Machine)),
        other => other.map_err(|error| Exit::machine(&format!("cannot write to standard output: {error}"))),
    }
}

/// A remark for whoever watches.
pub(super) fn remark(text: impl Display) {
    // Where standard error is closed nobody watches.
    let _ = writeln!(anstream::stderr(), "{}", harmless(&text));
}

/// Prints an error on standard error.
pub(super) fn error(message: impl Display) {
    let red = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    // Where standard error is closed, nobody can read the error.
    let _ = writeln!(anstream::stderr(), "{red}error:{red:#} {}", harmless(&message));
}

/// Prints why a command failed, and gives its exit code.
pub(super) fn report(exit: &Exit) -> ExitCode {
    if !exit.is_silent() {
        error(exit.message());
    }
    ExitCode::from(exit.code() as u8)
}

/// Text without anything that could steer a terminal: parts of it may come from a branch, a flake or a server.
pub(super) fn harmless(text: &impl Display) -> String {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.to_string().chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A table of data; nothing where there are no rows.
pub(super) fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Exit> {
    let rows: Vec<Vec<String>> = rows.into_iter().collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|word| word.to_uppercase()));
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in table.lines() {
        line(row.trim_end())?;
    }
    Ok(())
}

/// What a command is at, while a person watches: one line that is wiped at the end. Nothing where nobody does.
#[derive(Debug)]
pub(super) struct Spinner(ProgressBar);

impl Spinner {
    /// Its line is what `line` says each time it is drawn.
    pub(super) fn telling(line: impl Fn() -> String + Clone + Send + Sync + 'static) -> Self {
        if !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        let write = move |_: &ProgressState, to: &mut dyn std::fmt::Write| {
            // It is written to a text, which takes everything.
            let _ = to.write_str(&harmless(&line()));
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {line}") {
            bar.set_style(style.with_key("line", write));
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Draws the line anew.
    pub(super) fn turn(&self) {
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Text below a heading, indented so that it is seen to belong there.
pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_cannot_steer_a_terminal() {
        assert_eq!(
            harmless(&"unknown field `\u{1b}[2J`\n\tat \u{9b}31m"),
            "unknown field `\u{fffd}[2J`\n\tat \u{fffd}31m"
        );
    }
}
