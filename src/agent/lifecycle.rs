//! The life of one deployment on its unit: its states, and the transitions between them. No I/O.
//!
//! ```text
//!                                                    ┌─succeed─▶ AwaitingReboot (which fails as well)
//!                                                    │              │ boot
//!                                                    │              ▼
//! begin ─▶ Known ─realise─▶ Realised ─activate─▶ Activating ─succeed─▶ Probation ─confirm─▶ Confirmed
//!            ▲                                    │  │  ▲ │               │ fail             ▲
//!            └──────────── postpone ──────────────┘  │  └─┘ resume        │            adopt ┘
//!                                               fail │                    │
//!                                                    ▼                    │
//!                                                RollingBack ◀────────────┘
//!                                                    │  roll_back counts a try; rolled_back ends it, and stays where it failed
//!                                                    │
//!                                                    ├─begin─▶ Known (a new revision, or a retry)
//!                                                    ▼
//!                                                RolledBack ─begin─▶ Known (a new revision, or a retry)
//! ```
//!
//! A revision that is to run from the next boot on (`NextBoot`) is `AwaitingReboot` after its activation. `boot` leads on to `Probation`
//! once the machine has booted into it, and `fail` gives it up where the machine booted into something else; a new revision may `begin`
//! meanwhile. A switch that turns out to need a boot goes on as one (`put_off`).
//!
//! `adopt` leads to `Confirmed` where the store path of a new revision certainly runs already. `postpone` takes back an attempt
//! that this machine could not begin. `fail` leads directly to `RolledBack` where nothing else ran before.
//!
//! The pass records each transition before it takes the step that the transition announces, so `resume` can lead on from the
//! state that it finds at start-up: it counts an activation that ended with the agent or the machine as an attempt.
//!
//! What a revision on probation has to prove, and whether it has, is for `probation` to say. A probation that ended with the agent or the
//! machine is a counted attempt as well, unless the agent ended in order (`pause`); it then begins anew.
//!
//! Running programs and writing files do not belong here; `pass` does both.

use serde::{Deserialize, Serialize};

use crate::model::{Name, Revision, StorePath, Timestamp, excerpt};

mod records;

pub use records::{
    ActivationFailure, Candidate, FailedRollout, NextBoot, Proof, Rollback, RollbackFailure, RollbackResult, Rollout,
    RunningDeployment, UnitReference, WayBack,
};

/// How often a rollback is tried before the agent turns to the branch, when the agent or the machine ends during it.
const MAX_TRIES: u32 = 3;

/// How often the agent may end in order during a probation without a counted attempt. A revision that makes the machine restart in order
/// each time must not be on probation for ever.
const MAX_PAUSES: u32 = 5;

/// The most bytes of each error in a record: 4 KiB. `state` can then write the records of the most deployments that an agent has.
pub(super) const MAX_ERROR: usize = 4 << 10;

/// The state of a deployment on its unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "state", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Lifecycle {
    /// The revision is verified, and its store path is being fetched or waited for.
    Known(Rollout),
    /// The store path is on this machine, complete and as pinned.
    Realised(Rollout),
    /// The activation runs.
    Activating(Rollout),
    /// The revision is set for the next boot of the machine. What ran before runs until then.
    AwaitingReboot(Rollout),
    /// The activation succeeded and is not confirmed yet.
    Probation(Rollout),
    /// The revision runs.
    Confirmed {
        /// The revision that runs.
        running: RunningDeployment,
    },
    /// The revision failed, and what ran before is activated again until that holds.
    RollingBack(Rollback),
    /// The revision failed. It is held: only a new revision or the operator begins again.
    RolledBack(FailedRollout),
}

/// When a unit runs again what it ran before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackAgain {
    /// It does.
    Now,
    /// From the next boot of its machine on.
    AfterReboot,
}

/// A transition that does not exist in a state. Only a mistake in this program causes it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {transition} a deployment that is {state}; this is a mistake in clavel-agent")]
pub struct TransitionError {
    /// The transition.
    pub transition: &'static str,
    /// The state.
    pub state: &'static str,
}

