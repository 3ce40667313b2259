//! Signing a plan and putting it on the branch: one atomic commit, decided again when somebody else was faster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::caches::Caches;
use super::changes::{Gone, KeptBack, Report, commit_message, told_changes};
use super::files::{Files, FilesError, Pen};
use super::inside::Inside;
use super::note::{Behind, Note, NoteError, Published};
use super::operate::{Deed, OperateError, Operated, Wish, operate};
use super::pin::{Pinning, pins};
use super::plan::{Evaluated, IndexPlan, Plan, PlanError, plan, sign_anew_at, tombstone};
use super::ready::{Held, Unready, followers, gone, hold_back, kept_back};
use super::standing::StandingError;
use super::survey::{Answers, Need, Survey};
use crate::branch::{
    BranchWriter, Change, CommitId, Found, Identity, OpenBranch, Proposal, Remote, WriteError, approvals_folder,
};
use crate::model::{
    BranchName, Epoch, FleetId, Folder, IndexVersion, PublishPolicy, RootVersion, Sha256Digest, Timestamp,
};
use crate::signers::{SignerError, Signers};
use crate::store::Store;
use crate::trust::{Anchor, AnchorError};

mod ground;

use ground::Ground;

/// The most files of one deployment's approvals that are looked at.
const MOST_APPROVALS: usize = 1024;

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no key to sign with, or it does not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The branch could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The root that it begins with cannot be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// The keys are too few of the publishers'.
    #[error(
        "will not publish to {repository}: {} among the publishers of the root's version {version} ({}), so no agent would \
         believe it; see `clavel root show`",
        lack(keys, *threshold), publishers.join(", ")
    )]
    NoPublisher {
        /// The repository, without secrets.
        repository: String,
        /// The keys.
        keys: Vec<String>,
        /// How many publishers have to sign.
        threshold: usize,
        /// The version of the newest root.
        version: RootVersion,
        /// Who publishes.
        publishers: Vec<String>,
    },
    /// The branch is not one that this key may go on with.
    #[error("will not publish to the branch `{branch}` of {repository}: {source}")]
    Branch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// Why.
        source: StandingError,
    },
    /// The branch shows less than was published to it, or something else.
    #[error(
        "will not publish to the branch `{branch}` of {repository}: this claveld published index version {} there (epoch {}, \
         commit {}), and {behind}. Agents that saw it would refuse what follows. Push that commit back, from a mirror, an \
         agent's copy or claveld's own; where it is lost, let everything begin anew with `clavel root next --raise-epoch`. \
         If no agent has seen it, delete {} and try again",
        .last.version, .last.epoch, .last.commit, note.display()
    )]
    WentBack {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// What was published last.
        last: Box<Published>,
        /// What the branch shows.
        behind: Behind,
        /// Where that is noted.
        note: PathBuf,
    },
    /// It cannot be told what was published last.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// There is nothing that may be written.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An operator's wish cannot be done.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// More documents than the index holds, or the like.
    #[error("cannot write the index: {0}")]
    Index(#[from] crate::model::Invalid),
}

/// What is wrong with `keys`, where `threshold` of them have to be publishers'.
fn lack(keys: &[String], threshold: usize) -> String {
    match (keys, threshold) {
        ([key], 1) => format!("{key} is not"),
        (_, 1) => format!("none of {} is", keys.join(", ")),
        _ => format!("{threshold} keys have to sign, and of {} not so many are", keys.join(", ")),
    }
}

impl From<FilesError> for PublishError {
    fn from(error: FilesError) -> Self {
        match error {
            FilesError::Index(error) => error.into(),
            FilesError::Signer(error) => error.into(),
        }
    }
}

/// Where and how to publish.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// The repository that carries the branch.
    pub repository: Remote,
    /// The branch.
    pub branch: BranchName,
    /// How long an index is to be believed.
    pub validity: Duration,
    /// Where the copy of a repository elsewhere is kept, and what was published last.
    pub state_directory: PathBuf,
    /// What git runs in place of `ssh`.
    pub ssh_command: Option<String>,
    /// When a deployment is published.
    pub policy: PublishPolicy,
}

/// Who signs and publishes.
#[derive(Debug)]
pub struct Publisher {
    settings: PublishSettings,
    signers: Signers,
    anchor: Anchor,
    /// Where the copy of a repository elsewhere is kept.
    copy: PathBuf,
    /// What was published last.
    note: Note,
    /// Who asks the caches; nobody where nothing waits for them.
    caches: Option<Caches>,
    /// The store whose derivations tell what changes.
    store: Arc<dyn Store>,
}

impl Publisher {
    /// A publisher that signs with `signers`, believes the roots from `anchor` on, and asks the caches through `store`.
    pub fn new(settings: PublishSettings, signers: Signers, anchor: Anchor, store: Arc<dyn Store>) -> Self {
        let caches = match settings.policy {
            PublishPolicy::WhenEvaluated => None,
            PublishPolicy::WhenCached => Some(Caches::new(Arc::clone(&store), Need::Path)),
            PublishPolicy::WhenPinned => Some(Caches::new(Arc::clone(&store), Need::Closure)),
        };
        let copy = settings.state_directory.join("publish.git");
        let note = Note::of(&settings.state_directory, &settings.repository, &settings.branch);
        Self { settings, signers, anchor, copy, note, caches, store }
    }

