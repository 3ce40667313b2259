//! The way back of a switch: arming its timer before the switch, and finding out whether the timer has taken it.

use std::time::{Duration, Instant};

use super::super::activate::{ActivateError, Activation, SwitchTarget};
use super::super::activating::{ActivationFolder, GRACE};
use super::super::lifecycle::{BackAgain, Lifecycle, Rollback, Rollout, UnitReference};
use super::super::realise::Realised;
use super::super::realise::gc_roots::unlink;
use super::super::state::{ROOTS_OF_WAYS_BACK, StateError, WAYS_BACK};
use super::super::way_back::arming::{Arming, WayBackError};
use super::super::way_back::{Journey, WayBackTimer};
use super::{Pass, now};
use crate::disk::FileLock;
use crate::model::{ActivationMode, Name, Revision, StorePath, describe_error};

/// The least time that the agent has beyond a deadline before the timer goes back without it.
const LEAST_MARGIN: Duration = Duration::from_secs(5);
/// How often the agent looks whether what activates a unit has ended.
const LOOK: Duration = Duration::from_millis(100);

/// What a way back leads to, and how.
struct WayBackPlan<'a> {
    unit: &'a UnitReference,
    revision: Revision,
    to: &'a StorePath,
    mode: ActivationMode,
    /// Whether the machine restarts after it.
    reboots: bool,
}

