//! Which documents a publication writes. No I/O: the branch as it is and what was evaluated go in, a plan comes out.
//!
//! A document gets a new revision only where its specification changed. One that its source does not give any more is
//! withdrawn, unless what would give it is broken just now. A name that two sources claim stays as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::changes::{Change, Conflict};
use super::ready::Held;
use crate::evaluate::{Evaluation, Failure};
use crate::model::{
    AgentSpecification, DeploymentSpecification, Document, DocumentPath, Draft, FlakeReference, FleetId, Folder, Hold,
    Index, IndexVersion, Name, Provenance, Revision, Sha256Digest, Specification, Timestamp, Tombstone,
    UnitSpecification,
};
use crate::trust::Verified;

/// The documents of one kind as the branch has them.
pub(super) type Existing<S> = BTreeMap<Name, ExistingDocument<S>>;

/// A document as the branch has it.
#[derive(Debug, Clone)]
pub(super) enum ExistingDocument<S: Specification> {
    /// As the index lists it.
    Intact(Verified<Document<S>>),
    /// As the index lists it, and signed with a key that publishes no more, by claveld itself. It goes on under the
    /// revision after the one that is listed.
    Outgoing(Verified<Document<S>>, Revision),
    /// The index lists this revision, and the file is gone or another one. The history has the one that is listed.
    Restored(Verified<Document<S>>, Revision),
    /// The index lists this revision, the file is gone or another one, and the history does not have it.
    Altered(Revision),
    /// Somebody signed it who publishes no more: of this revision only the number counts.
    Unvouched(Revision),
}

/// The branch as it is.
#[derive(Debug)]
pub(super) struct BranchState {
    /// The fleet that it is of.
    pub(super) fleet: FleetId,
    pub(super) index: Option<(Verified<Index>, Sha256Digest)>,
    pub(super) deployments: Existing<DeploymentSpecification>,
    pub(super) units: Existing<UnitSpecification>,
    pub(super) agents: Existing<AgentSpecification>,
    /// Deployments that somebody froze.
    pub(super) holds: BTreeMap<Name, Hold>,
    /// Whether the newest root's publishers have to sign the index anew.
    pub(super) is_of_an_older_root: bool,
}

impl BranchState {
    /// A branch with nothing on it.
    pub(super) fn empty(fleet: FleetId) -> Self {
        let (deployments, units, agents) = (Existing::new(), Existing::new(), Existing::new());
        Self { fleet, index: None, deployments, units, agents, holds: BTreeMap::new(), is_of_an_older_root: false }
    }
}

/// What was asked of a round of evaluations, and what came of it.
#[derive(Debug)]
pub struct Evaluated<'a> {
    /// Every source of the configuration.
    pub configured: &'a [FlakeReference],
    /// What came of those that could be evaluated.
    pub evaluations: &'a [Evaluation],
    /// Whether documents of sources that the configuration has no more go.
    pub strays: Strays,
}

/// What happens to documents whose source is not in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strays {
    /// They stay: only some sources were asked for.
    Stay,
    /// They are withdrawn: the configuration says which sources there are.
    Go,
}

/// What to write.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) conflicts: Vec<Conflict>,
    pub(super) deployments: Vec<Document<DeploymentSpecification>>,
    pub(super) units: Vec<Document<UnitSpecification>>,
    pub(super) agents: Vec<Document<AgentSpecification>>,
    /// The deployments that are frozen afterwards.
    pub(super) holds: BTreeMap<Name, Hold>,
    pub(super) index: IndexPlan,
}

/// What happens to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IndexPlan {
    /// It says what there is to say, and is young enough.
    Keep(IndexVersion),
    /// It is written anew under this version.
    Write(IndexVersion),
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A counter is at its end.
    #[error(
        "the {what} is at the largest number there is, and cannot count on; a new epoch begins to count anew: \
         `clavel root next --raise-epoch`"
    )]
    CounterAtItsEnd {
        /// Which counter.
        what: String,
    },
}

