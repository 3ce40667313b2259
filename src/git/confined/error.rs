//! The reasons why a confined fetch fails.

use std::io;
use std::time::Duration;

use bytesize::ByteSize;

use crate::git::certificates::CertificatesError;
use crate::git::fetch_error::Remedy;
use crate::model::json::JsonError;
use crate::model::{BranchName, Timestamp};
use crate::process::ProcessError;

/// The reason why nothing was fetched. The local ref stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum ConfinedFetchError {
    /// git reported an error.
    #[error("{message}")]
    Failed {
        /// How to repair it.
        remedy: Remedy,
        /// The error, without secrets.
        message: String,
    },
    /// The server said for how long it wants to be left alone, and that time is not over.
    #[error("{why}; its server asked to be left alone until {until}, and is not asked before that")]
    PutOff {
        /// When it may be asked again.
        until: Timestamp,
        /// The error with which it said so, without secrets.
        why: String,
    },
    /// It took longer than its deadline.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: it took longer than {}, so it was ended and nothing was kept; check \
         the connection, and try again",
        humantime::format_duration(*limit)
    )]
    TooSlow {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: BranchName,
        /// The deadline.
        limit: Duration,
    },
    /// The remote sent too much.
    #[error(
        "cannot fetch branch `{branch}` from {repository}: the mirror sent more than {}, so it was ended and nothing was \
         kept; is it the right repository?",
        ByteSize(*limit)
    )]
    TooLarge {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: BranchName,
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
        branch: BranchName,
        /// The limit in bytes.
        limit: u64,
    },
    /// Another fetch into the same repository is running.
    #[error("cannot fetch from {repository}: another fetch into the same repository is still running; try again later")]
    Busy {
        /// The repository, without secrets.
        repository: String,
    },
    /// There are no certificates that could vouch for the host.
    #[error("cannot fetch from {repository}")]
    Certificates {
        /// The repository, without secrets.
        repository: String,
        /// Why there are none.
        source: CertificatesError,
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
    /// The file of this program cannot be found.
    #[error("cannot find the file of this program")]
    Program(#[source] io::Error),
}
