//! Writes one commit to a branch, of a repository on this machine or on another.
//!
//! If another writer moves the branch meanwhile, the caller decides again from the new tip.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::read_back::{ReadBack, ReadBackError};
use crate::git::{
    Authorship, Change, CommitError, CommitId, ConfinedFetch, ConfinedFetchError, Depth, GitError, NewCommit,
    OpenError, Prepared, Push, PushError, ReadError, RefName, Remote, Repository, Snapshot, WhenBusy,
};
use crate::model::{BranchName, BranchPart};

/// The longest time that the fetch of a whole branch may take.
pub const FETCH_DEADLINE: Duration = Duration::from_mins(10);
/// The longest time that one push may take.
const PUSH_DEADLINE: Duration = Duration::from_mins(5);
/// The most attempts to write while other writers move the branch.
const ATTEMPTS: usize = 5;

/// A branch to write to. If it is on another machine, it is fetched into a copy, and the commit is made there and pushed.
#[derive(Debug, Clone, Copy)]
pub struct BranchWriter<'a> {
    /// The repository.
    pub remote: &'a Remote,
    /// The branch.
    pub branch: &'a BranchName,
    /// The folder for the copy of a repository on another machine.
    pub copy: &'a Path,
}

/// A branch as it was when it was opened.
#[derive(Debug)]
pub struct OpenBranch {
    repository: Repository,
    tip: Option<CommitId>,
}

impl OpenBranch {
    /// The commit at its tip; `None` if the branch does not exist yet.
    pub fn tip(&self) -> Option<CommitId> {
        self.tip
    }

    /// The files of that commit; `None` if the branch does not exist yet.
    pub fn files(&self) -> Result<Option<Snapshot>, ReadError> {
        self.tip.map(|tip| self.repository.snapshot(tip)).transpose()
    }

    /// The repository on this machine that has the branch.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }
}

/// The commit that an attempt wants to make on a branch as it was opened.
#[derive(Debug)]
pub struct Proposal {
    /// The branch from which the attempt decided.
    pub on: OpenBranch,
    /// The changes.
    pub changes: Vec<Change>,
    /// The message.
    pub message: String,
    /// The author and the committer.
    pub by: Authorship,
    /// The time of the commit.
    pub at: SystemTime,
    /// How the commit is read back before the branch moves; none for a commit that only an approver or a root's keys make.
    pub read_back: Option<ReadBack>,
}

/// The reason why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The repository cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The commit could not be made.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// Agents would refuse the commit, so the branch was not moved.
    #[error("the branch was not moved, because agents would refuse what was about to be published")]
    ReadBack(#[from] ReadBackError),
    /// The branch could not be fetched from its repository.
    #[error(transparent)]
    Fetch(#[from] ConfinedFetchError),
    /// The commit could not be pushed to the repository.
    #[error(transparent)]
    Push(#[from] PushError),
    /// Other writers moved the branch during every attempt.
    #[error(
        "cannot write to the branch `{branch}` of {repository}: other programs moved it during each of {ATTEMPTS} attempts; \
         try again"
    )]
    Raced {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: BranchName,
    },
}

/// The result of one attempt to write.
enum WriteResult {
    /// The commit was made.
    Done(CommitId),
    /// Another writer moved the branch.
    Raced,
}

impl BranchWriter<'_> {
    /// Opens the branch in its repository on this machine, or fetches it into the copy.
    pub async fn open(&self) -> Result<OpenBranch, WriteError> {
        let repository = match self.remote.local_path() {
            Some(path) => Repository::open(&path)?,
            None => self.fetch().await?,
        };
        let tip = repository.tip(self.branch)?;
        Ok(OpenBranch { repository, tip })
    }

    async fn fetch(&self) -> Result<Repository, WriteError> {
        Repository::open_or_create_bare(self.copy)?;
        let fetch = ConfinedFetch {
            remote: self.remote,
            branch: self.branch,
            copy: self.copy,
            into: &RefName::of(self.branch),
            depth: Depth::Full,
            part: &BranchPart::Whole,
            within: FETCH_DEADLINE,
            // Another process of claveld may publish to the same branch.
            when_busy: WhenBusy::Wait,
        };
        // `open` reads the tip, whether the fetch moved it or not.
        let _ = fetch.run().await?;
        Ok(Repository::open(self.copy)?)
    }

    /// Makes the commit that `attempt` proposes, and pushes it if the repository is on another machine. `attempt` opens the
    /// branch and decides; if it proposes nothing, nothing is written. If another writer moved the branch meanwhile, `attempt`
    /// is called again, at most five times in all. Returns the value of the last attempt, and the commit that was made.
    pub async fn commit_with_retry<T, E: From<WriteError>>(
        &self,
        mut attempt: impl AsyncFnMut(&Self) -> Result<(T, Option<Proposal>), E>,
    ) -> Result<(T, Option<CommitId>), E> {
        for _ in 0..ATTEMPTS {
            let (outcome, proposal) = attempt(self).await?;
            let Some(proposal) = proposal else { return Ok((outcome, None)) };
            if let WriteResult::Done(commit) = self.write(&proposal).await? {
                return Ok((outcome, Some(commit)));
            }
        }
        Err(WriteError::Raced { repository: self.remote.to_string(), branch: self.branch.clone() }.into())
    }

    async fn write(&self, proposal: &Proposal) -> Result<WriteResult, WriteError> {
        let Proposal { on: OpenBranch { repository, tip }, changes, message, by, at, read_back } = proposal;
        let new = NewCommit { branch: self.branch, expected: *tip, changes, message, by, at: *at };
        let made = repository.prepare(&new).and_then(|prepared| match prepared {
            Prepared::Unchanged(tip) => Ok(Ok(tip)),
            Prepared::New(commit) => match read_back.as_ref().map_or(Ok(()), |reader| reader.check(commit.files())) {
                Ok(()) => repository.finish(&new, *commit).map(Ok),
                Err(refusal) => Ok(Err(refusal)),
            },
        });
        let commit = match made {
            Ok(commit) => commit?,
            Err(CommitError::TipMoved { .. }) => return Ok(WriteResult::Raced),
            Err(error) => return Err(error.into()),
        };
        if self.remote.local_path().is_some() {
            return Ok(WriteResult::Done(commit));
        }
        let (remote, branch) = (self.remote, self.branch);
        match (Push { remote, branch, commit, within: PUSH_DEADLINE }).run(repository).await {
            Ok(()) => Ok(WriteResult::Done(commit)),
            Err(PushError::Moved { .. } | PushError::Diverged { .. }) => Ok(WriteResult::Raced),
            Err(error) => Err(error.into()),
        }
    }
}
