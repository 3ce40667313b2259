//! Says how evaluations are isolated on this machine.

use std::fmt;

use serde::Serialize;

use crate::config::EvaluateConfig;
use crate::model::Isolation;
use crate::nix::Nix;

/// How evaluations are isolated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum IsolationState {
    /// They run in a cage, which was tried just now.
    Cage,
    /// They are to run in a cage, and this machine cannot make one: claveld evaluates nothing.
    Impossible {
        /// The reason, and what to do.
        error: String,
    },
    /// The configuration turns the cage off.
    None,
}

impl fmt::Display for IsolationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cage => write!(f, "a cage of namespaces (bubblewrap): no network, no process, the store alone"),
            Self::Impossible { error } => write!(f, "none, so nothing is evaluated: {error}"),
            Self::None => write!(f, "none, as configured: whoever can push to a source can read what claveld can"),
        }
    }
}

/// How `config` isolates evaluations. It tries the cage.
pub async fn isolation_state(config: &EvaluateConfig) -> IsolationState {
    match config.isolation {
        Isolation::None => IsolationState::None,
        Isolation::Cage => match Nix::new(config.deadline, config.isolation).try_cage().await {
            Ok(()) => IsolationState::Cage,
            Err(error) => IsolationState::Impossible { error: error.message() },
        },
    }
}
