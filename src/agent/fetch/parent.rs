//! The agent's side of a fetch: it starts the fetching process, waits for it, and clears what a failed fetch left.
//!
//! The fetching process itself is `child`.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::BranchFetchError;
use super::child::{ChildAnswer, ChildRequest, FETCH_COMMAND, lock_of};
use super::limits::{GRACE, LARGEST_ANSWER, LARGEST_FILE, MOST_ADDED, MOST_DATA, MOST_HELD, MOST_KEPT};
use crate::config::AgentConfig;
use crate::git::{CommitId, Leftovers, RefName, Remote, Repository};
use crate::model::json;
use crate::process::{Invocation, ProcessError};

/// The ref that follows the branch in each copy. It says what was fetched, not what is believed.
const FETCHED: &str = "refs/clavel/fetched";

/// Updates the copy at `path` to the branch of `mirror`, and returns the copy and the commit.
pub(super) async fn fetch(
    config: &AgentConfig,
    mirror: &Remote,
    path: &Path,
    rescue: &dyn Fn(&Path),
) -> Result<(Repository, CommitId), BranchFetchError> {
    match fetch_into(config, mirror, path, rescue).await {
        Err(error) if error.is_broken_copy() => {
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
    let outcome = run_child(config, mirror, path).await.and_then(|answer| tip(answer, config, mirror));
    match outcome {
        // The repository is opened only now, so that nothing from before the fetch is cached.
        Ok(tip) => Ok((Repository::open(path)?, tip)),
        Err(error) => {
            // The process has ended, so its files can be deleted.
            if let Err(error) = prepare(mirror, path, rescue) {
                tracing::warn!(%error, "cannot clear the files that a failed fetch left");
            }
            Err(error)
        }
    }
}

/// Prepares the copy for a fetch: clears what an earlier fetch left, and starts afresh where the copy is too large.
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
    let into = fetched_ref()?;
    let leftovers = repository.clear_leftovers(&into)?;
    // Every fetch adds a pack.
    if leftovers == Leftovers::PackInDoubt || repository.has_many_packs()? || repository.fetched_bytes()? > MOST_KEPT {
        rescue(path);
        Repository::start_afresh(path)?;
    }
    Ok(())
}

fn fetched_ref() -> Result<RefName, BranchFetchError> {
    let invalid = |error| BranchFetchError::Machine {
        act: "name the ref of the fetched branch".to_owned(),
        source: std::io::Error::other(error),
    };
    FETCHED.parse().map_err(invalid)
}

/// Runs the fetching process.
async fn run_child(config: &AgentConfig, mirror: &Remote, path: &Path) -> Result<ChildAnswer, BranchFetchError> {
    let limit = config.fetch_deadline;
    let request = ChildRequest {
        url: mirror.to_string(),
        credentials: mirror.credentials().cloned(),
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
        // The process ends by itself at its own deadline; this one is for a process that hangs.
        .within(limit + GRACE)
        .within_memory(MOST_HELD)
        .at_most(LARGEST_ANSWER)
        .outside_any_repository()
        .run()
        .await
        .map_err(|error| describe_end(error, config, mirror))?;
    let unreadable = |source| BranchFetchError::Answer { repository: mirror.to_string(), source };
    json::parse(&output.stdout, LARGEST_ANSWER as u64).map_err(unreadable)
}

/// The file of this program, and not of another version that replaced it.
fn this_program() -> Result<PathBuf, BranchFetchError> {
    let machine = |source| BranchFetchError::Machine { act: "find the file of this program".to_owned(), source };
    let program = std::env::current_exe().map_err(machine)?;
    // Where the file was replaced, Linux reports a path that does not exist; this link still leads to the running program.
    Ok(if program.exists() { program } else { "/proc/self/exe".into() })
}

fn tip(answer: ChildAnswer, config: &AgentConfig, mirror: &Remote) -> Result<CommitId, BranchFetchError> {
    let (repository, branch) = (mirror.to_string(), config.branch.to_string());
    match answer {
        ChildAnswer::Unchanged { tip } | ChildAnswer::Moved { tip } => Ok(tip),
        ChildAnswer::Missing {} => Err(BranchFetchError::NoBranch { repository, branch }),
        ChildAnswer::Failed { remedy, message } => Err(BranchFetchError::Failed { remedy, message }),
        ChildAnswer::TooSlow {} => Err(BranchFetchError::TooSlow { repository, branch, limit: config.fetch_deadline }),
        ChildAnswer::TooLarge {} => Err(BranchFetchError::TooLarge { repository, branch, limit: MOST_ADDED }),
        ChildAnswer::TooMuchMemory {} => Err(BranchFetchError::TooMuchMemory { repository, branch, limit: MOST_DATA }),
        ChildAnswer::Busy {} => Err(BranchFetchError::Busy { repository }),
    }
}

/// The error of a fetching process that ended without an answer.
fn describe_end(error: ProcessError, config: &AgentConfig, mirror: &Remote) -> BranchFetchError {
    let (repository, branch) = (mirror.to_string(), config.branch.to_string());
    match error {
        ProcessError::TimedOut { .. } => BranchFetchError::TooSlow { repository, branch, limit: config.fetch_deadline },
        ProcessError::TooMuchMemory { limit, .. } => BranchFetchError::TooMuchMemory { repository, branch, limit },
        // The kernel's signal for a file that grew beyond RLIMIT_FSIZE.
        ProcessError::Killed { signal, .. } if signal == Signal::XFSZ.as_raw() => {
            BranchFetchError::TooLarge { repository, branch, limit: LARGEST_FILE }
        }
        // A Rust program aborts where the kernel refuses it memory for the heap or the stack.
        ProcessError::Killed { signal, .. } if signal == Signal::ABORT.as_raw() => {
            BranchFetchError::TooMuchMemory { repository, branch, limit: MOST_DATA }
        }
        source => BranchFetchError::Process { repository, source },
    }
}
