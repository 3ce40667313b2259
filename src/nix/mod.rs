//! Nix's commands with typed results: resolve a flake, evaluate, realise, ask a cache, set a profile; and the files of
//! its derivations.
//!
//! Each option's why stands beside it. What to evaluate or realise, and what follows, belongs to `evaluate` and `agent`.

mod derivation;
mod evaluate;
mod flake;
mod jobs;
mod settings;
mod store;

use std::path::PathBuf;
use std::time::Duration;

pub use derivation::DerivationError;
pub use evaluate::{Answer, Calls, Question, Watch};
pub use flake::LockedFlake;
pub use jobs::{Job, JobsQuestion};
pub use store::{CacheEntry, Entries};

use crate::process::{Invocation, ProcessError};

/// Why Nix did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// The program failed.
    #[error("cannot {act}: {source}")]
    Failed {
        /// What was being done, to what.
        act: String,
        /// How it failed.
        source: ProcessError,
    },
    /// This machine's disk failed.
    #[error("cannot {act}: {source}")]
    Files {
        /// What was being done, to what.
        act: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What it printed is not what is known of it.
    #[error("cannot {act}: nix printed what Clavel does not understand ({why}); Clavel knows Nix 2.8 to 2.34")]
    Unexpected {
        /// What was being done, to what.
        act: String,
        /// What is wrong with it.
        why: String,
    },
}

impl NixError {
    /// Whether it was ended because it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed { source: ProcessError::TimedOut { .. }, .. })
    }

    /// Nix's own message, where Nix said something.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source: source @ ProcessError::Failed { stderr, .. }, .. } => {
                let message = own_message(stderr);
                if message.is_empty() { source.to_string() } else { message }
            }
            Self::Failed { source, .. } => source.to_string(),
            Self::Files { .. } | Self::Unexpected { .. } => self.to_string(),
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

/// The Nix of this machine.
#[derive(Debug, Clone)]
pub struct Nix {
    /// A store other than the machine's own: the folder that has a `nix/store` below it.
    store: Option<PathBuf>,
    /// How long one command may take.
    deadline: Duration,
    voice: Voice,
}

/// Whether a person is there to see what Nix says while it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// Only errors show it.
    Quiet,
    /// It is passed on to standard error.
    Aloud,
}

impl Nix {
    /// The Nix on the PATH, with the machine's own store, where no command may take longer than `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { store: None, deadline, voice: Voice::Quiet }
    }

    /// With the store below `root` in place of the machine's own.
    #[must_use]
    pub fn with_store(mut self, root: Option<PathBuf>) -> Self {
        self.store = root;
        self
    }

    /// With what Nix says while it fetches passed on, or not.
    #[must_use]
    pub fn with_voice(mut self, voice: Voice) -> Self {
        self.voice = voice;
        self
    }

    /// A run of one of Nix's programs, with what every one of them gets.
    fn program(&self, name: &str) -> Invocation {
        self.prepared(Invocation::new(name))
    }

    fn prepared(&self, invocation: Invocation) -> Invocation {
        let invocation = invocation.outside_any_repository().within(self.deadline);
        // On a machine without the build users' group Nix warns at every start; nothing is ever built here.
        let invocation = invocation.args(["--option", "build-users-group", ""]);
        match &self.store {
            Some(root) => invocation.arg("--store").arg(root.as_os_str()),
            None => invocation,
        }
    }

    /// `nix VERB…`, whose command line is still called experimental.
    fn nix(&self, verb: &[&str]) -> Invocation {
        self.prepared(Invocation::new("nix").args(verb.iter().copied()))
            .args(["--extra-experimental-features", "nix-command flakes"])
    }
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
