//! Signing a plan and putting it on the branch: one atomic commit, decided again when somebody else was faster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use super::caches::Caches;
use super::changes::{Report, commit_message};
use super::inside::Inside;
use super::plan::{BranchState, Evaluated, ExistingDocument, IndexPlan, Plan, PlanError, plan, tombstone};
use super::readme::readme;
use super::ready::{Answers, Held, Unready};
use super::signers::{SignerError, Signers};
use super::standing::{Standing, StandingError};
use crate::config::{Moment, PublishConfig};
use crate::model::{
    Deployment, Document, DocumentPath, Folder, Index, IndexEntry, IndexVersion, Kind, Map, Name, RootVersion, Schema,
    Specification, Timestamp,
};
use crate::nix::Nix;
use crate::repository::{
    BranchWriter, Change, CommitId, INDEX_PATH, Identity, NewCommit, README_PATH, ROOT_PATH, Repository, WriteError,
    Written, approvals_folder, root_path,
};
use crate::trust::{Anchor, AnchorError, TrustedRoot, digest};

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
    /// There is nothing that may be written.
    #[error(transparent)]
    Plan(#[from] PlanError),
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

/// Who signs and publishes.
#[derive(Debug)]
pub struct Publisher<'a> {
    config: &'a PublishConfig,
    signers: Signers,
    anchor: Anchor,
    /// Where the copy of a repository elsewhere is kept.
    copy: PathBuf,
    /// Who asks the caches; nobody where nothing waits for them.
    caches: Option<Caches>,
}

/// What became of one try.
enum Attempt {
    Done(Report),
    Raced,
}

impl<'a> Publisher<'a> {
    /// Reads the keys that `config` names.
    pub fn new(config: &'a PublishConfig) -> Result<Self, PublishError> {
        let signers = Signers::read(&config.secret_keys)?;
        let anchor = Anchor::read(&config.root)?;
        let caches = match config.moment {
            Moment::Evaluated => None,
            Moment::InItsCache => Some(Caches::new()),
        };
        let copy = config.state_directory.join("publish.git");
        Ok(Self { config, signers, anchor, copy, caches })
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
        let writer = self.writer();
        let (repository, tip) = writer.open()?;
        let now = SystemTime::now();
        let standing = self.standing(&repository, tip).map_err(|source| self.refused(source))?;
        self.check_key(&standing.root)?;
        let branch = &standing.branch;
        let validity = self.config.validity;
        let (mut plan, unready) = match &self.caches {
            Some(caches) => caches.plan(branch, evaluated, answers, now.into(), validity).await?,
            None => (plan(branch, evaluated, &Held::default(), now.into(), validity)?, Unready::default()),
        };
        let IndexPlan::Write(version) = plan.index else {
            return Ok(Attempt::Done(report(plan, unready, None)));
        };
        inside.add_to(&mut plan, branch);
        let mut changes = self.files(&plan, &standing, version, now.into()).await?;
        if let Some(tip) = tip {
            changes.extend(orphaned_approvals(&plan, &repository, tip));
        }
        let message = commit_message(&plan.changes, version, &sources(evaluated));
        let by = Identity { name: "claveld".to_owned(), email: format!("{}@clavel.invalid", self.signers.first()) };
        let new = NewCommit {
            branch: &self.config.branch,
            expected: tip,
            changes: &changes,
            message: &message,
            by: &by,
            at: now,
        };
        match writer.write(&repository, &new).await? {
            Written::Raced => Ok(Attempt::Raced),
            Written::Done(commit) => Ok(Attempt::Done(report(plan, unready, Some(commit)))),
        }
    }

    fn writer(&self) -> BranchWriter<'_> {
        BranchWriter {
            url: &self.config.repository,
            branch: &self.config.branch,
            ssh_command: self.config.ssh_command.as_deref(),
            copy: &self.copy,
        }
    }

    fn refused(&self, source: StandingError) -> PublishError {
        PublishError::Branch {
            repository: self.config.repository.to_string(),
            branch: self.config.branch.to_string(),
            source,
        }
    }

    fn standing(&self, repository: &Repository, tip: Option<CommitId>) -> Result<Standing, StandingError> {
        match tip {
            None => Standing::nothing(&self.anchor),
            Some(tip) => Standing::read(&repository.snapshot(tip)?, &self.anchor, &self.config.branch),
        }
    }

    fn check_key(&self, root: &TrustedRoot) -> Result<(), PublishError> {
        let keys = self.signers.public();
        if root.publisher().suffices(&keys) {
            return Ok(());
        }
        Err(PublishError::NoPublisher {
            repository: self.config.repository.to_string(),
            keys: keys.iter().map(|key| format!("`{}`", key.id())).collect(),
            threshold: root.publisher().threshold(),
            version: root.root().version,
            publishers: root.publisher().key_ids().map(ToString::to_string).collect(),
        })
    }

    /// The files that the plan changes.
    async fn files(
        &self,
        plan: &Plan,
        standing: &Standing,
        version: IndexVersion,
        now: Timestamp,
    ) -> Result<Vec<Change>, PublishError> {
        let branch = &standing.branch;
        let mut written = Vec::new();
        for document in &plan.deployments {
            written.push(self.sign(document).await?);
        }
        for document in &plan.units {
            written.push(self.sign(document).await?);
        }
        for document in &plan.agents {
            written.push(self.sign(document).await?);
        }
        let index = self.index(plan, standing, version, now, &written)?;
        let mut changes = first_files(standing);
        let relics = standing.relics.iter().filter(|path| !written.iter().any(|file| file.path.as_str() == **path));
        changes.extend(relics.map(|path| Change::Remove { path: path.clone() }));
        changes.extend(written.into_iter().map(|file| Change::Put { path: file.path.to_string(), bytes: file.bytes }));
        let withdrawn = plan.changes.iter().filter(|change| tombstone(change).is_some());
        changes.extend(withdrawn.map(|change| Change::Remove { path: change.path.to_string() }));
        changes.push(Change::Put { path: INDEX_PATH.to_owned(), bytes: self.signers.sign(index).await?.render() });
        let table = readme(listed(plan, branch).into_iter());
        changes.push(Change::Put { path: README_PATH.to_owned(), bytes: table.into_bytes() });
        Ok(changes)
    }

    async fn sign<S: Specification>(&self, document: &Document<S>) -> Result<SignedFile, PublishError> {
        let bytes = self.signers.sign(document.clone()).await?.render();
        let entry = IndexEntry { length: bytes.len() as u64, revision: document.revision, sha256: digest(&bytes) };
        Ok(SignedFile { path: DocumentPath::new(S::FOLDER, document.name.clone()), entry, bytes })
    }

    fn index(
        &self,
        plan: &Plan,
        standing: &Standing,
        version: IndexVersion,
        now: Timestamp,
        written: &[SignedFile],
    ) -> Result<Index, PublishError> {
        let branch = &standing.branch;
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
            branch: self.config.branch.clone(),
            documents,
            epoch: standing.root.root().epoch,
            expires: now.plus(self.config.validity),
            fleet: branch.fleet,
            held: branch.index.as_ref().map(|(index, _)| index.held.clone()).unwrap_or_default(),
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

/// The root, on a branch that begins with it.
fn first_files(standing: &Standing) -> Vec<Change> {
    if !standing.is_new {
        return Vec::new();
    }
    let paths = [ROOT_PATH.to_owned(), root_path(standing.root.root().version)];
    paths.map(|path| Change::Put { path, bytes: standing.root.file().to_vec() }).into()
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