impl Lifecycle {
    /// Takes up a verified revision. The attempts of the same revision are counted on. What is recorded about another unit does
    /// not count for this one.
    pub fn begin(before: Option<Self>, unit: UnitReference, candidate: Candidate) -> Result<Self, TransitionError> {
        let first = |running| Rollout {
            unit: unit.clone(),
            candidate: candidate.clone(),
            attempts: 0,
            way_back: WayBack::NotRecorded,
            not_back_to: None,
            next_boot: None,
            proof: Proof::default(),
            running,
        };
        Ok(Self::Known(match before {
            None => first(None),
            Some(Self::Confirmed { running }) => first(Some(running)),
            Some(Self::RolledBack(failed)) if failed.unit.name == unit.name => {
                let FailedRollout { candidate: failed, rollback, running, .. } = failed;
                let rollout = first(running);
                match rollback {
                    RollbackResult::NothingBefore => Rollout { not_back_to: Some(failed.nar_id), ..rollout },
                    // What the unit is to run is what the machine goes back to, whatever it still runs.
                    RollbackResult::AfterReboot(to) => Rollout { way_back: WayBack::Path(to), ..rollout },
                    // The unit may be halfway, so the record of what was confirmed there is only the way back.
                    RollbackResult::SameBefore if rollout.running.is_some() => {
                        Rollout { way_back: WayBack::Path(failed.nar_id), ..rollout }
                    }
                    RollbackResult::Restored | RollbackResult::SameBefore => rollout,
                }
            }
            Some(Self::RolledBack(failed)) => first(failed.running),
            Some(Self::RollingBack(Rollback { unit: of, to, last_confirmed, .. })) if of.name == unit.name => {
                Rollout { way_back: WayBack::Path(to), ..first(last_confirmed) }
            }
            Some(Self::RollingBack(rollback)) => first(rollback.last_confirmed),
            Some(Self::Known(begun) | Self::Realised(begun)) if begun.unit.name == unit.name => {
                let attempts = if begun.candidate == candidate { begun.attempts } else { 0 };
                Rollout { unit, candidate, attempts, ..begun }
            }
            Some(Self::AwaitingReboot(begun)) if begun.unit.name == unit.name => {
                Rollout { unit, candidate, attempts: 0, next_boot: None, ..begun }
            }
            Some(Self::Known(begun) | Self::Realised(begun) | Self::AwaitingReboot(begun)) => first(begun.running),
            Some(other) => return Err(other.refuse("begin")),
        }))
    }

    /// Takes a revision as running because its store path runs already.
    pub fn adopt(unit: UnitReference, candidate: Candidate, now: Timestamp) -> Self {
        Self::Confirmed { running: candidate.running_since(unit, now) }
    }

    /// Notes that the store path is on this machine.
    pub fn realise(self) -> Result<Self, TransitionError> {
        match self {
            Self::Known(rollout) => Ok(Self::Realised(rollout)),
            other => Err(other.refuse("realise")),
        }
    }

    /// Begins an attempt on a unit that `ran` this before, by a switch or for the next boot. The first attempt records it as the way
    /// back. The revision has to give `proof` after it.
    pub fn activate(
        self,
        ran: Option<StorePath>,
        next_boot: Option<NextBoot>,
        proof: Proof,
    ) -> Result<Self, TransitionError> {
        let Self::Realised(mut rollout) = self else { return Err(self.refuse("activate")) };
        rollout.next_boot = next_boot;
        rollout.proof = proof;
        if rollout.way_back == WayBack::NotRecorded {
            rollout.way_back = ran.map_or(WayBack::Nothing, WayBack::Path);
        }
        rollout.attempts += 1;
        Ok(Self::Activating(rollout))
    }

    /// Withdraws an attempt that this machine could not begin, so that the next pass may try again.
    pub fn postpone(self) -> Result<Self, TransitionError> {
        match self {
            Self::Activating(mut rollout) => {
                rollout.attempts = rollout.attempts.saturating_sub(1);
                Ok(Self::Known(rollout))
            }
            other => Err(other.refuse("postpone")),
        }
    }

