//! Why a fetch failed, and what helps.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::commit::STALE_AFTER;
use super::objects::ReadError;
use super::repository::GitError;
use crate::model::BranchName;

/// The largest file `shallow`, in bytes: 64 KiB. An honest one has a line for each branch, of 41 bytes.
pub(super) const LARGEST_SHALLOW: u64 = 64 << 10;

/// What helps after a fetch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// To try again later: the network, or the remote.
    TryAgain,
    /// To throw the repository away ([`Repository::start_afresh`]) and fetch again where it is a cache; an operator where
    /// it is more.
    StartAfresh,
    /// An operator: the address, the credentials, or this machine's disk.
    Operator,
}

/// Why nothing was fetched. The local ref is where it was.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The remote could not be reached, or broke off.
    #[error("cannot fetch branch `{branch}` from {remote}: {why}; is it reachable from here?")]
    Unreachable {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What happened, without secrets.
        why: String,
    },
    /// The remote answered that it has no such repository.
    #[error("cannot fetch branch `{branch}` from {remote}: there is no git repository: {why}; correct the URL")]
    RepositoryNotFound {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What was answered.
        why: String,
    },
    /// The remote did not let us in.
    #[error(
        "cannot fetch branch `{branch}` from {remote}: access was refused: {why}; check the credentials or the key"
    )]
    Refused {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What was answered.
        why: String,
    },
    /// What was received cannot be read to its last file, and was thrown away.
    #[error("cannot use what {remote} sent for branch `{branch}`: {source}")]
    Incomplete {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What is missing or damaged.
        source: Box<ReadError>,
    },
    /// The repository itself lacks what it should hold of a commit that it has, and a fetch does not ask for it again.
    #[error("cannot fetch branch `{branch}` from {remote}: the local repository is broken: {source}")]
    Broken {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What is missing or damaged.
        source: Box<ReadError>,
    },
    /// It takes more memory to receive than this process may have, or one object is larger than any may be.
    #[error("cannot fetch branch `{branch}` from {remote}: what it sent takes too much memory to receive: {why}")]
    TooMuchMemory {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What was too much, without secrets.
        why: String,
    },
    /// It names more commits as the ends of its history than any branch has.
    #[error(
        "cannot fetch branch `{branch}` from {remote}: it names so many commits as the ends of its history that the file \
         `shallow` would be larger than {}, so nothing of it was kept",
        bytesize::ByteSize(LARGEST_SHALLOW)
    )]
    TooManyEnds {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// It was interrupted from outside.
    #[error("the fetch of branch `{branch}` from {remote} was interrupted")]
    Interrupted {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// A file of the local repository is locked, by another program or by one that died.
    #[error(
        "cannot fetch branch `{branch}` from {remote}: the lock {} is there since {}; \
         if no git program is at work in this repository, delete that file",
        lock.display(), humantime::format_duration(*age)
    )]
    Locked {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The lock file.
        lock: PathBuf,
        /// How long it has been there.
        age: Duration,
    },
    /// The local repository could not be written.
    #[error(transparent)]
    Local(#[from] GitError),
}

impl FetchError {
    /// What helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyEnds { .. }
            | Self::Interrupted { .. } => Remedy::TryAgain,
            Self::Locked { age, .. } if *age < STALE_AFTER => Remedy::TryAgain,
            // Where what came is incomplete, what is here already may have misled the remote: an earlier fetch can have
            // brought a commit whose parents' files are nowhere, and the remote was told that they are known.
            Self::Incomplete { .. } | Self::Broken { .. } | Self::Locked { .. } => Remedy::StartAfresh,
            Self::RepositoryNotFound { .. } | Self::Refused { .. } | Self::Local(_) => Remedy::Operator,
        }
    }
}
