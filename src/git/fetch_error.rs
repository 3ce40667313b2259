//! The reasons why a fetch fails, and the remedy for each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bundle::error::BundleError;
use super::lock::HeldLock;
use super::objects::ReadError;
use super::repository::GitError;
use super::static_files::error::StaticError;
use crate::model::BranchName;

/// The largest file `shallow` that is accepted, in bytes: 64 KiB. A good remote sends one line of 41 bytes for each branch.
pub(super) const MAX_SHALLOW_BYTES: u64 = 64 << 10;

/// The remedy for a fetch that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// Try again later: the network or the remote failed.
    TryAgain,
    /// Discard the repository ([`super::Repository::start_afresh`]) and fetch again, if it is a cache. Otherwise an operator has to
    /// repair it.
    StartAfresh,
    /// An operator has to correct the address, the credentials, or this machine's disk.
    Operator,
}

/// The reason why nothing was fetched. The local ref stays where it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The remote could not be reached, or the connection broke off.
    #[error("cannot fetch branch `{branch}` from {remote}: {why}; {advice}")]
    Unreachable {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The error, without secrets.
        why: String,
        /// What to do.
        advice: &'static str,
        /// For how long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The remote answered that it has no such repository.
    #[error("cannot fetch branch `{branch}` from {remote}: there is no git repository: {why}; {advice}")]
    RepositoryNotFound {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The answer of the remote, without secrets.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// The remote refused access.
    #[error("cannot fetch branch `{branch}` from {remote}: access was refused: {why}; {advice}")]
    Refused {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The answer of the remote, without secrets.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// The remote is a bundle, and it was not taken.
    #[error("cannot read branch `{branch}` from the bundle {remote}")]
    Bundle {
        /// The path of the bundle.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What is wrong with it.
        source: Box<BundleError>,
    },
    /// The remote is a static folder, and nothing was taken from it.
    #[error("cannot read branch `{branch}` from {remote}")]
    Static {
        /// The URL of the folder.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// What is wrong with it.
        source: Box<StaticError>,
    },
    /// The received commit cannot be read to its last file, and was deleted.
    #[error("cannot use the commit that {remote} sent for branch `{branch}`")]
    Incomplete {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The object that is missing or damaged.
        source: Box<ReadError>,
    },
    /// The local repository has the commit and lacks some of its objects. A fetch does not ask for them again.
    #[error("cannot fetch branch `{branch}` from {remote}: the local repository is broken")]
    Broken {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The object that is missing or damaged.
        source: Box<ReadError>,
    },
    /// Receiving it takes more memory than this process may use, or one object is larger than the limit.
    #[error("cannot fetch branch `{branch}` from {remote}: receiving what it sent takes too much memory: {why}")]
    TooMuchMemory {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The error, without secrets.
        why: String,
    },
    /// The remote names more commits as the ends of its history than any branch has.
    #[error(
        "cannot fetch branch `{branch}` from {remote}: it names so many commits as the ends of its history that the file \
         `shallow` would be larger than {}, so nothing was kept",
        bytesize::ByteSize(MAX_SHALLOW_BYTES)
    )]
    TooShallow {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// The caller interrupted it.
    #[error("cannot fetch branch `{branch}` from {remote}: the fetch was interrupted")]
    Interrupted {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
    },
    /// A file of the local repository is locked, by a program that runs or by one that died.
    #[error("cannot fetch branch `{branch}` from {remote}: {lock}")]
    Locked {
        /// The remote, without secrets.
        remote: String,
        /// The branch.
        branch: BranchName,
        /// The lock.
        lock: HeldLock,
    },
    /// The local repository could not be written.
    #[error(transparent)]
    Local(#[from] GitError),
}

impl FetchError {
    /// For how long the server said that it wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { retry_after, .. } => *retry_after,
            Self::Static { source, .. } => match &**source {
                StaticError::Status { retry_after, .. } => *retry_after,
                _ => None,
            },
            _ => None,
        }
    }

    /// The remedy for this error.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            // Another bundle may be there next time. What earlier ones brought is kept, since later ones build on it.
            Self::Bundle { .. }
            | Self::Unreachable { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooShallow { .. }
            | Self::Interrupted { .. } => Remedy::TryAgain,
            Self::Static { source, .. } => remedy_of_static(source),
            Self::Locked { lock, .. } if !lock.is_stale() => Remedy::TryAgain,
            // If the received commit is incomplete, an older commit in the local repository may be the cause: an earlier
            // fetch can have brought a commit without the files of its parents, and this fetch then told the remote that
            // the parents are here.
            Self::Incomplete { .. } | Self::Broken { .. } | Self::Locked { .. } => Remedy::StartAfresh,
            Self::RepositoryNotFound { .. } | Self::Refused { .. } | Self::Local(_) => Remedy::Operator,
        }
    }
}

/// The remedy for a static folder that cannot be read.
fn remedy_of_static(error: &StaticError) -> Remedy {
    match error {
        StaticError::Refused { .. }
        | StaticError::Credentials(_)
        | StaticError::Redirect { .. }
        | StaticError::Local(_) => Remedy::Operator,
        StaticError::NotThere { .. }
        | StaticError::Status { .. }
        | StaticError::Connection { .. }
        | StaticError::TooLong { .. }
        | StaticError::TooMuch { .. }
        | StaticError::OtherBytes { .. }
        | StaticError::Read { .. }
        | StaticError::Content { .. } => Remedy::TryAgain,
    }
}
