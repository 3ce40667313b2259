//! Writes one commit to a branch, on this machine or elsewhere.
//!
//! If another writer moves the branch meanwhile, the caller decides again from the new tip.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use crate::git::{
    Change, CommitError, CommitId, Depth, FetchError, FetchRequest, GitError, Identity, NewCommit, OpenError, Push,
    PushError, ReadError, RefName, Remote, Repository, Snapshot,
};
use crate::model::BranchName;

/// How long one push may take.
const PUSH_DEADLINE: Duration = Duration::from_mins(5);
/// How often a lost race is run again before giving up.
const TRIES: usize = 5;

/// A branch to write to. One of another machine is fetched into a copy, committed to there, and pushed.
#[derive(Debug, Clone, Copy)]
pub struct BranchWriter<'a> {
    /// The repository.
    pub remote: &'a Remote,
    /// The branch.
    pub branch: &'a BranchName,
    /// The command in place of plain `ssh`.
    pub ssh_command: Option<&'a str>,
    /// Where the copy of a repository elsewhere is kept.
    pub copy: &'a Path,
}

/// A branch as it was when it was opened.
#[derive(Debug)]
pub struct OpenBranch {
    repository: Repository,
    tip: Option<CommitId>,
}

impl OpenBranch {
    /// The commit that it was at; `None` where it does not exist yet.
    pub fn tip(&self) -> Option<CommitId> {
        self.tip
    }

    /// The files that it had; `None` where it does not exist yet.
    pub fn files(&self) -> Result<Option<Snapshot>, ReadError> {
        self.tip.map(|tip| self.repository.snapshot(tip)).transpose()
    }

    /// The repository that has it.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

/// What an attempt is to write, decided from the branch as it was opened.
#[derive(Debug)]
pub struct Proposal {
    /// The branch that it was decided from.
    pub on: OpenBranch,
    /// What changes.
    pub changes: Vec<Change>,
    /// Why.
    pub message: String,
    /// Author and committer.
    pub by: Identity,
    /// When, for author and committer.
    pub at: SystemTime,
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
    /// Others wrote all the time.
    #[error("others moved the branch `{branch}` of {repository} {TRIES} times in a row; try again")]
    Raced {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: BranchName,
    },
}

/// How one attempt to write ended.
enum Written {
    Done(CommitId),
    Raced,
}

impl BranchWriter<'_> {
    /// Opens the branch where it is, or fetches it into the copy.
    pub fn open(&self) -> Result<OpenBranch, WriteError> {
        let repository = match self.remote.local_path() {
            Some(path) => Repository::open(&path)?,
            None => self.fetched()?,
        };
        let tip = repository.tip(self.branch)?;
        Ok(OpenBranch { repository, tip })
    }

    fn fetched(&self) -> Result<Repository, WriteError> {
        let repository = Repository::open_or_create_bare(self.copy)?;
        let request = FetchRequest {
            remote: self.remote,
            branch: self.branch,
            into: &RefName::of(self.branch),
            depth: Depth::Full,
            ssh_command: self.ssh_command,
            interrupt: &AtomicBool::new(false),
        };
        let _wherever_it_is = repository.fetch(&request)?;
        Ok(repository)
    }

    /// Makes one commit of what `attempt` proposes, and pushes it where the repository is elsewhere. `attempt` opens the
    /// branch and decides; where it proposes nothing, nothing is written. When somebody else moved the branch meanwhile, it
    /// is asked again, at most five times in all. Gives what the last attempt had to say, and the commit that was made.
    pub async fn commit_with_retry<T, E: From<WriteError>>(
        &self,
        mut attempt: impl AsyncFnMut(&Self) -> Result<(T, Option<Proposal>), E>,
    ) -> Result<(T, Option<CommitId>), E> {
        for _ in 0..TRIES {
            let (outcome, proposal) = attempt(self).await?;
            let Some(proposal) = proposal else { return Ok((outcome, None)) };
            if let Written::Done(commit) = self.write(&proposal).await? {
                return Ok((outcome, Some(commit)));
            }
        }
        Err(WriteError::Raced { repository: self.remote.to_string(), branch: self.branch.clone() }.into())
    }

    async fn write(&self, proposal: &Proposal) -> Result<Written, WriteError> {
        let Proposal { on: OpenBranch { repository, tip }, changes, message, by, at } = proposal;
        let new = NewCommit { branch: self.branch, expected: *tip, changes, message, by, at: *at };
        let commit = match repository.commit(&new) {
            Ok(commit) => commit,
            Err(CommitError::TipMoved { .. }) => return Ok(Written::Raced),
            Err(error) => return Err(error.into()),
        };
        if self.remote.local_path().is_some() {
            return Ok(Written::Done(commit));
        }
        let (remote, branch, ssh_command) = (self.remote, self.branch, self.ssh_command);
        match (Push { remote, branch, commit, ssh_command, within: PUSH_DEADLINE }).run(repository).await {
            Ok(()) => Ok(Written::Done(commit)),
            Err(PushError::Moved { .. }) => Ok(Written::Raced),
            Err(error) => Err(error.into()),
        }
    }
}
