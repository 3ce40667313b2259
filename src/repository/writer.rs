//! Writing to a branch, whether its repository is on this machine or elsewhere.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::address::{CommitId, RefName, RemoteUrl};
use super::commit::{CommitError, NewCommit};
use super::fetch::{Depth, FetchError, FetchRequest};
use super::git::{GitError, OpenError, Repository};
use super::push::{Push, PushError};
use crate::model::BranchName;

/// How long one push may take.
const PUSH_DEADLINE: Duration = Duration::from_mins(5);

/// A branch to write to. One of another machine is fetched into a copy, committed to there, and pushed.
#[derive(Debug, Clone, Copy)]
pub struct BranchWriter<'a> {
    /// The repository.
    pub url: &'a RemoteUrl,
    /// The branch.
    pub branch: &'a BranchName,
    /// The command in place of plain `ssh`.
    pub ssh_command: Option<&'a str>,
    /// Where the copy of a repository elsewhere is kept.
    pub copy: &'a Path,
}

/// How writing ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The branch is at this commit.
    Done(CommitId),
    /// Somebody else was faster: read it again, and decide again.
    Raced,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Git failed on it.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The commit could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The branch could not be fetched from where it is.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The commit could not be pushed to where it belongs.
    #[error(transparent)]
    Push(#[from] PushError),
}

impl BranchWriter<'_> {
    /// The repository to read and to commit to, whose branch is where it is there, and where that is.
    pub fn open(&self) -> Result<(Repository, Option<CommitId>), WriteError> {
        let repository = match self.url.local_path() {
            Some(path) => Repository::open(&path)?,
            None => self.fetched()?,
        };
        let tip = repository.tip(self.branch)?;
        Ok((repository, tip))
    }

    fn fetched(&self) -> Result<Repository, WriteError> {
        let repository = Repository::open_or_create_bare(self.copy)?;
        let request = FetchRequest {
            url: self.url,
            branch: self.branch,
            into: &RefName::of(self.branch),
            depth: Depth::Full,
            ssh_command: self.ssh_command,
            interrupt: &AtomicBool::new(false),
        };
        let _wherever_it_is = repository.fetch(&request)?;
        Ok(repository)
    }

    /// Makes the commit, and pushes it where the repository is elsewhere.
    pub async fn write(&self, repository: &Repository, new: &NewCommit<'_>) -> Result<Written, WriteError> {
        let commit = match repository.commit(new) {
            Ok(commit) => commit,
            Err(CommitError::TipMoved { .. }) => return Ok(Written::Raced),
            Err(error) => return Err(error.into()),
        };
        if self.url.local_path().is_some() {
            return Ok(Written::Done(commit));
        }
        let (url, branch, ssh_command) = (self.url, self.branch, self.ssh_command);
        match (Push { url, branch, commit, ssh_command, within: PUSH_DEADLINE }).run(repository).await {
            Ok(()) => Ok(Written::Done(commit)),
            Err(PushError::Moved { .. }) => Ok(Written::Raced),
            Err(error) => Err(error.into()),
        }
    }
}
