//! Reads the approvals on the branch. Each approver has a file for each deployment, so that two approvals never conflict.

use std::collections::BTreeMap;

use super::documents::{Branch, VerifiedIndex};
use super::layout_check::{LayoutError, check_approvals};
use crate::git::Files;
use crate::model::{AgentSpecification, Approval, BranchFile as _, Deployment, Folder, Name, describe_error};
use crate::trust::{Approvals, Verified};

/// The agents that may ask for each deployment.
#[derive(Debug, Default)]
pub struct AgentsByDeployment(BTreeMap<Name, Vec<Name>>);

impl AgentsByDeployment {
    /// The agents that may ask for the deployment of this name.
    pub fn of(&self, deployment: &Name) -> &[Name] {
        self.0.get(deployment).map_or(&[], Vec::as_slice)
    }
}

impl<F: Files> Branch<'_, F> {
    /// The agents of the bins that were read, by the deployments that they may ask for. The result is empty if the root demands no
    /// approvals at all.
    ///
    /// An agent whose document cannot be verified is left out, and causes no error.
    pub fn agents_by_deployment(&self, index: &mut VerifiedIndex) -> AgentsByDeployment {
        let mut agents = AgentsByDeployment::default();
        if self.root().root().approvals.is_empty() {
            return agents;
        }
        for name in index.names(Folder::Agents) {
            let Ok(agent) = self.document::<AgentSpecification>(index, &name) else { continue };
            for deployment in agent.specification.deployments.iter() {
                agents.0.entry(deployment.clone()).or_default().push(name.clone());
            }
        }
        agents
    }

    /// The approvals of `deployment`. There are none if the root demands none for its name, for its unit's name, or for the
    /// names of the `agents` that may ask for it. A file that cannot be read does not count, and causes no error; an entry that
    /// does not belong beside them does.
    pub fn approvals(
        &self,
        index: &VerifiedIndex,
        deployment: &Verified<Deployment>,
        agents: &[Name],
    ) -> Result<Option<Approvals>, LayoutError> {
        let root = self.root().root();
        if root.approvals_of(deployment, agents).is_none() {
            return Ok(None);
        }
        check_approvals(self.files(), index.layout(), &deployment.name)?;
        let mut files = BTreeMap::new();
        for approver in root.roles.approver.keys.iter().map(crate::model::RoleKey::id) {
            match self.files().read(&index.layout().approval(&deployment.name, approver), Approval::MAX_BYTES) {
                Ok(None) => None,
                Ok(Some(file)) => files.insert(approver.clone(), Ok(file)),
                Err(error) => files.insert(approver.clone(), Err(describe_error(&error))),
            };
        }
        Ok(Approvals::count(self.root(), deployment, agents, &files))
    }
}