/// Decides what to write at `now`, where an index is to be believed for `validity` and what is `held` stays as it is. What
/// is frozen is among that: [`super::ready::hold_back`] says what stays with it.
pub(super) fn plan(
    branch: &BranchState,
    evaluated: &Evaluated<'_>,
    held: &Held,
    now: Timestamp,
    validity: Duration,
) -> Result<Plan, PlanError> {
    let mut planner =
        Planner { branch, evaluated, unpinned: &held.unpinned, changes: Vec::new(), conflicts: Vec::new() };
    let agents = planner.documents(&branch.agents, &held.agents, |evaluation| &evaluation.found.agents)?;
    let deployments =
        planner.documents(&branch.deployments, &held.deployments, |evaluation| &evaluation.found.deployments)?;
    let units = planner.documents(&branch.units, &held.units, |evaluation| &evaluation.found.units)?;
    let Planner { mut changes, mut conflicts, .. } = planner;
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    conflicts.sort();
    let index = plan_index(branch, &changes, now, validity)?;
    let holds = still_held(branch, &deployments);
    Ok(Plan { changes, conflicts, deployments, units, agents, holds, index })
}

/// What is frozen stays so; one that had to be signed anew is frozen at that revision.
fn still_held(branch: &BranchState, written: &[Document<DeploymentSpecification>]) -> BTreeMap<Name, Hold> {
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
    changes: &[Change],
    now: Timestamp,
    validity: Duration,
) -> Result<IndexPlan, PlanError> {
    let Some((index, _)) = &branch.index else { return Ok(IndexPlan::Write(IndexVersion::FIRST)) };
    let is_young = now < sign_anew_at(index.issued, index.expires, validity);
    if changes.is_empty() && is_young && !branch.is_of_an_older_root {
        return Ok(IndexPlan::Keep(index.version));
    }
    let at_its_end = || PlanError::CounterAtItsEnd { what: "index version".to_owned() };
    index.version.next().map(IndexPlan::Write).ok_or_else(at_its_end)
}

/// When an index is signed anew though it says what there is to say. Half of its time is left for claveld to be down, or for a
/// mirror to lag.
pub(super) fn sign_anew_at(issued: Timestamp, expires: Timestamp, validity: Duration) -> Timestamp {
    issued.plus(validity / 2).min(expires)
}

struct Planner<'a> {
    branch: &'a BranchState,
    evaluated: &'a Evaluated<'a>,
    unpinned: &'a BTreeSet<Name>,
    changes: Vec<Change>,
    conflicts: Vec<Conflict>,
}

/// A draft and the source that it came from.
type Claim<'a, S> = (&'a FlakeReference, &'a Draft<S>);

impl<'a> Planner<'a> {
    fn documents<S: Specification + 'a>(
        &mut self,
        existing: &Existing<S>,
        held: &BTreeSet<Name>,
        drafts: impl Fn(&'a Evaluation) -> &'a [Draft<S>],
    ) -> Result<Vec<Document<S>>, PlanError> {
        let mut claims: BTreeMap<String, Vec<Claim<'a, S>>> = BTreeMap::new();
        for evaluation in self.evaluated.evaluations {
            for draft in drafts(evaluation) {
                claims.entry(draft.name.folded()).or_default().push((&evaluation.source.flake, draft));
            }
        }
        let holders: BTreeMap<String, &Name> = existing.keys().map(|name| (name.folded(), name)).collect();
        let path = |name: &Name| DocumentPath::new(S::FOLDER, name.clone());
        let mut written = Vec::new();
        let mut contested = BTreeSet::new();
        for (folded, claims) in &claims {
            let holder = holders.get(folded).and_then(|name| existing.get(*name));
            if let Some(conflict) = self.conflict(claims, holder) {
                self.conflicts.push(conflict);
                contested.insert(folded.clone());
            } else if let [(_, draft), ..] = claims[..]
                && !held.contains(&draft.name)
            {
                written.extend(self.document(existing.get(&draft.name), draft)?);
            }
        }
        for (name, document) in existing {
            let claimed = claims.get(&name.folded()).is_some_and(|claims| claims.iter().any(|(_, d)| d.name == *name));
            let is_held = held.contains(name) || contested.contains(&name.folded());
            if claimed && !is_held {
                continue;
            }
            if !is_held && self.is_withdrawn(document) {
                let from = Some(document.revision());
                let path = path(name);
                self.changes.push(Change { path, from, to: None, mended: false, system: None });
            } else if let ExistingDocument::Outgoing(known, listed) | ExistingDocument::Restored(known, listed) =
                document
            {
                let to = counted_on(&path(name), *listed)?;
                let (path, from, mended) = (path(name), Some(*listed), document.is_damaged());
                self.changes.push(Change { path, from, to: Some(to), mended, system: None });
                written.push(Document { revision: to, ..(**known).clone() });
            }
        }
        Ok(written)
    }

