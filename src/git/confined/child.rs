//! The fetching process: it reads a request from standard input, limits itself, and writes an answer to standard output.
//!
//! A program runs itself anew as this process; people never do. Nothing of the request is in the arguments, which every user of
//! the machine can read. It is one line; the program then holds the input open, so its end says that the program has ended.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rustix::process::{
    Resource, Rlimit, Signal, getpgrp, getpid, getrlimit, kill_process, kill_process_group, setrlimit,
};
use serde::{Deserialize, Serialize};

use super::limits::{
    MAX_ADDED_BYTES, MAX_FILE_BYTES, MAX_MESSAGE_CHARACTERS, MAX_REQUEST_BYTES, WATCH_INTERVAL, memory_for,
};
use crate::git::access::Access;
use crate::git::address::{CommitId, RefName};
use crate::git::fetch::{Depth, FetchRequest, Fetched};
use crate::git::fetch_error::{FetchError, Remedy};
use crate::git::remote::Remote;
use crate::git::repository::{GitError, OpenError, Repository};
use crate::git::static_files::error::StaticError;
use crate::git::static_files::transfer::ReadStatic;
use crate::model::json::{self, JsonError};
use crate::model::{BranchName, BranchPart, Invalid, describe_error};

/// The hidden subcommand of each program that runs this process.
pub const FETCH_COMMAND: &str = "fetch";

/// What becomes of a fetch into a repository into which another one is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenBusy {
    /// It is an error at once.
    Refuse,
    /// It waits for the other one, within its own deadline.
    Wait,
}

