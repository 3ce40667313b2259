//! Whoever starts the process that fetches, waits for it, and clears up where it did not end well.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::BranchFetchError;
use super::child::{Answer, FETCH_COMMAND, Request, lock_of};
use super::limits::{GRACE, LARGEST_ANSWER, LARGEST_FILE, MOST_ADDED, MOST_DATA, MOST_HELD, MOST_KEPT};
use crate::config::AgentConfig;
use crate::git::{CommitId, Leftovers, RefName, Remote, Repository};
use crate::model::json;
use crate::process::{Invocation, ProcessError};

/// The ref that follows the branch, in each copy. It says what was fetched, never what is believed.
const FETCHED: &str = "refs/clavel/fetched";

/// Brings the copy at `path` up to the branch of `mirror`; where the branch is.
pub(super) async fn fetch(
    config: &AgentConfig,
    mirror: &Remote,
    path: &Path,
    rescue: &dyn Fn(&Path),
) -> Result<(Repository, CommitId), BranchFetchError> {
    match fetch_into(config, mirror, path, rescue).await {
        Err(error) if error.is_of_the_copy() => {
            tracing::warn!(%error, "the copy of the branch is broken and is made again");
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
    let outcome = ask(config, mirror, path).await.and_then(|answer| tip(answer, config, mirror));
    match outcome {
        // Opened only now: nothing of what was there before is remembered.
        Ok(tip) => Ok((Repository::open(path)?, tip)),
        Err(error) => {
            // Its process has ended, so whatever it left is nobody's.
            if let Err(error) = prepare(mirror, path, rescue) {
                tracing::warn!(%error, "cannot clear what a fetch left");
            }
            Err(error)
        }
    }
}

/// The copy as a fetch may begin with it: without what an earlier one left, and not too large.
fn prepare(mirror: &Remote, path: &Path, rescue: &dyn Fn(&Path)) -> Result<(), BranchFetchError> {
    let lock = lock_of(path);
    let machine = |source| BranchFetchError::Machine { act: format!("lock {}", lock.display()), source };
    let held = File::options().create(true).append(true).open(&lock).map_err(machine)?;
    match held.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BranchFetchError::Busy { repository: mirror.to_string() }),
        Err(TryLockError::Error(error)) => return Err(machine(error)),
    }
    let repository = Repository::open_or_create_bare(path)?;
    let into = fetched()?;
    let leftovers = repository.clear_leftovers(&into)?;
    // Packs gather with every fetch.
    if leftovers == Leftovers::Unsettled || repository.has_many_packs()? || repository.fetched_bytes()? > MOST_KEPT {
        rescue(path);
        Repository::start_afresh(path)?;
    }
    Ok(())
}

fn fetched() -> Result<RefName, BranchFetchError> {
    let invalid =
        |error| BranchFetchError::Machine { act: "name a ref".to_owned(), source: std::io::Error::other(error) };
    FETCHED.parse().map_err(invalid)
}

/// Runs the process that fetches.
async fn ask(config: &AgentConfig, mirror: &Remote, path: &Path) -> Result<Answer, BranchFetchError> {
    let limit = config.fetch_deadline;
    let request = Request {
        url: mirror.reveal().to_owned(),
        branch: config.branch.clone(),
        copy: path.to_owned(),
        into: FETCHED.to_owned(),
        lock: lock_of(path),
        ssh_command: config.ssh_command.clone(),
        milliseconds: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    };
    let output = Invocation::new(this_program()?)
        .arg(FETCH_COMMAND)
        .stdin(json::compact(&request))
        // It ends by itself before that; this is for one that cannot any more.
        .within(limit + GRACE)
        .within_memory(MOST_HELD)
        .at_most(LARGEST_ANSWER)
        .outside_any_repository()
        .run()
        .await
        .map_err(|error| ended(error, config, mirror))?;
    let none = |source| BranchFetchError::Answer { repository: mirror.to_string(), source };
    json::parse(&output.stdout, LARGEST_ANSWER as u64).map_err(none)
}

/// The program that runs now, and not another version that was put in its place.
fn this_program() -> Result<PathBuf, BranchFetchError> {
    let machine = |source| BranchFetchError::Machine { act: "find this program's own file".to_owned(), source };
    let program = std::env::current_exe().map_err(machine)?;
    // Linux names a file that was replaced by a path that is not there; what runs can still be had.
    Ok(if program.exists() { program } else { "/proc/self/exe".into() })
}

fn tip(answer: Answer, config: &AgentConfig, mirror: &Remote) -> Result<CommitId, BranchFetchError> {
    let (repository, branch) = (mirror.to_string(), config.branch.to_string());
    match answer {
        Answer::Unchanged { tip } | Answer::Moved { tip } => Ok(tip),
        Answer::Missing {} => Err(BranchFetchError::NoBranch { repository, branch }),
        Answer::Failed { remedy, message } => Err(BranchFetchError::Failed { remedy, message }),
        Answer::TooSlow {} => Err(BranchFetchError::TooSlow { repository, branch, limit: config.fetch_deadline }),
        Answer::TooLarge {} => Err(BranchFetchError::TooLarge { repository, branch, limit: MOST_ADDED }),
        Answer::TooMuchMemory {} => Err(BranchFetchError::TooMuchMemory { repository, branch, limit: MOST_DATA }),
        Answer::Busy {} => Err(BranchFetchError::Busy { repository }),
    }
}

/// What it means that the process ended without an answer.
fn ended(error: ProcessError, config: &AgentConfig, mirror: &Remote) -> BranchFetchError {
    let (repository, branch) = (mirror.to_string(), config.branch.to_string());
    match error {
        ProcessError::TimedOut { .. } => BranchFetchError::TooSlow { repository, branch, limit: config.fetch_deadline },
        ProcessError::TooMuchMemory { limit, .. } => BranchFetchError::TooMuchMemory { repository, branch, limit },
        // The kernel's word for a file that grew beyond RLIMIT_FSIZE.
        ProcessError::Killed { signal, .. } if signal == Signal::XFSZ.as_raw() => {
            BranchFetchError::TooLarge { repository, branch, limit: LARGEST_FILE }
        }
        // Rust ends a process that is refused memory.
        ProcessError::Killed { signal, ref stderr, .. }
            if signal == Signal::ABORT.as_raw() && stderr.contains("memory allocation of") =>
        {
            BranchFetchError::TooMuchMemory { repository, branch, limit: MOST_DATA }
        }
        source => BranchFetchError::Process { repository, source },
    }
}
