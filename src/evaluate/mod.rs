//! From a flake to its Deployments, Units and Agents, by driving `nix`. Nothing is ever built here.
//!
//! [`evaluate`] is the step's one entry. `outputs` knows what to ask of Nix and reads the answers; `assemble` decides,
//! without any I/O, what follows from them; `run` is the deed: everything in one process, and whatever fails once more
//! by itself, so that one broken host never hides a healthy one and its error is Nix's own.
//!
//! What happens with a document after that belongs to `publish`.

mod assemble;
mod outputs;
mod run;

use serde::Serialize;

use crate::model::{AgentSpecification, DeploymentSpecification, Draft, LockedSource, UnitSpecification};

pub use run::{EvaluateError, Progress, evaluate};

/// What one evaluation of one source found.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The source, at the content that was evaluated.
    pub source: LockedSource,
    /// What was found.
    pub found: Found,
}

/// The documents of a source, and what stands in the way of others. This is what `claveld evaluate --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
#[schemars(title = "Evaluation")]
pub struct Found {
    /// The Deployments, without revisions: they are given when they are published.
    pub deployments: Vec<Draft<DeploymentSpecification>>,
    /// The Units.
    pub units: Vec<Draft<UnitSpecification>>,
    /// The Agents.
    pub agents: Vec<Draft<AgentSpecification>>,
    /// What could not be evaluated, or is not what it has to be.
    pub failures: Vec<Failure>,
}

/// One attribute that gives no document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct Failure {
    /// The name that its document would have.
    pub name: String,
    /// The attribute of the flake.
    pub attribute: String,
    /// Nix's own message, or the rule that is broken.
    pub error: String,
}
