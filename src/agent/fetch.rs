//! The agent's copies of the branch: one bare repository for each mirror. A copy is a cache.
//!
//! The agent trusts no mirror. A separate process with limits on time, memory and disk talks to it ([`ConfinedFetch`]). Each mirror
//! has its own repository: git tells a server which objects it has already, and objects of a lying server must not make it leave
//! out those of an honest one.
//!
//! Nothing here is believed yet; `verify` decides that.

use std::collections::BTreeSet;
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use crate::config::AgentConfig;
use crate::disk::FileLock;
use crate::git::{
    CommitId, ConfinedFetch, ConfinedFetchError, Depth, Fetched, GitError, Leftovers, OpenError, RefName, Remedy,
    Remote, Repository, WhenBusy, lock_of,
};
use crate::model::describe_error;
use crate::trust::digest;

/// How many mirrors are asked at the same time. Each may use all the memory of its limit.
const AT_A_TIME: usize = 4;
/// The most that all fetches together bring into one copy, in bytes: 512 MiB. A larger copy is started afresh.
const MAX_COPY_BYTES: u64 = 512 << 20;
/// The ref that follows the branch in each copy. It says what was fetched, not what is believed.
const FETCHED: &str = "refs/clavel/fetched";

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

/// Fetches from every mirror of `config`, several at a time; the results are in the configuration's order. The copies are
/// below `folder`. `rescue` is called with each copy before it is deleted.
pub(super) async fn fetch(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> Vec<FetchedMirror> {
    if let Err(error) = delete_former(config, folder, rescue) {
        // They only take space.
        tracing::warn!(%error, folder = %folder.display(), "cannot delete the copies of former mirrors");
    }
    let fetches = config.mirrors.iter().map(async |mirror| {
        let tip = fetch_mirror(config, mirror, &copy_of(folder, mirror), rescue).await;
        FetchedMirror { mirror: mirror.to_string(), tip }
    });
    stream::iter(fetches).buffered(AT_A_TIME).collect().await
}

/// Updates the copy at `path` to the branch of `mirror`, and returns the copy and the commit.
async fn fetch_mirror(
    config: &AgentConfig,
    mirror: &Remote,
    path: &Path,
    rescue: &dyn Fn(&Path),
) -> Result<(Repository, CommitId), BranchFetchError> {
    match fetch_into(config, mirror, path, rescue).await {
        Err(error) if error.is_broken_copy() => {
            let error = describe_error(&error);
            tracing::warn!(%error, "the copy of the branch is broken; it is deleted and fetched again");
            rescue(path);
            Repository::start_afresh(path)?;
            fetch_into(config, mirror, path, rescue).await
        }
        other => other,
    }
}

async fn fetch_into(
    config: &AgentConfig,
    mirror: &Remote,
    path: &Path,
    rescue: &dyn Fn(&Path),
) -> Result<(Repository, CommitId), BranchFetchError> {
    prepare(mirror, path, rescue)?;
    let outcome = fetch_confined(config, mirror, path).await;
    match outcome {
        // The repository is opened only now, so that nothing from before the fetch is cached.
        Ok(tip) => Ok((Repository::open(path)?, tip)),
        Err(error) => {
            // The process has ended, so its files can be deleted.
            if let Err(error) = prepare(mirror, path, rescue) {
                tracing::warn!(error = %describe_error(&error), "cannot clear the files that a failed fetch left");
            }
            Err(error)
        }
    }
}

/// Prepares the copy for a fetch: clears what an earlier fetch left, and starts afresh where the copy is too large.
fn prepare(mirror: &Remote, path: &Path, rescue: &dyn Fn(&Path)) -> Result<(), BranchFetchError> {
    let lock = lock_of(path);
    let machine = |source| BranchFetchError::Machine { act: format!("lock {}", lock.display()), source };
    let _held = FileLock::try_take(&lock).map_err(|error| match error {
        TryLockError::WouldBlock => BranchFetchError::Busy { repository: mirror.to_string() },
        TryLockError::Error(error) => machine(error),
    })?;
    let repository = Repository::open_or_create_bare(path)?;
    let into = fetched_ref()?;
    let leftovers = repository.clear_leftovers(&into)?;
    // Every fetch adds a pack.
    if leftovers == Leftovers::PackInDoubt
        || repository.has_many_packs()?
        || repository.fetched_bytes()? > MAX_COPY_BYTES
    {
        rescue(path);
        Repository::start_afresh(path)?;
    }
    Ok(())
}

fn fetched_ref() -> Result<RefName, BranchFetchError> {
    let invalid = |error| BranchFetchError::Machine {
        act: "name the ref of the fetched branch".to_owned(),
        source: io::Error::other(error),
    };
    FETCHED.parse().map_err(invalid)
}

async fn fetch_confined(config: &AgentConfig, mirror: &Remote, path: &Path) -> Result<CommitId, BranchFetchError> {
    let fetch = ConfinedFetch {
        remote: mirror,
        branch: &config.branch,
        copy: path,
        into: &fetched_ref()?,
        depth: Depth::Tip,
        within: config.fetch_deadline,
        when_busy: WhenBusy::Refuse,
    };
    let repository = mirror.to_string();
    match fetch.run().await {
        Ok(Fetched::Unchanged(tip) | Fetched::Moved(tip)) => Ok(tip),
        Ok(Fetched::BranchMissing) => Err(BranchFetchError::NoBranch { repository, branch: config.branch.to_string() }),
        Err(ConfinedFetchError::TooSlow { repository, branch, limit }) => {
            Err(BranchFetchError::TooSlow { repository, branch: branch.to_string(), limit })
        }
        Err(ConfinedFetchError::Busy { .. }) => Err(BranchFetchError::Busy { repository }),
        Err(error) => Err(BranchFetchError::Confined(error)),
    }
}

/// The path of a mirror's copy. Secrets in the URL do not change the name.
fn copy_of(folder: &Path, mirror: &Remote) -> PathBuf {
    let name: String = digest(mirror.to_string().as_bytes()).to_string().chars().take(16).collect();
    folder.join(format!("{name}.git"))
}

/// Deletes the copies of mirrors that the configuration no longer names.
fn delete_former(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let ours: BTreeSet<PathBuf> = config.mirrors.iter().map(|mirror| copy_of(folder, mirror)).collect();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if ours.contains(&path.with_extension("git")) {
            continue;
        }
        rescue(&path);
        if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
    }
    Ok(())
}
