//! The differences inside the systems that a plan changes. This is the I/O between the plan and its commit: it reads the
//! derivations on this machine.

use std::collections::BTreeMap;

use super::branch_state::BranchState;
use super::plan::Plan;
use crate::changes::{CompareError, Comparer, DeployedSystem, SystemDiff};
use crate::model::{Deployment, Folder, Name, StorePath};
use crate::store::{DerivationError, Store};

/// Compares systems by the derivations on this machine. One value serves a whole round, because the deployments of a round
/// share most of their derivations.
pub(super) struct SystemDiffs<'a> {
    comparer: Comparer<Reader<'a>>,
}

/// Reads the file of a derivation.
type Reader<'a> = Box<dyn Fn(&StorePath) -> Result<Vec<u8>, DerivationError> + 'a>;

impl<'a> SystemDiffs<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Self { comparer: Comparer::new(Box::new(|path| store.derivation(path))) }
    }

    /// Adds the differences to the changes of `plan`. A difference that cannot be found does not stop the publication.
    pub(super) fn add_to(&mut self, plan: &mut Plan, branch: &BranchState) {
        let new: BTreeMap<&Name, &Deployment> = plan.deployments.iter().map(|new| (&new.name, new)).collect();
        for change in plan.changes.iter_mut().filter(|change| change.path.folder() == Folder::Deployments) {
            let name = change.path.name();
            let (Some(old), Some(new)) = (branch.deployments.get(name), new.get(name)) else { continue };
            change.system = match old.known() {
                Some(old) => self.compare(old, new),
                None => Some(Err(CompareError::Altered).into()),
            };
        }
    }

    /// The differences; none where both have the same system, and differ only in how it is fetched.
    fn compare(&mut self, old: &Deployment, new: &Deployment) -> Option<SystemDiff> {
        if old.specification.template.nar_id == new.specification.template.nar_id {
            return None;
        }
        Some(self.comparer.compare_systems(system(old), system(new)).into())
    }
}

/// The system of a deployment, with the derivation that its provenance names.
fn system(deployment: &Deployment) -> DeployedSystem<'_> {
    let derivation = deployment.provenance().and_then(|provenance| provenance.drv_path.as_ref());
    DeployedSystem { path: &deployment.specification.template.nar_id, derivation }
}
