//! The pins of deployments: which deployments have one already, and to which content the others are pinned. No I/O: the branch
//! and the evaluations go in, the evaluations with pins come out.
//!
//! A deployment is pinned once. As long as its source gives the same store path, the pin on the branch stays, whatever a
//! cache answers later and whichever caches and keys the source names: keys change after a theft.

use std::collections::{BTreeMap, BTreeSet};

use super::branch_state::{BranchState, ExistingDocument};
use super::survey::{Availability, CacheSurvey};
use crate::evaluate::Evaluation;
use crate::model::{Deployment, DeploymentSpecification, Draft, Invalid, Name, Pin};
use crate::trust::pin_of;

/// Evaluations whose deployments get pins.
#[derive(Debug)]
pub(super) struct Pinning {
    pub(super) evaluations: Vec<Evaluation>,
    /// The deployments that have no pin yet. Claveld publishes them with one, even if nothing else of them is new.
    pub(super) unpinned: BTreeSet<Name>,
}

impl Pinning {
    /// Gives each deployment of `evaluations` the pin that the branch has for it.
    pub(super) fn from_branch(branch: &BranchState, evaluations: &[Evaluation]) -> Result<Self, Invalid> {
        let mut all = Self { evaluations: evaluations.to_vec(), unpinned: BTreeSet::new() };
        let existing_pin = |draft: &Draft<DeploymentSpecification>| {
            let existing = branch.deployments.get(&draft.name).and_then(ExistingDocument::known)?;
            let (published, evaluated) = (&existing.specification.template, &draft.specification.template);
            let is_the_same = published.nar_id == evaluated.nar_id;
            published.metadata.pin().ok().flatten().copied().filter(|_| is_the_same)
        };
        all.add(existing_pin)?;
        Ok(all)
    }

    /// Gives each deployment that has no pin the one in `pins`.
    pub(super) fn add_pins(&mut self, pins: &BTreeMap<Name, Pin>) -> Result<(), Invalid> {
        self.add(|draft| pins.get(&draft.name).copied())
    }

    fn add(&mut self, pin: impl Fn(&Draft<DeploymentSpecification>) -> Option<Pin>) -> Result<(), Invalid> {
        self.unpinned.clear();
        for draft in self.evaluations.iter_mut().flat_map(|evaluation| &mut evaluation.drafts.deployments) {
            if is_pinned(&draft.specification) {
                continue;
            }
            match pin(draft) {
                Some(pin) => {
                    let metadata = &mut draft.specification.template.metadata;
                    *metadata = metadata.with_pin(&pin)?;
                }
                None => drop(self.unpinned.insert(draft.name.clone())),
            }
        }
        Ok(())
    }
}

/// Whether a deployment has a pin, valid or not.
pub(super) fn is_pinned(specification: &DeploymentSpecification) -> bool {
    !matches!(specification.template.metadata.pin(), Ok(None))
}

/// The pin of each of `deployments` whose whole closure the caches have.
pub(super) fn pins(deployments: &[Deployment], survey: &CacheSurvey<'_>) -> BTreeMap<Name, Pin> {
    let pinned = |Deployment { name, specification, .. }: &Deployment| {
        let Availability::Complete(closure) = survey.availability(&specification.template) else { return None };
        Some((name.clone(), pin_of(&specification.template.nar_id, &closure)?))
    };
    deployments.iter().filter_map(pinned).collect()
}

#[cfg(test)]
mod tests;
