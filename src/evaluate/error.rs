//! Errors that concern a source as a whole. A single attribute that fails is a [`Failure`](super::Failure) instead.

use super::allowance::SpentAllowance;
use crate::model::{Pattern, describe_error};
use crate::nix::{NixError, ReachedLimit};

/// Why a source could not be evaluated at all.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix could not read the source, or could not list its hosts.
    #[error(transparent)]
    Source(#[from] NixError),
    /// The source's `clavel` output has an attribute that Clavel does not know.
    #[error(
        "cannot read the `clavel` output of {flake}: it has `{attribute}`, and only deployments, units and agents may stand there; rename or remove it"
    )]
    UnknownOutput {
        /// The source.
        flake: String,
        /// The attribute below `clavel`.
        attribute: String,
    },
    /// A pattern of the configuration matches nothing in the source.
    #[error(
        "cannot take a part of {flake}: {} matches nothing in it; correct `include` or `exclude` of its [[source]], or take the pattern \
         out. What is published stays as it is",
        patterns.iter().map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
    )]
    Unmatched {
        /// The source.
        flake: String,
        /// The patterns.
        patterns: Vec<Pattern>,
    },
    /// An input cannot be fetched.
    #[error("cannot fetch the input {input} of {flake}: {why}")]
    Input {
        /// The source.
        flake: String,
        /// Its key in the lock.
        input: String,
        /// The reason.
        why: String,
    },
    /// It used all that it may use.
    #[error("cannot evaluate {flake}")]
    Spent {
        /// The source.
        flake: String,
        /// Whether Nix had begun with this question.
        begun: bool,
        /// What is used up.
        source: SpentAllowance,
    },
    /// Clavel itself failed.
    #[error("cannot evaluate {flake}: Clavel made a mistake, please report it: {why}")]
    Panicked {
        /// The source.
        flake: String,
        /// The message of the panic.
        why: String,
    },
    /// Nix gave an answer that does not have the expected form.
    #[error("cannot understand the answer of nix about {flake}: {why}")]
    Answer {
        /// The source.
        flake: String,
        /// The first thing that is wrong with the answer.
        why: String,
    },
}

impl EvaluateError {
    /// The message of Nix itself, or Clavel's own where Nix printed none.
    pub fn message(&self) -> String {
        match self {
            Self::Source(error) => error.message(),
            Self::Spent { source, .. } => format!("not evaluated: {source}"),
            Self::UnknownOutput { .. }
            | Self::Unmatched { .. }
            | Self::Input { .. }
            | Self::Panicked { .. }
            | Self::Answer { .. } => describe_error(self),
        }
    }

    /// Whether the server of the source is out of reach, so that nobody knows what the source has now.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_unreachable())
    }

    /// Whether Nix was asked at all.
    pub(super) fn is_of_nix(&self) -> bool {
        !matches!(self, Self::Spent { begun: false, .. })
    }

    /// Whether Nix ended by itself, and said why.
    pub(super) fn is_said_by_nix(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_said_by_nix())
    }

    /// The limit at which a process was ended, so that a larger one may help.
    pub(super) fn limit(&self) -> Option<ReachedLimit> {
        match self {
            Self::Source(error) => error.limit(),
            Self::UnknownOutput { .. }
            | Self::Unmatched { .. }
            | Self::Input { .. }
            | Self::Spent { .. }
            | Self::Panicked { .. }
            | Self::Answer { .. } => None,
        }
    }
}
