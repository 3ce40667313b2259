//! Why a branch is not believed, in words.

use super::super::freshness::Stale;
use crate::branch::{BranchError, RootsError};
use crate::model::{DocumentPath, Epoch, IndexVersion, Name, Revision, Sha256Digest, System, UnitType};

/// Why a branch is not believed. The agent keeps what it runs.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The branch leads to no root that is believed.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The index, or a document.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// The root or the index is past its time.
    #[error("{0}")]
    Stale(Box<Stale>),
    /// The root is of an epoch before the one that was believed last.
    #[error(
        "the root is at epoch {found}, and epoch {seen} was believed before: somebody holds the newest root back; where this \
         agent's `root.json` was lost, give it the newest root"
    )]
    EpochRollback {
        /// The epoch that was believed.
        seen: Epoch,
        /// The root's.
        found: Epoch,
    },
    /// More than can be remembered.
    #[error(
        "this agent would have to remember more than {limit} documents that the branch gave it, one after another; see who \
         publishes so many for it; a new epoch begins anew: `clavel root next --raise-epoch`"
    )]
    TooManyDocuments {
        /// How many it remembers.
        limit: usize,
    },
    /// The index is older than one that was believed before.
    #[error("the index went back from version {seen} to {found}: somebody shows an old branch")]
    IndexRollback {
        /// The newest that was believed.
        seen: IndexVersion,
        /// What the branch has.
        found: IndexVersion,
    },
    /// There are two indexes of one version.
    #[error("there are two indexes of version {version}: {seen} was believed before, and now it is {found}")]
    IndexFork {
        /// The version.
        version: IndexVersion,
        /// The digest of what the one that was believed says.
        seen: Sha256Digest,
        /// The digest of what the other says.
        found: Sha256Digest,
    },
    /// Two mirrors show two indexes of one version, and neither was believed before.
    #[error(
        "the mirrors do not agree: index version {version} is {found} here and {seen} at {other}; both are signed, so somebody \
         has a publisher's key, or published twice; neither is believed"
    )]
    MirrorFork {
        /// The version.
        version: IndexVersion,
        /// The other mirror, without secrets.
        other: String,
        /// The digest of what the other's says.
        seen: Sha256Digest,
        /// The digest of what this one says.
        found: Sha256Digest,
    },
    /// Two mirrors show two documents of one revision, in indexes of two versions, and neither was believed before.
    #[error(
        "the mirrors do not agree: {path} at revision {revision} is {found} here and {seen} at {other}; both are signed, so \
         somebody has a publisher's key, or published twice; neither is believed"
    )]
    MirrorDocumentFork {
        /// The document.
        path: DocumentPath,
        /// The revision.
        revision: Revision,
        /// The other mirror, without secrets.
        other: String,
        /// The digest of the other's.
        seen: Sha256Digest,
        /// The digest of this one.
        found: Sha256Digest,
    },
    /// A document is older than one that was believed before.
    #[error("{path} went back from revision {seen} to {found}")]
    Rollback {
        /// The document.
        path: DocumentPath,
        /// The newest that was believed.
        seen: Revision,
        /// What the branch has.
        found: Revision,
    },
    /// There are two documents of one revision.
    #[error(
        "there are two contents of {path} at revision {revision}: {seen} was believed before, and now it is {found}"
    )]
    Fork {
        /// The document.
        path: DocumentPath,
        /// The revision.
        revision: Revision,
        /// The digest of the one that was believed.
        seen: Sha256Digest,
        /// The digest of the other.
        found: Sha256Digest,
    },
    /// The configuration wants what the agent may not have.
    #[error(
        "the agent `{agent}` may not ask for the deployment `{deployment}`; its document names {}",
        listed(allowed)
    )]
    NotAllowed {
        /// The agent.
        agent: Name,
        /// What it was configured to take.
        deployment: Name,
        /// What it may have.
        allowed: Vec<Name>,
    },
    /// Two deployments are for one unit.
    #[error(
        "`{first}` and `{second}` are both for the unit `{unit}`; say with `deployments` in the configuration which one this agent takes"
    )]
    SharedUnit {
        /// The unit.
        unit: Name,
        /// One of them.
        first: Name,
        /// The other.
        second: Name,
    },
    /// The unit is another kind of machine.
    #[error("the deployment `{deployment}` is for the unit `{unit}` of arch {arch}, and this machine is {machine}")]
    OtherArch {
        /// The deployment.
        deployment: Name,
        /// The unit.
        unit: Name,
        /// The unit's arch.
        arch: System,
        /// What this machine is.
        machine: System,
    },
    /// The unit is of a type that this machine cannot be.
    #[error(
        "the deployment `{deployment}` is for the unit `{unit}` of type {unit_type}, and this machine is {machine}"
    )]
    OtherType {
        /// The deployment.
        deployment: Name,
        /// The unit.
        unit: Name,
        /// The unit's type.
        unit_type: UnitType,
        /// What this machine is.
        machine: System,
    },
}

fn listed(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
