//! The options of every run of a program of Nix, and the messages of its errors. `nix` uses them to evaluate, and `store` to
//! fetch.

use std::time::Duration;

use super::error::ProcessError;
use super::invocation::Invocation;
use super::nix_report::{self, TraceDetail};

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
    pub fn nix_message(&self, detail: TraceDetail) -> String {
        match self {
            Self::Failed { stderr, .. } => {
                let message = nix_report::message(stderr, detail);
                if message.is_empty() { self.to_string() } else { message }
            }
            Self::NotStarted { source, .. } | Self::Io { source, .. } => format!("{self}: {source}"),
            Self::Killed { .. }
            | Self::TimedOut { .. }
            | Self::TooMuchOutput { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyProcesses { .. }
            | Self::TooMuchWritten { .. }
            | Self::DiskFull { .. }
            | Self::Stalled { .. } => self.to_string(),
        }
    }
}
