//! The results of a pass: for each deployment, for the pass as a whole, and the events during it.
//!
//! Printing them, and the exit codes, belong to `cli`.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::super::activate::ActivateError;
use super::super::freshness::{ClockTrouble, Clocks, Stale};
use super::super::hooks::HookWarning;
use super::super::lifecycle::{FailedRollout, NextBoot, Rollback, Rollout, TransitionError};
use super::super::mirrors::{MirrorReport, NoneBelieved};
use super::super::realise::error::{NotInCache, RealiseError};
use super::super::state::{CompletedAs, LastPass, RecordedOutcome, StateError};
use super::super::unused::UnusedUnit;
use super::super::verify::{Order, Unfit};
use crate::git::CommitId;
use crate::model::json::StateVersion;
use crate::model::{
    FleetId, Invalid, Name, Revision, RootWarning, StorePath, Timestamp, describe_error, excerpt, printable_line,
};
use crate::trust::{AnchorError, Approvals};

/// The most characters of the message in the record of a pass.
const MAX_MESSAGE: usize = 256 << 10;
/// The most bytes of the message about one deployment in it.
const MAX_OUTCOME: usize = 4 << 10;
/// The most bytes of the error of one mirror in it.
const MAX_MIRROR_ERROR: usize = 4 << 10;

/// Why a pass ended before it decided anything. The units keep what they run.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The agent's state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The root of the configuration, or the one in the state, cannot be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The state is about another fleet than the configuration.
    #[error(
        "the state in {} is of the fleet {kept}, and the configuration's `root` is of the fleet {configured}; if this \
         machine changes fleets, move the state away",
        directory.display()
    )]
    OtherFleet {
        /// The state folder.
        directory: PathBuf,
        /// The fleet of the root in the state.
        kept: FleetId,
        /// The fleet of the configuration.
        configured: FleetId,
    },
    /// No mirror shows a branch that the agent believes.
    #[error(transparent)]
    Branch(#[from] NoneBelieved),
    /// The system of this machine is unknown.
    #[error("cannot tell what system this machine is")]
    System(#[from] Invalid),
    /// A transition was asked of a state that does not have it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
}

impl PassError {
    /// The part of the branch that is stale, where that is the reason.
    pub fn stale(&self) -> Option<&Stale> {
        match self {
            Self::Branch(none) => none.stale(),
            Self::State(_) | Self::Anchor(_) | Self::OtherFleet { .. } | Self::System(_) | Self::Transition(_) => None,
        }
    }
}

/// The result of a pass for one deployment.
#[derive(Debug)]
pub enum DeploymentOutcome {
    /// The revision ran already.
    UpToDate(Revision),
    /// The revision is the one of the record, and another tool has moved the unit's profile since.
    Moved {
        /// The revision.
        revision: Revision,
        /// Its store path.
        recorded: StorePath,
        /// The store path that the profile leads to.
        profile: StorePath,
    },
    /// The revision is new, and its store path ran already.
    Adopted(Revision),
    /// The unit switched to the revision.
    Switched(Revision),
    /// The revision is set for the next boot of the machine; the unit runs until then what it ran.
    AwaitingReboot(Revision, NextBoot),
    /// The revision cannot be applied yet; the unit keeps what it runs.
    Waiting(WaitReason),
    /// The revision failed; the unit keeps what it ran, or went back to it.
    Failed(DeploymentFailure),
    /// The deployment was withdrawn; the unit keeps what it runs.
    Withdrawn,
    /// The agent does not ask for the deployment any more; the unit keeps what it runs.
    Dropped,
}

/// Why a revision cannot be applied yet.
#[derive(Debug)]
pub enum WaitReason {
    /// No cache has its store path yet.
    NotInCache(NotInCache),
    /// Too few approvers have signed it.
    Unapproved(Approvals),
}

/// How a deployment failed.
#[derive(Debug)]
pub enum DeploymentFailure {
    /// This machine cannot run it.
    Unfit(Box<Unfit>),
    /// It could not be fetched.
    Realise(RealiseError),
    /// The unit did not switch to it.
    Activate(ActivateError),
    /// A revision failed, and going back to what ran before does not hold yet.
    NotBack {
        /// The rollback.
        rollback: Box<Rollback>,
        /// What became in this pass of the revision that the branch has.
        meanwhile: Option<String>,
    },
    /// This very revision failed before, and is not tried again by itself.
    Before(Box<FailedRollout>),
}

impl DeploymentOutcome {
    /// The outcome in a word, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::UpToDate(_) => "up-to-date",
            Self::Moved { .. } => "moved",
            Self::Adopted(_) => "adopted",
            Self::Switched(_) => "switched",
            Self::AwaitingReboot(..) => "awaiting-reboot",
            Self::Waiting(_) => "waiting",
            Self::Failed(_) => "failed",
            Self::Withdrawn => "withdrawn",
            Self::Dropped => "dropped",
        }
    }

    /// The revision that it names.
    pub(super) fn revision(&self) -> Option<Revision> {
        match self {
            Self::UpToDate(revision)
            | Self::Moved { revision, .. }
            | Self::Adopted(revision)
            | Self::AwaitingReboot(revision, _)
            | Self::Switched(revision) => Some(*revision),
            Self::Failed(DeploymentFailure::NotBack { rollback, .. }) => Some(rollback.candidate.revision),
            Self::Failed(DeploymentFailure::Before(failed)) => Some(failed.candidate.revision),
            Self::Waiting(_) | Self::Failed(_) | Self::Withdrawn | Self::Dropped => None,
        }
    }

    /// What the next passes have to know about it, where nothing is left to do.
    pub(super) fn completed_as(&self) -> Option<CompletedAs> {
        match self {
            Self::UpToDate(_) | Self::Moved { .. } | Self::Adopted(_) | Self::Switched(_) => Some(CompletedAs::Runs),
            Self::Withdrawn => Some(CompletedAs::Withdrawn),
            Self::Dropped => Some(CompletedAs::Dropped),
            Self::AwaitingReboot(..) | Self::Waiting(_) | Self::Failed(_) => None,
        }
    }
}

