//! Why two systems could not be compared. It is never a reason not to publish.

use std::fmt;

use crate::model::StorePath;

/// Why two systems could not be compared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// A deployment gives the store path of its system alone, so it is not known how the system is made.
    #[error("{side} names a store path and no derivation")]
    NoDerivation {
        /// The system without a derivation.
        side: Side,
    },
    /// A deployment names the derivation of something else.
    #[error("{side} names a derivation that does not make its store path")]
    OtherDerivation {
        /// The system with the wrong derivation.
        side: Side,
    },
    /// The old document on the branch was altered, so its derivation is not trusted.
    #[error("the old document on the branch was altered and is not trusted")]
    Altered,
    /// A derivation is missing, or Clavel cannot parse it.
    #[error("{path} cannot be read ({why})")]
    Unreadable {
        /// The derivation.
        path: StorePath,
        /// The error of the reader or the parser.
        why: String,
    },
    /// The systems have more derivations or more text than Clavel reads.
    #[error("the systems are larger than Clavel reads in one round")]
    TooLarge,
}

/// One of the two systems that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The system before the change.
    Old,
    /// The system after the change.
    New,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "the old one",
            Self::New => "the new one",
        })
    }
}
