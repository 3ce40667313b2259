//! Publishing: an attempt decides what to write, signs it and makes one atomic commit. If another writer was faster, the next
//! attempt decides again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::attempt::{PublishAttempt, PublishContext, PublishSettings};
use super::base::PublishBase;
use super::bins::names_on;
use super::broken::touched_by_failures;
use super::caches::CacheClient;
use super::described::group_documents;
use super::diffs::SystemDiffs;
use super::document_change::DocumentChange;
use super::error::PublishError;
use super::left_out::{KeptBack, LostDeployment, Unready};
use super::message::{commit_message, describe_changes};
use super::note::{IndexOrigin, PublishedIndex};
use super::operate::{Operation, OperationPlan, OperationReport, OperatorRequest, describe_holds, operate, operations};
use super::pin::{Pinning, pins};
use super::plan::{IndexPlan, Plan, PublishInput, plan, sign_anew_at};
use super::report::{IndexTimes, PublishReport};
use super::settled::{Look, RoundResult, SettledNote, within};
use super::sign::{BranchSigner, SignedFiles};
use super::survey::{CacheAnswers, CacheScope, CacheSurvey};
use super::withdrawals::{HeldWithdrawals, held_withdrawals};
use super::withheld::Withheld;
use super::withhold::{deployments_to_look_up, kept_back, lost_deployments, withhold};
use crate::branch::{
    Authorship, BranchWriter, Change as FileChange, CommitId, Identity, Layout, OpenBranch, Proposal, ReadBack,
    RevisionLookup,
};
use crate::evaluate::Evaluation;
use crate::model::{
    BinCount, DocumentPath, Epoch, FleetId, Folder, IndexSource, IndexVersion, MAX_ENTRIES_OF_A_BIN, Name,
    PublishPolicy, RootValidity, Sha256Digest, SourceRevision, Timestamp, describe_error,
};
use crate::signers::Signers;
use crate::store::Store;
use crate::trust::Anchor;

/// The most files of one deployment's approvals that claveld looks at.
const MAX_APPROVALS: usize = 1024;

/// Publishes evaluations, and fulfils operators' requests.
#[derive(Debug)]
pub struct Publisher {
    context: PublishContext,
    /// The folder for the copy of a remote repository.
    copy: PathBuf,
    /// Asks the caches; none where no deployment waits for a cache.
    caches: Option<CacheClient>,
    /// The store that has the derivations of the systems.
    store: Arc<dyn Store>,
}

impl Publisher {
    /// A publisher that signs with `signers`, trusts the roots from `anchor` on, and asks the caches through `store`.
    pub fn new(settings: PublishSettings, signers: Signers, anchor: Anchor, store: Arc<dyn Store>) -> Self {
        let caches = match settings.policy {
            PublishPolicy::WhenEvaluated => None,
            PublishPolicy::WhenCached => Some(CacheClient::new(Arc::clone(&store), CacheScope::Path)),
            PublishPolicy::WhenPinned => Some(CacheClient::new(Arc::clone(&store), CacheScope::Closure)),
        };
        let copy = settings.copy();
        let note = settings.note();
        let settled = SettledNote::of(&settings.state_directory, &settings.repository, &settings.branch);
        Self { context: PublishContext { settings, signers, anchor, note, settled }, copy, caches, store }
    }

    /// Publishes the evaluations in `input`.
    pub async fn publish(&self, input: &PublishInput<'_>) -> Result<PublishReport, PublishError> {
        match self.publish_after(input, Look::Changes).await {
            Err(PublishError::NeedsEverything) => self.publish_after(input, Look::Everything).await,
            published => published,
        }
    }

    async fn publish_after(&self, input: &PublishInput<'_>, look: Look) -> Result<PublishReport, PublishError> {
        let (mut answers, mut diffs) = (CacheAnswers::new(), SystemDiffs::new(&*self.store));
        let attempt =
            async |writer: &BranchWriter<'_>| self.attempt(writer, input, look, &mut answers, &mut diffs).await;
        let ((mut report, index, round), commit) = self.writer().commit_with_retry(attempt).await?;
        self.note(index, commit.map(|commit| (commit, IndexOrigin::Published)));
        if let Some((round, tip)) = round
            && let Some(tip) = commit.or(tip)
            && let Some(settled) = round.settle(self.context.settled.read().as_ref(), tip)
        {
            self.context.settled.write(settled);
        }
        report.commit = commit.map(|commit| commit.to_string());
        report.tip = report.commit.clone().or(report.tip);
        Ok(report)
    }