impl fmt::Display for DeploymentOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpToDate(revision) => write!(f, "up to date at revision {revision}"),
            Self::Moved { revision, recorded, profile } => write!(
                f,
                "another tool moved the profile to {profile}; the agent switched the unit to {recorded} (revision {revision}), and \
                 switches it again with the next revision"
            ),
            Self::Adopted(revision) => write!(f, "already runs the store path of revision {revision}"),
            Self::Switched(revision) => write!(f, "switched to revision {revision}"),
            Self::AwaitingReboot(revision, next_boot) => {
                write!(f, "revision {revision} is set for the next boot, and waits for a reboot{}", next_boot.why())
            }
            Self::Waiting(reason) => reason.fmt(f),
            Self::Failed(failure) => failure.fmt(f),
            Self::Withdrawn => f.write_str(
                "was withdrawn; what runs goes on running (if it was renamed, set the new `name` in this agent's configuration)",
            ),
            Self::Dropped => f.write_str(
                "is no deployment of this agent any more, by its document on the branch or by its configuration; what runs goes on \
                 running",
            ),
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInCache(why) => why.fmt(f),
            Self::Unapproved(approvals) => approvals.fmt(f),
        }
    }
}

impl fmt::Display for DeploymentFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(why) => f.write_str(&describe_error(why)),
            Self::Realise(error) => f.write_str(&describe_error(error)),
            Self::Activate(error) => f.write_str(&describe_error(error)),
            Self::NotBack { rollback, meanwhile } => {
                let Rollback { candidate, failure, to, tries, last_failure, .. } = &**rollback;
                let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
                let why = match last_failure {
                    Some(last) => {
                        format!("{} tries, the last one failed at {}: {}", tries, last.at, first_line(&last.error))
                    }
                    None => format!("{tries} tries, and the agent or the machine ended in each"),
                };
                write!(
                    f,
                    "revision {} failed to activate at {} ({}), and going back to {to} does not hold yet ({why}); it is tried \
                     again at every pass",
                    candidate.revision,
                    failure.at,
                    first_line(&failure.error),
                )?;
                meanwhile.iter().try_for_each(|meanwhile| write!(f, "; and now: {meanwhile}"))
            }
            Self::Before(failed) => {
                let FailedRollout { candidate, failure, .. } = &**failed;
                let error = failure.error.lines().next().unwrap_or_default();
                write!(
                    f,
                    "revision {} failed to activate at {} ({error}); waiting for another revision, or for `clavel-agent retry`",
                    candidate.revision, failure.at
                )
            }
        }
    }
}

