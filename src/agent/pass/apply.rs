//! Bringing one deployment to its unit: fetch, activate, and back where that fails.
//!
//! This file takes the steps that the states of `lifecycle` announce, and records each state before its step. Which state
//! follows is decided there, and what to do with a deployment in `decide`.

use super::super::activate::{ActivateError, Activation, ProfileFolders, SwitchTarget};
use super::super::activating::{ActivationFolder, ActivationId, PickUp, Undertaking};
use super::super::carried::Carried;
use super::super::decide::{Decision, ProfileTarget, Retry, SkipReason, decide};
use super::super::hooks::HookCall;
use super::super::lifecycle::{Candidate, Lifecycle, MAX_ERROR, Rollback, Rollout, TransitionError, UnitReference};
use super::super::next_boot::facts::MachineFacts;
use super::super::next_boot::reboot::{Reboot, reboot};
use super::super::occupancy;
use super::super::pin::check::Pins;
use super::super::realise::error::RealiseError;
use super::super::realise::gc_roots::GcRoots;
use super::super::realise::{Adoption, Realised, adopt, realise};
use super::super::state::{ROOTS, State, StateError, UNCHECKED};
use super::super::verify::Order;
use super::boot::{at_this_boot, of_this_boot};
use super::outcome::{DeploymentFailure, DeploymentOutcome, DeploymentReport, Event, PassError, WaitReason};
use super::{Pass, now};
use crate::model::{ActivationMode, Name, StorePath, describe_error, excerpt};