    /// Fulfils an operator's request.
    pub async fn operate(&self, request: &OperatorRequest) -> Result<OperationReport, PublishError> {
        let mut diffs = SystemDiffs::new(&*self.store);
        let attempt = async |writer: &BranchWriter<'_>| self.attempt_operation(writer, request, &mut diffs).await;
        let ((mut report, index), commit) = self.writer().commit_with_retry(attempt).await?;
        self.note(Some(index), commit.map(|commit| (commit, IndexOrigin::Published)));
        report.commit = commit.map(|commit| commit.to_string()).unwrap_or_default();
        Ok(report)
    }

    async fn attempt(
        &self,
        writer: &BranchWriter<'_>,
        input: &PublishInput<'_>,
        look: Look,
        answers: &mut CacheAnswers,
        diffs: &mut SystemDiffs<'_>,
    ) -> Result<(Attempted, Option<Proposal>), PublishError> {
        let attempt = self.context.begin(writer, Some((input, look))).await?;
        if attempt.base.branch.index.is_none() && input.evaluations.is_empty() {
            return Err(PublishError::NothingRead);
        }
        let cut = within(&attempt.scope, input.evaluations);
        let looked_at = PublishInput { evaluations: cut.as_deref().unwrap_or(input.evaluations), ..*input };
        let PublishDecision { mut plan, withheld, unready, kept_back, lost, withdrawals } =
            self.decide(&attempt, &looked_at, input.evaluations, answers).await?;
        let index = self.index_times(&attempt, plan.index);
        let sign_anew_at = sign_anew_at(index.issued, index.expires, self.context.settings.validity);
        let held = plan.holds.keys().cloned().collect();
        let lost_holds = attempt.base.lost_holds.clone();
        let ended_holds: Vec<Name> = attempt.base.branch.ended_holds.keys().cloned().collect();
        let removed = attempt.base.branch.foreign.iter().map(ToString::to_string).collect();
        let mut round = self.round(&attempt, input, &plan, &withheld);
        let tip = attempt.on.tip();
        let root = RootValidity::of(attempt.base.root.root());
        let root_warning = root.warning(attempt.now.into());
        let report = |plan: Plan, groups, version| {
            let Plan { changes, conflicts, .. } = plan;
            PublishReport {
                changes,
                groups,
                conflicts,
                unready,
                kept_back,
                ended_holds: ended_holds.clone(),
                lost_holds,
                removed,
                lost,
                withdrawals,
                held,
                index,
                root,
                root_warning,
                version,
                sign_anew_at,
                commit: None,
                tip: tip.map(|tip| tip.to_string()),
            }
        };
        let version = match plan.index {
            IndexPlan::Keep(version) => {
                self.note_found(&attempt.base, tip);
                return Ok(((report(plan, Vec::new(), version), None, round.zip(Some(tip))), None));
            }
            IndexPlan::Write(version) => version,
        };
        diffs.add_to(&mut plan, &attempt.base.branch);
        let groups = group_documents(&plan.changes);
        let message = commit_message(&plan.changes, &groups, &ended_holds, version, &sources(input));
        let before = attempt.base.bins;
        let (new_index, proposal, names) = self.propose(attempt, &plan, version, input.sources, message, None).await?;
        if let Some(round) = &mut round {
            (round.index, round.names) = (new_index.sha256, names);
            // With another number of bins, the next round looks at everything.
            round.digests.take_if(|_| new_index.bins != before);
        }
        Ok(((report(plan, groups, version), Some(new_index), round.zip(Some(tip))), Some(proposal)))
    }

