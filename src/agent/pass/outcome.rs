//! What a pass tells: while it runs, of each deployment, and why it ended.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::activate::ActivateError;
use super::super::freshness::Stale;
use super::super::mirrors::{MirrorReport, NoneBelieved};
use super::super::realise::error::RealiseError;
use super::super::state::{FailedActivation, StateError};
use super::super::verify::Order;
use crate::git::CommitId;
use crate::model::{FleetId, Invalid, Revision, StorePath};
use crate::trust::AnchorError;

/// Why a pass ended before anything was decided. What runs goes on running.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// What the agent knows cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The root that it begins with, or the one that it kept, cannot be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// What it knows is about another fleet than the one it is told to believe.
    #[error(
        "the state in {} is of the fleet {kept}, and the configuration's `root` is of the fleet {configured}; if this \
         machine changes fleets, move the state away",
        directory.display()
    )]
    OtherFleet {
        /// The state folder.
        directory: PathBuf,
        /// The fleet of the root that was kept.
        kept: FleetId,
        /// The fleet of the configuration.
        configured: FleetId,
    },
    /// No mirror shows a branch that is believed.
    #[error(transparent)]
    Branch(#[from] NoneBelieved),
    /// Nobody knows what this machine is.
    #[error("cannot tell what system this machine is: {0}")]
    System(#[from] Invalid),
}

impl PassError {
    /// What is past its time, where that is why.
    pub fn stale(&self) -> Option<&Stale> {
        match self {
            Self::Branch(none) => none.stale(),
            _ => None,
        }
    }
}

/// What became of one deployment.
#[derive(Debug)]
pub enum Settled {
    /// It ran already.
    UpToDate(Revision),
    /// Its revision changed, and what it names ran already.
    Adopted(Revision),
    /// The unit switched to it.
    Switched(Revision),
    /// It was not to be had yet, or too few have approved it; what ran before goes on.
    Waiting(String),
    /// It failed; what ran before goes on, or runs again.
    Failed(Failure),
    /// It was withdrawn; what runs goes on running.
    Withdrawn,
}

/// How a deployment failed.
#[derive(Debug)]
pub enum Failure {
    /// It could not be fetched.
    Realise(RealiseError),
    /// The unit did not switch to it.
    Activate(ActivateError),
    /// This very revision failed before, and is not tried again by itself.
    Before(FailedActivation),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Realise(error) => error.fmt(f),
            Self::Activate(error) => error.fmt(f),
            Self::Before(failed) => write!(
                f,
                "revision {} failed to activate at {} ({}); waiting for another revision, or for `clavel-agent once --retry`",
                failed.revision,
                failed.at,
                failed.error.lines().next().unwrap_or_default()
            ),
        }
    }
}

/// What a pass tells while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A mirror was not taken, and not for the same reason as in the pass before.
    Mirror(&'a MirrorReport),
    /// There are two contents under one number, and both were kept there.
    Evidence(&'a Path),
    /// There are two contents under one number once more, and no room for them there.
    EvidenceFull(&'a Path),
    /// The branch has moved, and is believed.
    Fetched(CommitId),
    /// What is believed is not made on top of what was believed before, which was at that commit.
    Rewritten(CommitId),
    /// A deployment is being fetched from its caches.
    Realising(&'a Order),
    /// The unit is being switched.
    Activating(&'a Order),
    /// The unit is being switched back to this.
    RollingBack(&'a StorePath),
    /// Going back failed too.
    RollBackFailed(&'a ActivateError),
}
