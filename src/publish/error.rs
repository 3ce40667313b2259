//! The reasons why nothing was published.

use std::path::PathBuf;

use super::base::PublishBaseError;
use super::bins::BinsError;
use super::note::{BranchRegression, PublishNoteError, PublishedIndex};
use super::operate::OperateError;
use super::plan::PlanError;
use super::sign::SignError;
use crate::branch::WriteError;
use crate::model::RootVersion;
use crate::signers::SignerError;
use crate::trust::AnchorError;

/// The reason why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no key to sign with, or a signer does not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
    /// The branch could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The trusted root could not be read.
    #[error(transparent)]
    Anchor(#[from] AnchorError),
    /// Too few of the keys are publishers' keys.
    #[error(
        "will not publish to {repository}: {} among the publishers of the root's version {version} ({}), so no agent would \
         believe it; see `clavel root show`",
        describe_shortage(keys, *threshold), publishers.join(", ")
    )]
    NoPublisher {
        /// The repository, without secrets.
        repository: String,
        /// The keys.
        keys: Vec<String>,
        /// The number of publishers that have to sign.
        threshold: usize,
        /// The version of the newest root.
        version: RootVersion,
        /// The publishers of that root.
        publishers: Vec<String>,
    },
    /// No source could be read, and there is no index yet: an empty one would say that there is nothing to run.
    #[error("nothing is published yet, and claveld does not begin before it has read a source")]
    NothingRead,
    /// The number of bins changes, so the whole branch has to be read. The publisher tries again with it.
    #[error("the whole branch has to be read")]
    NeedsEverything,
    /// Claveld cannot build on the branch.
    #[error("will not publish to the branch `{branch}` of {repository}")]
    Branch {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The reason.
        source: PublishBaseError,
    },
    /// The branch has an older index than the one that was published to it, or another one.
    #[error(
        "will not publish to the branch `{branch}` of {repository}: this claveld published index version {} there (epoch {}, \
         commit {}), and {regression}. Agents that saw it would refuse a new index. Push that commit back, from a mirror, an \
         agent's copy or claveld's own; if it is lost, begin a new epoch with `clavel root next --raise-epoch`. \
         If no agent has seen it, delete {} and try again",
        .last.version, .last.epoch, .last.commit, note.display()
    )]
    WentBack {
        /// The repository, without secrets.
        repository: String,
        /// The branch.
        branch: String,
        /// The index that was published last.
        last: Box<PublishedIndex>,
        /// The way in which the branch is behind it.
        regression: BranchRegression,
        /// The file that notes the last publication.
        note: PathBuf,
    },
    /// The note of the last publication could not be used.
    #[error(transparent)]
    Note(#[from] PublishNoteError),
    /// There is no valid plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Claveld refuses an operator's request.
    #[error(transparent)]
    Operate(#[from] OperateError),
    /// The index would exceed a limit, for example on the number of documents.
    #[error("cannot write the index")]
    Index(#[from] crate::model::Invalid),
}

/// Describes that too few of `keys` are publishers' keys, where `threshold` of them are needed.
fn describe_shortage(keys: &[String], threshold: usize) -> String {
    match (keys, threshold) {
        ([key], 1) => format!("{key} is not"),
        (_, 1) => format!("none of {} is", keys.join(", ")),
        _ => format!("{threshold} keys have to sign, and of {} not so many are", keys.join(", ")),
    }
}

impl From<SignError> for PublishError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Index(error) | SignError::Bins(BinsError::Invalid(error)) => error.into(),
            SignError::Bins(BinsError::NeedsAll) => Self::NeedsEverything,
            SignError::Signer(error) => error.into(),
        }
    }
}
