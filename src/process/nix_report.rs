//! The report that a program of Nix prints when it fails, taken apart: the error, and the frames of the trace around it. Pure.
//!
//! Nix 2.8 prints the error first and the innermost frame next. Newer versions print the outermost frame first and the error last.
//! Clavel's own expression is never shown: its user cannot see it, and can change nothing in it.

/// How much of the trace a message shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceDetail {
    /// The innermost position in the user's files, and what the flake itself says about where it was.
    Short,
    /// Every frame that is not about Clavel's own expression, the innermost first.
    Full,
}

/// The places that a position may name which are no file of the user: Clavel's expression, which Nix reads from its standard
/// input or from an argument, and Nix's own.
const NO_FILES: [&str; 5] = ["«stdin»", "«string»", "«none»", "«nix-internal»", "«flakes-internal»"];
/// How a frame of the evaluator begins, in any version of Nix. Every other frame is a message of the flake, such as that of an
/// option.
const OF_EVALUATOR: [&str; 13] = [
    "… while calling",
    "… from call site",
    "… while selecting",
    "… while evaluating '",
    "… while evaluating anonymous",
    "… while evaluating attribute",
    "… while evaluating the attribute",
    "… while evaluating a ",
    "… while evaluating an ",
    "… while evaluating list element",
    "… while evaluating the first",
    "… while evaluating the second",
    "… message for the trace",
];
/// The most messages of the flake that a short message shows.
const MAX_CONTEXTS: usize = 6;
/// The beginning of the line that stands for what was left out of a long text.
pub(super) const LEFT_OUT: &str = "[… ";

/// One part of a report: the error, or a frame.
#[derive(Debug, Default, PartialEq, Eq)]
struct Part<'a> {
    text: Vec<&'a str>,
    /// `at FILE:LINE:COLUMN:`
    position: Option<&'a str>,
    /// The lines of code that Nix shows below the position.
    code: Vec<&'a str>,
}

/// The message of Nix in `stderr`: the error, then what is known about where it was. Leaves out warnings, everything about Clavel's
/// own expression, and the advice of Nix to use `--show-trace`, which its user cannot follow.
pub(super) fn message(stderr: &str, detail: TraceDetail) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_advice(line)).collect();
    let Some(start) = lines.iter().position(|line| begins_error(line)) else {
        // The bare `error:` is the head of a trace whose error was lost.
        return stderr.trim().to_owned();
    };
    let before = frames(&lines[..start]);
    let (error, after) = lines[start..].split_at(error_length(&lines[start..]));
    let error = Part::of(error);
    let inner_first: Vec<Part<'_>> = frames(after).into_iter().chain(before.into_iter().rev()).collect();
    let mut paragraphs = vec![error.render()];
    paragraphs.extend(shown(&error, &inner_first, detail).into_iter().map(Part::render));
    paragraphs.join("\n\n")
}

