//! Activations for the next boot: when one is taken, and what follows from the boot of the machine.
//!
//! What is decided stands in `next_boot`. This reads what it needs.

use std::path::Path;

use super::super::activate::ActivateError;
use super::super::activating::ActivationFailed;
use super::super::lifecycle::{
    BackAgain, Lifecycle, NextBoot, Rollback, RollbackResult, Rollout, TransitionError, UnitReference,
};
use super::super::next_boot::exit::{Meaning, meaning};
use super::super::next_boot::facts::{self, MachineFacts};
use super::super::next_boot::reasons::reasons;
use super::super::verify::Order;
use super::outcome::PassError;
use super::{Pass, now};
use crate::model::{ActivationMode, Name, StorePath, describe_error};

/// The same activation for the next boot, where the machine has booted since it began; `None` where nothing has changed.
pub(super) fn of_this_boot(rollout: &Rollout) -> Option<NextBoot> {
    let next_boot = rollout.next_boot.as_ref()?;
    let boot = MachineFacts::read().boot;
    (next_boot.set_in != boot).then(|| NextBoot { set_in: boot, ..next_boot.clone() })
}

/// What a state is at this boot of the machine: what was to run again from this boot on may run.
pub(super) fn at_this_boot(found: Lifecycle) -> Result<Lifecycle, TransitionError> {
    match &found {
        Lifecycle::RolledBack(failed)
            if matches!(&failed.rollback, RollbackResult::AfterReboot(to)
                if MachineFacts::read().current.as_ref() == Some(to)) =>
        {
            found.boot()
        }
        _ => Ok(found),
    }
}

impl Pass<'_> {
    /// Whether the revision of `order` is to run from the next boot on, where its unit `ran` this before. The configuration of this machine
    /// counts more than the deployment, and what makes a switch unsafe more than both.
    pub(super) fn next_boot_of(&self, order: &Order, ran: Option<&StorePath>) -> Option<NextBoot> {
        let specification = &order.deployment.specification;
        if !order.unit.specification.unit_type.has_modes() {
            return None;
        }
        let machine = MachineFacts::read();
        let of_machine = self.config.units.get(&order.unit.name).and_then(|unit| unit.mode);
        let because = match of_machine.or(specification.mode) {
            Some(ActivationMode::Boot) => Vec::new(),
            Some(ActivationMode::Switch) | None => {
                let runs = self.system_of(&machine).or(ran)?;
                let because = self.reasons(runs, &specification.template.nar_id);
                if because.is_empty() {
                    return None;
                }
                because
            }
        };
        Some(NextBoot { because, set_in: machine.boot })
    }

    /// How the unit goes back: for the next boot where what runs is left alone, or where a switch is not safe.
    pub(super) fn mode_of_rollback(&self, rollback: &Rollback) -> ActivationMode {
        let machine = MachineFacts::read();
        if rollback.unit.unit_type.has_modes() && rollback.never_ran {
            return ActivationMode::Boot;
        }
        let runs = self.system_of(&machine).unwrap_or(&rollback.candidate.nar_id);
        self.mode_between(&rollback.unit, runs, &rollback.to)
    }

    /// How a unit that runs one system is activated with another without harm.
    pub(super) fn mode_between(&self, unit: &UnitReference, runs: &StorePath, to: &StorePath) -> ActivationMode {
        if unit.unit_type.has_modes() && !self.reasons(runs, to).is_empty() {
            ActivationMode::Boot
        } else {
            ActivationMode::Switch
        }
    }

    /// When the unit runs again what it ran before, once that was activated.
    pub(super) fn back_again(&self, rollback: &Rollback) -> BackAgain {
        let machine = MachineFacts::read();
        match self.system_of(&machine) {
            Some(runs) if rollback.unit.unit_type.has_modes() && *runs != rollback.to => BackAgain::AfterReboot,
            _ => BackAgain::Now,
        }
    }

    /// What follows where the attempt of `state` failed.
    pub(super) fn after_failure(&self, state: Lifecycle, error: &ActivateError) -> Result<Lifecycle, PassError> {
        match (&state, error) {
            (Lifecycle::Activating(rollout), ActivateError::NeedsBoot { because, .. })
                if rollout.next_boot.is_none() =>
            {
                // The result of the switch is none of the attempt that goes on.
                self.activation_folder(&rollout.unit.name).forget_result()?;
                let next_boot = NextBoot { because: vec![because.clone()], set_in: MachineFacts::read().boot };
                Ok(state.put_off(next_boot)?)
            }
            (_, error) if error.is_of_the_deployment() => Ok(state.fail(&describe_error(error), now())?),
            _ => Ok(state.postpone()?),
        }
    }

    /// What it means that an activation of `unit` failed like this.
    pub(super) fn failure_of(
        &self,
        unit: &UnitReference,
        deployment: &Name,
        failed: ActivationFailed,
    ) -> ActivateError {
        let ActivationFailed { why, code } = failed;
        let meaning = match code {
            Some(code) if unit.unit_type.has_modes() => meaning(code, &self.activation_folder(&unit.name).said()),
            _ => Meaning::Unknown,
        };
        let deployment = deployment.clone();
        match meaning {
            Meaning::NeedsBoot(because) => ActivateError::NeedsBoot { deployment, because: because.to_owned() },
            Meaning::Failed(words) => ActivateError::Failed { deployment, why: format!("{words}\n{why}") },
            Meaning::Unknown => ActivateError::Failed { deployment, why },
        }
    }

    /// The system that this machine runs, where the units of this agent are in the machine's own store.
    fn system_of<'m>(&self, machine: &'m MachineFacts) -> Option<&'m StorePath> {
        machine.current.as_ref().filter(|_| self.config.store.is_none())
    }

    fn reasons(&self, runs: &StorePath, new: &StorePath) -> Vec<String> {
        let root = self.config.store.as_deref().unwrap_or(Path::new("/"));
        reasons(&facts::read(root, runs), &facts::read(root, new))
    }
}
