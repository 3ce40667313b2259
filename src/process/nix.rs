//! The options of every run of a program of Nix, and the messages of its errors. `nix` uses them to evaluate, and `store` to
//! fetch.

use std::time::Duration;

use super::error::ProcessError;
use super::invocation::Invocation;

impl Invocation {
    /// A run of one of Nix's programs, within `deadline`.
    #[must_use]
    pub fn of_nix(self, deadline: Duration) -> Self {
        self.outside_any_repository()
            .within(deadline)
            // On a machine without the group of the build users, Nix prints a warning at every start. Clavel never builds.
            .args(["--option", "build-users-group", ""])
    }

    /// A run of `nix VERB…`, whose command line is an experimental feature.
    pub fn nix(verb: &[&str], deadline: Duration) -> Self {
        Self::new("nix")
            .args(verb.iter().copied())
            .of_nix(deadline)
            .args(["--extra-experimental-features", "nix-command flakes"])
    }
}

impl ProcessError {
    /// The message of Nix, if it printed one; otherwise the whole reason why its program ended.
    pub fn nix_message(&self) -> String {
        match self {
            Self::Failed { stderr, .. } => {
                let message = own_message(stderr);
                if message.is_empty() { self.to_string() } else { message }
            }
            Self::NotStarted { source, .. } | Self::Io { source, .. } => format!("{self}: {source}"),
            Self::Killed { .. }
            | Self::TimedOut { .. }
            | Self::TooMuchOutput { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyProcesses { .. }
            | Self::TooMuchWritten { .. } => self.to_string(),
        }
    }
}

/// The positions in Clavel's own expression, which Nix reads from its standard input or from an argument.
const OWN_POSITIONS: [&str; 2] = ["at «stdin»:", "at «string»:"];

/// The message of Nix in `stderr`: the error first, then the trace, which newer versions print before the error. Leaves out
/// warnings, everything about Clavel's own expression, and the advice to use `--show-trace`, which a user cannot follow.
fn own_message(stderr: &str) -> String {
    let is_advice = |line: &&str| line.trim_start().starts_with('(') && line.contains("--show-trace");
    let lines = stderr.lines().skip_while(|line| !line.starts_with("error:")).filter(|line| !is_advice(line));
    let lines: Vec<&str> = lines.collect();
    let Some(last) = lines.iter().rposition(|line| line.trim_start().starts_with("error:")) else {
        return stderr.trim().to_owned();
    };
    let indent = lines[last].len() - lines[last].trim_start().len();
    let dedented = |lines: &[&str]| lines.iter().map(|line| dedented(line, indent)).collect::<Vec<_>>().join("\n");
    let mut paragraphs = vec![dedented(&without_own_positions(&lines[last..])).trim_end().to_owned()];
    let frames = lines.get(1..last).unwrap_or_default().split(|line| line.trim().is_empty());
    paragraphs.extend(frames.filter(|frame| is_about_the_flake(frame)).map(dedented));
    paragraphs.join("\n\n")
}

/// Takes out every position in Clavel's expression, with the lines of code that Nix shows below it.
fn without_own_positions<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let is_code = |line: &str| line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('|');
    let (mut kept, mut is_below) = (Vec::new(), false);
    for line in lines {
        is_below = is_own_position(line) || (is_below && (line.trim().is_empty() || is_code(line)));
        if !is_below {
            kept.push(*line);
        }
    }
    kept
}

/// Whether a frame of the trace says something about the flake. A frame of the evaluator without a position does not: the
/// value that it is about was made by Clavel's expression. Other frames without a position are messages of the flake.
fn is_about_the_flake(frame: &[&str]) -> bool {
    let [first, rest @ ..] = frame else { return false };
    let is_of_evaluator = ["… while evaluating attribute", "… while calling"].iter().any(|head| first.contains(head));
    !(frame.iter().any(|line| is_own_position(line)) || is_of_evaluator && rest.is_empty())
}

/// Whether a line names a position in Clavel's own expression.
fn is_own_position(line: &str) -> bool {
    OWN_POSITIONS.iter().any(|position| line.trim_start().starts_with(position))
}

/// A line without the first `indent` spaces.
fn dedented(line: &str, indent: usize) -> &str {
    let spaces = line.len() - line.trim_start_matches(' ').len();
    &line[spaces.min(indent)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_begins_with_the_error() {
        let stderr = "warning: Git tree is dirty\nerror: no\n\n       at flake.nix:1:2\n";
        assert_eq!(own_message(stderr), "error: no\n\n       at flake.nix:1:2");
        assert_eq!(own_message("odd\n"), "odd");
        let advised = "error: no\n(use '--show-trace' to show detailed location information)\n";
        assert_eq!(own_message(advised), "error: no");
    }

    #[test]
    fn the_trace_of_newer_versions_comes_after_the_error() {
        let stderr = "error:\n       … while evaluating attribute 'nar'\n         at «string»:22:11:\n           22|  nar\n\n       \
                      … while evaluating the option `networking.hostName'\n\n       (stack trace truncated; use \
                      '--show-trace' to show the full, detailed trace)\n\n       error: inner\n         at flake.nix:1:2\n";
        let expected = "error: inner\n  at flake.nix:1:2\n\n… while evaluating the option `networking.hostName'";
        assert_eq!(own_message(stderr), expected);
    }

    #[test]
    fn clavels_own_expression_is_left_out() {
        // Of Nix 2.8, which prints no trace.
        let stderr = "error: attribute 'toplevel' missing\n\n       at «stdin»:157:46:\n\n          156| }\n          \
                      157| ) { nixosConfigurations\n             |        ^\n          158| # ours\n";
        assert_eq!(own_message(stderr), "error: attribute 'toplevel' missing");
        // Of Nix 2.34.
        let stderr = "error:\n       … while evaluating attribute 'nar'\n         at «stdin»:65:9:\n           65|  nar\n             \
                      |   ^\n\n       … while evaluating attribute 'units'\n\n       … while calling the 'head' builtin\n         \
                      at flake.nix:1:2:\n            1| x\n\n       error: no\n       at «stdin»:3:4:\n            3| ours\n";
        let expected = "error: no\n\n… while calling the 'head' builtin\n  at flake.nix:1:2:\n     1| x";
        assert_eq!(own_message(stderr), expected);
    }
}