    /// What the round finds out about each bin; none on a branch without an index.
    fn round(
        &self,
        attempt: &PublishAttempt,
        input: &PublishInput<'_>,
        plan: &Plan,
        withheld: &Withheld,
    ) -> Option<RoundResult> {
        let PublishAttempt { on, base, scope, digests, .. } = attempt;
        let branch = &base.branch;
        let (Some((_, index)), Ok(Some(files))) = (&branch.index, on.files()) else { return None };
        let changed: BTreeSet<&DocumentPath> = plan.changes.iter().map(|change| &change.path).collect();
        let held = plan.holds.keys().chain(branch.holds.keys()).chain(branch.ended_holds.keys());
        let names = withheld.names().chain(held);
        let contested = plan.conflicts.iter().map(|conflict| conflict.path.name());
        let unsettled = names.chain(contested).chain(branch.unsettled(&changed)).map(|name| base.bins.bin_of(name));
        Some(RoundResult {
            scope: scope.clone(),
            digests: digests.clone(),
            context: self.context.context_digest(input, &files),
            orphans: input.orphans,
            unsettled: unsettled.collect(),
            names: names_on(branch, scope),
            found: *index,
            index: *index,
        })
    }

    async fn attempt_operation(
        &self,
        writer: &BranchWriter<'_>,
        request: &OperatorRequest,
        diffs: &mut SystemDiffs<'_>,
    ) -> Result<((OperationReport, NewIndex), Option<Proposal>), PublishError> {
        let attempt = self.context.begin(writer, None).await?;
        let branch = &attempt.base.branch;
        let past = match &request.operation {
            Operation::RollBack { name, to, removed_keys }
                if branch.deployments.get(name).is_some_and(|present| *to < present.revision()) =>
            {
                self.context.find_in_history(&attempt, name, *to, *removed_keys)?
            }
            Operation::RollBack { .. } | Operation::Hold { .. } | Operation::Release { .. } => RevisionLookup::NotFound,
        };
        let OperationPlan { mut plan, names } =
            operate(branch, request, &past, self.context.settings.policy, attempt.now.into())?;
        let (IndexPlan::Write(version) | IndexPlan::Keep(version)) = plan.index;
        diffs.add_to(&mut plan, branch);
        // An operator's request reads no source.
        let sources = branch.index.as_ref().map_or_else(Vec::new, |(index, _)| index.index().sources.to_vec());
        let why = Some(request.why.as_str()).filter(|why| !why.is_empty()).map(|why| format!("Why: {why}"));
        let subject = request.subject(&names, &plan, branch);
        let described = operations(&names, &plan);
        let listed = (names.len() > 1).then(|| describe_holds(&described));
        let paragraphs = [Some(subject), why, listed, describe_changes(&plan.changes, &group_documents(&plan.changes))];
        let message = paragraphs.into_iter().flatten().collect::<Vec<_>>().join("\n\n");
        let (new_index, proposal, _) =
            self.propose(attempt, &plan, version, &sources, message, request.person.as_ref()).await?;
        let report = OperationReport { deployments: described, version, commit: String::new() };
        Ok(((report, new_index), Some(proposal)))
    }

    /// Decides what to write, and which documents have to stay as they are.
    async fn decide(
        &self,
        attempt: &PublishAttempt,
        input: &PublishInput<'_>,
        whole_evaluations: &[Evaluation],
        answers: &mut CacheAnswers,
    ) -> Result<PublishDecision, PublishError> {
        let settings = &self.context.settings;
        let (branch, now) = (&attempt.base.branch, attempt.now.into());
        let mut pinning = match settings.policy {
            PublishPolicy::WhenPinned => Some(Pinning::from_branch(branch, input.evaluations)?),
            PublishPolicy::WhenEvaluated | PublishPolicy::WhenCached => None,
        };
        let unpinned = pinning.as_ref().map(|pinning| pinning.unpinned.clone()).unwrap_or_default();
        let plan_with = |pinning: Option<&Pinning>, withheld: &Withheld| {
            let evaluations = pinning.map_or(input.evaluations, |pinning| &pinning.evaluations);
            plan(branch, &PublishInput { evaluations, ..*input }, withheld, now, settings.validity)
        };
        // The first plan leaves nothing out. It says for which deployments claveld has to ask the caches.
        let whole = plan_with(pinning.as_ref(), &Withheld { unpinned, ..Withheld::default() })?;
        let lost = lost_deployments(branch, settings.policy);
        let withdrawals = held_withdrawals(branch, &whole, whole_evaluations, input.allowed_withdrawals);
        let mut fixed = touched_by_failures(branch, input.evaluations);
        fixed.deployments.extend(branch.holds.keys().chain(lost.iter().map(|lost| &lost.name)).cloned());
        withdrawals.iter().flat_map(|held| &held.documents).for_each(|path| fixed.insert(path));
        let asked = deployments_to_look_up(&whole, &fixed.deployments);
        if let Some(caches) = &self.caches {
            caches.ask_for(&asked, answers).await;
        }
        let survey = self.caches.as_ref().map(|caches| CacheSurvey::of(&asked, caches.scope(), answers));
        let (withheld, unready) = withhold(branch, &whole, &fixed, &asked, survey.as_ref());
        let kept_back = kept_back(branch, &whole, &withheld);
        if let (Some(pinning), Some(survey)) = (&mut pinning, &survey) {
            pinning.add_pins(&pins(&asked, survey))?;
        }
        let is_final = withheld.is_empty() && pinning.is_none();
        let plan = if is_final { whole } else { plan_with(pinning.as_ref(), &withheld)? };
        Ok(PublishDecision { plan, withheld, unready, kept_back, lost, withdrawals })
    }

