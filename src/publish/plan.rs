//! The plan of a publication: which documents claveld writes, withdraws or leaves as they are. No I/O: the branch and the
//! evaluations go in, a plan comes out.
//!
//! A document gets a new revision only where its specification changed. A document that its source gives no more is
//! withdrawn, unless the attribute that gave it is broken at the moment. A name belongs to the source that
//! published it first, for as long as that source gives it: another source that claims it is refused, and blocks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::branch_state::{BranchState, Existing, ExistingDocument};
use super::broken::BrokenParts;
use super::document_change::{DocumentChange, NameConflict};
use super::withheld::Withheld;
use crate::evaluate::Evaluation;
use crate::model::{
    AgentSpecification, DeploymentSpecification, Document, DocumentPath, Draft, FlakeReference, Folder, Hold,
    IndexSource, IndexVersion, MAX_SOURCES, Name, Revision, Specification, Timestamp, UnitSpecification,
};

/// The evaluations of a round, which claveld publishes.
#[derive(Debug)]
pub struct PublishInput<'a> {
    /// Every source of the configuration.
    pub configured: &'a [FlakeReference],
    /// The evaluations of the sources that could be input.
    pub evaluations: &'a [Evaluation],
    /// The fate of documents whose source is not in the configuration.
    pub orphans: OrphanPolicy,
    /// How many documents an operator allows to withdraw, beyond the few that go without asking.
    pub allowed_withdrawals: usize,
    /// How every source was last, for the index.
    pub sources: &'a [IndexSource],
}

/// The fate of documents whose source is not in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrphanPolicy {
    /// They stay: the round is about some sources only.
    Keep,
    /// They are withdrawn: the round is about every source of the configuration.
    Withdraw,
}

/// A publication that is decided and not signed yet.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<DocumentChange>,
    pub(super) conflicts: Vec<NameConflict>,
    pub(super) deployments: Vec<Document<DeploymentSpecification>>,
    pub(super) units: Vec<Document<UnitSpecification>>,
    pub(super) agents: Vec<Document<AgentSpecification>>,
    /// The holds after the publication.
    pub(super) holds: BTreeMap<Name, Hold>,
    pub(super) index: IndexPlan,
}

/// The fate of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexPlan {
    /// It stays: nothing changed, and it is young enough.
    Keep(IndexVersion),
    /// It is signed again, under this version.
    Write(IndexVersion),
}

/// The reason why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A counter cannot grow any further.
    #[error(
        "cannot raise the {counter}: it is at the largest number there is. Begin a new epoch, in which counting starts \
         again: `clavel root next --raise-epoch`"
    )]
    CounterAtItsEnd {
        /// The counter.
        counter: String,
    },
}

/// Decides what to write at `now`. An index is valid for `validity`, and the documents in `withheld` stay as they are, which
/// includes the deployments that an operator holds.
pub(super) fn plan(
    branch: &BranchState,
    input: &PublishInput<'_>,
    withheld: &Withheld,
    now: Timestamp,
    validity: Duration,
) -> Result<Plan, PlanError> {
    let parts = |evaluation: &'_ Evaluation| BrokenParts::of(&evaluation.drafts.failures);
    let broken = input.evaluations.iter().map(|evaluation| (&evaluation.source.flake, parts(evaluation))).collect();
    let unpinned = &withheld.unpinned;
    let mut planner = Planner { branch, input, broken, unpinned, changes: Vec::new(), conflicts: Vec::new() };
    let agents = planner.documents(&branch.agents, &withheld.agents, |evaluation| &evaluation.drafts.agents)?;
    let deployments =
        planner.documents(&branch.deployments, &withheld.deployments, |evaluation| &evaluation.drafts.deployments)?;
    let units = planner.documents(&branch.units, &withheld.units, |evaluation| &evaluation.drafts.units)?;
    let Planner { mut changes, mut conflicts, .. } = planner;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    conflicts.sort();
    let index = plan_index(branch, input, &changes, now, validity)?;
    let holds = updated_holds(branch, &deployments);
    Ok(Plan { changes, conflicts, deployments, units, agents, holds, index })
}

/// The holds of the branch. A held deployment that claveld had to sign again is held at its new revision.
fn updated_holds(branch: &BranchState, written: &[Document<DeploymentSpecification>]) -> BTreeMap<Name, Hold> {
    let mut holds = branch.holds.clone();
    for document in written {
        if let Some(hold) = holds.get_mut(&document.name) {
            hold.revision = document.revision;
        }
    }
    holds
}

