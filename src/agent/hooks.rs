//! The hooks of an agent's configuration: which transition calls which one, and what it is told. No I/O.
//!
//! A hook is told what happened and decides nothing. Running it belongs to `pass/hooks.rs`.

use std::ffi::OsString;
use std::fmt;

use super::activate::{SwitchTarget, target_variables};
use super::lifecycle::{
    ActivationFailure, Candidate, FailedRollout, Lifecycle, Rollback, RollbackResult, Rollout, UnitReference,
};
use super::realise::Realised;
use crate::config::HookStep;
use crate::model::{Name, Revision, StorePath, beginning, excerpt, headline};
use crate::store::Store;

/// The most bytes of the error that a hook reads on its standard input.
const MAX_ERROR: usize = 4 << 10;
/// The most bytes of what a warning quotes.
const MAX_WARNING: usize = 1 << 10;

/// A call of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HookCall {
    deployment: Name,
    unit: UnitReference,
    candidate: Candidate,
    attempt: u32,
    /// The store path that ran before.
    previous: Option<StorePath>,
    about: About,
}

/// What a hook is called about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum About {
    Before,
    After,
    Failure { error: String, back: Back },
}

/// What became of the unit after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Back {
    Ended(RollbackResult),
    /// The first try to go back to `previous` failed.
    Pending(String),
}

impl HookCall {
    /// The call before the attempt that `rollout` counts.
    pub(super) fn before(deployment: &Name, rollout: &Rollout) -> Self {
        Self::of_rollout(deployment, rollout, About::Before)
    }

    /// The call that a transition of a deployment is the reason for. A rollback that is tried again and again is told once.
    pub(super) fn of_transition(deployment: &Name, from: &Lifecycle, to: &Lifecycle) -> Option<Self> {
        match (from, to) {
            (Lifecycle::Probation(rollout), Lifecycle::Confirmed { .. }) => {
                Some(Self::of_rollout(deployment, rollout, About::After))
            }
            (
                Lifecycle::Activating(rollout) | Lifecycle::AwaitingReboot(rollout) | Lifecycle::Probation(rollout),
                Lifecycle::RolledBack(failed),
            ) => {
                let FailedRollout { failure, rollback, .. } = failed;
                let about = About::Failure { error: failure.error.clone(), back: Back::Ended(rollback.clone()) };
                Some(Self::of_rollout(deployment, rollout, about))
            }
            (
                Lifecycle::RollingBack(begun @ Rollback { last_failure: None, .. }),
                Lifecycle::RolledBack(FailedRollout { rollback, .. }),
            ) => Some(Self::of_rollback(deployment, begun, Back::Ended(rollback.clone()))),
            (
                Lifecycle::RollingBack(begun @ Rollback { last_failure: None, .. }),
                Lifecycle::RollingBack(Rollback { last_failure: Some(last), .. }),
            ) => Some(Self::of_rollback(deployment, begun, Back::Pending(last.error.clone()))),
            _ => None,
        }
    }

    fn of_rollout(deployment: &Name, rollout: &Rollout, about: About) -> Self {
        let Rollout { unit, candidate, attempts, way_back, .. } = rollout;
        let previous = way_back.path().cloned();
        let (deployment, unit, candidate) = (deployment.clone(), unit.clone(), candidate.clone());
        Self { deployment, unit, candidate, attempt: *attempts, previous, about }
    }

    fn of_rollback(deployment: &Name, rollback: &Rollback, back: Back) -> Self {
        let Rollback { unit, candidate, failure: ActivationFailure { attempts, error, .. }, to, .. } = rollback;
        let about = About::Failure { error: error.clone(), back };
        let (deployment, unit, candidate) = (deployment.clone(), unit.clone(), candidate.clone());
        Self { deployment, unit, candidate, attempt: *attempts, previous: Some(to.clone()), about }
    }

    pub(super) fn step(&self) -> HookStep {
        match self.about {
            About::Before => HookStep::Before,
            About::After => HookStep::After,
            About::Failure { .. } => HookStep::Failure,
        }
    }

