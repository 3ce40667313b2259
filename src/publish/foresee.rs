//! Foresees what a publication would withdraw from one source, before there is one: the gate asks while git holds a push back.
//!
//! It signs nothing, and needs no key. The index names what is on the branch, so only the documents that the push would withdraw are
//! read.

use std::collections::BTreeSet;

use super::attempt::PublishSettings;
use super::broken::BrokenParts;
use super::error::PublishError;
use super::withdrawals::HeldWithdrawals;
use crate::branch::{Branch, BranchError, BranchWriter, RootChain, Snapshot, VerifiedIndex};
use crate::evaluate::Drafts;
use crate::model::{
    AgentSpecification, DeploymentSpecification, DocumentPath, Draft, FlakeReference, Name, Specification,
    UnitSpecification,
};
use crate::trust::Anchor;

/// The withdrawals that would wait for an operator if `source` gave these drafts; none where there are few, or no branch yet.
pub async fn foresee_withdrawals(
    settings: &PublishSettings,
    anchor: &Anchor,
    source: &FlakeReference,
    drafts: &Drafts,
) -> Result<Option<HeldWithdrawals>, PublishError> {
    let PublishSettings { repository, branch, .. } = settings;
    let writer = BranchWriter { remote: repository, branch, copy: &settings.copy() };
    let on = writer.open().await?;
    let unread = |error: BranchError| settings.branch_error(error.into());
    let Some(files) = on.files().map_err(|error| unread(error.into()))? else { return Ok(None) };
    let roots = RootChain::from_anchor(&files, anchor).map_err(|error| settings.branch_error(error.into()))?;
    let on_branch = Branch::to_repair(&files, &roots.newest, branch);
    let mut index = on_branch.whole_index().map_err(unread)?;
    let broken = BrokenParts::of(&drafts.failures);
    let mut gone = Vec::new();
    let mut look = Look { branch: &on_branch, index: &mut index, source, broken: &broken, gone: &mut gone };
    look.for_missing::<AgentSpecification>(&drafts.agents);
    look.for_missing::<DeploymentSpecification>(&drafts.deployments);
    look.for_missing::<UnitSpecification>(&drafts.units);
    Ok(HeldWithdrawals::of(source, gone, Some(drafts)))
}

struct Look<'a, 'b> {
    branch: &'a Branch<'b, Snapshot>,
    index: &'a mut VerifiedIndex,
    source: &'a FlakeReference,
    broken: &'a BrokenParts,
    gone: &'a mut Vec<DocumentPath>,
}

impl Look<'_, '_> {
    /// Adds the documents that came from the source, and that it gives no longer.
    fn for_missing<S: Specification>(&mut self, drafts: &[Draft<S>]) {
        let given: BTreeSet<&Name> = drafts.iter().map(|draft| &draft.name).collect();
        let listed = self.index.names(S::FOLDER);
        for name in listed.into_iter().filter(|name| !given.contains(name)) {
            // A document that nobody can read belongs to nobody.
            let Ok(document) = self.branch.document::<S>(self.index, &name) else { continue };
            let is_gone = document.provenance().is_some_and(|provenance| {
                provenance.source == *self.source && !self.broken.may_give(&name, &provenance.attribute)
            });
            if is_gone {
                self.gone.push(DocumentPath::new(S::FOLDER, name));
            }
        }
    }
}
