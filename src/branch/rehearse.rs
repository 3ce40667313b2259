//! Tries whether a branch could be written, and writes nothing to it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::Access;

use super::writer::{BranchWriter, OpenBranch, WriteError};
use crate::git::{Authorship, Change, CommitId, GitError, Identity, NewCommit, Prepared, Push, Remote, Repository};
use crate::model::BranchName;

/// The longest time that the remote may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// What was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rehearsal {
    /// The folders of a repository on this machine can be written to.
    Folders,
    /// The remote accepted the login of a push. It ran no hook and looked at no rule.
    DryRun,
}

/// Tries whether `writer` could write to the branch that it opened as `on`. A remote without the branch needs a commit to compare
/// with, which is made in the writer's copy.
pub async fn rehearse(writer: &BranchWriter<'_>, on: &OpenBranch) -> Result<Rehearsal, WriteError> {
    let repository = on.repository();
    if writer.remote.local_path().is_some() {
        check_folders(repository)?;
        return Ok(Rehearsal::Folders);
    }
    let commit = match on.tip() {
        Some(tip) => tip,
        None => first_commit(repository, writer.branch)?,
    };
    Push { remote: writer.remote, branch: writer.branch, commit, within: DEADLINE }.rehearse(repository).await?;
    Ok(Rehearsal::DryRun)
}

/// Tries whether the branch that was opened as `on` could be pushed to `mirror`, which has to have an older state of it, or none. Where there
/// is no branch yet, a commit is made in a new repository at `scratch`.
pub async fn rehearse_mirror(
    mirror: &Remote,
    branch: &BranchName,
    on: &OpenBranch,
    scratch: &Path,
) -> Result<(), WriteError> {
    if let Some(path) = mirror.local_path() {
        check_folders(&Repository::open(&path)?)?;
    }
    let (repository, commit) = if let Some(tip) = on.tip() {
        (on.repository().clone(), tip)
    } else {
        let repository = Repository::open_or_create_bare(scratch)?;
        let commit = first_commit(&repository, branch)?;
        (repository, commit)
    };
    Ok(Push { remote: mirror, branch, commit, within: DEADLINE }.rehearse(&repository).await?)
}

/// Checks that this user may write to the folders of a repository.
fn check_folders(repository: &Repository) -> Result<(), GitError> {
    for folder in ["objects", "refs"].map(|folder| repository.git_dir().join(folder)) {
        let may_write = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::access(&folder, may_write)
            .map_err(|error| GitError { act: format!("write to {}", folder.display()), why: error.to_string() })?;
    }
    Ok(())
}

/// A commit in a copy, of a branch that the remote does not have.
fn first_commit(repository: &Repository, branch: &BranchName) -> Result<CommitId, WriteError> {
    let by = Authorship::of(Identity::of_program("claveld", "claveld"));
    let changes = [Change::Put { path: "README.md".to_owned(), bytes: Vec::new() }];
    let (message, at) = ("A rehearsal", SystemTime::now());
    let new = NewCommit { branch, expected: None, changes: &changes, message, by: &by, at };
    Ok(match repository.prepare(&new)? {
        Prepared::New(commit) => repository.finish(&new, *commit)?,
        Prepared::Unchanged(tip) => tip,
    })
}
