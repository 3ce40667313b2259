//! What a plan changes inside the systems it is about: the deed between the plan and its commit.

use std::collections::BTreeMap;

use super::plan::{BranchState, ExistingDocument, Plan};
use crate::changes::{Comparer, System, Told, Untold};
use crate::model::{Deployment, Folder, Name, Provenance, StorePath};
use crate::store::{DerivationError, Store};

/// Compares systems by the derivations on this machine. One for a round: its deployments share most of what is read.
pub(super) struct Inside<'a> {
    comparer: Comparer<Reader<'a>>,
}

/// Gives the file of a derivation.
type Reader<'a> = Box<dyn Fn(&StorePath) -> Result<Vec<u8>, DerivationError> + 'a>;

impl<'a> Inside<'a> {
    pub(super) fn new(store: &'a dyn Store) -> Self {
        Self { comparer: Comparer::new(Box::new(|path| store.derivation(path))) }
    }

    /// Adds to the changes of `plan` what they change inside. Whatever cannot be told is no reason not to publish.
    pub(super) fn add_to(&mut self, plan: &mut Plan, branch: &BranchState) {
        let new: BTreeMap<&Name, &Deployment> = plan.deployments.iter().map(|new| (&new.name, new)).collect();
        for change in plan.changes.iter_mut().filter(|change| change.path.folder() == Folder::Deployments) {
            let name = change.path.name();
            let (Some(old), Some(new)) = (branch.deployments.get(name), new.get(name)) else { continue };
            change.system = match old {
                ExistingDocument::Intact(old)
                | ExistingDocument::Outgoing(old, _)
                | ExistingDocument::Restored(old, _) => self.compare(old, new),
                ExistingDocument::Altered(_) | ExistingDocument::Unvouched(_) => Some(Err(Untold::Altered).into()),
            };
        }
    }

    /// What differs; nothing where the system is the same, and only where to fetch it is not.
    fn compare(&mut self, old: &Deployment, new: &Deployment) -> Option<Told> {
        if old.specification.template.nar_id == new.specification.template.nar_id {
            return None;
        }
        let derivation = |of: &Deployment| Provenance::try_from(&of.metadata).ok().and_then(|p| p.drv_path);
        let (old_drv, new_drv) = (derivation(old), derivation(new));
        let old = System { path: &old.specification.template.nar_id, derivation: old_drv.as_ref() };
        let new = System { path: &new.specification.template.nar_id, derivation: new_drv.as_ref() };
        Some(self.comparer.compare_systems(old, new).into())
    }
}
