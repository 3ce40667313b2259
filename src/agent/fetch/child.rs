//! The fetching process: it reads a request from standard input, limits itself, and writes an answer to standard output.
//!
//! The agent runs it as `clavel-agent fetch`; people never do. Nothing of the request is in the
//! arguments, which every user of the machine can read.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::limits::{LARGEST_FILE, LARGEST_REQUEST, LONGEST_MESSAGE, MOST_ADDED, MOST_DATA, WATCH_INTERVAL};
use crate::git::{
    CommitId, Credentials, Depth, FetchError, FetchRequest, Fetched, OpenError, RefName, Remedy, Remote, Repository,
};
use crate::model::BranchName;
use crate::model::json::{self, JsonError};

/// The subcommand of `clavel-agent` that runs this process.
pub const FETCH_COMMAND: &str = "fetch";

/// A fetch, as the agent asks for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChildRequest {
    /// The URL of the mirror.
    pub(super) url: String,
    /// The user, and the file with the password; this process reads it.
    pub(super) credentials: Option<Credentials>,
    pub(super) branch: BranchName,
    /// The repository to fetch into, which no other process may use meanwhile.
    pub(super) copy: PathBuf,
    /// The ref that follows the branch there.
    pub(super) into: String,
    /// The file that this process locks for as long as it lives.
    pub(super) lock: PathBuf,
    pub(super) ssh_command: Option<String>,
    /// The deadline.
    pub(super) milliseconds: u64,
}

/// The result of a fetch.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum ChildAnswer {
    /// The branch is at the commit of the ref.
    Unchanged { tip: CommitId },
    /// The ref has moved to this commit.
    Moved { tip: CommitId },
    /// The mirror has no such branch.
    Missing {},
    /// git reported an error.
    Failed { remedy: Remedy, message: String },
    /// It took longer than its deadline.
    TooSlow {},
    /// It wrote too much to the disk.
    TooLarge {},
    /// Receiving it takes too much memory.
    TooMuchMemory {},
    /// Another process holds the lock.
    Busy {},
}

