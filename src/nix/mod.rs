//! Evaluates with the machine's Nix: lock a flake, fetch its inputs, evaluate an expression.
//!
//! A comment beside each option says why it is set; docs/design/evaluation.md has them in one table. Deciding what to
//! evaluate, and what follows from the answer, belongs to `evaluate`. The store of Nix belongs to `store`.

mod evaluate;
mod flake;
mod settings;

use std::time::Duration;

pub use evaluate::{EvalOutput, EvalRequest, SystemCalls, Watch};
pub use flake::LockedFlake;

use crate::model::describe_error;
use crate::process::{Invocation, ProcessError};

/// Why a request to Nix failed.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// The program of Nix failed. The message is that of Nix, without anything about Clavel's own expression.
    #[error("cannot {action}")]
    Failed {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// How the program failed.
        source: NixFailure,
    },
    /// A file could not be read or written.
    #[error("cannot {action}")]
    Files {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Nix printed something of an unknown form.
    #[error(
        "cannot {action}: nix printed something that Clavel does not understand ({why}); use a Nix from 2.8 to 2.34"
    )]
    Unexpected {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// The first thing that is wrong with it.
        why: String,
    },
}

/// A failed run of a program of Nix, in Nix's own words. It has no source: the text of [`ProcessError`] would say it again.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.nix_message())]
pub struct NixFailure(ProcessError);

impl NixError {
    fn failed(action: String, failure: ProcessError) -> Self {
        Self::Failed { action, source: NixFailure(failure) }
    }

    /// The message of Nix itself, or Clavel's own where Nix printed none.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source, .. } => source.to_string(),
            Self::Files { .. } | Self::Unexpected { .. } => describe_error(self),
        }
    }

    /// Whether the program was ended at its limit of memory or time, so that a larger limit may help.
    pub fn is_limit(&self) -> bool {
        match self {
            Self::Failed { source: NixFailure(failure), .. } => match failure {
                ProcessError::TooMuchMemory { .. } | ProcessError::TimedOut { .. } | ProcessError::Killed { .. } => {
                    true
                }
                ProcessError::Failed { stderr, .. } => ran_out_of_memory(stderr),
                ProcessError::NotStarted { .. } | ProcessError::TooMuchOutput { .. } | ProcessError::Io { .. } => false,
            },
            Self::Unexpected { .. } | Self::Files { .. } => false,
        }
    }
}

/// Whether Nix or its garbage collector ended because the system gave them no more memory. Both exit with the code of any
/// other failure, so their message is the only sign. No other decision reads the messages of Nix.
fn ran_out_of_memory(stderr: &str) -> bool {
    let messages = ["Out of memory", "out of memory", "std::bad_alloc", "Too many heap sections"];
    messages.iter().any(|message| stderr.contains(message))
}

/// The Nix of this machine, for evaluations.
#[derive(Debug, Clone)]
pub struct Nix {
    /// The longest time of one command.
    deadline: Duration,
}

impl Nix {
    /// The Nix on the PATH. No command may take longer than `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline }
    }

    fn nix(&self, verb: &[&str]) -> Invocation {
        Invocation::nix(verb, self.deadline)
    }
}
