//! Signing a plan and putting it on the branch: one atomic commit, decided again when somebody else was faster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use super::caches::Caches;
use super::changes::{Report, commit_message};
use super::inside::Inside;
use super::plan::{BranchState, Evaluated, Existing, ExistingDocument, IndexPlan, Plan, PlanError, plan, tombstone};
use super::readme::readme;
use super::ready::{Answers, Held, Unready};
use crate::config::{Moment, PublishConfig};
use crate::model::{
    Deployment, Document, DocumentPath, Index, IndexEntry, IndexVersion, Kind, Map, Name, Schema, Specification,
    Timestamp,
};
use crate::nix::Nix;
use crate::repository::{
    Branch, BranchError, Change, CommitError, CommitId, Depth, FetchError, FetchRequest, Fetched, Files, GitError,
    INDEX_PATH, Identity, NewCommit, OpenError, Push, PushError, README_PATH, Repository, Snapshot,
};
use crate::trust::{Authority, AuthorityError, ListedError, SecretKey, SecretKeyError, Signed, digest};

/// How often a lost race is run again before giving up.
const TRIES: usize = 5;
/// How long one push may take.
const PUSH_DEADLINE: Duration = Duration::from_mins(5);

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no key to sign with.
    #[error(transparent)]
    SecretKey(#[from] SecretKeyError),
    /// The key is no usable key.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Git failed on it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The branch is not one that this key may go on with.
    #[error("will not publish to the branch `{branch}` of {repository}: {source}")]
    Branch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// Why.
        source: BranchError,
    },
    /// There is nothing that may be written.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// More documents than the index holds, or the like.
    #[error("cannot write the index: {0}")]
    Index(#[from] crate::model::Invalid),
    /// The commit could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The branch could not be fetched from where it is published.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The commit could not be pushed to where it is published.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Others published all the time.
    #[error("others moved the branch `{branch}` of {repository} {TRIES} times in a row; try again")]
    Raced {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
    },
}

/// Who signs and publishes.
#[derive(Debug)]
pub struct Publisher<'a> {
    config: &'a PublishConfig,
    key: SecretKey,
    authority: Authority,
    /// Who asks the caches; nobody where nothing waits for them.
    caches: Option<Caches>,
}

/// What became of one try.
enum Attempt {
    Done(Report),
    Raced,
}

impl<'a> Publisher<'a> {
    /// Reads the key that `config` names.
    pub fn new(config: &'a PublishConfig) -> Result<Self, PublishError> {
        let key = SecretKey::read(&config.secret_key_file)?;
        let authority = Authority::any_of(&[key.public()])?;
        let caches = match config.moment {
            Moment::Evaluated => None,
            Moment::InItsCache => Some(Caches::new()),
        };
        Ok(Self { config, key, authority, caches })
    }

    /// Brings the branch up to what was evaluated, and tells what changes by the derivations that `nix` has.
    pub(super) async fn publish(&self, evaluated: &Evaluated<'_>, nix: &Nix) -> Result<Report, PublishError> {
        let (mut answers, mut inside) = (Answers::new(), Inside::new(nix));
        for _ in 0..TRIES {
            if let Attempt::Done(report) = self.attempt(evaluated, &mut answers, &mut inside).await? {
                return Ok(report);
            }
        }
        Err(PublishError::Raced {
            repository: self.config.repository.to_string(),
            branch: self.config.branch.to_string(),
        })
    }