impl Pass<'_> {
    /// Arms the way back from what `state` announces, before its switch. Returns the timer to start once the activation has ended. The
    /// lock of the unit's activations must be held.
    pub(super) async fn arm_before(
        &self,
        name: &Name,
        state: &Lifecycle,
        activation: &Activation,
    ) -> Result<Option<Arming>, ActivateError> {
        let within = with_margin(activation.deadline() + GRACE);
        match state {
            Lifecycle::Activating(rollout) => {
                let probation = with_margin(self.probation_deadline(rollout));
                let Some(timer) = self.prepare(name, rollout, activation, probation).await? else { return Ok(None) };
                let arming = |after| timer.arming(&rollout.unit.name, name, rollout.candidate.revision, after);
                if rollout.next_boot.is_some() {
                    // Until the machine has booted, there is nothing to go back from.
                    arming(probation).arm_after_boot().await?;
                    return Ok(None);
                }
                arming(within + probation).arm().await?;
                Ok(Some(arming(probation)))
            }
            Lifecycle::RollingBack(rollback @ Rollback { unit, candidate, to, .. }) => {
                let mode = self.mode_of_rollback(rollback);
                let plan = WayBackPlan { unit, revision: candidate.revision, to, mode, reboots: false };
                let Some(timer) = self.prepare_plan(name, plan, activation, within).await? else { return Ok(None) };
                let arming = timer.arming(&unit.name, name, candidate.revision, within);
                arming.arm().await?;
                Ok(Some(arming))
            }
            _ => Ok(None),
        }
    }

    /// Arms the way back anew for the whole time of a probation that begins now.
    pub(super) async fn arm_for_probation(&self, name: &Name, rollout: &Rollout) -> Result<(), ActivateError> {
        let after = with_margin(self.probation_deadline(rollout));
        let activation = self.activation_of(&rollout.unit)?;
        if let Some(timer) = self.prepare(name, rollout, &activation, after).await? {
            timer.arming(&rollout.unit.name, name, rollout.candidate.revision, after).arm().await?;
        }
        Ok(())
    }

    /// Prepares the way back from the revision of `rollout`. `None` where there is none, or no timer can be armed on this machine.
    async fn prepare(
        &self,
        name: &Name,
        rollout: &Rollout,
        activation: &Activation,
        after_start: Duration,
    ) -> Result<Option<WayBackTimer>, ActivateError> {
        let Some(to) = rollout.target_of_way_back() else { return Ok(None) };
        let (unit, candidate) = (&rollout.unit, &rollout.candidate);
        let mode = self.mode_between(unit, &candidate.nar_id, to);
        // Where nothing confirms what runs and a switch would not be safe, only a boot is left.
        let reboots = mode == ActivationMode::Boot;
        let plan = WayBackPlan { unit, revision: candidate.revision, to, mode, reboots };
        self.prepare_plan(name, plan, activation, after_start).await
    }

    /// Writes the script of a way back, and keeps what it leads to. `None` where no timer can be armed on this machine.
    async fn prepare_plan(
        &self,
        name: &Name,
        WayBackPlan { unit, revision, to, mode, reboots }: WayBackPlan<'_>,
        activation: &Activation,
        after_start: Duration,
    ) -> Result<Option<WayBackTimer>, ActivateError> {
        let Some(timer) = self.way_back_of(&unit.name) else { return Ok(None) };
        let root = self.directory.join(ROOTS_OF_WAYS_BACK).join(unit.name.as_str());
        unlink(&root).map_err(|error| WayBackError::Root(describe_error(&error)))?;
        self.store.keep(to, &root).await.map_err(|error| WayBackError::Root(describe_error(&error)))?;
        let realised = Realised::from_record(to.clone());
        let target = SwitchTarget { deployment: name, revision, realised: &realised, previous: None };
        let programs = activation.programs(&*self.store, target, mode)?;
        let files = self.store.files_of(to);
        let journey = Journey { deployment: name, revision, to, files, activation, programs, after_start, reboots };
        timer.prepare(journey).map_err(WayBackError::Files)?;
        Ok(Some(timer))
    }

    /// The state after the timer went back, where it did. It waits for a script that runs.
    pub(super) async fn taken_back(&self, name: &Name, state: &Lifecycle) -> Result<Option<Lifecycle>, StateError> {
        if !state.is_at_risk() {
            return Ok(None);
        }
        let (unit, revision) = (state.unit(), state.revision());
        let Some(timer) = self.way_back_of(unit) else { return Ok(None) };
        let Some(_lock) = self.wait_for_lock(unit).await? else { return Ok(None) };
        let Some(result) = timer.taken(name, revision)? else { return Ok(None) };
        Ok(state.clone().take_back(result.map(|()| BackAgain::Now), now()).ok())
    }

    /// Ends the way back of a revision that has proved itself. `Some` with the state that follows where its timer was faster.
    pub(super) async fn disarm(&self, name: &Name, state: &Lifecycle) -> Result<Option<Lifecycle>, StateError> {
        if let Some(taken) = self.taken_back(name, state).await? {
            return Ok(Some(taken));
        }
        self.forget_way_back(name, state).await?;
        Ok(None)
    }

    /// Disarms the way back from the revision of `state`, and forgets that it was taken.
    pub(super) async fn forget_way_back(&self, name: &Name, state: &Lifecycle) -> Result<(), StateError> {
        let (unit, revision) = (state.unit(), state.revision());
        let Some(timer) = self.way_back_of(unit) else { return Ok(()) };
        // Another deployment of the unit may have one.
        if !timer.is_of(name, revision) {
            return Ok(());
        }
        let Some(_lock) = self.wait_for_lock(unit).await? else { return Ok(()) };
        timer.disarm().await?;
        if let Err(error) = unlink(&self.directory.join(ROOTS_OF_WAYS_BACK).join(unit.as_str())) {
            tracing::warn!(error = %describe_error(&error), "what ran before is kept in the store");
        }
        Ok(())
    }

    /// The lock of the unit's activations, once it is free; `None` where it is not freed.
    async fn wait_for_lock(&self, unit: &Name) -> Result<Option<FileLock>, StateError> {
        let folder = self.activation_folder(unit);
        let until = Instant::now() + self.config.activation_deadline + GRACE;
        loop {
            if let Some(lock) = folder.try_lock()? {
                return Ok(Some(lock));
            }
            if Instant::now() > until {
                return Ok(None);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn probation_deadline(&self, rollout: &Rollout) -> Duration {
        let (_, deadline) = rollout.proof.probation.or(&self.config.probation).times();
        deadline
    }

    fn way_back_of(&self, unit: &Name) -> Option<WayBackTimer> {
        let activations = self.directory.join("activations");
        let lock = ActivationFolder::of(&activations, unit).lock();
        WayBackTimer::of(&self.directory.join(WAYS_BACK), unit, lock)
    }
}

/// A time, and what the agent has beyond it.
fn with_margin(time: Duration) -> Duration {
    time + LEAST_MARGIN.max(time / 10)
}
