//! The agent's copy of the branch: one bare repository, which is a cache. A broken one is made again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::AgentConfig;
use crate::model::Invalid;
use crate::repository::{
    CommitId, Depth, FetchError, FetchRequest, Fetched, GitError, OpenError, RefName, Remedy, Repository,
};

/// Why the branch could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BranchFetchError {
    /// The copy cannot be opened or made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The remote could not be fetched from.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The repository has no such branch.
    #[error("{repository} has no branch `{branch}`; has claveld published there yet?")]
    NoBranch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
    },
    /// The name of the ref in the copy is none; it is Clavel's own.
    #[error(transparent)]
    Ref(#[from] Invalid),
    /// The agent was asked to stop.
    #[error("stopped while the branch was being fetched")]
    Stopped,
}

impl BranchFetchError {
    /// Whether it is the copy that is wrong, and not the remote or the network.
    fn is_of_the_copy(&self) -> bool {
        match self {
            Self::Open(_) | Self::Git(_) => true,
            Self::Fetch(error) => error.remedy() == Remedy::StartAfresh,
            Self::NoBranch { .. } | Self::Ref(_) | Self::Stopped => false,
        }
    }
}

/// Brings the copy at `path` up to the branch of `config`; where the branch is. Ends early when `stop` is set.
pub(super) async fn fetch(
    config: &AgentConfig,
    path: &Path,
    stop: &Arc<AtomicBool>,
) -> Result<(Repository, CommitId), BranchFetchError> {
    match fetch_into(config, path, stop).await {
        Err(error) if error.is_of_the_copy() => {
            tracing::warn!(%error, "the copy of the branch is broken and is made again");
            Repository::start_afresh(path)?;
            fetch_into(config, path, stop).await
        }
        other => other,
    }
}

async fn fetch_into(
    config: &AgentConfig,
    path: &Path,
    stop: &Arc<AtomicBool>,
) -> Result<(Repository, CommitId), BranchFetchError> {
    let mut repository = Repository::open_or_create_bare(path)?;
    // Packs gather with every fetch.
    if repository.has_many_packs()? {
        repository = Repository::start_afresh(path)?;
    }
    let into: RefName = "refs/clavel/fetched".parse()?;
    let (url, branch) = (config.repository.clone(), config.branch.clone());
    let (ssh_command, stop) = (config.ssh_command.clone(), Arc::clone(stop));
    // gix blocks, and signals have to be heard meanwhile.
    let fetching = tokio::task::spawn_blocking(move || {
        let request = FetchRequest {
            url: &url,
            branch: &branch,
            into: &into,
            depth: Depth::Tip,
            ssh_command: ssh_command.as_deref(),
            interrupt: &stop,
        };
        let fetched = repository.fetch(&request);
        (repository, fetched)
    });
    let (repository, fetched) = fetching.await.map_err(|_| BranchFetchError::Stopped)?;
    match fetched? {
        Fetched::Unchanged(tip) | Fetched::Moved(tip) => Ok((repository, tip)),
        Fetched::BranchMissing => Err(BranchFetchError::NoBranch {
            repository: config.repository.to_string(),
            branch: config.branch.to_string(),
        }),
    }
}
