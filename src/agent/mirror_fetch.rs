//! The fetch from one mirror, into the agent's copy of it.
//!
//! The agent trusts no mirror. A separate process with limits on time, memory and disk talks to it ([`ConfinedFetch`]).

use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::disk::FileLock;
use crate::git::{
    BundleSearchError, CommitId, ConfinedFetch, ConfinedFetchError, Depth, Fetched, GitError, Leftovers, OpenError,
    RefName, Remedy, Remote, Repository, WhenBusy, lock_of,
};
use crate::model::{BranchName, BranchPart, describe_error};
use crate::trust::digest;

/// The most that all fetches together bring into one copy, in bytes: 512 MiB. A larger copy is started afresh.
const MAX_COPY_BYTES: u64 = 512 << 20;

/// Why the branch could not be fetched from a mirror. Nothing that it sent is kept.
#[derive(Debug, thiserror::Error)]
pub enum BranchFetchError {
    /// The copy cannot be opened or created.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The repository has no such branch.
    #[error("cannot fetch from {repository}: it has no branch `{branch}`; has claveld published there yet?")]
    NoBranch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
    },
    /// No file is where a bundle could be.
    #[error(transparent)]
    NoBundle(#[from] BundleSearchError),
    /// It took longer than its deadline.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: it took longer than {}, so it was ended and nothing was kept; if the \
         connection is slow, raise `timeout` in [fetch]",
        humantime::format_duration(*limit)
    )]
    TooSlow {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The deadline.
        limit: Duration,
    },
    /// A fetch of an earlier process of the agent is still running.
    #[error(
        "cannot fetch from {repository}: a fetch of an earlier clavel-agent is still running; it ends by itself, and the next \
         pass tries again"
    )]
    Busy {
        /// The repository, without secrets.
        repository: String,
    },
    /// The fetch failed in another way.
    #[error(transparent)]
    Confined(ConfinedFetchError),
    /// This machine failed.
    #[error("cannot {act}")]
    Machine {
        /// The action.
        act: String,
        /// The system's error.
        source: io::Error,
    },
}

impl BranchFetchError {
    /// Whether the copy is broken, and not the mirror or the network.
    fn is_broken_copy(&self) -> bool {
        match self {
            Self::Open(_) | Self::Git(_) => true,
            Self::Confined(ConfinedFetchError::Failed { remedy, .. }) => *remedy == Remedy::StartAfresh,
            Self::NoBranch { .. }
            | Self::NoBundle(_)
            | Self::TooSlow { .. }
            | Self::Busy { .. }
            | Self::Confined(_)
            | Self::Machine { .. } => false,
        }
    }
}

/// A mirror that was asked: the agent's copy of it, and the commit of its branch.
#[derive(Debug)]
pub(super) struct FetchedMirror {
    /// The mirror, without secrets.
    pub(super) mirror: String,
    /// The copy and the commit, or why the fetch failed.
    pub(super) tip: Result<(Repository, CommitId), BranchFetchError>,
}

/// The beginning of the digest of a mirror's address, for names on the disk.
pub(super) fn short_digest(mirror: &Remote) -> String {
    digest(mirror.to_string().as_bytes()).to_string().chars().take(16).collect()
}

/// The fetch of a branch into a copy.
pub(super) struct MirrorFetch<'a> {
    /// A repository, or one bundle.
    pub(super) mirror: &'a Remote,
    /// The branch.
    pub(super) branch: &'a BranchName,
    /// The part of the branch that the agent needs.
    pub(super) part: &'a BranchPart,
    /// The copy.
    pub(super) path: &'a Path,
    /// The ref that follows the branch there. It says what was fetched, not what is believed.
    pub(super) into: String,
    /// The deadline.
    pub(super) within: Duration,
}

impl MirrorFetch<'_> {
    /// Updates the copy to the branch of the mirror, and returns the copy and the commit.
    pub(super) async fn run(&self, rescue: &dyn Fn(&Path)) -> Result<(Repository, CommitId), BranchFetchError> {
        match self.fetch(rescue).await {
            Err(error) if error.is_broken_copy() => {
                let error = describe_error(&error);
                tracing::warn!(%error, "the copy of the branch is broken; it is deleted and fetched again");
                rescue(self.path);
                Repository::start_afresh(self.path)?;
                self.fetch(rescue).await
            }
            other => other,
        }
    }

    async fn fetch(&self, rescue: &dyn Fn(&Path)) -> Result<(Repository, CommitId), BranchFetchError> {
        self.prepare(rescue)?;
        let outcome = self.fetch_confined().await;
        match outcome {
            // The repository is opened only now, so that nothing from before the fetch is cached.
            Ok(tip) => Ok((Repository::open(self.path)?, tip)),
            Err(error) => {
                // The process has ended, so its files can be deleted.
                if let Err(error) = self.prepare(rescue) {
                    tracing::warn!(error = %describe_error(&error), "cannot clear the files that a failed fetch left");
                }
                Err(error)
            }
        }
    }

    /// Prepares the copy for a fetch: clears what an earlier fetch left, and starts afresh where the copy is too large.
    fn prepare(&self, rescue: &dyn Fn(&Path)) -> Result<(), BranchFetchError> {
        let lock = lock_of(self.path);
        let machine = |source| BranchFetchError::Machine { act: format!("lock {}", lock.display()), source };
        let _held = FileLock::try_take(&lock).map_err(|error| match error {
            TryLockError::WouldBlock => BranchFetchError::Busy { repository: self.mirror.to_string() },
            TryLockError::Error(error) => machine(error),
        })?;
        let repository = Repository::open_or_create_bare(self.path)?;
        let leftovers = repository.clear_leftovers(&self.fetched_ref()?)?;
        // Every fetch adds a pack, or loose objects.
        if leftovers == Leftovers::PackInDoubt
            || repository.has_many_packs()?
            || repository.has_many_loose_objects()?
            || repository.fetched_bytes()? > MAX_COPY_BYTES
        {
            rescue(self.path);
            Repository::start_afresh(self.path)?;
        }
        Ok(())
    }

    fn fetched_ref(&self) -> Result<RefName, BranchFetchError> {
        let invalid = |error| BranchFetchError::Machine {
            act: "name the ref of the fetched branch".to_owned(),
            source: io::Error::other(error),
        };
        self.into.parse().map_err(invalid)
    }

    async fn fetch_confined(&self) -> Result<CommitId, BranchFetchError> {
        let fetch = ConfinedFetch {
            remote: self.mirror,
            branch: self.branch,
            copy: self.path,
            into: &self.fetched_ref()?,
            depth: Depth::Tip,
            part: self.part,
            within: self.within,
            when_busy: WhenBusy::Refuse,
        };
        let repository = self.mirror.to_string();
        match fetch.run().await {
            Ok(Fetched::Unchanged(tip) | Fetched::Moved(tip)) => Ok(tip),
            Ok(Fetched::BranchMissing) => {
                Err(BranchFetchError::NoBranch { repository, branch: self.branch.to_string() })
            }
            Err(ConfinedFetchError::TooSlow { repository, branch, limit }) => {
                Err(BranchFetchError::TooSlow { repository, branch: branch.to_string(), limit })
            }
            Err(ConfinedFetchError::Busy { .. }) => Err(BranchFetchError::Busy { repository }),
            Err(error) => Err(BranchFetchError::Confined(error)),
        }
    }
}