    /// The variables of the hook: those of an activation, and its own.
    pub(super) fn environment(&self, store: &dyn Store) -> Vec<(OsString, OsString)> {
        let realised = Realised::from_record(self.candidate.nar_id.clone());
        let target = SwitchTarget {
            deployment: &self.deployment,
            revision: self.candidate.revision,
            realised: &realised,
            previous: self.previous.as_ref(),
        };
        let mut variables: Vec<(OsString, OsString)> = target_variables(store, &self.unit.name, target).into();
        let mut add = |name: &str, value: String| variables.push((name.into(), value.into()));
        add("CLAVEL_STEP", self.step().word().to_owned());
        add("CLAVEL_ATTEMPT", self.attempt.to_string());
        add("CLAVEL_UNIT_TYPE", self.unit.unit_type.to_string());
        if let About::Failure { error, back } = &self.about {
            add("CLAVEL_ERROR", headline(error));
            add("CLAVEL_ROLLBACK", back.word().to_owned());
        }
        variables
    }

    /// What the hook reads on its standard input: a sentence, and after a failure its error.
    pub(super) fn text(&self) -> String {
        let Self { deployment, candidate: Candidate { revision, nar_id, .. }, attempt, .. } = self;
        match &self.about {
            About::Before => format!("{deployment}: activating revision {revision} (attempt {attempt}): {nar_id}\n"),
            About::After => format!("{deployment}: switched to revision {revision}: {nar_id}\n"),
            About::Failure { error, back } => format!(
                "{deployment}: revision {revision} failed, and {}\n\n{}\n",
                self.describe(back),
                beginning(error, MAX_ERROR)
            ),
        }
    }

    fn describe(&self, back: &Back) -> String {
        let previous = self.previous.as_ref().map(ToString::to_string).unwrap_or_default();
        match back {
            Back::Ended(RollbackResult::Restored) => format!("the unit runs again what ran before: {previous}"),
            Back::Ended(RollbackResult::AfterReboot(_)) => {
                format!("the unit runs from the next boot on what ran before: {previous}")
            }
            Back::Ended(RollbackResult::NothingBefore) => {
                "nothing ran before that the unit could go back to".to_owned()
            }
            Back::Ended(RollbackResult::SameBefore) => {
                "the same store path ran before, so there is nothing to go back to".to_owned()
            }
            Back::Pending(why) => format!(
                "going back to {previous} does not hold yet ({}); it is tried again at every pass",
                headline(why)
            ),
        }
    }
}

impl Back {
    /// The value of `CLAVEL_ROLLBACK`.
    fn word(&self) -> &'static str {
        match self {
            Self::Ended(RollbackResult::Restored) => "restored",
            Self::Ended(RollbackResult::AfterReboot(_)) => "after-reboot",
            Self::Ended(RollbackResult::NothingBefore) => "nothing-before",
            Self::Ended(RollbackResult::SameBefore) => "same-before",
            Self::Pending(_) => "pending",
        }
    }
}

/// A hook that failed, or cannot be called. It changes nothing about a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookWarning {
    /// The hook.
    pub step: HookStep,
    /// What it was called for, where it was: the deployment, its unit, and the revision.
    pub called_for: Option<(Name, Name, Revision)>,
    what: String,
}

impl HookWarning {
    /// The hook failed: `why`, with the program's own words.
    pub(super) fn failed(call: &HookCall, why: &str) -> Self {
        let (deployment, revision) = (&call.deployment, call.candidate.revision);
        // It is a line of a list of warnings.
        let why = excerpt(why, MAX_WARNING);
        let words: Vec<&str> = why.split_whitespace().collect();
        let what = format!("failed at revision {revision} of `{deployment}`: {}", words.join(" "));
        let called_for = Some((deployment.clone(), call.unit.name.clone(), revision));
        Self { step: call.step(), called_for, what }
    }

    /// Its program cannot be run.
    pub(super) fn unusable(step: HookStep, why: &str) -> Self {
        Self { step, called_for: None, what: format!("cannot be called: {why}") }
    }
}

impl fmt::Display for HookWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the hook `{}` {}", self.step.word(), self.what)
    }
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;
