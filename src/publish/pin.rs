//! Which deployments are pinned, and to what. No I/O: the branch and what was evaluated go in, what is to be published
//! comes out.
//!
//! A deployment is pinned once. As long as its source gives the same store path, the pin that is on the branch stays, whatever
//! a cache says by then, and whichever caches and keys are named: keys change when one was stolen.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{BranchState, ExistingDocument};
use super::survey::{Supply, Survey};
use crate::evaluate::Evaluation;
use crate::model::{Deployment, DeploymentSpecification, Draft, Invalid, Name, Pin};
use crate::trust::pin;

/// What was evaluated, where pins belong to it.
#[derive(Debug)]
pub(super) struct Pinning {
    pub(super) evaluations: Vec<Evaluation>,
    /// The deployments that have no pin yet. They are to be published with one, though nothing else of them may be new.
    pub(super) unpinned: BTreeSet<Name>,
}

impl Pinning {
    /// What of `evaluations` is pinned on the branch already gets that pin.
    pub(super) fn on(branch: &BranchState, evaluations: &[Evaluation]) -> Result<Self, Invalid> {
        let mut all = Self { evaluations: evaluations.to_vec(), unpinned: BTreeSet::new() };
        let of = |draft: &Draft<DeploymentSpecification>| {
            let there = branch.deployments.get(&draft.name).and_then(ExistingDocument::known)?;
            let (published, evaluated) = (&there.specification.template, &draft.specification.template);
            let is_the_same = published.nar_id == evaluated.nar_id;
            Pin::of(&published.metadata).ok().flatten().filter(|_| is_the_same)
        };
        all.add(of)?;
        Ok(all)
    }

    /// Pins what is to be pinned: each deployment that the caches have.
    pub(super) fn pin(&mut self, pins: &BTreeMap<Name, Pin>) -> Result<(), Invalid> {
        self.add(|draft| pins.get(&draft.name).copied())
    }

    fn add(&mut self, pin: impl Fn(&Draft<DeploymentSpecification>) -> Option<Pin>) -> Result<(), Invalid> {
        self.unpinned.clear();
        for draft in self.evaluations.iter_mut().flat_map(|evaluation| &mut evaluation.found.deployments) {
            if is_pinned(&draft.specification) {
                continue;
            }
            match pin(draft) {
                Some(pin) => {
                    let metadata = &mut draft.specification.template.metadata;
                    *metadata = pin.add_to(metadata.clone())?;
                }
                None => drop(self.unpinned.insert(draft.name.clone())),
            }
        }
        Ok(())
    }
}

/// Whether a deployment has a pin, well made or not.
pub(super) fn is_pinned(specification: &DeploymentSpecification) -> bool {
    !matches!(Pin::of(&specification.template.metadata), Ok(None))
}

/// What each of `deployments` is pinned to by what the caches have.
pub(super) fn pins(deployments: &[Deployment], survey: &Survey<'_>) -> BTreeMap<Name, Pin> {
    let pinned = |Deployment { name, specification, .. }: &Deployment| {
        let Supply::There(closure) = survey.supply(&specification.template) else { return None };
        Some((name.clone(), pin(&specification.template.nar_id, &closure)?))
    };
    deployments.iter().filter_map(pinned).collect()
}

#[cfg(test)]
mod tests;
