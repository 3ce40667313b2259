//! From a flake to its Deployments, Units and Agents, by driving `nix`. Nothing is ever built here.
//!
//! [`Evaluator::evaluate`] is the step's one entry. What decides has no I/O: `platforms` (where a flake has its hosts),
//! `select` (which of them are taken), `lock` (which inputs there are), `observe` (what an evaluation read), `record`
//! (what of the last time still holds), `schedule` (who is evaluated when, and with whom), `assemble` (which documents
//! follow). What does is thin: `session` asks Nix, `pool` asks it as often at once as it may, `fingerprint` looks
//! at files, `elsewhere` asks a second time, `run` has the order of it all.
//!
//! What happens with a document after that belongs to `publish`.

mod assemble;
mod elsewhere;
mod fingerprint;
mod lock;
mod observe;
mod outputs;
mod platforms;
mod pool;
mod record;
mod run;
mod schedule;
mod select;
mod session;

use serde::Serialize;

use crate::model::{AgentSpecification, DeploymentSpecification, Draft, LockedSource, UnitSpecification};

pub use record::Why;
pub use run::{Demand, EvaluateError, Evaluator, Progress};
pub use schedule::Budget;

/// What one evaluation of one source found. This is what `claveld evaluate --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Evaluation {
    /// The source, at the content that was evaluated.
    #[serde(skip)]
    pub source: LockedSource,
    /// What was found.
    #[serde(flatten)]
    pub found: Found,
    /// What was done for it.
    pub work: Work,
}

/// What an evaluation did, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Work {
    /// What was evaluated.
    pub evaluated: Vec<Evaluated>,
    /// How many were not, because nothing that they come from changed.
    pub unchanged: usize,
    /// What came out differently than was remembered, though nothing that it comes from changed: errors of Clavel.
    pub differences: Vec<String>,
}

/// One attribute that was evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
pub struct Evaluated {
    /// The attribute.
    pub attribute: String,
    /// Why it was.
    pub why: Why,
    /// How long it took, or its part of what those took that it shared a process with; none where it failed.
    pub seconds: Option<f64>,
    /// The most memory that its process held, in bytes; none where it failed, or nobody measured.
    pub memory: Option<u64>,
}

/// The documents of a source, and what stands in the way of others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, schemars::JsonSchema)]
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
