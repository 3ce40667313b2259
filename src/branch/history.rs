//! The one walk through the history of the branch, and the searches for an earlier revision of a deployment.

use super::documents::{Branch, BranchError, find_document};
use super::writer::OpenBranch;
use crate::git::{CommitId, ReadError, Repository, Snapshot};
use crate::model::{
    BranchName, Deployment, DeploymentSpecification, DocumentPath, Folder, Name, Revision, Timestamp, Unit,
    UnitSpecification, describe_error,
};
use crate::trust::{Signed, TrustedRoot, Verified};

/// The most commits that are searched for a revision: one a minute for two months.
const MAX_COMMITS: usize = 100_000;

/// A deployment as an earlier commit of the branch has it.
#[derive(Debug, Clone)]
pub struct PastDeployment {
    /// The deployment.
    pub deployment: Verified<Deployment>,
    /// Its unit in the same commit, if it can be verified.
    pub unit: Option<Verified<Unit>>,
}

/// The result of a search for a revision.
#[derive(Debug, Clone)]
pub enum RevisionLookup {
    /// The revision, signed by keys that still are publishers.
    Found(Box<PastDeployment>),
    /// A document has that revision and cannot be verified, for this reason.
    Untrusted(String),
    /// No commit has that revision.
    NotFound,
}

/// The history to search, and the roots whose publishers are trusted.
#[derive(Debug, Clone, Copy)]
pub struct History<'a> {
    /// The branch.
    pub on: &'a OpenBranch,
    /// The newest root. Its publishers are trusted.
    pub root: &'a TrustedRoot,
    /// Older roots of the same epoch whose publishers count as well, the newest first.
    pub older: &'a [TrustedRoot],
    /// The name of the branch, which the indexes have to name.
    pub branch: &'a BranchName,
}

/// The commits from `tip` back, by the first parent of each.
fn commits_back(repository: &Repository, tip: CommitId) -> impl Iterator<Item = Result<Snapshot, ReadError>> + use<'_> {
    let mut next = Some(tip);
    std::iter::from_fn(move || {
        let snapshot = repository.snapshot(next.take()?);
        Some(snapshot.and_then(|snapshot| {
            next = snapshot.parents()?.first().copied();
            Ok(snapshot)
        }))
    })
}

impl OpenBranch {
    /// The commits of the branch from `tip` back, by the first parent of each.
    pub fn back_from(&self, tip: CommitId) -> impl Iterator<Item = Result<Snapshot, ReadError>> + use<'_> {
        commits_back(self.repository(), tip)
    }
}

/// Calls `look` with each file that the deployment `name` had from `tip` back, the newest first, until `look` finds something.
/// Nothing is verified: the caller verifies the file that it picks.
pub fn search_files<T, E: From<BranchError>>(
    repository: &Repository,
    tip: CommitId,
    name: &Name,
    mut look: impl FnMut(&Snapshot, &[u8]) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let path = DocumentPath::new(Folder::Deployments, name.clone());
    let mut seen = None;
    for snapshot in commits_back(repository, tip).take(MAX_COMMITS) {
        let snapshot = snapshot.map_err(BranchError::from)?;
        let file = find_document(&snapshot, &path).map_err(BranchError::from)?;
        if let Some(file) = file.filter(|file| seen.as_ref() != Some(file)) {
            if let Some(found) = look(&snapshot, &file)? {
                return Ok(Some(found));
            }
            seen = Some(file);
        }
    }
    Ok(None)
}

/// A file that a deployment had, in the first commit that has it.
#[derive(Debug)]
pub struct PastFile {
    /// The commit.
    pub snapshot: Snapshot,
    /// When the commit was made.
    pub date: Timestamp,
    /// The file. It is not verified.
    pub file: Vec<u8>,
}

/// The files that the deployment `name` had from `tip` back, the newest first. Nothing is verified.
pub fn past_files(repository: &Repository, tip: CommitId, name: &Name) -> Result<Vec<PastFile>, BranchError> {
    let path = DocumentPath::new(Folder::Deployments, name.clone());
    let (mut files, mut is_withdrawn) = (Vec::<PastFile>::new(), false);
    for snapshot in commits_back(repository, tip).take(MAX_COMMITS) {
        let snapshot = snapshot?;
        let Some(file) = find_document(&snapshot, &path)? else {
            is_withdrawn = true;
            continue;
        };
        let found = PastFile { date: snapshot.time()?.into(), snapshot, file };
        match files.last_mut().filter(|newer| !is_withdrawn && newer.file == found.file) {
            Some(newer) => *newer = found,
            None => files.push(found),
        }
        is_withdrawn = false;
    }
    Ok(files)
}

impl History<'_> {
    /// Searches for a revision of `name`, from the tip back. A document does not name its epoch, so it counts only if an index
    /// of the present epoch lists it.
    pub fn find(&self, name: &Name, revision: Revision) -> Result<RevisionLookup, ReadError> {
        let path = DocumentPath::new(Folder::Deployments, name.clone());
        let mut found = RevisionLookup::NotFound;
        let commits = self.on.tip().into_iter().flat_map(|tip| self.on.back_from(tip));
        for snapshot in commits.take(MAX_COMMITS) {
            let snapshot = snapshot?;
            let file = find_document(&snapshot, &path)?;
            if file.is_some_and(|file| claims_revision(&file, revision)) {
                match self.read(&snapshot, name) {
                    Ok(past) => return Ok(RevisionLookup::Found(Box::new(past))),
                    Err(BranchError::Read(error)) => return Err(error),
                    Err(error) => {
                        // The error of the newest commit is the most useful one.
                        if matches!(found, RevisionLookup::NotFound) {
                            found = RevisionLookup::Untrusted(describe_error(&error));
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    fn read(&self, snapshot: &Snapshot, name: &Name) -> Result<PastDeployment, BranchError> {
        let newest = self.read_by(self.root, snapshot, name);
        match newest {
            Ok(_) | Err(BranchError::Read(_)) => newest,
            Err(error) => {
                let older = self.older.iter().find_map(|root| self.read_by(root, snapshot, name).ok());
                older.ok_or(error)
            }
        }
    }

    fn read_by(&self, root: &TrustedRoot, snapshot: &Snapshot, name: &Name) -> Result<PastDeployment, BranchError> {
        let branch = Branch::new(snapshot, root, self.branch);
        let mut index = branch.index()?;
        let deployment = branch.document::<DeploymentSpecification>(&mut index, name)?;
        let unit = branch.document::<UnitSpecification>(&mut index, &deployment.specification.unit);
        Ok(PastDeployment { deployment, unit: unit.ok() })
    }
}

/// Whether a file says that it has this revision. The signatures are not verified.
fn claims_revision(file: &[u8], revision: Revision) -> bool {
    Signed::<Deployment>::parse(file).is_ok_and(|signed| signed.unverified().revision == revision)
}