    /// Two sources that claim one name, or one that claims what belongs to another that was not asked just now.
    fn conflict<S: Specification>(
        &self,
        claims: &[Claim<'_, S>],
        holder: Option<&ExistingDocument<S>>,
    ) -> Option<Conflict> {
        let mut sources: BTreeSet<String> = claims.iter().map(|(source, _)| source.to_string()).collect();
        if let Some(owner) = holder.and_then(ExistingDocument::source) {
            let has_its_say = self.evaluated.evaluations.iter().any(|evaluation| evaluation.source.flake == owner);
            if self.evaluated.configured.contains(&owner) && !has_its_say {
                sources.insert(owner.to_string());
            }
        }
        let name = claims.first()?.1.name.clone();
        let path = DocumentPath::new(S::FOLDER, name);
        (sources.len() > 1).then(|| Conflict { path, sources: sources.into_iter().collect() })
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
        // One that comes back goes on where it ended: a revision has one content, for ever.
        let buried = self.branch.index.as_ref().and_then(|(index, _)| index.tombstones.get(&path)).map(|t| t.revision);
        let to = match from.or(buried) {
            None => Revision::FIRST,
            Some(last) => counted_on(&path, last)?,
        };
        let mended = existing.is_some_and(ExistingDocument::is_damaged);
        self.changes.push(Change { path, from, to: Some(to), mended, system: None });
        Ok(Some(draft.clone().at(to, self.branch.fleet)))
    }

    /// Whether a document that nobody claims is to go.
    fn is_withdrawn<S: Specification>(&self, document: &ExistingDocument<S>) -> bool {
        // Who owned an altered document cannot be told any more: it stays until somebody claims it.
        let Some(document) = document.known() else { return false };
        let Ok(provenance) = Provenance::try_from(&document.metadata) else { return false };
        let of_its_source = self.evaluated.evaluations.iter().find(|e| e.source.flake == provenance.source);
        match of_its_source {
            Some(evaluation) => !is_broken(&evaluation.found.failures, &provenance, &document.name),
            None => self.evaluated.strays == Strays::Go && !self.evaluated.configured.contains(&provenance.source),
        }
    }
}

/// Whether what gave this document is among the failures, so that its absence means nothing.
fn is_broken(failures: &[Failure], provenance: &Provenance, name: &Name) -> bool {
    failures.iter().any(|failure| failure.attribute == provenance.attribute.as_str() || failure.name == name.as_str())
}

impl<S: Specification> ExistingDocument<S> {
    /// The revision that the index lists.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Intact(document) => document.revision,
            Self::Outgoing(_, revision)
            | Self::Restored(_, revision)
            | Self::Altered(revision)
            | Self::Unvouched(revision) => *revision,
        }
    }

    /// What it says, where that is known.
    pub(super) fn known(&self) -> Option<&Verified<Document<S>>> {
        match self {
            Self::Intact(document) | Self::Outgoing(document, _) | Self::Restored(document, _) => Some(document),
            Self::Altered(_) | Self::Unvouched(_) => None,
        }
    }

    /// Whether what stands there is not to be believed, by whoever it was signed.
    fn is_damaged(&self) -> bool {
        match self {
            Self::Restored(..) | Self::Altered(_) | Self::Unvouched(_) => true,
            Self::Intact(_) | Self::Outgoing(..) => false,
        }
    }

    fn source(&self) -> Option<FlakeReference> {
        Some(Provenance::try_from(&self.known()?.metadata).ok()?.source)
    }
}

/// The revision after `last`.
pub(super) fn counted_on(path: &DocumentPath, last: Revision) -> Result<Revision, PlanError> {
    last.next().ok_or_else(|| PlanError::CounterAtItsEnd { what: format!("revision of {path}") })
}

/// The tombstone of a document that a plan withdraws.
pub(super) fn tombstone(change: &Change) -> Option<Tombstone> {
    match (change.from, change.to) {
        (Some(revision), None) => Some(Tombstone { revision }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