    async fn attempt(
        &self,
        evaluated: &Evaluated<'_>,
        answers: &mut Answers,
        inside: &mut Inside<'_>,
    ) -> Result<Attempt, PublishError> {
        let here = self.config.repository.local_path();
        let repository = match &here {
            Some(path) => Repository::open(path)?,
            None => self.working_copy()?,
        };
        let tip = repository.tip(&self.config.branch)?;
        let now = SystemTime::now();
        let snapshot = tip.map(|tip| repository.snapshot(tip)).transpose();
        let snapshot = snapshot.map_err(|error| self.refused(error.into()))?;
        let branch = snapshot.as_ref().map(|s| self.read(s)).transpose().map_err(|error| self.refused(error))?;
        let branch = branch.unwrap_or_default();
        let validity = self.config.validity;
        let (mut plan, unready) = match &self.caches {
            Some(caches) => caches.plan(&branch, evaluated, answers, now.into(), validity).await?,
            None => (plan(&branch, evaluated, &Held::default(), now.into(), validity)?, Unready::default()),
        };
        let IndexPlan::Write(version) = plan.index else {
            return Ok(Attempt::Done(report(plan, unready, None)));
        };
        inside.add_to(&mut plan, &branch);
        let changes = self.files(&plan, &branch, version, now.into())?;
        let message = commit_message(&plan.changes, version, &sources(evaluated));
        let by = Identity { name: "claveld".to_owned(), email: format!("{}@clavel.invalid", self.key.id()) };
        let new = NewCommit {
            branch: &self.config.branch,
            expected: tip,
            changes: &changes,
            message: &message,
            by: &by,
            at: now,
        };
        let commit = match repository.commit(&new) {
            Ok(commit) => commit,
            Err(CommitError::TipMoved { .. }) => return Ok(Attempt::Raced),
            Err(error) => return Err(error.into()),
        };
        if here.is_none() {
            match self.push(&repository, commit).await {
                Ok(()) => {}
                Err(PushError::Moved { .. }) => return Ok(Attempt::Raced),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Attempt::Done(report(plan, unready, Some(commit))))
    }

    /// A copy of a repository elsewhere, whose branch is where it is there.
    fn working_copy(&self) -> Result<Repository, PublishError> {
        let path: PathBuf = self.config.state_directory.join("publish.git");
        let repository = Repository::open_or_create_bare(&path)?;
        let into = self.config.branch.full();
        let request = FetchRequest {
            url: &self.config.repository,
            branch: &self.config.branch,
            into: &into,
            depth: Depth::Full,
            ssh_command: self.config.ssh_command.as_deref(),
            interrupt: &AtomicBool::new(false),
        };
        match repository.fetch(&request)? {
            Fetched::Unchanged(_) | Fetched::Moved(_) | Fetched::BranchMissing => Ok(repository),
        }
    }

    async fn push(&self, repository: &Repository, commit: CommitId) -> Result<(), PushError> {
        let push = Push {
            url: &self.config.repository,
            branch: &self.config.branch,
            commit,
            ssh_command: self.config.ssh_command.as_deref(),
            within: PUSH_DEADLINE,
        };
        push.run(repository).await
    }

    fn refused(&self, source: BranchError) -> PublishError {
        PublishError::Branch {
            repository: self.config.repository.to_string(),
            branch: self.config.branch.to_string(),
            source,
        }
    }

    fn read(&self, snapshot: &Snapshot) -> Result<BranchState, BranchError> {
        let branch = Branch::new(snapshot, &self.authority);
        let index = branch.index()?;
        Ok(BranchState {
            deployments: existing(&branch, &index)?,
            units: existing(&branch, &index)?,
            agents: existing(&branch, &index)?,
            index: Some((index.index, index.digest)),
        })
    }

    /// The files that the plan changes.
    fn files(
        &self,
        plan: &Plan,
        branch: &BranchState,
        version: IndexVersion,
        now: Timestamp,
    ) -> Result<Vec<Change>, PublishError> {
        let mut written = Vec::new();
        written.extend(plan.deployments.iter().map(|document| self.sign(document)));
        written.extend(plan.units.iter().map(|document| self.sign(document)));
        written.extend(plan.agents.iter().map(|document| self.sign(document)));
        let index = self.index(plan, branch, version, now, &written)?;
        let mut changes: Vec<Change> =
            written.into_iter().map(|file| Change::Put { path: file.path.to_string(), bytes: file.bytes }).collect();
        let withdrawn = plan.changes.iter().filter(|change| tombstone(change).is_some());
        changes.extend(withdrawn.map(|change| Change::Remove { path: change.path.to_string() }));
        changes.push(Change::Put { path: INDEX_PATH.to_owned(), bytes: Signed::sign(index, &self.key).render() });
        let table = readme(listed(plan, branch).into_iter());
        changes.push(Change::Put { path: README_PATH.to_owned(), bytes: table.into_bytes() });
        Ok(changes)
    }

    fn sign<S: Specification>(&self, document: &Document<S>) -> SignedFile {
        let bytes = Signed::sign(document.clone(), &self.key).render();
        let entry = IndexEntry { length: bytes.len() as u64, revision: document.revision, sha256: digest(&bytes) };
        SignedFile { path: DocumentPath::new(S::FOLDER, document.name.clone()), entry, bytes }
    }

    fn index(
        &self,
        plan: &Plan,
        branch: &BranchState,
        version: IndexVersion,
        now: Timestamp,
        written: &[SignedFile],
    ) -> Result<Index, PublishError> {
        let (mut documents, mut tombstones) = (Map::default(), Map::default());
        // Looked up once for each of the branch's documents: a list would cost their product.
        let changed: BTreeSet<&DocumentPath> = plan.changes.iter().map(|change| &change.path).collect();
        if let Some((index, _)) = &branch.index {
            for (path, entry) in index.documents.iter().filter(|(path, _)| !changed.contains(path)) {
                documents.insert(path.clone(), *entry)?;
            }
            for (path, stone) in index.tombstones.iter().filter(|(path, _)| !changed.contains(path)) {
                tombstones.insert(path.clone(), *stone)?;
            }
        }
        for file in written {
            documents.insert(file.path.clone(), file.entry)?;
        }
        for (change, stone) in plan.changes.iter().filter_map(|change| Some((change, tombstone(change)?))) {
            tombstones.insert(change.path.clone(), stone)?;
        }
        Ok(Index {
            documents,
            expires: now.plus(self.config.validity),
            issued: now,
            kind: Kind::THIS,
            previous: branch.index.as_ref().map(|(_, digest)| *digest),
            schema: Schema::V1,
            tombstones,
            version,
        })
    }
}

/// A document as a file of the branch.
struct SignedFile {
    path: DocumentPath,
    entry: IndexEntry,
    bytes: Vec<u8>,
}

fn existing<S: Specification, F: Files>(
    branch: &Branch<'_, F>,
    index: &crate::repository::VerifiedIndex,
) -> Result<Existing<S>, BranchError> {
    let mut documents = Existing::new();
    for name in index.names(S::FOLDER) {
        let document = match branch.document::<S>(index, &name) {
            Ok(document) => ExistingDocument::Intact(document),
            // Somebody without the key wrote to the branch. What they altered is published anew.
            Err(BranchError::Document(
                ListedError::Altered { .. } | ListedError::Absent { .. } | ListedError::Signed { .. },
            )) => match index.revision(&DocumentPath::new(S::FOLDER, name.clone())) {
                Some(revision) => ExistingDocument::Altered(revision),
                None => continue,
            },
            Err(error) => return Err(error),
        };
        documents.insert(name, document);
    }
    Ok(documents)
}

/// All deployments as they are after the plan, by name.
fn listed<'a>(plan: &'a Plan, branch: &'a BranchState) -> Vec<&'a Deployment> {
    let mut all: std::collections::BTreeMap<&Name, &Deployment> = branch
        .deployments
        .iter()
        .filter_map(|(name, document)| match document {
            ExistingDocument::Intact(document) => Some((name, &**document)),
            ExistingDocument::Altered(_) => None,
        })
        .collect();
    for change in plan.changes.iter().filter(|change| change.path.folder() == Deployment::FOLDER && change.to.is_none())
    {
        all.remove(change.path.name());
    }
    all.extend(plan.deployments.iter().map(|document| (&document.name, document)));
    all.into_values().collect()
}

fn sources(evaluated: &Evaluated<'_>) -> Vec<(String, Option<crate::model::SourceRevision>)> {
    let evaluations = evaluated.evaluations.iter();
    evaluations.map(|e| (e.source.flake.to_string(), e.source.revision.clone())).collect()
}

fn report(plan: Plan, unready: Unready, commit: Option<CommitId>) -> Report {
    let version = match plan.index {
        IndexPlan::Keep(version) | IndexPlan::Write(version) => version,
    };
    let commit = commit.map(|commit| commit.to_string());
    Report { changes: plan.changes, conflicts: plan.conflicts, unready, version, commit }
}