fn plan_index(
    branch: &BranchState,
    input: &PublishInput<'_>,
    changes: &[DocumentChange],
    now: Timestamp,
    validity: Duration,
) -> Result<IndexPlan, PlanError> {
    let Some((index, _)) = &branch.index else { return Ok(IndexPlan::Write(IndexVersion::FIRST)) };
    let is_young = now < sign_anew_at(index.index().issued, index.index().expires, validity);
    let is_right = !branch.is_of_an_older_root && branch.foreign.is_empty() && branch.ended_holds.is_empty();
    if changes.is_empty() && is_young && is_right && says_what_is_broken(&index.index().sources, input) {
        return Ok(IndexPlan::Keep(index.index().version));
    }
    next_index_version(index.index().version).map(IndexPlan::Write)
}

/// Whether an index with these sources names the broken parts of the sources that were read. It may have another error of one: the text
/// of an error can differ between two evaluations.
fn says_what_is_broken(on_branch: &[IndexSource], input: &PublishInput<'_>) -> bool {
    let is_read = |source: &&IndexSource| input.evaluations.iter().any(|known| known.source.flake == source.source);
    input.sources.iter().take(MAX_SOURCES).filter(is_read).all(|now| {
        match on_branch.iter().find(|before| before.source == now.source) {
            Some(before) => before.has_same_broken_parts(now),
            None => now.broken.is_empty() && now.more_broken == 0,
        }
    })
}

/// The time at which claveld signs an index again even if nothing changes. The other half of its validity remains for the
/// case that claveld is down or a mirror lags behind.
pub(super) fn sign_anew_at(issued: Timestamp, expires: Timestamp, validity: Duration) -> Timestamp {
    issued.plus(validity / 2).min(expires)
}

struct Planner<'a> {
    branch: &'a BranchState,
    input: &'a PublishInput<'a>,
    /// The broken parts of each source that was evaluated.
    broken: BTreeMap<&'a FlakeReference, BrokenParts>,
    unpinned: &'a BTreeSet<Name>,
    changes: Vec<DocumentChange>,
    conflicts: Vec<NameConflict>,
}

/// Whether a document may be withdrawn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MayGo {
    Yes,
    No,
}

/// A draft, and the source that gives it.
type Claim<'a, S> = (&'a FlakeReference, &'a Draft<S>);

impl<'a> Planner<'a> {
    fn documents<S: Specification + 'a>(
        &mut self,
        existing: &Existing<S>,
        withheld: &BTreeSet<Name>,
        drafts: impl Fn(&'a Evaluation) -> &'a [Draft<S>],
    ) -> Result<Vec<Document<S>>, PlanError> {
        let mut claims: BTreeMap<String, Vec<Claim<'a, S>>> = BTreeMap::new();
        for evaluation in self.input.evaluations {
            for draft in drafts(evaluation) {
                claims.entry(draft.name.folded()).or_default().push((&evaluation.source.flake, draft));
            }
        }
        let owners: BTreeMap<String, &Name> = existing.keys().map(|name| (name.folded(), name)).collect();
        let mut written = Vec::new();
        let mut contested = BTreeSet::new();
        for (folded, claims) in &claims {
            let owner = owners.get(folded).and_then(|name| existing.get(*name));
            let conflict = self.conflict(claims, owner);
            // The owner goes on with its name. Where nobody owns it yet, nobody gets it.
            let claim = match &conflict {
                Some(NameConflict { owner: Some(owner), .. }) => {
                    claims.iter().find(|(source, _)| source.as_str() == owner)
                }
                Some(NameConflict { owner: None, .. }) => None,
                None => claims.first(),
            };
            if conflict.is_some() && claim.is_none() {
                contested.insert(folded.clone());
            }
            self.conflicts.extend(conflict);
            if let Some((_, draft)) = claim
                && !withheld.contains(&draft.name)
            {
                written.extend(self.document(existing.get(&draft.name), draft)?);
            }
        }
        for (name, document) in existing {
            let claimed = claims.get(&name.folded()).is_some_and(|claims| claims.iter().any(|(_, d)| d.name == *name));
            let stays = withheld.contains(name) || contested.contains(&name.folded());
            if !claimed || stays {
                let may_go = if stays { MayGo::No } else { MayGo::Yes };
                written.extend(self.unclaimed(name, document, may_go)?);
            }
        }
        Ok(written)
    }

