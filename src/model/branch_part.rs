//! How much of a branch a reader needs. A remote that can send a part of a branch sends that.

use serde::{Deserialize, Serialize};

use super::Name;

/// A part of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BranchPart {
    /// All of it.
    Whole,
    /// What one agent reads: its own document, its deployments, their units, and the approvals of those deployments.
    OfAgent {
        /// The agent.
        agent: Name,
        /// The deployments that it wants, of those that it may have; `None` for all.
        deployments: Option<Vec<Name>>,
    },
}
