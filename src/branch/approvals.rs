//! Reads the approvals on the branch. Each approver has a file of their own, so that two approvals never conflict.

use std::collections::BTreeMap;

use super::documents::{Branch, VerifiedIndex};
use super::layout::Layout;
use crate::git::Files;
use crate::model::{AgentSpecification, Approval, Deployment, Folder, Name, Payload as _};
use crate::trust::{Approvals, Verified};

/// Which agents may take which deployment.
#[derive(Debug, Default)]
pub struct Takers(BTreeMap<Name, Vec<Name>>);

impl Takers {
    /// The agents that may take the deployment of that name.
    pub fn of(&self, deployment: &Name) -> &[Name] {
        self.0.get(deployment).map_or(&[], Vec::as_slice)
    }
}

impl<F: Files> Branch<'_, F> {
    /// Which agents may take which deployment, for those who look at the branch and are no agent; nobody takes anything
    /// where the root asks for no approvals at all.
    ///
    /// An agent whose document is not to be believed takes nothing, and is in nobody's way.
    pub fn takers(&self, index: &VerifiedIndex) -> Takers {
        let mut takers = Takers::default();
        if self.root().root().approvals.is_empty() {
            return takers;
        }
        for name in index.names(Folder::Agents) {
            let Ok(agent) = self.document::<AgentSpecification>(index, &name) else { continue };
            for deployment in agent.specification.deployments.iter() {
                takers.0.entry(deployment.clone()).or_default().push(name.clone());
            }
        }
        takers
    }

    /// Who has approved `deployment`; none where the root asks for no approvals of it, by its name, its unit's, or those of
    /// the `agents` that take it. A file that cannot be read counts nothing, and is in nobody's way.
    pub fn approvals(&self, deployment: &Verified<Deployment>, agents: &[Name]) -> Option<Approvals> {
        let root = self.root().root();
        root.approvals_of(deployment, agents)?;
        let mut left = BTreeMap::new();
        for approver in root.roles.approver.keys.iter().map(crate::model::RoleKey::id) {
            match self.files().read(&Layout::Flat.approval(&deployment.name, approver), Approval::LARGEST) {
                Ok(None) => None,
                Ok(Some(file)) => left.insert(approver.clone(), Ok(file)),
                Err(error) => left.insert(approver.clone(), Err(error.to_string())),
            };
        }
        Approvals::count(self.root(), deployment, agents, &left)
    }
}