/// The frames that a message shows.
fn shown<'r, 'a>(error: &Part<'a>, inner_first: &'r [Part<'a>], detail: TraceDetail) -> Vec<&'r Part<'a>> {
    let about_the_flake = inner_first.iter().filter(|frame| frame.is_about_the_flake());
    match detail {
        TraceDetail::Full => about_the_flake.collect(),
        TraceDetail::Short => {
            let (placed, contexts): (Vec<_>, Vec<_>) = about_the_flake.partition(|frame| frame.position.is_some());
            let innermost = placed.into_iter().take(usize::from(!error.is_placed()));
            innermost.chain(contexts.into_iter().take(MAX_CONTEXTS)).collect()
        }
    }
}

impl<'a> Part<'a> {
    fn of(lines: &[&'a str]) -> Self {
        let mut part = Self::default();
        let mut in_code = false;
        for &line in lines {
            match line.trim() {
                "" if part.position.is_some() => {}
                trimmed if part.position.is_none() && is_position(trimmed) => {
                    part.position = Some(trimmed);
                    in_code = true;
                }
                trimmed if in_code && is_code(trimmed) => part.code.push(line),
                _ => {
                    in_code = false;
                    part.text.push(line);
                }
            }
        }
        while part.text.last().is_some_and(|line| line.trim().is_empty()) {
            part.text.pop();
        }
        part
    }

    /// Whether it names a position in a file of the user.
    fn is_placed(&self) -> bool {
        self.position.is_some_and(|position| !is_of_no_file(position))
    }

    /// Whether a frame says something about the flake. A frame of the evaluator without a position does not: the value that it is
    /// about was made by Clavel's expression.
    fn is_about_the_flake(&self) -> bool {
        if let Some(position) = self.position {
            return !is_of_no_file(position);
        }
        let first = self.text.first().map_or("", |line| line.trim_start());
        self.text.len() > 1 || !OF_EVALUATOR.iter().any(|head| first.starts_with(head))
    }

    /// The part without the indent of its first line, and without a position that is in no file of the user.
    fn render(&self) -> String {
        let indent = self.text.first().map_or(0, |line| line.len() - line.trim_start().len());
        let mut lines: Vec<String> =
            self.text.iter().map(|line| dedented(line, indent).trim_end().to_owned()).collect();
        if let Some(position) = self.position.filter(|position| !is_of_no_file(position)) {
            lines.push(format!("  {position}"));
            let margin = |line: &&&str| line.len() - line.trim_start().len();
            // The line with the caret has no number, so it begins further to the right.
            let least = self.code.iter().map(|line| margin(&line)).min().unwrap_or_default();
            lines.extend(self.code.iter().map(|line| format!("    {}", dedented(line, least).trim_end())));
        }
        lines.join("\n")
    }
}

/// The frames in `lines`. What stands before the first one, such as a warning, belongs to none.
fn frames<'a>(lines: &[&'a str]) -> Vec<Part<'a>> {
    let starts: Vec<usize> = (0..lines.len()).filter(|at| begins_frame(lines[*at])).collect();
    let ends = starts.iter().skip(1).copied().chain([lines.len()]);
    let frame = |(start, end): (usize, usize)| {
        let whole = &lines[start..end];
        // What follows a gap is the rest of another frame, whose beginning is lost.
        let length = whole.iter().position(|line| line.starts_with(LEFT_OUT)).unwrap_or(whole.len());
        Part::of(&whole[..length])
    };
    starts.iter().copied().zip(ends).map(frame).collect()
}

/// The number of lines of the error at the beginning of `lines`.
fn error_length(lines: &[&str]) -> usize {
    lines.iter().position(|line| begins_frame(line)).unwrap_or(lines.len())
}

/// Whether a line is the first one of the error. The head of a trace is `error:` alone.
pub(super) fn begins_error(line: &str) -> bool {
    line.trim_start().strip_prefix("error:").is_some_and(|text| !text.trim().is_empty())
}

fn begins_frame(line: &str) -> bool {
    line.trim_start().starts_with("… ")
}

fn is_position(trimmed: &str) -> bool {
    let numbers = trimmed.strip_prefix("at ").map(|place| place.trim_end_matches(':').rsplitn(3, ':'));
    numbers.is_some_and(|mut parts| {
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number) && parts.next().is_some()
    })
}

fn is_of_no_file(position: &str) -> bool {
    let place = position.strip_prefix("at ").unwrap_or(position);
    NO_FILES.iter().any(|no_file| place.starts_with(no_file))
}

fn is_code(trimmed: &str) -> bool {
    trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('|')
}

/// Whether Nix talks about the trace itself.
fn is_advice(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('(') && (line.contains("--show-trace") || line.ends_with("duplicate frames omitted)"))
}