/// A deployment, and the result of the pass for it.
#[derive(Debug)]
pub struct DeploymentReport {
    /// The deployment.
    pub name: Name,
    /// Its unit, where that is known.
    pub unit: Option<Name>,
    /// The revision that this is about, where it is about one.
    pub revision: Option<Revision>,
    /// The result.
    pub outcome: DeploymentOutcome,
}

impl DeploymentReport {
    fn recorded(&self) -> RecordedOutcome {
        RecordedOutcome {
            deployment: self.name.clone(),
            outcome: self.outcome.word().to_owned(),
            message: excerpt(&self.outcome.to_string(), MAX_OUTCOME),
        }
    }
}

impl fmt::Display for DeploymentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.outcome)
    }
}

/// The result of a pass.
#[derive(Debug)]
pub struct PassReport {
    /// The result for each deployment, or why the pass ended before.
    pub result: Result<Vec<DeploymentReport>, PassError>,
    /// The error of this machine's clock, where the branch is believed all the same.
    pub clock_trouble: Option<ClockTrouble>,
    /// The readings by which the next pass measures the clocks.
    pub clock_baseline: Option<Clocks>,
    /// The result for each mirror, in the order of the configuration.
    pub mirrors: Vec<MirrorReport>,
    /// The tables of the configuration about units that no deployment is for.
    pub unused_units: Vec<UnusedUnit>,
    /// The hooks that failed, or cannot be called.
    pub hook_warnings: Vec<HookWarning>,
    /// The root ends soon.
    pub root_warning: Option<RootWarning>,
}

impl PassReport {
    /// The first deployment's failure. The exit code follows from it.
    pub fn first_failure(&self) -> Option<&DeploymentFailure> {
        self.result.as_ref().ok()?.iter().find_map(|report| match &report.outcome {
            DeploymentOutcome::Failed(failure) => Some(failure),
            DeploymentOutcome::UpToDate(_)
            | DeploymentOutcome::Moved { .. }
            | DeploymentOutcome::Adopted(_)
            | DeploymentOutcome::Switched(_)
            | DeploymentOutcome::AwaitingReboot(..)
            | DeploymentOutcome::Waiting(_)
            | DeploymentOutcome::Withdrawn
            | DeploymentOutcome::Dropped => None,
        })
    }

    /// What is wrong with the configuration, although nothing failed by it.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unused = self.unused_units.iter().map(ToString::to_string);
        unused.chain(self.hook_warnings.iter().map(ToString::to_string))
    }

    /// Whether the pass did not end early and no deployment failed.
    pub fn is_good(&self) -> bool {
        self.result.is_ok() && self.first_failure().is_none()
    }

    /// Whether each unit also runs what the agent gave it, and the branch still says what that is.
    fn is_complete(&self) -> bool {
        let is_other = |report: &DeploymentReport| {
            let outcome = &report.outcome;
            matches!(
                outcome,
                DeploymentOutcome::Withdrawn | DeploymentOutcome::Dropped | DeploymentOutcome::Moved { .. }
            )
        };
        self.is_good() && !self.result.iter().flatten().any(is_other)
    }

    /// The record of the pass, which ended `at` that time.
    pub(super) fn last_pass(&self, at: Timestamp) -> LastPass {
        let message = match &self.result {
            Ok(reports) => reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => describe_error(error),
        };
        let stale = self.result.as_ref().err().and_then(PassError::stale);
        let trouble = stale.map_or(self.clock_trouble.as_ref(), |stale| stale.clock.as_ref());
        LastPass {
            at,
            clock_baseline: self.clock_baseline.clone(),
            clock_trouble: trouble.map(ToString::to_string),
            message: printable_line(message.lines().next().unwrap_or_default(), MAX_MESSAGE),
            ok: self.is_complete(),
            stale_since: stale.map(|stale| stale.since),
            deployments: self.result.iter().flatten().map(DeploymentReport::recorded).collect(),
            warnings: self.warnings().collect(),
            left: Vec::new(),
            mirrors: self.mirrors.iter().map(bounded).collect(),
            version: StateVersion,
        }
    }
}