/// Why a fetching process could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The request cannot be read.
    #[error("cannot read the request on standard input: {0}; clavel-agent runs this command by itself")]
    Request(#[from] JsonError),
    /// The URL or the ref in the request is invalid.
    #[error(transparent)]
    Invalid(#[from] crate::model::Invalid),
    /// The limits could not be set. Without them nothing is fetched.
    #[error("cannot limit the memory and the files of this process: {0}")]
    Limits(std::io::Error),
    /// The lock cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] crate::git::GitError),
}

/// Fetches as `request` asks, with limits on this process, and returns the bytes of the answer.
pub async fn answer(request: &[u8]) -> Result<Vec<u8>, ChildError> {
    let request: ChildRequest = json::parse(request, LARGEST_REQUEST)?;
    let (url, into) = (request.url.parse::<Remote>()?, request.into.parse()?);
    let url = url.with_credentials(request.credentials.clone());
    // The agent has set wider limits on this process already.
    limit_this_process().map_err(ChildError::Limits)?;
    let lock = |source| ChildError::Lock { path: request.lock.clone(), source };
    let held = File::options().create(true).append(true).open(&request.lock).map_err(lock)?;
    let answer = match held.try_lock() {
        Ok(()) => fetch(&request, url, into).await?,
        Err(std::fs::TryLockError::WouldBlock) => ChildAnswer::Busy {},
        Err(std::fs::TryLockError::Error(source)) => return Err(lock(source)),
    };
    // The lock lasts until the process ends, because the fetch may still run when a limit was reached.
    std::mem::forget(held);
    Ok(json::compact(&answer))
}

fn limit_this_process() -> std::io::Result<()> {
    let limit = |resource, bytes: u64| {
        // A lower limit that is set already cannot be raised.
        let bytes = Some(getrlimit(resource).maximum.map_or(bytes, |maximum| maximum.min(bytes)));
        setrlimit(resource, Rlimit { current: bytes, maximum: bytes })
    };
    limit(Resource::Data, MOST_DATA)?;
    limit(Resource::Fsize, LARGEST_FILE)?;
    // A core dump would be another large file, with the password in it.
    limit(Resource::Core, 0)?;
    // If the agent is killed, nobody needs the answer. On other systems the deadline ends this process.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

async fn fetch(request: &ChildRequest, url: Remote, into: RefName) -> Result<ChildAnswer, ChildError> {
    let repository = Repository::open(&request.copy)?;
    let before = repository.fetched_bytes()?;
    let watched = repository.clone();
    let (branch, ssh_command) = (request.branch.clone(), request.ssh_command.clone());
    // gix blocks, and a read that hangs cannot be interrupted; it ends with this process.
    let fetching = tokio::task::spawn_blocking(move || {
        repository.fetch(&FetchRequest {
            remote: &url,
            branch: &branch,
            into: &into,
            depth: Depth::Tip,
            ssh_command: ssh_command.as_deref(),
            interrupt: &AtomicBool::new(false),
        })
    });
    let answer = tokio::select! {
        fetched = fetching => match fetched {
            Ok(fetched) => ChildAnswer::of(fetched),
            Err(panic) => ChildAnswer::failed(Remedy::TryAgain, &format!("the fetch panicked: {panic}")),
        },
        () = tokio::time::sleep(Duration::from_millis(request.milliseconds)) => ChildAnswer::TooSlow {},
        () = wait_for_growth(&watched, before.saturating_add(MOST_ADDED)) => ChildAnswer::TooLarge {},
    };
    Ok(answer)
}

/// Waits until the repository has more than `limit` bytes.
async fn wait_for_growth(repository: &Repository, limit: u64) {
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        if repository.fetched_bytes().is_ok_and(|bytes| bytes > limit) {
            return;
        }
    }
}

impl ChildAnswer {
    fn of(fetched: Result<Fetched, FetchError>) -> Self {
        match fetched {
            Ok(Fetched::Unchanged(tip)) => Self::Unchanged { tip },
            Ok(Fetched::Moved(tip)) => Self::Moved { tip },
            Ok(Fetched::BranchMissing) => Self::Missing {},
            Err(FetchError::TooMuchMemory { .. }) => Self::TooMuchMemory {},
            Err(error) => Self::failed(error.remedy(), &error.to_string()),
        }
    }

    fn failed(remedy: Remedy, message: &str) -> Self {
        Self::Failed { remedy, message: message.chars().take(LONGEST_MESSAGE).collect() }
    }
}

/// The file that a process locks while it fetches into `copy`.
pub(super) fn lock_of(copy: &Path) -> PathBuf {
    copy.with_extension("lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_as_they_are_written_and_nothing_else_is() {
        let tip: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
        for answer in [
            ChildAnswer::Unchanged { tip },
            ChildAnswer::Moved { tip },
            ChildAnswer::Missing {},
            ChildAnswer::failed(Remedy::StartAfresh, "why"),
            ChildAnswer::TooSlow {},
            ChildAnswer::TooLarge {},
            ChildAnswer::TooMuchMemory {},
            ChildAnswer::Busy {},
        ] {
            assert_eq!(json::parse::<ChildAnswer>(&json::compact(&answer), 1000).unwrap(), answer);
        }
        for bad in [
            "",
            "{}",
            "null",
            "{\"outcome\":\"moved\"}",
            "{\"outcome\":\"moved\",\"tip\":\"0123\"}",
            "{\"outcome\":\"missing\",\"tip\":\"0123456789012345678901234567890123456789\"}",
            "{\"outcome\":\"failed\",\"remedy\":\"pray\",\"message\":\"\"}",
            "{\"outcome\":\"missing\"} {}",
        ] {
            assert!(json::parse::<ChildAnswer>(bad.as_bytes(), 1000).is_err(), "{bad}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_growth_of_the_repository_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create_bare(&dir.path().join("r.git")).unwrap();
        std::fs::write(dir.path().join("r.git/objects/pack/.tmp1"), [0; 2000]).unwrap();
        std::fs::write(dir.path().join("r.git/shallow.lock"), [0; 500]).unwrap();
        tokio::time::timeout(Duration::from_secs(30), wait_for_growth(&repository, 2499)).await.unwrap();
        assert!(tokio::time::timeout(3 * WATCH_INTERVAL, wait_for_growth(&repository, 2500)).await.is_err());
    }

    #[test]
    fn a_long_message_of_a_server_is_cut() {
        let ChildAnswer::Failed { message, .. } = ChildAnswer::failed(Remedy::TryAgain, &"é".repeat(100_000)) else {
            panic!()
        };
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
    }
}
