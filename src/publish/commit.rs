//! Signing a plan and putting it on the branch: one atomic commit, decided again when somebody else was faster.

use std::path::PathBuf;
use std::time::Duration;

use super::caches::Caches;
use super::changes::{Gone, KeptBack, Report, commit_message, told_changes};
use super::files::{Files, FilesError, Pen};
use super::history::Found;
use super::inside::Inside;
use super::note::{Behind, Note, NoteError, Published};
use super::operate::{Deed, OperateError, Operated, Wish, operate};
use super::pin::{Pinning, pins};
use super::plan::{Evaluated, IndexPlan, Plan, PlanError, plan, sign_anew_at, tombstone};
use super::ready::{Held, Unready, followers, gone, hold_back, kept_back};
use super::signers::{SignerError, Signers};
use super::standing::StandingError;
use super::survey::{Answers, Need, Survey};
use crate::config::{Moment, PublishConfig};
use crate::model::{BranchName, Folder, IndexVersion, RootVersion, Timestamp};
use crate::nix::Nix;
use crate::repository::{
    BranchWriter, Change, CommitId, Identity, NewCommit, Repository, WriteError, Written, approvals_folder,
};
use crate::trust::{Anchor, AnchorError};

mod ground;

use ground::Ground;

/// How often a lost race is run again before giving up.
const TRIES: usize = 5;
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
    /// Others published all the time.
    #[error("others moved the branch `{branch}` of {repository} {TRIES} times in a row; try again")]
    Raced {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
    },
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

/// Who signs and publishes.
#[derive(Debug)]
pub struct Publisher<'a> {
    config: &'a PublishConfig,
    signers: Signers,
    anchor: Anchor,
    /// Where the copy of a repository elsewhere is kept.
    copy: PathBuf,
    /// What was published last.
    note: Note,
    /// Who asks the caches; nobody where nothing waits for them.
    caches: Option<Caches>,
}

/// What became of one try.
enum Attempt<T> {
    Done(T),
    Raced,
}

impl<'a> Publisher<'a> {
    /// Reads the keys that `config` names.
    pub fn new(config: &'a PublishConfig) -> Result<Self, PublishError> {
        let signers = Signers::read(&config.secret_keys)?;
        let anchor = Anchor::read(&config.root)?;
        let caches = match config.moment {
            Moment::Evaluated => None,
            Moment::InItsCache => Some(Caches::new(Need::Path)),
            Moment::Pinned => Some(Caches::new(Need::Closure)),
        };
        let copy = config.state_directory.join("publish.git");
        let note = Note::of(&config.state_directory, &config.repository, &config.branch);
        Ok(Self { config, signers, anchor, copy, note, caches })
    }

    /// Brings the branch up to what was evaluated, and tells what changes by the derivations that `nix` has.
    pub(super) async fn publish(&self, evaluated: &Evaluated<'_>, nix: &Nix) -> Result<Report, PublishError> {
        let (mut answers, mut inside) = (Answers::new(), Inside::new(nix));
        for _ in 0..TRIES {
            if let Attempt::Done(report) = self.attempt(evaluated, &mut answers, &mut inside).await? {
                return Ok(report);
            }
        }
        Err(self.raced())
    }

    /// Does what an operator wants.
    pub async fn operate(&self, wish: &Wish) -> Result<Operated, PublishError> {
        // Files are read, and no program is run.
        let nix = Nix::new(Duration::ZERO);
        let mut inside = Inside::new(&nix);
        for _ in 0..TRIES {
            if let Attempt::Done(operated) = self.attempt_wish(wish, &mut inside).await? {
                return Ok(operated);
            }
        }
        Err(self.raced())
    }

    async fn attempt(
        &self,
        evaluated: &Evaluated<'_>,
        answers: &mut Answers,
        inside: &mut Inside<'_>,
    ) -> Result<Attempt<Report>, PublishError> {
        let ground = self.ground()?;
        let Decided { mut plan, unready, kept_back, gone } = self.decide(&ground, evaluated, answers).await?;
        let sign_anew_at = self.sign_anew_at(&ground, plan.index);
        let lost_holds = ground.standing.lost_holds.clone();
        let report = |plan: Plan, version, commit: Option<CommitId>| {
            let commit = commit.map(|commit| commit.to_string());
            let Plan { changes, conflicts, .. } = plan;
            let report =
                Report { changes, conflicts, unready, kept_back, lost_holds, gone, version, sign_anew_at, commit };
            Attempt::Done(report)
        };
        let version = match plan.index {
            IndexPlan::Keep(version) => return Ok(report(plan, version, None)),
            IndexPlan::Write(version) => version,
        };
        inside.add_to(&mut plan, &ground.standing.branch);
        let message = commit_message(&plan.changes, version, &sources(evaluated));
        match self.write(&ground, &plan, version, &message).await? {
            Written::Raced => Ok(Attempt::Raced),
            Written::Done(commit) => Ok(report(plan, version, Some(commit))),
        }
    }

