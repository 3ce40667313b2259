//! The process that fetches: a request on its standard input, an answer on its standard output, limits on itself between.
//!
//! It is `clavel-agent fetch`, which nobody runs by hand. The request holds the URL with its secrets, so that they never
//! stand among the arguments, where every user of the machine could read them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::limits::{LARGEST_FILE, LARGEST_REQUEST, LONGEST_MESSAGE, LOOK_EVERY, MOST_ADDED, MOST_DATA};
use crate::git::{CommitId, Depth, FetchError, FetchRequest, Fetched, OpenError, RefName, Remedy, Remote, Repository};
use crate::model::BranchName;
use crate::model::json::{self, JsonError};

/// The argument that makes this process of `clavel-agent`.
pub const FETCH_COMMAND: &str = "fetch";

/// What is to be fetched.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Request {
    /// The mirror, secrets and all.
    pub(super) url: String,
    pub(super) branch: BranchName,
    /// The repository to fetch into, which nobody else may be at work in.
    pub(super) copy: PathBuf,
    /// The ref that follows the branch there.
    pub(super) into: String,
    /// The file whose lock is held while this process lives.
    pub(super) lock: PathBuf,
    pub(super) ssh_command: Option<String>,
    /// How long it may take.
    pub(super) milliseconds: u64,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// The branch is where the ref is already.
    Unchanged { tip: CommitId },
    /// The ref has moved there.
    Moved { tip: CommitId },
    /// The mirror has no such branch.
    Missing {},
    /// It could not be fetched.
    Failed { remedy: Remedy, message: String },
    /// It took too long.
    TooSlow {},
    /// It added too much on the disk.
    TooLarge {},
    /// It takes too much memory to receive.
    TooMuchMemory {},
    /// Another process holds the lock.
    Busy {},
}

/// Why a process that should fetch could not even begin.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The request is none.
    #[error("the request on standard input is none: {0}; clavel-agent runs this command by itself")]
    Request(#[from] JsonError),
    /// Something in it is not what it should be.
    #[error(transparent)]
    Invalid(#[from] crate::model::Invalid),
    /// The limits could not be set, and without them nothing is fetched.
    #[error("cannot limit what this process may take: {0}")]
    Limits(std::io::Error),
    /// The lock cannot be used.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be looked at.
    #[error(transparent)]
    Git(#[from] crate::git::GitError),
}

/// Fetches what `request` asks for, with limits on this process. The bytes of the answer.
pub async fn answer(request: &[u8]) -> Result<Vec<u8>, ChildError> {
    let request: Request = json::parse(request, LARGEST_REQUEST)?;
    let (url, into) = (request.url.parse()?, request.into.parse()?);
    // By now the parent watches; what it set on this process is narrowed here.
    limit_this_process().map_err(ChildError::Limits)?;
    let lock = |source| ChildError::Lock { path: request.lock.clone(), source };
    let held = File::options().create(true).append(true).open(&request.lock).map_err(lock)?;
    let answer = match held.try_lock() {
        Ok(()) => fetch(&request, url, into).await?,
        Err(std::fs::TryLockError::WouldBlock) => Answer::Busy {},
        Err(std::fs::TryLockError::Error(source)) => return Err(lock(source)),
    };
    // Locked until the process has ended: the fetch may still be at work when a limit was passed.
    std::mem::forget(held);
    Ok(json::compact(&answer))
}

fn limit_this_process() -> std::io::Result<()> {
    let limit = |resource, bytes: u64| {
        // Who is limited to less already may not raise it, and need not.
        let bytes = Some(getrlimit(resource).maximum.map_or(bytes, |maximum| maximum.min(bytes)));
        setrlimit(resource, Rlimit { current: bytes, maximum: bytes })
    };
    limit(Resource::Data, MOST_DATA)?;
    limit(Resource::Fsize, LARGEST_FILE)?;
    // A core dump would be one more large file, with the URL's secrets in it.
    limit(Resource::Core, 0)?;
    // Whoever waits for the answer may be killed; nobody needs it then. Elsewhere the deadline ends it.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    Ok(())
}

async fn fetch(request: &Request, url: Remote, into: RefName) -> Result<Answer, ChildError> {
    let repository = Repository::open(&request.copy)?;
    let before = repository.fetched_bytes()?;
    let watched = repository.clone();
    let (branch, ssh_command) = (request.branch.clone(), request.ssh_command.clone());
    // gix blocks, and a read of it that hangs cannot be interrupted: it ends with this process.
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
            Ok(fetched) => Answer::of(fetched),
            Err(panic) => Answer::failed(Remedy::TryAgain, &format!("the fetch broke down: {panic}")),
        },
        () = tokio::time::sleep(Duration::from_millis(request.milliseconds)) => Answer::TooSlow {},
        () = grown(&watched, before.saturating_add(MOST_ADDED)) => Answer::TooLarge {},
    };
    Ok(answer)
}

/// Returns when the repository holds more than `limit` bytes.
async fn grown(repository: &Repository, limit: u64) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if repository.fetched_bytes().is_ok_and(|bytes| bytes > limit) {
            return;
        }
    }
}

impl Answer {
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

/// The file whose lock the process holds that fetches into `copy`.
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
            Answer::Unchanged { tip },
            Answer::Moved { tip },
            Answer::Missing {},
            Answer::failed(Remedy::StartAfresh, "why"),
            Answer::TooSlow {},
            Answer::TooLarge {},
            Answer::TooMuchMemory {},
            Answer::Busy {},
        ] {
            assert_eq!(json::parse::<Answer>(&json::compact(&answer), 1000).unwrap(), answer);
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
            assert!(json::parse::<Answer>(bad.as_bytes(), 1000).is_err(), "{bad}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_fetch_adds_on_the_disk_is_watched() {
        let dir = tempfile::tempdir().unwrap();
        let repository = Repository::open_or_create_bare(&dir.path().join("r.git")).unwrap();
        std::fs::write(dir.path().join("r.git/objects/pack/.tmp1"), [0; 2000]).unwrap();
        std::fs::write(dir.path().join("r.git/shallow.lock"), [0; 500]).unwrap();
        tokio::time::timeout(Duration::from_secs(30), grown(&repository, 2499)).await.unwrap();
        assert!(tokio::time::timeout(3 * LOOK_EVERY, grown(&repository, 2500)).await.is_err());
    }

    #[test]
    fn a_server_that_talks_is_cut_short() {
        let Answer::Failed { message, .. } = Answer::failed(Remedy::TryAgain, &"é".repeat(100_000)) else { panic!() };
        assert_eq!(message.chars().count(), LONGEST_MESSAGE);
    }
}