    /// Signs `plan`, and proposes one commit with it.
    async fn propose(
        &self,
        attempt: PublishAttempt,
        plan: &Plan,
        version: IndexVersion,
        sources: &[IndexSource],
        message: String,
        person: Option<&Identity>,
    ) -> Result<(NewIndex, Proposal, usize), PublishError> {
        let PublishAttempt { on, base, now, scope, digests: _ } = attempt;
        let PublishContext { settings, signers, .. } = &self.context;
        let signer = BranchSigner { signers, branch: &settings.branch, validity: settings.validity };
        let SignedFiles { mut changes, index, layout, bins, names } =
            signer.sign_plan(plan, &base, &scope, version, sources, now.into()).await?;
        let before = Layout::of(base.bins);
        changes.extend(orphaned_approvals(plan, &on, before));
        if before != layout {
            changes.extend(moved_approvals(plan, &on, base.bins, layout));
        }
        let own = || Identity::of_program("claveld", signers.first().as_str());
        let by = Authorship::for_person(person.cloned(), settings.author.clone().unwrap_or_else(own));
        let (fleet, epoch) = (base.branch.fleet, base.root.root().epoch);
        let new = NewIndex { fleet, epoch, version, sha256: index, bins: layout.bins() };
        let written = plan.changes.iter().filter(|change| change.to.is_some());
        let read_back = ReadBack {
            root: base.root.clone(),
            branch: settings.branch.clone(),
            bins,
            documents: written.map(|change| change.path.clone()).collect(),
        };
        Ok((new, Proposal { on, changes, message, by, at: now, read_back: Some(read_back) }, names))
    }

    /// Notes the index that is on the branch, where claveld has nothing to change. The note may have been lost, or another claveld may
    /// have published.
    fn note_found(&self, base: &PublishBase, tip: Option<CommitId>) {
        let Some((index, sha256)) = &base.branch.index else { return };
        let is_noted = self.context.note.last().is_ok_and(|last| last.is_some_and(|last| last.sha256 == *sha256));
        if !is_noted {
            let (fleet, epoch, version) = (base.branch.fleet, index.index().epoch, index.index().version);
            let found = NewIndex { fleet, epoch, version, sha256: *sha256, bins: base.bins };
            self.note(Some(found), tip.map(|tip| (tip, IndexOrigin::Found)));
        }
    }

    /// Notes an index. A failure does not undo the publication: without the note, claveld only does not notice if the branch goes back.
    fn note(&self, new: Option<NewIndex>, at: Option<(CommitId, IndexOrigin)>) {
        let Some((NewIndex { fleet, epoch, version, sha256, bins: _ }, (commit, origin))) = new.zip(at) else { return };
        if let Err(error) = self.context.note.write(PublishedIndex { fleet, epoch, version, sha256, commit, origin }) {
            tracing::warn!(error = %describe_error(&error), "claveld will not notice if the branch goes back");
        }
    }

