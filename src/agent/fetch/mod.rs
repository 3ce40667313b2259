//! The agent's copies of the branch: one bare repository for each mirror. A copy is a cache.
//!
//! The agent trusts no mirror. A separate process with limits on time, memory and disk talks to it (`child`), and this
//! process only reads the answer (`parent`). Each mirror has its own repository: git tells a server which objects it has
//! already, and objects of a lying server must not make it leave out those of an honest one.
//!
//! Nothing here is believed yet; `verify` decides that.

mod child;
mod limits;
mod parent;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use futures_util::stream::{self, StreamExt as _};

use crate::config::AgentConfig;
use crate::git::{CommitId, GitError, OpenError, Remedy, Remote, Repository};
use crate::model::json::JsonError;
use crate::process::ProcessError;
use crate::trust::digest;

pub use child::{ChildError, FETCH_COMMAND, answer};

/// How many mirrors are asked at the same time. Each may use all the memory of its limit.
const AT_A_TIME: usize = 4;

/// Why the branch could not be fetched from a mirror. Nothing that it sent is kept.
#[derive(Debug, thiserror::Error)]
pub enum BranchFetchError {
    /// The copy cannot be opened or created.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// git reported an error.
    #[error("{message}")]
    Failed {
        /// How to repair it.
        remedy: Remedy,
        /// The error, without secrets.
        message: String,
    },
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
    /// The mirror sent too much.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: the mirror sent more than {}, so it was ended and nothing was \
         kept; is it the right repository?",
        ByteSize(*limit)
    )]
    TooLarge {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Receiving it took too much memory.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: receiving it needs more than {} of memory, so it was ended and \
         nothing was kept; is it the right repository?",
        ByteSize(*limit)
    )]
    TooMuchMemory {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The limit in bytes.
        limit: u64,
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
    /// The fetching process failed.
    #[error("cannot fetch from {repository}")]
    Process {
        /// The repository, without secrets.
        repository: String,
        /// How it failed.
        source: ProcessError,
    },
    /// The fetching process gave an answer that cannot be read.
    #[error("cannot fetch from {repository}: the answer of the fetching process cannot be read")]
    Answer {
        /// The repository, without secrets.
        repository: String,
        /// The parser's error.
        source: JsonError,
    },
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
            Self::Failed { remedy, .. } => *remedy == Remedy::StartAfresh,
            Self::NoBranch { .. }
            | Self::TooSlow { .. }
            | Self::TooLarge { .. }
            | Self::TooMuchMemory { .. }
            | Self::Busy { .. }
            | Self::Process { .. }
            | Self::Answer { .. }
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
        let tip = parent::fetch(config, mirror, &copy_of(folder, mirror), rescue).await;
        FetchedMirror { mirror: mirror.to_string(), tip }
    });
    stream::iter(fetches).buffered(AT_A_TIME).collect().await
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