    async fn attempt_wish(&self, wish: &Wish, inside: &mut Inside<'_>) -> Result<Attempt<Operated>, PublishError> {
        let ground = self.ground()?;
        let branch = &ground.standing.branch;
        let past = match (wish.deed, branch.deployments.get(&wish.name)) {
            (Deed::RollBack(to), Some(present)) if to < present.revision() => self.past(&ground, &wish.name, to)?,
            _ => Found::Nowhere,
        };
        let mut plan = operate(branch, wish, &past, self.config.moment, ground.now.into())?;
        let (IndexPlan::Write(version) | IndexPlan::Keep(version)) = plan.index;
        inside.add_to(&mut plan, branch);
        let why = Some(wish.why.as_str()).filter(|why| !why.is_empty()).map(|why| format!("Why: {why}"));
        let paragraphs = [Some(wish.subject(&plan, branch)), why, told_changes(&plan.changes)];
        let message = paragraphs.into_iter().flatten().collect::<Vec<_>>().join("\n\n");
        let commit = match self.write(&ground, &plan, version, &message).await? {
            Written::Raced => return Ok(Attempt::Raced),
            Written::Done(commit) => commit.to_string(),
        };
        let Plan { mut holds, mut changes, .. } = plan;
        let (name, held, change) = (wish.name.clone(), holds.remove(&wish.name), changes.pop());
        Ok(Attempt::Done(Operated { name, held, change, version, commit }))
    }

    /// Plans with what waits for its cache, and what somebody froze, left as it is.
    async fn decide(
        &self,
        ground: &Ground,
        evaluated: &Evaluated<'_>,
        answers: &mut Answers,
    ) -> Result<Decided, PublishError> {
        let (branch, now, validity) = (&ground.standing.branch, ground.now.into(), self.config.validity);
        let mut pinning = match self.config.moment {
            Moment::Pinned => Some(Pinning::on(branch, evaluated.evaluations)?),
            Moment::Evaluated | Moment::InItsCache => None,
        };
        let unpinned = pinning.as_ref().map(|pinning| pinning.unpinned.clone()).unwrap_or_default();
        let with = |pinning: Option<&Pinning>, held: &Held| {
            let evaluations = pinning.map_or(evaluated.evaluations, |pinning| &pinning.evaluations);
            plan(branch, &Evaluated { evaluations, ..*evaluated }, held, now, validity)
        };
        let whole = with(pinning.as_ref(), &Held { unpinned, ..Held::default() })?;
        let gone = gone(branch, self.config.moment);
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

    /// Signs `plan`, commits it, and notes that it was published.
    async fn write(
        &self,
        ground: &Ground,
        plan: &Plan,
        version: IndexVersion,
        message: &str,
    ) -> Result<Written, PublishError> {
        let Ground { repository, tip, standing, now } = ground;
        let pen = Pen { signers: &self.signers, branch: &self.config.branch, validity: self.config.validity };
        let Files { mut changes, index } = pen.write(plan, standing, version, (*now).into()).await?;
        if let Some(tip) = tip {
            changes.extend(orphaned_approvals(plan, repository, *tip));
        }
        let by = Identity { name: "claveld".to_owned(), email: format!("{}@clavel.invalid", self.signers.first()) };
        let branch: &BranchName = &self.config.branch;
        let new = NewCommit { branch, expected: *tip, changes: &changes, message, by: &by, at: *now };
        let written = self.writer().write(repository, &new).await?;
        if let Written::Done(commit) = written {
            let (fleet, epoch) = (standing.branch.fleet, standing.root.root().epoch);
            // What is published is published: without the note it is only not seen when the branch goes back behind it.
            if let Err(error) = self.note.write(Published { fleet, epoch, version, sha256: index, commit }) {
                tracing::warn!(%error, "it will not be seen when the branch goes back");
            }
        }
        Ok(written)
    }

    fn sign_anew_at(&self, ground: &Ground, plan: IndexPlan) -> Timestamp {
        let (now, validity) = (Timestamp::from(ground.now), self.config.validity);
        let (issued, expires) = match (plan, &ground.standing.branch.index) {
            (IndexPlan::Keep(_), Some((index, _))) => (index.issued, index.expires),
            (IndexPlan::Keep(_), None) | (IndexPlan::Write(_), _) => (now, now.plus(validity)),
        };
        sign_anew_at(issued, expires, validity)
    }

    fn writer(&self) -> BranchWriter<'_> {
        BranchWriter {
            url: &self.config.repository,
            branch: &self.config.branch,
            ssh_command: self.config.ssh_command.as_deref(),
            copy: &self.copy,
        }
    }

    /// The repository, the branch, and where it is noted what was published there.
    fn place(&self) -> (String, String, PathBuf) {
        let PublishConfig { repository, branch, .. } = self.config;
        (repository.to_string(), branch.to_string(), self.note.path().to_owned())
    }

    fn raced(&self) -> PublishError {
        let (repository, branch, _) = self.place();
        PublishError::Raced { repository, branch }
    }
}

/// The approvals of deployments that are withdrawn. Whatever else approvers leave is theirs.
fn orphaned_approvals(plan: &Plan, repository: &Repository, tip: CommitId) -> Vec<Change> {
    let withdrawn = plan.changes.iter().filter(|change| tombstone(change).is_some());
    let of_deployments = withdrawn.filter(|change| change.path.folder() == Folder::Deployments);
    let mut gone = Vec::new();
    for folder in of_deployments.map(|change| approvals_folder(change.path.name())) {
        // What cannot be listed is in nobody's way, and no reason not to publish.
        let files = repository.snapshot(tip).and_then(|snapshot| snapshot.list(&folder, MOST_APPROVALS));
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
