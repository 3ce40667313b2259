//! What every run of one of Nix's programs has in common: its options, and how its errors read. `nix` evaluates with them,
//! and `store` fetches with them.

use std::time::Duration;

use super::error::ProcessError;
use super::invocation::Invocation;

impl Invocation {
    /// A run of one of Nix's programs, within `deadline`.
    #[must_use]
    pub fn of_nix(self, deadline: Duration) -> Self {
        self.outside_any_repository()
            .within(deadline)
            // On a machine without the build users' group Nix warns at every start; nothing is ever built here.
            .args(["--option", "build-users-group", ""])
    }

    /// A run of `nix VERB…`, whose command line is still called experimental.
    pub fn nix(verb: &[&str], deadline: Duration) -> Self {
        Self::new("nix")
            .args(verb.iter().copied())
            .of_nix(deadline)
            .args(["--extra-experimental-features", "nix-command flakes"])
    }
}

impl ProcessError {
    /// Nix's own message, where Nix said something; else how its program ended.
    pub fn nix_message(&self) -> String {
        match self {
            Self::Failed { stderr, .. } => {
                let message = own_message(stderr);
                if message.is_empty() { self.to_string() } else { message }
            }
            other => other.to_string(),
        }
    }
}

/// What Nix says in `stderr` from its error on: first what is wrong, then the trace that newer versions print before it,
/// without the warnings, without what is Clavel's own expression in it, and without advice that nobody here can follow.
fn own_message(stderr: &str) -> String {
    let is_advice = |line: &&str| line.trim_start().starts_with('(') && line.contains("--show-trace");
    let lines = stderr.lines().skip_while(|line| !line.starts_with("error:")).filter(|line| !is_advice(line));
    let lines: Vec<&str> = lines.collect();
    let Some(heart) = lines.iter().rposition(|line| line.trim_start().starts_with("error:")) else {
        return stderr.trim().to_owned();
    };
    let indent = lines[heart].len() - lines[heart].trim_start().len();
    let dedented = |lines: &[&str]| lines.iter().map(|line| dedented(line, indent)).collect::<Vec<_>>().join("\n");
    let mut paragraphs = vec![dedented(&lines[heart..]).trim_end().to_owned()];
    let trace = lines.get(1..heart).unwrap_or_default().split(|line| line.trim().is_empty());
    let of_the_flake = |frame: &&[&str]| !frame.is_empty() && !frame.iter().any(|line| line.contains("«string»:"));
    paragraphs.extend(trace.filter(of_the_flake).map(dedented));
    paragraphs.join("\n\n")
}

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
    fn the_trace_of_newer_versions_comes_after_what_is_wrong() {
        let stderr = "error:\n       … while evaluating attribute 'nar'\n         at «string»:22:11:\n           22|  nar\n\n       \
                      … while evaluating the option `networking.hostName'\n\n       (stack trace truncated; use \
                      '--show-trace' to show the full, detailed trace)\n\n       error: inner\n         at flake.nix:1:2\n";
        let expected = "error: inner\n  at flake.nix:1:2\n\n… while evaluating the option `networking.hostName'";
        assert_eq!(own_message(stderr), expected);
    }
}