    /// Decides about a document that no source claims, or that stays as it is: it is withdrawn, signed again, or left alone.
    fn unclaimed<S: Specification>(
        &mut self,
        name: &Name,
        document: &ExistingDocument<S>,
        may_go: MayGo,
    ) -> Result<Option<Document<S>>, PlanError> {
        let path = DocumentPath::new(S::FOLDER, name.clone());
        if may_go == MayGo::Yes && self.is_withdrawn(document) {
            let from = Some(document.revision());
            self.changes.push(DocumentChange { path, from, to: None, repaired: false, system: None });
            return Ok(None);
        }
        let (ExistingDocument::Outgoing(known, listed) | ExistingDocument::Restored(known, listed)) = document else {
            return Ok(None);
        };
        let to = next_revision(&path, *listed)?;
        let (from, repaired) = (Some(*listed), document.is_damaged());
        self.changes.push(DocumentChange { path, from, to: Some(to), repaired, system: None });
        let document = Document { revision: to, ..(**known).clone() };
        Ok(Some(document))
    }

    /// The conflict of a name that a source claims and that is not its own, or that several claim and nobody has yet.
    fn conflict<S: Specification>(
        &self,
        claims: &[Claim<'_, S>],
        existing: Option<&ExistingDocument<S>>,
    ) -> Option<NameConflict> {
        let owner = existing.and_then(ExistingDocument::known).filter(|document| self.still_claims(claims, document));
        let owner = owner.and_then(|document| document.provenance()).map(|provenance| provenance.source.to_string());
        let claiming = claims.iter().map(|(source, _)| source.to_string());
        let sources: BTreeSet<String> = claiming.chain(owner.clone()).collect();
        let name = claims.first()?.1.name.clone();
        let path = DocumentPath::new(S::FOLDER, name);
        (sources.len() > 1).then(|| NameConflict { path, owner, sources: sources.into_iter().collect() })
    }

    /// Whether the source that published a document goes on with it: it claims the name, or is not known to have dropped it,
    /// because this round did not evaluate it or the attribute that gave it is broken.
    fn still_claims<S: Specification>(&self, claims: &[Claim<'_, S>], document: &Document<S>) -> bool {
        let Some(provenance) = document.provenance() else { return false };
        let owner = &provenance.source;
        let is_broken = |parts: &BrokenParts| parts.may_give(&document.name, &provenance.attribute);
        claims.iter().any(|(source, _)| *source == owner)
            || self.input.configured.contains(owner) && self.broken.get(owner).is_none_or(is_broken)
    }

    fn document<S: Specification>(
        &mut self,
        existing: Option<&ExistingDocument<S>>,
        draft: &Draft<S>,
    ) -> Result<Option<Document<S>>, PlanError> {
        if let Some(ExistingDocument::Intact(document)) = existing
            && document.specification == draft.specification
            && !(S::FOLDER == Folder::Deployments && self.unpinned.contains(&draft.name))
        {
            return Ok(None);
        }
        let path = DocumentPath::new(S::FOLDER, draft.name.clone());
        let from = existing.map(ExistingDocument::revision);
        // A document that comes back continues after its last revision: a revision has one content, for ever.
        let to = match from.or(self.branch.last_of_withdrawn(&path)) {
            None => Revision::FIRST,
            Some(last) => next_revision(&path, last)?,
        };
        let repaired = existing.is_some_and(ExistingDocument::is_damaged);
        self.changes.push(DocumentChange { path, from, to: Some(to), repaired, system: None });
        Ok(Some(draft.clone().at(to, self.branch.fleet)))
    }

    /// Whether a document that no source claims is withdrawn.
    fn is_withdrawn<S: Specification>(&self, document: &ExistingDocument<S>) -> bool {
        // The owner of an altered document is unknown: the document stays until a source claims it.
        let Some(document) = document.known() else { return false };
        let Some(provenance) = document.provenance() else { return false };
        match self.broken.get(&provenance.source) {
            Some(parts) => !parts.may_give(&document.name, &provenance.attribute),
            None => self.input.orphans == OrphanPolicy::Withdraw && !self.input.configured.contains(&provenance.source),
        }
    }
}

/// The version of the index after `last`.
pub(super) fn next_index_version(last: IndexVersion) -> Result<IndexVersion, PlanError> {
    last.next().ok_or_else(|| PlanError::CounterAtItsEnd { counter: "index version".to_owned() })
}

/// The revision after `last`.
pub(super) fn next_revision(path: &DocumentPath, last: Revision) -> Result<Revision, PlanError> {
    last.next().ok_or_else(|| PlanError::CounterAtItsEnd { counter: format!("revision of {path}") })
}

#[cfg(test)]
mod tests;
