//! Where approvers leave their word on the branch: one file for each, so that no two are in each other's way.

use std::collections::BTreeMap;

use super::{Branch, Files};
use crate::model::{Approval, Deployment, KeyId, Name, Payload as _};
use crate::trust::{Approvals, Verified};

/// Where the approvals of the deployment `name` are.
pub fn approvals_folder(name: &Name) -> String {
    format!("approvals/{name}")
}

/// Where the approver whose key is called so leaves the approval of the deployment `name`.
///
/// A root that is believed has approvers alone whose names can be those of files.
pub fn approval_path(name: &Name, approver: &KeyId) -> String {
    format!("{}/{approver}.json", approvals_folder(name))
}

impl<F: Files> Branch<'_, F> {
    /// Who has approved `deployment`; none where the root asks for no approvals of it. A file that cannot be read counts
    /// nothing, and is in nobody's way.
    pub fn approvals(&self, deployment: &Verified<Deployment>) -> Option<Approvals> {
        let root = self.root().root();
        root.approvals_of(&deployment.name)?;
        let mut left = BTreeMap::new();
        for approver in root.roles.approver.keys.iter().map(crate::model::RoleKey::id) {
            match self.files().read(&approval_path(&deployment.name, approver), Approval::LARGEST) {
                Ok(None) => None,
                Ok(Some(file)) => left.insert(approver.clone(), Ok(file)),
                Err(error) => left.insert(approver.clone(), Err(error.to_string())),
            };
        }
        Approvals::count(self.root(), deployment, &left)
    }
}