/// A line without the first `indent` spaces.
fn dedented(line: &str, indent: usize) -> &str {
    let spaces = line.len() - line.trim_start_matches(' ').len();
    &line[spaces.min(indent)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(stderr: &str) -> String {
        message(stderr, TraceDetail::Short)
    }

    #[test]
    fn the_message_begins_with_the_error() {
        let stderr =
            "warning: Git tree is dirty\nerror: no\n\n       at flake.nix:1:2:\n\n            1| x\n             | ^\n";
        assert_eq!(short(stderr), "error: no\n  at flake.nix:1:2:\n    1| x\n     | ^");
        assert_eq!(short("odd\n"), "odd");
        let advised = "error: no\n(use '--show-trace' to show detailed location information)\n";
        assert_eq!(short(advised), "error: no");
        let several = "error: one\ntwo: at home\n\n- three\n";
        assert_eq!(short(several), several.trim_end());
    }

    /// The report of Nix 2.34, with every kind of frame.
    const NEWER: &str = "error:
       … while evaluating attribute 'nar'
         at «stdin»:63:9:
           62|       {
           63|         nar = nar (platform.toplevel host);
             |         ^

       … while calling the 'derivationStrict' builtin
         at «nix-internal»/derivation-internal.nix:37:12:
           36|
           37|   strict = derivationStrict drvAttrs;
             |            ^

       … while evaluating attribute 'units'

       … while evaluating derivation 'x'
         whose name attribute is located at /s/host.nix:7:5

       (17 duplicate frames omitted)

       … while evaluating the option `foo':

       … while calling the 'throw' builtin
         at /s/host.nix:3:24:
            2| let
            3|   check = throw \"no\";
             |           ^

       error: no
       at «stdin»:3:4:
            3| ours
";

    #[test]
    fn nothing_of_clavels_own_expression_and_of_nixs_own_is_shown() {
        let place = "… while calling the 'throw' builtin\n  at /s/host.nix:3:24:\n    2| let\n    3|   check = throw \"no\";\n     |           ^";
        let option = "… while evaluating the option `foo':";
        let derivation = "… while evaluating derivation 'x'\n  whose name attribute is located at /s/host.nix:7:5";
        assert_eq!(short(NEWER), format!("error: no\n\n{place}\n\n{option}\n\n{derivation}"));
        assert_eq!(message(NEWER, TraceDetail::Full), format!("error: no\n\n{place}\n\n{option}\n\n{derivation}"));
    }

    #[test]
    fn a_trace_of_nix_2_8_comes_after_the_error() {
        let stderr = "error: no\n\n       at «stdin»:157:46:\n\n          156| }\n          157| ours\n             |        ^\n\n       \
                      … while evaluating 'inner'\n\n       at /s/a.nix:3:1:\n\n            3| x\n\n       … from call site\n\n       at \
                      /s/b.nix:4:1:\n\n            4| y\n\n       … while evaluating 'nar'\n\n       at «stdin»:1:2:\n\n            1| ours\n";
        let inner = "… while evaluating 'inner'\n  at /s/a.nix:3:1:\n    3| x";
        assert_eq!(short(stderr), format!("error: no\n\n{inner}"));
        let outer = "… from call site\n  at /s/b.nix:4:1:\n    4| y";
        assert_eq!(message(stderr, TraceDetail::Full), format!("error: no\n\n{inner}\n\n{outer}"));
    }

    #[test]
    fn a_report_without_its_beginning_shows_nothing_of_clavel() {
        // The head of the trace is lost, and so is the beginning of a frame.
        let cut = "           63|         nar = nar (platform.toplevel host);\n             |         ^\n\n       … outer\n         at \
                   «stdin»:1:2:\n[… 99 bytes are left out]\n           93|     if isAttrs value then\n       … inner\n       error: no\n";
        assert_eq!(short(cut), "error: no\n\n… inner");
        // The gap is in the error itself: both of its ends are shown.
        assert_eq!(short("error: a\n[… 99 bytes are left out]\nz\n"), "error: a\n[… 99 bytes are left out]\nz");
    }
}
