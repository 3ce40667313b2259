//! The agent's copies of the branch: one from each mirror, each a bare repository of its own, which is a cache.
//!
//! Nobody trusts a mirror. So whatever talks to one runs in a process of its own with limits on time, memory and disk
//! (`child`), and this process only learns what came of it (`parent`). A mirror's objects stay apart from those of the others:
//! what git tells a server that it has already must never come from another server's lies.

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

/// How many mirrors are asked at a time; each may take the whole of its memory.
const AT_A_TIME: usize = 4;

/// Why the branch could not be had from a mirror. Nothing of what it sent was kept.
#[derive(Debug, thiserror::Error)]
pub enum BranchFetchError {
    /// The copy cannot be opened or made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// It could not be fetched from.
    #[error("{message}")]
    Failed {
        /// What helps.
        remedy: Remedy,
        /// What happened, without secrets.
        message: String,
    },
    /// The repository has no such branch.
    #[error("{repository} has no branch `{branch}`; has claveld published there yet?")]
    NoBranch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
    },
    /// It took too long.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: it was not done after {}, so it was ended, and nothing of it was \
         kept; if the way there is slow, raise `timeout` below [fetch]",
        humantime::format_duration(*limit)
    )]
    TooSlow {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The time it was given.
        limit: Duration,
    },
    /// It sent too much.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: the mirror sent more than {}, so it was cut off, and nothing of \
         it was kept; is it the right repository?",
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
    /// It took too much memory to receive.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: what the mirror sent needs more than {} of memory to receive, so \
         it was cut off, and nothing of it was kept; is it the right repository?",
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
    /// A fetch that an earlier agent began has not ended.
    #[error("cannot fetch from {repository}: a fetch that an earlier agent began is still at work; it ends by itself")]
    Busy {
        /// The repository, without secrets.
        repository: String,
    },
    /// The process that fetches did not do its work.
    #[error("cannot fetch from {repository}: {source}")]
    Process {
        /// The repository, without secrets.
        repository: String,
        /// How it ended.
        source: ProcessError,
    },
    /// The process that fetches said something that is no answer.
    #[error("cannot fetch from {repository}: the process that fetches gave an answer that is none: {source}")]
    Answer {
        /// The repository, without secrets.
        repository: String,
        /// What is wrong with it.
        source: JsonError,
    },
    /// This machine stands in the way.
    #[error("cannot {act}: {source}")]
    Machine {
        /// What was being done.
        act: String,
        /// What the system said.
        source: io::Error,
    },
}

impl BranchFetchError {
    /// Whether it is the copy that is wrong, and not the mirror or the network.
    fn is_of_the_copy(&self) -> bool {
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

/// What one mirror shows: the agent's copy of it, and where the branch is there.
#[derive(Debug)]
pub(super) struct Shown {
    /// The mirror, without secrets.
    pub(super) mirror: String,
    /// Its tip, or why there is none.
    pub(super) tip: Result<(Repository, CommitId), BranchFetchError>,
}

/// Asks every mirror of `config`, side by side; what each shows, in their order. The copies are below `folder`; each is
/// shown to `rescue` before it is thrown away.
pub(super) async fn fetch(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> Vec<Shown> {
    if let Err(error) = forget_others(config, folder, rescue) {
        // They take room, and nothing else.
        tracing::warn!(%error, folder = %folder.display(), "cannot delete the copies of mirrors that are asked no more");
    }
    let fetches = config.mirrors.iter().map(async |mirror| {
        let tip = parent::fetch(config, mirror, &copy_of(folder, mirror), rescue).await;
        Shown { mirror: mirror.to_string(), tip }
    });
    stream::iter(fetches).buffered(AT_A_TIME).collect().await
}

/// Where the copy of a mirror is. Its URL's secrets are no part of the name.
fn copy_of(folder: &Path, mirror: &Remote) -> PathBuf {
    let name: String = digest(mirror.to_string().as_bytes()).to_string().chars().take(16).collect();
    folder.join(format!("{name}.git"))
}

/// Deletes the copies of mirrors that the configuration no longer names.
fn forget_others(config: &AgentConfig, folder: &Path, rescue: &dyn Fn(&Path)) -> io::Result<()> {
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