    /// Goes on with the same attempt for the next boot: at first where a switch turns out not to be possible, and again after a boot
    /// that came before the attempt had ended.
    pub fn put_off(self, next_boot: NextBoot) -> Result<Self, TransitionError> {
        match self {
            Self::Activating(rollout) => Ok(Self::Activating(Rollout { next_boot: Some(next_boot), ..rollout })),
            other => Err(other.refuse("put off")),
        }
    }

    /// Notes that the machine runs what was set for its next boot.
    pub fn boot(self) -> Result<Self, TransitionError> {
        match self {
            Self::RolledBack(failed) if matches!(failed.rollback, RollbackResult::AfterReboot(_)) => {
                Ok(Self::RolledBack(FailedRollout { rollback: RollbackResult::Restored, ..failed }))
            }
            Self::AwaitingReboot(rollout) => Ok(Self::Probation(Rollout { next_boot: None, ..rollout })),
            other => Err(other.refuse("boot")),
        }
    }

    /// Notes that the activation succeeded.
    pub fn succeed(self) -> Result<Self, TransitionError> {
        match self {
            Self::Activating(rollout) if rollout.next_boot.is_some() => Ok(Self::AwaitingReboot(rollout)),
            Self::Activating(rollout) => Ok(Self::Probation(rollout)),
            other => Err(other.refuse("succeed")),
        }
    }

    /// Ends the probation well.
    pub fn confirm(self, now: Timestamp) -> Result<Self, TransitionError> {
        match self {
            Self::Probation(Rollout { unit, candidate, .. }) => {
                Ok(Self::Confirmed { running: candidate.running_since(unit, now) })
            }
            other => Err(other.refuse("confirm")),
        }
    }

    /// Gives up the revision, and turns to what ran before where that is another store path.
    pub fn fail(self, error: &str, now: Timestamp) -> Result<Self, TransitionError> {
        let (Self::Activating(rollout) | Self::AwaitingReboot(rollout) | Self::Probation(rollout)) = self else {
            return Err(self.refuse("fail"));
        };
        let Rollout { unit, candidate, attempts, way_back, next_boot, running, .. } = rollout;
        let failure = ActivationFailure { at: now, attempts, error: excerpt(error, MAX_ERROR) };
        Ok(match way_back {
            WayBack::Path(to) if to != candidate.nar_id => {
                let (tries, last_failure, last_confirmed, never_ran) = (0, None, running, next_boot.is_some());
                Self::RollingBack(Rollback {
                    unit,
                    candidate,
                    failure,
                    to,
                    never_ran,
                    tries,
                    last_failure,
                    last_confirmed,
                })
            }
            WayBack::Path(_) => Self::RolledBack(FailedRollout {
                unit,
                candidate,
                failure,
                rollback: RollbackResult::SameBefore,
                running,
            }),
            WayBack::Nothing | WayBack::NotRecorded => {
                let rollback = RollbackResult::NothingBefore;
                Self::RolledBack(FailedRollout { unit, candidate, failure, rollback, running })
            }
        })
    }

    /// Begins a try of the rollback.
    pub fn roll_back(self) -> Result<Self, TransitionError> {
        match self {
            Self::RollingBack(mut rollback) => {
                rollback.tries = rollback.tries.saturating_add(1);
                Ok(Self::RollingBack(rollback))
            }
            other => Err(other.refuse("roll back")),
        }
    }

    /// Ends a try of the rollback: it holds, now or from the next boot on, or it failed at that time and is tried again later.
    pub fn rolled_back(self, result: Result<BackAgain, String>, now: Timestamp) -> Result<Self, TransitionError> {
        let Self::RollingBack(rollback) = self else { return Err(self.refuse("end the rollback of")) };
        Ok(match result {
            Ok(back) => {
                let Rollback { unit, candidate, failure, to, last_confirmed: running, .. } = rollback;
                let rollback = match back {
                    BackAgain::Now => RollbackResult::Restored,
                    BackAgain::AfterReboot => RollbackResult::AfterReboot(to),
                };
                Self::RolledBack(FailedRollout { unit, candidate, failure, rollback, running })
            }
            Err(error) => {
                let (tries, error) = (rollback.tries, excerpt(&error, MAX_ERROR));
                Self::RollingBack(Rollback {
                    last_failure: Some(RollbackFailure { at: now, tries, error }),
                    ..rollback
                })
            }
        })
    }

