//! Why the agent does not believe a branch, one variant for each check.

use std::fmt;

use super::super::freshness::Stale;
use crate::branch::{BranchError, RootsError};
use crate::model::{DocumentPath, Epoch, IndexVersion, Name, Revision, Sha256Digest, System, UnitType};
use crate::trust::SignedError;

/// Why a branch is not believed. The agent keeps what its units run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The root chain does not lead to a root that the agent trusts.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The index, a bin or a document failed a check.
    #[error(transparent)]
    Branch(#[from] BranchError),
    /// The root or the index has expired.
    #[error("{0}")]
    Stale(Box<Stale>),
    /// The root is of an earlier epoch than the one that was believed last.
    #[error(
        "the root is at epoch {found}, and epoch {seen} was believed before: most likely this repository is a mirror that lags behind, so \
         bring it up to date; or this agent's `root.json` was lost, so give it the newest root; or somebody holds that root back"
    )]
    EpochRollback {
        /// The epoch that was believed.
        seen: Epoch,
        /// The root's.
        found: Epoch,
    },
    /// The branch does not have the agent, and never had it.
    #[error(
        "the branch has no agent `{agent}`: most likely `name` in this agent's configuration is misspelt, or the host is new and not \
         published yet; `clavel list` shows what the branch has"
    )]
    UnknownAgent {
        /// The agent of the configuration.
        agent: Name,
    },
    /// The agent would have to remember too many documents.
    #[error(
        "this agent would have to remember more than {limit} documents that the branch has given it over time; find out who \
         publishes so many for it, then begin a new epoch: `clavel root next --raise-epoch`"
    )]
    TooManyDocuments {
        /// The most that it remembers.
        limit: usize,
    },
    /// The index is older than the one that was believed before.
    #[error(
        "the index went back from version {seen} to {found}: most likely this repository is a mirror that lags behind, or was restored \
         from a backup; bring it up to date; until then, what runs goes on running"
    )]
    IndexRollback {
        /// The newest one that was believed.
        seen: IndexVersion,
        /// The one on the branch.
        found: IndexVersion,
    },
    /// Another index of the same version was believed before.
    #[error(
        "there are two indexes of version {version}: {seen} was believed before, and now it is {found}; somebody has a \
         publisher's key, or published twice"
    )]
    IndexFork {
        /// The version.
        version: IndexVersion,
        /// The digest of the one that was believed.
        seen: Sha256Digest,
        /// The digest of the other one.
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
        /// The digest of the other mirror's index.
        seen: Sha256Digest,
        /// The digest of this mirror's index.
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
        /// The digest of the other mirror's document.
        seen: Sha256Digest,
        /// The digest of this mirror's document.
        found: Sha256Digest,
    },
    /// A document is older than the one that was believed before.
    #[error("{path} went back from revision {seen} to {found}")]
    Rollback {
        /// The document.
        path: DocumentPath,
        /// The newest one that was believed.
        seen: Revision,
        /// The one on the branch.
        found: Revision,
    },
    /// A document that was withdrawn came back, and its revisions do not go on.
    #[error(
        "{path} was withdrawn after its revision {withdrawn}, and came back at revision {found}: what comes back counts on from \
         there"
    )]
    CameBack {
        /// The document.
        path: DocumentPath,
        /// Its last revision before it was withdrawn.
        withdrawn: Revision,
        /// The one on the branch.
        found: Revision,
    },
    /// Another content of the same revision was believed before.
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
    /// The configuration names a deployment that the agent may not ask for.
    #[error(
        "the agent `{agent}` may not ask for the deployment `{deployment}`: its document names {}",
        quoted(allowed)
    )]
    NotAllowed {
        /// The agent.
        agent: Name,
        /// The deployment in the configuration.
        deployment: Name,
        /// The deployments in the agent's document.
        allowed: Vec<Name>,
    },
    /// Two deployments are for one unit.
    #[error(
        "`{first}` and `{second}` are both for the unit `{unit}`; say with `deployments` in the configuration which one this agent takes"
    )]
    SharedUnit {
        /// The unit.
        unit: Name,
        /// The first of them.
        first: Name,
        /// The second of them.
        second: Name,
    },
}

/// Why this machine cannot run a deployment of a branch that is believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfit {
    /// Only a newer Clavel understands it or its unit.
    #[error("{path} is written for a newer Clavel")]
    NewerClavel {
        /// The document.
        path: DocumentPath,
        /// What this Clavel does not understand.
        source: SignedError,
    },
    /// Its unit is not on the branch.
    #[error("it is for the unit `{unit}`, which {absence}; publish the unit, or name another one in the deployment")]
    NoUnit {
        /// The unit.
        unit: Name,
        /// Whether it was withdrawn.
        absence: Absence,
    },
    /// The agent does not serve the unit.
    #[error(
        "it is for the unit `{unit}`, and this agent serves {}; if it has to serve this unit as well, add a table \
         [units.\"{unit}\"] to its configuration",
        quoted(served)
    )]
    NotServed {
        /// The unit.
        unit: Name,
        /// The units that the agent serves.
        served: Vec<Name>,
    },
    /// The unit is of another type than the agent serves it as.
    #[error(
        "it is for the unit `{unit}` of type {unit_type}, and this agent serves that unit as type {expected}; if the change is \
         meant, set `type = \"{unit_type}\"` in [units.\"{unit}\"] of its configuration"
    )]
    OtherTypeThanServed {
        /// The unit.
        unit: Name,
        /// The type on the branch.
        unit_type: UnitType,
        /// The type in the configuration, or the first that the agent saw.
        expected: UnitType,
    },
    /// The unit is of another arch than this machine.
    #[error(
        "it is for the unit `{unit}` of arch {arch}, and this machine is {machine}; if it can run {arch}, set `system` in \
         clavel-agent.toml"
    )]
    OtherArch {
        /// The unit.
        unit: Name,
        /// The unit's arch.
        arch: System,
        /// The system of this machine.
        machine: System,
    },
    /// The unit is of a type that this machine cannot be.
    #[error("it is for the unit `{unit}` of type {unit_type}, and this machine is {machine}")]
    OtherType {
        /// The unit.
        unit: Name,
        /// The unit's type.
        unit_type: UnitType,
        /// The system of this machine.
        machine: System,
    },
}

impl Unfit {
    /// The unit that the deployment is for, where that could be read.
    pub(in crate::agent) fn unit(&self) -> Option<&Name> {
        match self {
            Self::NewerClavel { .. } => None,
            Self::NoUnit { unit, .. }
            | Self::NotServed { unit, .. }
            | Self::OtherTypeThanServed { unit, .. }
            | Self::OtherArch { unit, .. }
            | Self::OtherType { unit, .. } => Some(unit),
        }
    }
}

/// How the index says that it has no such document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absence {
    /// It does not list it.
    NotListed,
    /// Its tombstone says that it was withdrawn.
    Withdrawn,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotListed => "is not on the branch",
            Self::Withdrawn => "was withdrawn",
        })
    }
}

fn quoted(names: &[Name]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
