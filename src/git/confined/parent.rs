//! The side of the program that wants a fetch: it starts the fetching process, and waits for it.
//!
//! The fetching process itself is `child`.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Signal;

use super::child::{ChildAnswer, ChildRequest, FETCH_COMMAND, WhenBusy};
use super::error::ConfinedFetchError;
use super::limits::{GRACE, MAX_ADDED_BYTES, MAX_ANSWER_BYTES, MAX_FILE_BYTES, memory_for};
use super::put_off::PutOff;
use super::unmoved::{self, RefFiles};
use crate::git::address::RefName;
use crate::git::fetch::{Depth, Fetched};
use crate::git::http::retry_after::MAX_RETRY_AFTER;
use crate::git::leftovers::{parts_of_packs, remove_parts_since};
use crate::git::remote::Remote;
use crate::model::{BranchName, BranchPart, Timestamp, json};
use crate::process::{Invocation, ProcessError, this_program};

/// One branch to fetch, and the local ref that follows it.
#[derive(Debug, Clone, Copy)]
pub struct ConfinedFetch<'a> {
    /// The remote.
    pub remote: &'a Remote,
    /// The branch of the remote. Rewritten history is accepted.
    pub branch: &'a BranchName,
    /// The bare repository to fetch into.
    pub copy: &'a Path,
    /// The ref that follows the branch there.
    pub into: &'a RefName,
    /// How much of the branch's history is fetched.
    pub depth: Depth,
    /// The part of the branch that is fetched, from a remote that can send a part: a static folder.
    pub part: &'a BranchPart,
    /// The deadline.
    pub within: Duration,
    /// What becomes of it if another fetch into `copy` is running.
    pub when_busy: WhenBusy,
}

