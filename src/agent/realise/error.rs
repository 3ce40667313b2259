//! Why a deployment's path cannot be had.

use std::path::PathBuf;

use crate::agent::pin::check::NotAsPinned;
use crate::model::{Invalid, PinError, StorePath, Substituter};
use crate::store::StoreError;

/// Why a deployment's path is not here.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// No cache has it yet. That is no failure: whoever builds it is not done.
    #[error("{path} is not in any of its caches yet ({})", shown(caches))]
    NotYet {
        /// The path.
        path: StorePath,
        /// The caches that were asked.
        caches: Vec<Substituter>,
    },
    /// It is not here, and there is nowhere to fetch it from.
    #[error(
        "{0} is not on this machine, and its deployment names no cache to fetch it from; name `substituters` for it"
    )]
    NoCache(StorePath),
    /// A cache has it, and none of the deployment's keys signed it.
    #[error(
        "{path} is in {cache}, but not signed by any key that the deployment names ({}); it is signed by {}",
        shown(named), if signers.is_empty() { "nobody".to_owned() } else { signers.join(", ") }
    )]
    Untrusted {
        /// The path.
        path: StorePath,
        /// The cache that has it.
        cache: Substituter,
        /// The names of the deployment's keys.
        named: Vec<String>,
        /// The names of the keys that are said to have signed it.
        signers: Vec<String>,
    },
    /// What is in the caches or in the store is not what is pinned.
    #[error(transparent)]
    NotAsPinned(Box<NotAsPinned>),
    /// The pin makes no sense.
    #[error("refused the deployment: {0}; publish it again")]
    Pin(#[from] PinError),
    /// It was just fetched, and something deleted it.
    #[error("{0} was fetched, and is not in the store any more; the next pass tries again")]
    Gone(StorePath),
    /// A link that keeps what is fetched from the garbage collector could not be moved.
    #[error("cannot {act} {}: {source}", path.display())]
    Root {
        /// What was being done.
        act: &'static str,
        /// The link.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A number of caches that cannot be.
    #[error(transparent)]
    Invalid(Invalid),
    /// The caches could not be asked, or what they have could not be fetched.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn shown<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