/// The report of a mirror as it is recorded.
fn bounded(report: &MirrorReport) -> MirrorReport {
    let error = report.error.as_ref().map(|error| excerpt(error, MAX_MIRROR_ERROR));
    MirrorReport { error, ..report.clone() }
}

/// A pass in a few lines: a warning about the clock, and a line for each deployment, or the error.
impl fmt::Display for PassReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.warnings().map(|warning| format!("warning: {warning}"));
        let root = self.root_warning.iter().map(|warning| format!("warning: {warning}"));
        let trouble = self.clock_trouble.iter().map(|trouble| format!("warning: {trouble}")).chain(others).chain(root);
        let lines: Vec<String> = match &self.result {
            Ok(reports) => trouble.chain(reports.iter().map(ToString::to_string)).collect(),
            Err(error) => trouble.chain([describe_error(error)]).collect(),
        };
        f.write_str(&lines.join("\n"))
    }
}

/// A report of a pass while it runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A mirror was not taken, and not for the same reason as in the pass before.
    Mirror(&'a MirrorReport),
    /// Two contents have one version or revision, and both were kept in that folder.
    ForkKept(&'a Path),
    /// Two contents have one version or revision once more, and that folder has no room for them.
    ForkFolderFull(&'a Path),
    /// The branch has moved, and is believed.
    Fetched(CommitId),
    /// The believed commit does not have the one that was believed before, which is this, as an ancestor.
    Rewritten(CommitId),
    /// A deployment is being fetched from its caches.
    Realising(&'a Order),
    /// The activation that an earlier process of the agent began still runs, and is waited for.
    AwaitingActivation {
        /// The deployment.
        deployment: &'a Name,
    },
    /// The activation that an earlier process of the agent began has ended well.
    EarlierActivationSucceeded {
        /// The deployment.
        deployment: &'a Name,
        /// The revision that the unit switched to.
        revision: Revision,
    },
    /// An activation begins.
    Activating {
        /// The deployment.
        deployment: &'a Name,
        /// The revision and its attempt.
        rollout: &'a Rollout,
    },
    /// The machine runs what was set for its next boot.
    Booted {
        /// The deployment.
        deployment: &'a Name,
        /// The revision.
        revision: Revision,
    },
    /// A revision was activated, and has to prove itself.
    OnProbation {
        /// The deployment.
        deployment: &'a Name,
        /// The revision and its attempt.
        rollout: &'a Rollout,
        /// How many checks it has.
        checks: usize,
    },
    /// No mirror could be read after the switch yet.
    MirrorUnread {
        /// The deployment.
        deployment: &'a Name,
        /// The revision and its attempt.
        rollout: &'a Rollout,
        /// Why not.
        error: &'a str,
    },
    /// All that it has to prove holds, and a person has to confirm it.
    AwaitingPerson {
        /// The deployment.
        deployment: &'a Name,
        /// The revision and its attempt.
        rollout: &'a Rollout,
        /// How long after the activation the machine goes back.
        deadline: std::time::Duration,
    },
    /// The revision stays, although a check that is only told does not hold.
    OnlyTold {
        /// The deployment.
        deployment: &'a Name,
        /// The revision and its attempt.
        rollout: &'a Rollout,
        /// What does not hold.
        complaint: &'a str,
    },
    /// A rollback begins.
    RollingBack {
        /// The deployment.
        deployment: &'a Name,
        /// The store path, and the failure before.
        rollback: &'a Rollback,
    },
    /// A rollback failed.
    RollbackFailed {
        /// The deployment.
        deployment: &'a Name,
        /// The store path, and the failure before.
        rollback: &'a Rollback,
        /// Why.
        error: &'a ActivateError,
    },
    /// The record of the pass could not be written.
    ReportNotSaved(&'a StateError),
    /// The file of metrics could not be written.
    MetricsNotWritten(&'a Path, &'a io::Error),
}