impl ConfinedFetch<'_> {
    /// Moves the local ref to the tip of the remote's branch. Only a repository that is opened afterwards sees what was fetched.
    pub async fn run(&self) -> Result<Fetched, ConfinedFetchError> {
        if let Some(put_off) = PutOff::of(self.copy, self.remote, SystemTime::now().into()) {
            return Err(put_off.into());
        }
        match unmoved::compare(self.remote, self.branch, (self.copy, self.into), self.within).await {
            RefFiles::Level(tip) => return Ok(Fetched::Unchanged(tip)),
            RefFiles::Silent => return Err(self.too_slow()),
            RefFiles::AskGit => {}
        }
        let before = parts_of_packs(self.copy).unwrap_or_default();
        let fetched = self.run_child().await;
        match &fetched {
            // What is new there is of the fetch that is running.
            Ok(_) | Err(ConfinedFetchError::Busy { .. }) => {}
            // The process has ended, and a retry must not add to the parts of packs that it left.
            Err(_) => {
                if let Err(error) = remove_parts_since(self.copy, &before) {
                    tracing::warn!(%error, "cannot clear the files that a failed fetch left");
                }
            }
        }
        fetched
    }

    async fn run_child(&self) -> Result<Fetched, ConfinedFetchError> {
        let request = ChildRequest {
            url: self.remote.to_string(),
            access: self.remote.access().cloned().unwrap_or_default(),
            branch: self.branch.clone(),
            copy: self.copy.to_owned(),
            into: self.into.as_str().to_owned(),
            depth: self.depth,
            part: self.part.clone(),
            lock: lock_of(self.copy),
            when_busy: self.when_busy,
            milliseconds: u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX),
        };
        let certificates = self
            .remote
            .certificates_for_gix(self.copy)
            .map_err(|source| ConfinedFetchError::Certificates { repository: self.remote.to_string(), source })?;
        let run = Invocation::new(this_program().map_err(ConfinedFetchError::Program)?);
        let run = certificates.into_iter().fold(run, |run, (variable, value)| run.env(variable, value));
        let output = run
            .arg(FETCH_COMMAND)
            // Nobody is there to type a password, where git is asked for one.
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin([&json::compact(&request)[..], b"\n"].concat())
            // At its end the process knows that this one was killed, and ends its whole group.
            .holding_stdin_open()
            // The process ends by itself at its own deadline; this one is for a process that hangs.
            .within(self.within + GRACE)
            .within_memory(memory_for(self.remote, self.depth).held)
            .at_most(MAX_ANSWER_BYTES)
            // Clavel may run inside a hook, whose variables name another repository.
            .outside_any_repository()
            .run()
            .await
            .map_err(|error| self.describe_end(error))?;
        let unreadable = |source| ConfinedFetchError::Answer { repository: self.remote.to_string(), source };
        let answer = json::parse(&output.stdout, MAX_ANSWER_BYTES as u64).map_err(unreadable)?;
        self.result_of(answer)
    }

    fn result_of(&self, answer: ChildAnswer) -> Result<Fetched, ConfinedFetchError> {
        let (repository, branch) = (self.remote.to_string(), self.branch.clone());
        match answer {
            ChildAnswer::Unchanged { tip } => Ok(Fetched::Unchanged(tip)),
            ChildAnswer::Moved { tip } => Ok(Fetched::Moved(tip)),
            ChildAnswer::Missing {} => Ok(Fetched::BranchMissing),
            ChildAnswer::Failed { message, retry_after: Some(seconds), .. } => {
                // The time now is cut to a whole second.
                let wait = Duration::from_secs(seconds.saturating_add(1)).min(MAX_RETRY_AFTER);
                let put_off = PutOff::new(self.remote, Timestamp::from(SystemTime::now()).plus(wait), message);
                if let Err(error) = put_off.write(self.copy) {
                    tracing::warn!(%error, "cannot remember that the server wants to be left alone");
                }
                Err(put_off.into())
            }
            ChildAnswer::Failed { remedy, message, retry_after: None } => {
                Err(ConfinedFetchError::Failed { remedy, message })
            }
            ChildAnswer::TooSlow {} => Err(self.too_slow()),
            ChildAnswer::TooLarge {} => {
                Err(ConfinedFetchError::TooLarge { repository, branch, limit: MAX_ADDED_BYTES })
            }
            ChildAnswer::TooMuchMemory {} => Err(self.too_much_memory(memory_for(self.remote, self.depth).data)),
            ChildAnswer::Busy {} => Err(ConfinedFetchError::Busy { repository }),
        }
    }

    /// The error of a fetching process that ended without an answer.
    fn describe_end(&self, error: ProcessError) -> ConfinedFetchError {
        let (repository, branch) = (self.remote.to_string(), self.branch.clone());
        match error {
            ProcessError::TimedOut { .. } => self.too_slow(),
            ProcessError::TooMuchMemory { limit, .. } => self.too_much_memory(limit),
            // The kernel's signal for a file that grew beyond RLIMIT_FSIZE.
            ProcessError::Killed { signal, .. } if signal == Signal::XFSZ.as_raw() => {
                ConfinedFetchError::TooLarge { repository, branch, limit: MAX_FILE_BYTES }
            }
            // A Rust program aborts where the kernel refuses it memory for the heap or the stack.
            ProcessError::Killed { signal, .. } if signal == Signal::ABORT.as_raw() => {
                self.too_much_memory(memory_for(self.remote, self.depth).data)
            }
            source => ConfinedFetchError::Process { repository, source },
        }
    }

    fn too_slow(&self) -> ConfinedFetchError {
        let (repository, branch) = (self.remote.to_string(), self.branch.clone());
        ConfinedFetchError::TooSlow { repository, branch, limit: self.within }
    }

    fn too_much_memory(&self, limit: u64) -> ConfinedFetchError {
        let (repository, branch) = (self.remote.to_string(), self.branch.clone());
        ConfinedFetchError::TooMuchMemory { repository, branch, limit }
    }
}

/// The file that a process locks while it fetches into `copy`.
pub fn lock_of(copy: &Path) -> PathBuf {
    copy.with_extension("lock")
}