    /// Notes that the timer of the way back has activated what ran before, with this result.
    pub(super) fn take_back(self, result: Result<BackAgain, String>, now: Timestamp) -> Result<Self, TransitionError> {
        let back = match self {
            state @ Self::RollingBack(_) => state,
            state => state.fail("its way back was taken by the timer, because nothing confirmed it in time", now)?,
        };
        back.roll_back()?.rolled_back(result, now)
    }

    /// Notes that the agent ends in order. Any other state than a probation goes on by itself.
    #[must_use]
    pub fn pause(self) -> Self {
        match self {
            Self::Probation(mut rollout) => {
                rollout.proof.is_paused = rollout.proof.pauses < MAX_PAUSES;
                rollout.proof.pauses = rollout.proof.pauses.saturating_add(1);
                Self::Probation(rollout)
            }
            other => other,
        }
    }

    /// Leads on from what was recorded when the agent or the machine ended, where there are `most` attempts.
    pub fn resume(self, most: u32, now: Timestamp) -> Result<Self, TransitionError> {
        match self {
            Self::Probation(mut rollout) if rollout.proof.is_paused => {
                rollout.proof.is_paused = false;
                Ok(Self::Probation(rollout))
            }
            Self::Activating(mut rollout) if rollout.attempts < most => {
                rollout.attempts += 1;
                Ok(Self::Activating(rollout))
            }
            Self::Probation(mut rollout) if rollout.attempts < most => {
                rollout.attempts += 1;
                Ok(Self::Probation(rollout))
            }
            Self::Activating(_) | Self::Probation(_) => {
                let attempts = if most == 1 { "its attempt".to_owned() } else { format!("each of {most} attempts") };
                self.fail(&format!("the agent or the machine ended during {attempts}, so there is no further one"), now)
            }
            state @ (Self::RollingBack(_)
            | Self::AwaitingReboot(_)
            | Self::Known(_)
            | Self::Realised(_)
            | Self::Confirmed { .. }
            | Self::RolledBack(_)) => Ok(state),
        }
    }

    /// Whether it is of no use any more if no document asks for the deployment: nothing is being done, and it records nothing that
    /// runs or may run.
    pub(super) fn is_obsolete(&self) -> bool {
        match self {
            Self::Known(rollout) | Self::Realised(rollout) => {
                rollout.running.is_none() && rollout.way_back == WayBack::NotRecorded
            }
            // What failed where nothing ran before is no way back for the next deployment of the unit.
            Self::RolledBack(FailedRollout { rollback: RollbackResult::NothingBefore, .. })
            | Self::Activating(_)
            | Self::AwaitingReboot(_)
            | Self::Probation(_)
            | Self::RollingBack(_)
            | Self::Confirmed { .. } => false,
            Self::RolledBack(failed) => failed.running.is_none(),
        }
    }

    /// The revision that was confirmed last, whatever was attempted since.
    pub fn last_confirmed(&self) -> Option<&RunningDeployment> {
        match self {
            Self::Known(rollout)
            | Self::Realised(rollout)
            | Self::Activating(rollout)
            | Self::AwaitingReboot(rollout)
            | Self::Probation(rollout) => rollout.running.as_ref(),
            Self::Confirmed { running } => Some(running),
            Self::RollingBack(rollback) => rollback.last_confirmed.as_ref(),
            Self::RolledBack(failed) => failed.running.as_ref(),
        }
    }

    /// The revision that certainly runs; `None` where an attempt may have left the unit halfway.
    pub fn certainly_running(&self) -> Option<&RunningDeployment> {
        match self {
            Self::Confirmed { running } => Some(running),
            Self::Known(rollout) | Self::Realised(rollout) if rollout.way_back == WayBack::NotRecorded => {
                rollout.running.as_ref()
            }
            // Setting something for the next boot leaves alone what runs.
            Self::AwaitingReboot(Rollout { running: Some(running), unit, way_back: WayBack::Path(ran), .. })
                if running.unit == *unit && running.nar_id == *ran =>
            {
                Some(running)
            }
            Self::RolledBack(FailedRollout { rollback: RollbackResult::Restored, running, .. }) => running.as_ref(),
            Self::Known(_)
            | Self::Realised(_)
            | Self::Activating(_)
            | Self::AwaitingReboot(_)
            | Self::Probation(_)
            | Self::RollingBack(_)
            | Self::RolledBack(_) => None,
        }
    }