impl Pass<'_> {
    /// Finishes what an earlier process of the agent, or an earlier pass, left in the middle. It needs no branch.
    pub(super) async fn resume(&mut self, tell: &dyn Fn(Event<'_>)) -> Result<(), PassError> {
        for (name, found) in self.state.deployments.clone() {
            let resumed = self.pick_up(&name, at_this_boot(found)?, tell).await?;
            self.record_and_tell(&name, resumed.clone()).await?;
            if !resumed.is_at_risk() {
                self.forget_way_back(&name, &resumed).await?;
            }
            if resumed.is_resumed_before_the_branch() {
                self.advance(&name, tell).await?;
            }
        }
        Ok(())
    }

    /// What follows from the activation that an earlier process of the agent began: it may still run, or have ended meanwhile.
    async fn pick_up(&self, name: &Name, found: Lifecycle, tell: &dyn Fn(Event<'_>)) -> Result<Lifecycle, PassError> {
        let Some(id) = ActivationId::of(name, &found) else {
            let taken = self.taken_back(name, &found).await?;
            return Ok(taken.map_or_else(|| found.resume(self.config.attempts, now()), Ok)?);
        };
        let folder = self.activation_folder(found.unit());
        let deadline = self.config.activation_deadline;
        let picked_up = {
            let _under_way = UnderWay::begin(self, name);
            folder.pick_up(&id, deadline, &|| tell(Event::AwaitingActivation { deployment: name })).await?
        };
        if let Some(taken) = self.taken_back(name, &found).await? {
            folder.forget_result()?;
            return Ok(taken);
        }
        let next = match picked_up {
            PickUp::Ended(result) => {
                if let (Lifecycle::Activating(rollout), Ok(())) = (&found, &result) {
                    let revision = rollout.candidate.revision;
                    tell(Event::EarlierActivationSucceeded { deployment: name, revision });
                }
                match (&found, result) {
                    (Lifecycle::RollingBack(rollback), result) => {
                        let back = self.back_again(rollback);
                        found.rolled_back(result.map(|()| back).map_err(|failed| failed.why), now())?
                    }
                    (_, Ok(())) => found.succeed()?,
                    (Lifecycle::Activating(rollout), Err(failed)) => {
                        let error = self.failure_of(&rollout.unit, name, failed);
                        self.after_failure(found, &error)?
                    }
                    (_, Err(failed)) => found.fail(&failed.why, now())?,
                }
            }
            // The next attempt must not find a result of this one.
            PickUp::Nothing => folder.forget_result().map(|()| found.resume(self.config.attempts, now()))??,
            PickUp::StillRuns => match found {
                Lifecycle::Activating(_) => found.postpone()?,
                other => other,
            },
        };
        Ok(next)
    }

    /// Tries each rollback that does not hold yet and was not tried in this pass.
    pub(super) async fn try_rollbacks(&mut self, tell: &dyn Fn(Event<'_>)) -> Result<(), PassError> {
        let pending = |(name, known): (&Name, &Lifecycle)| known.pending_rollback().map(|_| name.clone());
        let names: Vec<Name> = self.state.deployments.iter().filter_map(pending).collect();
        for name in names {
            if !self.rollbacks_tried.contains(&name) {
                self.advance(&name, tell).await?;
            }
        }
        Ok(())
    }

    /// The failure of a deployment whose rollback does not hold yet, where the pass ended for it with `outcome`.
    pub(super) fn not_back(&self, name: &Name, outcome: Option<&DeploymentOutcome>) -> Option<DeploymentOutcome> {
        let rollback = self.state.deployments.get(name)?.pending_rollback()?;
        let meanwhile = match outcome {
            // The rollback has this error.
            None
            | Some(DeploymentOutcome::Failed(DeploymentFailure::Activate(_) | DeploymentFailure::NotBack { .. })) => {
                None
            }
            Some(outcome) => Some(outcome.to_string()),
        };
        let rollback = Box::new(rollback.clone());
        Some(DeploymentOutcome::Failed(DeploymentFailure::NotBack { rollback, meanwhile }))
    }

    /// Does what is decided about one order.
    pub(super) async fn apply_decision(
        &mut self,
        order: &Order,
        pins: &Pins,
        retry: Retry,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<DeploymentOutcome, PassError> {
        let revision = order.deployment.revision;
        let known = self.state.deployments.get(&order.deployment.name);
        let profile = self.profile_target(&UnitReference::from(order), known);
        match decide(order, known, &profile, retry) {
            Decision::UpToDate => Ok(DeploymentOutcome::UpToDate(revision)),
            Decision::Skip(SkipReason::FailedBefore(failed)) => {
                Ok(DeploymentOutcome::Failed(DeploymentFailure::Before(failed)))
            }
            Decision::Skip(SkipReason::GoingBack) => self.go_back(&order.deployment.name, tell).await,
            Decision::Skip(SkipReason::AwaitingReboot(next_boot)) => {
                Ok(DeploymentOutcome::AwaitingReboot(revision, next_boot))
            }
            Decision::Skip(SkipReason::Unapproved(approvals)) => {
                Ok(DeploymentOutcome::Waiting(WaitReason::Unapproved(approvals)))
            }
            Decision::Adopt => match adopt(&*self.store, &order.deployment, pins).await {
                Ok(Adoption::AsPinned) => {
                    self.record(&order.deployment.name, adopted(order))?;
                    Ok(DeploymentOutcome::Adopted(revision))
                }
                Ok(Adoption::NotHere) => self.apply(order, pins, tell).await,
                Err(error) => Ok(DeploymentOutcome::Failed(DeploymentFailure::Realise(error))),
            },
            Decision::Apply => self.apply(order, pins, tell).await,
        }
    }

    /// Where the profile of a unit leads to, on which `known` says that something runs. What was deleted from the store runs nowhere,
    /// wherever a profile leads to.
    pub(super) fn profile_target(&self, unit: &UnitReference, known: Option<&Lifecycle>) -> ProfileTarget {
        let is_gone = |path: &StorePath| std::fs::symlink_metadata(self.store.files_of(path)).is_err();
        if known.and_then(Lifecycle::certainly_running).is_some_and(|running| is_gone(&running.nar_id)) {
            return ProfileTarget::Nowhere;
        }
        self.activation_of(unit).as_ref().map_or(ProfileTarget::Unknown, Activation::profile_target)
    }

    /// The reports, where a unit counts as up to date only if its profile leads to what is recorded.
    pub(super) fn with_moved_profiles(&self, mut reports: Vec<DeploymentReport>) -> Vec<DeploymentReport> {
        for DeploymentReport { name, outcome, .. } in &mut reports {
            let known = self.state.deployments.get(name);
            if let DeploymentOutcome::UpToDate(revision) = *outcome
                && let Some(running) = known.and_then(Lifecycle::certainly_running)
                && let ProfileTarget::Path(profile) = self.profile_target(&running.unit, known)
                && profile != running.nar_id
            {
                *outcome = DeploymentOutcome::Moved { revision, recorded: running.nar_id.clone(), profile };
            }
        }
        reports
    }

    /// Whether each unit still has what is recorded as running on it.
    pub(super) fn units_are_as_recorded(&self) -> bool {
        let is_here = |known: &Lifecycle| {
            let running = known.certainly_running();
            running.is_none_or(|running| self.profile_target(&running.unit, Some(known)) != ProfileTarget::Nowhere)
        };
        self.state.deployments.values().all(is_here)
    }

    /// Tries the rollback of a deployment, if it was not tried in this pass.
    async fn go_back(&mut self, name: &Name, tell: &dyn Fn(Event<'_>)) -> Result<DeploymentOutcome, PassError> {
        if !self.rollbacks_tried.contains(name) {
            self.advance(name, tell).await?;
        }
        Ok(match self.state.deployments.get(name) {
            Some(Lifecycle::RollingBack(rollback)) => {
                let rollback = Box::new(rollback.clone());
                DeploymentOutcome::Failed(DeploymentFailure::NotBack { rollback, meanwhile: None })
            }
            Some(Lifecycle::RolledBack(failed)) => {
                DeploymentOutcome::Failed(DeploymentFailure::Before(Box::new(failed.clone())))
            }
            other => {
                let state = other.map_or("unknown", Lifecycle::name);
                return Err(TransitionError { transition: "take back", state }.into());
            }
        })
    }

    async fn apply(
        &mut self,
        order: &Order,
        pins: &Pins,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<DeploymentOutcome, PassError> {
        let name = &order.deployment.name;
        let unit = UnitReference::from(order);
        // A configuration that does not fit the unit is an error before anything is fetched.
        let activation = match self.activation_of(&unit) {
            Ok(activation) => activation,
            Err(error) => return Ok(DeploymentOutcome::Failed(DeploymentFailure::Activate(error))),
        };
        if order.deployment.specification.mode.is_some() && !unit.unit_type.has_modes() {
            let error = ActivateError::NoModes { unit: unit.name, unit_type: unit.unit_type };
            return Ok(DeploymentOutcome::Failed(DeploymentFailure::Activate(error)));
        }
        let before = self.state.deployments.get(name).cloned();
        let known = Lifecycle::begin(before, unit, Candidate::from(order))?;
        // A rollback is tried again until the new revision is there, so its record stays until then.
        if self.state.deployments.get(name).and_then(Lifecycle::pending_rollback).is_none() {
            self.record(name, known.clone())?;
        }
        tell(Event::Realising(order));
        self.open_carried().await;
        match self.realise(order, pins).await? {
            Ok(Realised { .. }) => {}
            Err(RealiseError::NotInCache(why)) => {
                return Ok(DeploymentOutcome::Waiting(WaitReason::NotInCache(why)));
            }
            Err(error) => return Ok(DeploymentOutcome::Failed(DeploymentFailure::Realise(error))),
        }
        // Nothing is done between these two, so one record is enough: after a power cut before it, the path is realised again.
        // It has the way back, and is on the disk before the profile moves.
        let ran = occupancy::ran_before(&order.unit.name, &self.state.deployments, activation.current());
        let next_boot = self.next_boot_of(order, ran.as_ref());
        let activating = known.realise()?.activate(ran, next_boot, self.proof_of(order).await)?;
        self.activation_folder(&order.unit.name).forget_result()?;
        // A person confirms what is activated from here on. One that is taken up after an end of the agent stays confirmed.
        self.directory.forget_probation()?;
        let mut deployments = occupancy::take(&order.unit.name, name, self.state.deployments.clone());
        deployments.insert(name.clone(), activating);
        self.save(State { deployments, ..self.state.clone() })?;
        let failure = self.advance(name, tell).await?;
        Ok(match (failure, self.state.deployments.get(name)) {
            (None, Some(Lifecycle::AwaitingReboot(rollout))) => {
                let next_boot = rollout.next_boot.clone().unwrap_or_default();
                DeploymentOutcome::AwaitingReboot(order.deployment.revision, next_boot)
            }
            (None, _) => DeploymentOutcome::Switched(order.deployment.revision),
            (Some(error), _) => DeploymentOutcome::Failed(DeploymentFailure::Activate(error)),
        })
    }

    /// Opens what the bundles carry, if this pass has not yet.
    async fn open_carried(&mut self) {
        if self.carried.is_none() {
            let carried = Carried::open(self.config, self.loopback.take()).await;
            self.loopback = carried.address();
            self.carried = Some(carried);
        }
    }

    async fn realise(&self, order: &Order, pins: &Pins) -> Result<Result<Realised, RealiseError>, StateError> {
        let folder = self.directory.join(ROOTS);
        let io = |source| StateError::Io { act: "make", path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(io)?;
        let name = order.deployment.name.as_str();
        let gc_roots = GcRoots { kept: folder.join(name), unchecked: self.directory.join(UNCHECKED).join(name) };
        Ok(realise(
            &*self.store,
            &order.deployment,
            pins,
            &gc_roots,
            self.carried.as_ref().unwrap_or(&Carried::default()),
        )
        .await)
    }

    /// Takes the steps that the state of a deployment announces, until it announces none. The error is the activation's.
    async fn advance(&mut self, name: &Name, tell: &dyn Fn(Event<'_>)) -> Result<Option<ActivateError>, PassError> {
        let mut failure = None;
        while let Some(state) = self.state.deployments.get(name).cloned() {
            let next = match &state {
                Lifecycle::Activating(rollout) => match of_this_boot(rollout) {
                    Some(next_boot) => state.put_off(next_boot)?,
                    None => match self.activate(name, rollout, &state, tell).await {
                        Ok(()) => state.succeed()?,
                        Err(error) => {
                            if !error.is_of_the_deployment() {
                                self.forget_way_back(name, &state).await?;
                            }
                            let next = self.after_failure(state, &error)?;
                            failure = (!matches!(next, Lifecycle::Activating(_))).then_some(error);
                            next
                        }
                    },
                },
                Lifecycle::AwaitingReboot(rollout) => {
                    let next_boot = rollout.next_boot.clone().unwrap_or_default();
                    match reboot(&next_boot, &rollout.candidate.nar_id, &MachineFacts::read()) {
                        Reboot::Awaited => return Ok(failure),
                        Reboot::Into => {
                            tell(Event::Booted { deployment: name, revision: rollout.candidate.revision });
                            state.boot()?
                        }
                        Reboot::Elsewhere(why) => {
                            let next = state.fail(&why, now())?;
                            failure = Some(ActivateError::NotBooted { deployment: name.clone(), why });
                            next
                        }
                    }
                }
                Lifecycle::Probation(rollout) => {
                    // Where the store or systemd does not answer any more, no later revision could be switched to either.
                    let proven = match self.arm_for_probation(name, rollout).await {
                        Ok(()) => self.prove(name, rollout, tell).await,
                        Err(error) => Err(describe_error(&error)),
                    };
                    let (next, why) = match proven {
                        Ok(()) => match self.disarm(name, &state).await? {
                            None => (state.clone().confirm(now())?, None),
                            Some(taken) => (taken, Some("its way back was taken meanwhile".to_owned())),
                        },
                        Err(why) => (state.clone().fail(&why, now())?, Some(why)),
                    };
                    failure = why.map(|why| ActivateError::Unproven { deployment: name.clone(), why });
                    next
                }
                Lifecycle::RollingBack(_) => {
                    // Nix writes too.
                    self.directory.release_reserve_if_needed();
                    self.activation_folder(state.unit()).forget_result()?;
                    let begun = state.roll_back()?;
                    self.record(name, begun.clone())?;
                    let Lifecycle::RollingBack(rollback) = begun.clone() else { return Ok(failure) };
                    let rollback = &rollback;
                    self.rollbacks_tried.insert(name.clone());
                    let result = self.roll_back(name, rollback, &begun, tell).await;
                    let back = self.back_again(rollback);
                    let ended =
                        begun.rolled_back(result.map(|()| back).map_err(|error| describe_error(&error)), now())?;
                    self.record_and_tell(name, ended.clone()).await?;
                    // One that does not hold yet is tried by the timer too.
                    if !ended.is_at_risk() {
                        self.forget_way_back(name, &ended).await?;
                    }
                    return Ok(failure);
                }
                Lifecycle::Known(_)
                | Lifecycle::Realised(_)
                | Lifecycle::Confirmed { .. }
                | Lifecycle::RolledBack(_) => return Ok(failure),
            };
            self.record_and_tell(name, next).await?;
        }
        Ok(failure)
    }

    async fn activate(
        &mut self,
        name: &Name,
        rollout: &Rollout,
        state: &Lifecycle,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), ActivateError> {
        tell(Event::Activating { deployment: name, rollout });
        let Rollout { candidate, unit, way_back, .. } = rollout;
        let realised = Realised::from_record(candidate.nar_id.clone());
        let (revision, previous) = (candidate.revision, way_back.path());
        let mode = if rollout.next_boot.is_some() { ActivationMode::Boot } else { ActivationMode::Switch };
        self.switch(state, unit, SwitchTarget { deployment: name, revision, realised: &realised, previous }, mode).await
    }

    /// Activates the store path that ran before. That may not be the profile's previous generation, which another tool may
    /// have made.
    async fn roll_back(
        &mut self,
        name: &Name,
        rollback: &Rollback,
        state: &Lifecycle,
        tell: &dyn Fn(Event<'_>),
    ) -> Result<(), ActivateError> {
        let Rollback { candidate, unit, to, last_confirmed, last_failure, .. } = rollback;
        // A log that repeats itself at every pass finds no reader.
        if last_failure.is_none() {
            tell(Event::RollingBack { deployment: name, rollback });
        }
        let realised = Realised::from_record(to.clone());
        let revision = last_confirmed.as_ref().map_or(candidate.revision, |running| running.revision);
        let target = SwitchTarget { deployment: name, revision, realised: &realised, previous: None };
        let mode = self.mode_of_rollback(rollback);
        let result = match self.switch(state, unit, target, mode).await {
            Err(ActivateError::NeedsBoot { .. }) => self.switch(state, unit, target, ActivationMode::Boot).await,
            result => result,
        };
        result.inspect_err(|error| {
            let is_news =
                last_failure.as_ref().is_none_or(|last| last.error != excerpt(&describe_error(error), MAX_ERROR));
            if is_news {
                tell(Event::RollbackFailed { deployment: name, rollback, error });
            }
        })
    }

    /// Switches `unit` to `target`, which is the step that `state` announces.
    async fn switch(
        &mut self,
        state: &Lifecycle,
        unit: &UnitReference,
        target: SwitchTarget<'_>,
        mode: ActivationMode,
    ) -> Result<(), ActivateError> {
        let activation = self.activation_of(unit)?;
        // This can fail, so it comes before any change.
        let programs = activation.programs(&*self.store, target, mode)?;
        let folder = self.activation_folder(&unit.name);
        let Some(lock) = folder.try_lock()? else { return Err(ActivateError::StillRuns { unit: unit.name.clone() }) };
        let Some(id) = ActivationId::of(target.deployment, state) else { return Ok(()) };
        let then_arm = self.arm_before(target.deployment, state, &activation).await?;
        activation.move_profile(&*self.store, target).await?;
        if let Lifecycle::Activating(rollout) = state {
            self.announced = Some(target.deployment.clone());
            self.call_hook(&HookCall::before(target.deployment, rollout)).await;
            self.announced = None;
        }
        let _under_way = UnderWay::begin(self, target.deployment);
        let (of, within) = (&id, activation.deadline());
        let result = folder.run(lock, Undertaking { of, unit: &unit.name, programs, within, then_arm }).await?;
        result.map_err(|failed| self.failure_of(unit, target.deployment, failed))
    }

    pub(super) fn activation_folder(&self, unit: &Name) -> ActivationFolder {
        ActivationFolder::of(&self.directory.join("activations"), unit)
    }

    pub(in crate::agent) fn activation_of(&self, unit: &UnitReference) -> Result<Activation, ActivateError> {
        let config = self.config.units.get(&unit.name);
        let ours = self.directory.join("units");
        let folders = ProfileFolders { ours: &ours, other_store: self.config.store.as_deref() };
        Activation::resolve(unit, config, folders, self.config.activation_deadline)
    }

    /// Records the state of a deployment, and returns once it is on the disk. What is in memory follows the disk.
    pub(super) fn record(&mut self, name: &Name, lifecycle: Lifecycle) -> Result<(), StateError> {
        if self.state.deployments.get(name) == Some(&lifecycle) {
            return Ok(());
        }
        let mut state = self.state.clone();
        state.deployments.insert(name.clone(), lifecycle);
        self.save(state)
    }
}

/// While this lives, the activation of a deployment is under way. Dropping it ends that, whatever the result was.
struct UnderWay(super::ActivationUnderWay);

impl UnderWay {
    fn begin(pass: &Pass<'_>, deployment: &Name) -> Self {
        let under_way = pass.activation_under_way();
        under_way.replace(Some(deployment.clone()));
        Self(under_way)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.replace(None);
    }
}

fn adopted(order: &Order) -> Lifecycle {
    Lifecycle::adopt(UnitReference::from(order), Candidate::from(order), now())
}