    /// The times of the index after an attempt.
    fn index_times(&self, attempt: &PublishAttempt, plan: IndexPlan) -> IndexTimes {
        match (plan, &attempt.base.branch.index) {
            (IndexPlan::Keep(_), Some((index, _))) => {
                let index = index.index();
                IndexTimes { issued: index.issued, expires: index.expires }
            }
            (IndexPlan::Keep(_), None) | (IndexPlan::Write(_), _) => {
                let now = Timestamp::from(attempt.now);
                IndexTimes { issued: now, expires: now.plus(self.context.settings.validity) }
            }
        }
    }

    fn writer(&self) -> BranchWriter<'_> {
        let PublishSettings { repository, branch, .. } = &self.context.settings;
        BranchWriter { remote: repository, branch, copy: &self.copy }
    }
}

/// An index that is about to be published.
struct NewIndex {
    fleet: FleetId,
    epoch: Epoch,
    version: IndexVersion,
    sha256: Sha256Digest,
    /// How many bins it has.
    bins: BinCount,
}

/// The result of one attempt: the report, the new index, and what the round found out, with the commit that it began at.
type Attempted = (PublishReport, Option<NewIndex>, Option<(RoundResult, Option<CommitId>)>);

/// The deployments that `plan` withdraws.
fn withdrawn_deployments(plan: &Plan) -> impl Iterator<Item = &Name> {
    let is_deployment = |change: &&DocumentChange| change.path.folder() == Folder::Deployments;
    let changes = plan.changes.iter().filter(is_deployment);
    changes.filter(|change| change.tombstone().is_some()).map(|change| change.path.name())
}

/// The removal of the approvals of withdrawn deployments. Claveld removes no other file of an approver.
fn orphaned_approvals(plan: &Plan, branch: &OpenBranch, layout: Layout) -> Vec<FileChange> {
    let mut removed = Vec::new();
    for folder in withdrawn_deployments(plan).map(|name| layout.approvals(name)) {
        // A folder that cannot be listed does not stop the publication.
        let files = branch.files().and_then(|files| files.map_or(Ok(Vec::new()), |f| f.list(&folder, MAX_APPROVALS)));
        let files = files.unwrap_or_default().into_iter();
        removed.extend(files.map(|file| FileChange::Remove { path: format!("{folder}/{}", file.name) }));
    }
    removed
}

/// The moves of all other approvals to the folders of a new layout. The approvals are those of the branch as it is, so an
/// approval of another moment is not lost: then another writer moved the branch, and the next attempt decides again.
fn moved_approvals(plan: &Plan, branch: &OpenBranch, before: BinCount, layout: Layout) -> Vec<FileChange> {
    let withdrawn: BTreeSet<&Name> = withdrawn_deployments(plan).collect();
    let list = |folder: &str, most| {
        let files = branch.files().and_then(|files| files.map_or(Ok(Vec::new()), |files| files.list(folder, most)));
        files.unwrap_or_default().into_iter().map(|entry| entry.name)
    };
    let mut moved = Vec::new();
    let bins = before.bins().map(|bin| Layout::of(before).approvals_of_bin(bin));
    for (folder, name) in
        bins.flat_map(|bin| list(&bin, MAX_ENTRIES_OF_A_BIN).map(move |name| (format!("{bin}/{name}"), name)))
    {
        // Anything else there is no approval.
        let Ok(name) = name.parse::<Name>() else { continue };
        if withdrawn.contains(&name) {
            continue;
        }
        moved.extend(list(&folder, MAX_APPROVALS).map(|file| FileChange::Move {
            from: format!("{folder}/{file}"),
            to: format!("{}/{file}", layout.approvals(&name)),
        }));
    }
    moved
}

/// A plan, and the documents that it leaves out.
struct PublishDecision {
    plan: Plan,
    withheld: Withheld,
    unready: Unready,
    kept_back: Vec<KeptBack>,
    lost: Vec<LostDeployment>,
    withdrawals: Vec<HeldWithdrawals>,
}

fn sources(input: &PublishInput<'_>) -> Vec<(String, Option<SourceRevision>)> {
    let evaluations = input.evaluations.iter();
    evaluations.map(|e| (e.source.flake.to_string(), e.source.revision.clone())).collect()
}

#[cfg(test)]
mod tests;