    /// What waits for a reboot of the machine: a revision that is set for it, or what ran before one that failed.
    pub fn next_boot(&self) -> Option<&StorePath> {
        match self {
            Self::AwaitingReboot(rollout) => Some(&rollout.candidate.nar_id),
            Self::RolledBack(FailedRollout { rollback: RollbackResult::AfterReboot(to), .. }) => Some(to),
            Self::Known(_)
            | Self::Realised(_)
            | Self::Activating(_)
            | Self::Probation(_)
            | Self::Confirmed { .. }
            | Self::RollingBack(_)
            | Self::RolledBack(_) => None,
        }
    }

    /// Whether a rollback is tried before the branch is read, which may have a revision that helps. It is tried after that where the
    /// agent ended in each of the last tries.
    pub(super) fn is_resumed_before_the_branch(&self) -> bool {
        !matches!(self, Self::RollingBack(rollback) if rollback.interruptions() >= MAX_TRIES)
    }

    /// The rollback that does not hold yet.
    pub fn pending_rollback(&self) -> Option<&Rollback> {
        match self {
            Self::RollingBack(rollback) => Some(rollback),
            Self::Known(_)
            | Self::Realised(_)
            | Self::Activating(_)
            | Self::AwaitingReboot(_)
            | Self::Probation(_)
            | Self::Confirmed { .. }
            | Self::RolledBack(_) => None,
        }
    }

    /// The revision that is attempted, or was attempted or confirmed last.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Known(rollout)
            | Self::Realised(rollout)
            | Self::Activating(rollout)
            | Self::AwaitingReboot(rollout)
            | Self::Probation(rollout) => rollout.candidate.revision,
            Self::Confirmed { running } => running.revision,
            Self::RollingBack(rollback) => rollback.candidate.revision,
            Self::RolledBack(failed) => failed.candidate.revision,
        }
    }

    /// Whether nothing is under way: the revision runs, or it failed and what ran before runs again, where something did.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Confirmed { .. } => true,
            Self::RolledBack(failed) => !matches!(failed.rollback, RollbackResult::AfterReboot(_)),
            Self::Known(_)
            | Self::Realised(_)
            | Self::Activating(_)
            | Self::AwaitingReboot(_)
            | Self::Probation(_)
            | Self::RollingBack(_) => false,
        }
    }

    /// Whether a way back may be armed from it, or taken.
    pub(super) fn is_at_risk(&self) -> bool {
        match self {
            Self::Activating(_) | Self::AwaitingReboot(_) | Self::Probation(_) | Self::RollingBack(_) => true,
            Self::Known(_) | Self::Realised(_) | Self::Confirmed { .. } | Self::RolledBack(_) => false,
        }
    }

    /// The unit that this is about.
    pub(super) fn unit(&self) -> &Name {
        let unit = match self {
            Self::Known(rollout)
            | Self::Realised(rollout)
            | Self::Activating(rollout)
            | Self::AwaitingReboot(rollout)
            | Self::Probation(rollout) => &rollout.unit,
            Self::Confirmed { running } => &running.unit,
            Self::RollingBack(rollback) => &rollback.unit,
            Self::RolledBack(failed) => &failed.unit,
        };
        &unit.name
    }

    /// The name of the state, as `state.json` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Known(_) => "known",
            Self::Realised(_) => "realised",
            Self::Activating(_) => "activating",
            Self::AwaitingReboot(_) => "awaiting-reboot",
            Self::Probation(_) => "probation",
            Self::Confirmed { .. } => "confirmed",
            Self::RollingBack(_) => "rolling-back",
            Self::RolledBack(_) => "rolled-back",
        }
    }

    fn refuse(&self, transition: &'static str) -> TransitionError {
        TransitionError { transition, state: self.name() }
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;

#[cfg(test)]
mod model_tests;