/// A fetch, as the program asks for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ChildRequest {
    /// The URL of the remote.
    pub(super) url: String,
    /// How it is reached. This process reads the secrets that it names.
    pub(super) access: Access,
    pub(super) branch: BranchName,
    /// The repository to fetch into.
    pub(super) copy: PathBuf,
    /// The ref that follows the branch there.
    pub(super) into: String,
    pub(super) depth: Depth,
    /// How much of the branch's files, from a remote that can send a part.
    pub(super) part: BranchPart,
    /// The file that this process locks for as long as it lives.
    pub(super) lock: PathBuf,
    pub(super) when_busy: WhenBusy,
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
    /// The remote has no such branch.
    Missing {},
    /// git reported an error.
    Failed {
        remedy: Remedy,
        message: String,
        /// For how many seconds the server wants to be left alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
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
    #[error("cannot read the request on standard input (Clavel runs this command by itself)")]
    Request(#[from] JsonError),
    /// Standard input cannot be read or watched.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// The URL or the ref in the request is invalid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The limits could not be set. Without them nothing is fetched.
    #[error("cannot limit the memory and the files of this process")]
    Limits(#[source] io::Error),
    /// The lock cannot be used.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The copy cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy cannot be read.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// Fetches as the first line of `input` asks, with limits on this process, and returns the bytes of the answer. At the end of
/// `input`, this process and its group end. `read_static` reads the branch of a static folder.
pub async fn answer(input: impl Read + Send + 'static, read_static: ReadStatic) -> Result<Vec<u8>, ChildError> {
    let (mut input, mut line) = (BufReader::new(input), Vec::new());
    (&mut input).take(MAX_REQUEST_BYTES + 1).read_until(b'\n', &mut line).map_err(ChildError::Input)?;
    let request: ChildRequest = json::parse(line.trim_ascii_end(), MAX_REQUEST_BYTES)?;
    end_with(input).map_err(ChildError::Input)?;
    let (url, into) = (request.url.parse::<Remote>()?, request.into.parse()?);
    let url = url.with_access(request.access.clone());
    // The program has set wider limits on this process already.
    limit_this_process(memory_for(&url, request.depth).data).map_err(ChildError::Limits)?;
    let lock = |source| ChildError::Lock { path: request.lock.clone(), source };
    let held = File::options().create(true).append(true).open(&request.lock).map_err(lock)?;
    let answer = match take(&held, &request).await {
        Ok(()) => fetch(&request, url, into, read_static).await?,
        Err(std::fs::TryLockError::WouldBlock) => ChildAnswer::Busy {},
        Err(std::fs::TryLockError::Error(source)) => return Err(lock(source)),
    };
    Ok(json::compact(&answer))
}

/// Locks the file, as soon as no other process has it where the request says so.
async fn take(lock: &File, request: &ChildRequest) -> Result<(), std::fs::TryLockError> {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(request.milliseconds);
    loop {
        match lock.try_lock() {
            Err(std::fs::TryLockError::WouldBlock)
                if request.when_busy == WhenBusy::Wait && tokio::time::Instant::now() < deadline =>
            {
                tokio::time::sleep(WATCH_INTERVAL / 4).await;
            }
            taken => return taken,
        }
    }
}

fn limit_this_process(most_data: u64) -> io::Result<()> {
    let limit = |resource, bytes: u64| {
        // A lower limit that is set already cannot be raised.
        let bytes = Some(getrlimit(resource).maximum.map_or(bytes, |maximum| maximum.min(bytes)));
        setrlimit(resource, Rlimit { current: bytes, maximum: bytes })
    };
    limit(Resource::Data, most_data)?;
    limit(Resource::Fsize, MAX_FILE_BYTES)?;
    // A core dump would be another large file, with the password in it.
    Ok(limit(Resource::Core, 0)?)
}

/// Ends this process and all that it started (`git upload-pack`, ssh) where the program has ended, since nobody needs the answer then.
/// The program ends this group itself as long as it lives.
fn end_with(mut input: impl Read + Send + 'static) -> io::Result<()> {
    let watch = move || {
        let mut byte = [0];
        while input.read(&mut byte).is_ok_and(|count| count > 0) {}
        // The group of a person's shell, which may have started this process, is not ours to end.
        let _ = if getpgrp() == getpid() {
            kill_process_group(getpid(), Signal::KILL)
        } else {
            kill_process(getpid(), Signal::KILL)
        };
    };
    // A thread of its own, which waits for nothing else.
    std::thread::Builder::new().stack_size(64 << 10).spawn(watch).map(drop)
}

async fn fetch(
    request: &ChildRequest,
    url: Remote,
    into: RefName,
    read_static: ReadStatic,
) -> Result<ChildAnswer, ChildError> {
    let repository = Repository::open(&request.copy)?;
    let before = repository.fetched_bytes()?;
    let watched = repository.clone();
    let (branch, depth, part) = (request.branch.clone(), request.depth, request.part.clone());
    // gix blocks, and a read that hangs cannot be interrupted; it ends with this process.
    let fetching = tokio::task::spawn_blocking(move || {
        repository.fetch(&FetchRequest {
            remote: &url,
            branch: &branch,
            into: &into,
            depth,
            part: &part,
            read_static,
            interrupt: &AtomicBool::new(false),
        })
    });
    let answer = tokio::select! {
        fetched = fetching => match fetched {
            Ok(fetched) => ChildAnswer::of(fetched),
            Err(panic) => ChildAnswer::failed(Remedy::TryAgain, &format!("the fetch panicked: {panic}")),
        },
        () = tokio::time::sleep(Duration::from_millis(request.milliseconds)) => ChildAnswer::TooSlow {},
        () = wait_for_growth(&watched, before.saturating_add(MAX_ADDED_BYTES)) => ChildAnswer::TooLarge {},
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
            Err(FetchError::Static { source, .. }) if matches!(*source, StaticError::TooMuch { .. }) => {
                Self::TooLarge {}
            }
            Err(error) => {
                let mut answer = Self::failed(error.remedy(), &describe_error(&error));
                if let Self::Failed { retry_after, .. } = &mut answer {
                    *retry_after = error.retry_after().map(|wait| wait.as_secs().max(1));
                }
                answer
            }
        }
    }

    fn failed(remedy: Remedy, message: &str) -> Self {
        Self::Failed { remedy, message: message.chars().take(MAX_MESSAGE_CHARACTERS).collect(), retry_after: None }
    }
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
        assert_eq!(message.chars().count(), MAX_MESSAGE_CHARACTERS);
    }
}