    /// Brings the branch up to what was evaluated, and tells what changes by the derivations that the store has.
    pub async fn publish(&self, evaluated: &Evaluated<'_>) -> Result<Report, PublishError> {
        let (mut answers, mut inside) = (Answers::new(), Inside::new(&*self.store));
        let attempt =
            async |writer: &BranchWriter<'_>| self.attempt(writer, evaluated, &mut answers, &mut inside).await;
        let ((mut report, published), commit) = self.writer().commit_with_retry(attempt).await?;
        self.note(published, commit);
        report.commit = commit.map(|commit| commit.to_string());
        Ok(report)
    }

    /// Does what an operator wants.
    pub async fn operate(&self, wish: &Wish) -> Result<Operated, PublishError> {
        let mut inside = Inside::new(&*self.store);
        let attempt = async |writer: &BranchWriter<'_>| self.attempt_wish(writer, wish, &mut inside).await;
        let ((mut operated, published), commit) = self.writer().commit_with_retry(attempt).await?;
        self.note(Some(published), commit);
        operated.commit = commit.map(|commit| commit.to_string()).unwrap_or_default();
        Ok(operated)
    }

    async fn attempt(
        &self,
        writer: &BranchWriter<'_>,
        evaluated: &Evaluated<'_>,
        answers: &mut Answers,
        inside: &mut Inside<'_>,
    ) -> Result<((Report, Option<NewIndex>), Option<Proposal>), PublishError> {
        let ground = self.ground(writer)?;
        let Decided { mut plan, unready, kept_back, gone } = self.decide(&ground, evaluated, answers).await?;
        let sign_anew_at = self.sign_anew_at(&ground, plan.index);
        let lost_holds = ground.standing.lost_holds.clone();
        let report = |plan: Plan, version| {
            let Plan { changes, conflicts, .. } = plan;
            Report { changes, conflicts, unready, kept_back, lost_holds, gone, version, sign_anew_at, commit: None }
        };
        let version = match plan.index {
            IndexPlan::Keep(version) => return Ok(((report(plan, version), None), None)),
            IndexPlan::Write(version) => version,
        };
        inside.add_to(&mut plan, &ground.standing.branch);
        let message = commit_message(&plan.changes, version, &sources(evaluated));
        let (new_index, proposal) = self.propose(ground, &plan, version, message).await?;
        Ok(((report(plan, version), Some(new_index)), Some(proposal)))
    }

    async fn attempt_wish(
        &self,
        writer: &BranchWriter<'_>,
        wish: &Wish,
        inside: &mut Inside<'_>,
    ) -> Result<((Operated, NewIndex), Option<Proposal>), PublishError> {
        let ground = self.ground(writer)?;
        let branch = &ground.standing.branch;
        let past = match (wish.deed, branch.deployments.get(&wish.name)) {
            (Deed::RollBack(to), Some(present)) if to < present.revision() => self.past(&ground, &wish.name, to)?,
            _ => Found::Nowhere,
        };
        let mut plan = operate(branch, wish, &past, self.settings.policy, ground.now.into())?;
        let (IndexPlan::Write(version) | IndexPlan::Keep(version)) = plan.index;
        inside.add_to(&mut plan, branch);
        let why = Some(wish.why.as_str()).filter(|why| !why.is_empty()).map(|why| format!("Why: {why}"));
        let paragraphs = [Some(wish.subject(&plan, branch)), why, told_changes(&plan.changes)];
        let message = paragraphs.into_iter().flatten().collect::<Vec<_>>().join("\n\n");
        let (new_index, proposal) = self.propose(ground, &plan, version, message).await?;
        let Plan { mut holds, mut changes, .. } = plan;
        let (name, held, change) = (wish.name.clone(), holds.remove(&wish.name), changes.pop());
        Ok(((Operated { name, held, change, version, commit: String::new() }, new_index), Some(proposal)))
    }

