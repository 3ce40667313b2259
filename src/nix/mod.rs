//! Evaluating with the machine's Nix: resolve a flake, fetch its inputs, evaluate an expression.
//!
//! Each option's why stands beside it. What to evaluate, and what follows from the answer, belongs to `evaluate`; the store
//! that Nix keeps belongs to `store`.

mod evaluate;
mod flake;
mod settings;

use std::time::Duration;

pub use evaluate::{Answer, Calls, Question, Watch};
pub use flake::LockedFlake;

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
    /// Nix's own message, where Nix said something.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source, .. } => source.nix_message(),
            Self::Files { .. } | Self::Unexpected { .. } => self.to_string(),
        }
    }
}

/// The Nix of this machine, as far as it evaluates.
#[derive(Debug, Clone)]
pub struct Nix {
    /// How long one command may take.
    deadline: Duration,
}

impl Nix {
    /// The Nix on the PATH, where no command may take longer than `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline }
    }

    fn nix(&self, verb: &[&str]) -> Invocation {
        Invocation::nix(verb, self.deadline)
    }
}