    /// Plans with what waits for its cache, and what somebody froze, left as it is.
    async fn decide(
        &self,
        ground: &Ground,
        evaluated: &Evaluated<'_>,
        answers: &mut Answers,
    ) -> Result<Decided, PublishError> {
        let (branch, now, validity) = (&ground.standing.branch, ground.now.into(), self.settings.validity);
        let mut pinning = match self.settings.policy {
            PublishPolicy::WhenPinned => Some(Pinning::on(branch, evaluated.evaluations)?),
            PublishPolicy::WhenEvaluated | PublishPolicy::WhenCached => None,
        };
        let unpinned = pinning.as_ref().map(|pinning| pinning.unpinned.clone()).unwrap_or_default();
        let with = |pinning: Option<&Pinning>, held: &Held| {
            let evaluations = pinning.map_or(evaluated.evaluations, |pinning| &pinning.evaluations);
            plan(branch, &Evaluated { evaluations, ..*evaluated }, held, now, validity)
        };
        let whole = with(pinning.as_ref(), &Held { unpinned, ..Held::default() })?;
        let gone = gone(branch, self.settings.policy);
        let frozen = branch.holds.keys().chain(gone.iter().map(|gone| &gone.name)).cloned().collect();
        let asked = followers(&whole, &frozen);
        if let Some(caches) = &self.caches {
            caches.ask_for(&asked, answers).await;
        }
        let survey = self.caches.as_ref().map(|caches| Survey::of(&asked, caches.need(), answers));
        let (held, unready) = hold_back(branch, &whole, &frozen, survey.as_ref());
        let kept_back = kept_back(branch, &whole, &held);
        if let (Some(pinning), Some(survey)) = (&mut pinning, &survey) {
            pinning.pin(&pins(&asked, survey))?;
        }
        let plan = if held.is_empty() && pinning.is_none() { whole } else { with(pinning.as_ref(), &held)? };
        Ok(Decided { plan, unready, kept_back, gone })
    }

    /// Signs `plan`, and makes one commit of it.
    async fn propose(
        &self,
        ground: Ground,
        plan: &Plan,
        version: IndexVersion,
        message: String,
    ) -> Result<(NewIndex, Proposal), PublishError> {
        let Ground { on, standing, now } = ground;
        let pen = Pen { signers: &self.signers, branch: &self.settings.branch, validity: self.settings.validity };
        let Files { mut changes, index } = pen.write(plan, &standing, version, now.into()).await?;
        changes.extend(orphaned_approvals(plan, &on));
        let by = Identity { name: "claveld".to_owned(), email: format!("{}@clavel.invalid", self.signers.first()) };
        let new = NewIndex { fleet: standing.branch.fleet, epoch: standing.root.root().epoch, version, sha256: index };
        Ok((new, Proposal { on, changes, message, by, at: now }))
    }

    /// Notes what was published. What is published is published: without the note it is only not seen when the branch goes
    /// back behind it.
    fn note(&self, new: Option<NewIndex>, commit: Option<CommitId>) {
        let Some((NewIndex { fleet, epoch, version, sha256 }, commit)) = new.zip(commit) else { return };
        if let Err(error) = self.note.write(Published { fleet, epoch, version, sha256, commit }) {
            tracing::warn!(%error, "it will not be seen when the branch goes back");
        }
    }

    fn sign_anew_at(&self, ground: &Ground, plan: IndexPlan) -> Timestamp {
        let (now, validity) = (Timestamp::from(ground.now), self.settings.validity);
        let (issued, expires) = match (plan, &ground.standing.branch.index) {
            (IndexPlan::Keep(_), Some((index, _))) => (index.issued, index.expires),
            (IndexPlan::Keep(_), None) | (IndexPlan::Write(_), _) => (now, now.plus(validity)),
        };
        sign_anew_at(issued, expires, validity)
    }

    fn writer(&self) -> BranchWriter<'_> {
        BranchWriter {
            remote: &self.settings.repository,
            branch: &self.settings.branch,
            ssh_command: self.settings.ssh_command.as_deref(),
            copy: &self.copy,
        }
    }

    /// The repository, the branch, and where it is noted what was published there.
    fn place(&self) -> (String, String, PathBuf) {
        let PublishSettings { repository, branch, .. } = &self.settings;
        (repository.to_string(), branch.to_string(), self.note.path().to_owned())
    }
}

/// An index that is about to be published.
struct NewIndex {
    fleet: FleetId,
    epoch: Epoch,
    version: IndexVersion,
    sha256: Sha256Digest,
}

/// The approvals of deployments that are withdrawn. Whatever else approvers leave is theirs.
fn orphaned_approvals(plan: &Plan, branch: &OpenBranch) -> Vec<Change> {
    let withdrawn = plan.changes.iter().filter(|change| tombstone(change).is_some());
    let of_deployments = withdrawn.filter(|change| change.path.folder() == Folder::Deployments);
    let mut gone = Vec::new();
    for folder in of_deployments.map(|change| approvals_folder(change.path.name())) {
        // What cannot be listed is in nobody's way, and no reason not to publish.
        let files = branch.files().and_then(|files| files.map_or(Ok(Vec::new()), |f| f.list(&folder, MOST_APPROVALS)));
        let files = files.unwrap_or_default().into_iter();
        gone.extend(files.map(|file| Change::Remove { path: format!("{folder}/{}", file.name) }));
    }
    gone
}

/// What a round is to write, and what is left for later.
struct Decided {
    plan: Plan,
    unready: Unready,
    kept_back: Vec<KeptBack>,
    gone: Vec<Gone>,
}

fn sources(evaluated: &Evaluated<'_>) -> Vec<(String, Option<crate::model::SourceRevision>)> {
    let evaluations = evaluated.evaluations.iter();
    evaluations.map(|e| (e.source.flake.to_string(), e.source.revision.clone())).collect()
}
