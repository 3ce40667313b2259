//! The interface to a Nix store: look up, contents, fetch, keep, delete, set a profile.
//!
//! An engine implements it: today the machine's own Nix (`nix.rs`). `agent` and `publish` decide what to fetch, and check
//! the result.

mod cache;
mod derivation;
mod nix;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use cache::{CacheEntry, Entries};
pub use derivation::DerivationError;

use crate::model::{NarTemplateSpecification, StorePath, Substituter};
use crate::process::ProcessError;

/// What a store answers, once it is done.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A Nix store on this machine, and the caches that it can ask.
pub trait Store: fmt::Debug + Send + Sync {
    /// Where the files of `path` are on this machine, whether they are there or not.
    fn files_of(&self, path: &StorePath) -> PathBuf;

    /// Fetches the path of `template` and all it needs from the template's caches alone, believing the template's keys
    /// alone, and keeps it from the garbage collector by a link at `root`. Nothing is built.
    fn fetch<'a>(&'a self, template: &'a NarTemplateSpecification, root: &'a Path) -> Answer<'a, ()>;

    /// Keeps `path`, which has to be in the store, from the garbage collector by a link at `root`. Nothing is fetched.
    fn keep<'a>(&'a self, path: &'a StorePath, root: &'a Path) -> Answer<'a, ()>;

    /// What `cache` says of those of `paths` that it has.
    fn look_up<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> Answer<'a, Entries>;

    /// What `cache` says of `paths` and of all that they need; an error where it does not have all of it.
    fn look_up_closure<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> Answer<'a, Entries>;

    /// What the store has of `paths`, and of all that those of them need which are there.
    fn closures_here<'a>(&'a self, paths: &'a [StorePath]) -> Answer<'a, Entries>;

    /// Deletes `paths`, and whatever else in the store needs one of them. A path that something on this machine holds stays,
    /// and is an error.
    fn delete<'a>(&'a self, paths: &'a [StorePath]) -> Answer<'a, ()>;

    /// Makes `path` the newest generation of `profile`. Nothing is fetched.
    fn set_profile<'a>(&'a self, profile: &'a Path, path: &'a StorePath) -> Answer<'a, ()>;

    /// The file of the derivation at `path`.
    fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError>;
}

/// What is shown of what an engine says while it fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Only errors show it.
    Capture,
    /// It is passed on to standard error, where a person watches.
    Inherit,
}

/// The store of this machine, where no command may take longer than `deadline`. `root` is a store other than the machine's
/// own: the folder that has a `nix/store` below it.
pub fn open(root: Option<PathBuf>, deadline: Duration, output: Output) -> Arc<dyn Store> {
    Arc::new(nix::MachineNix { root, deadline, output })
}

/// The reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Its program failed.
    #[error("cannot {act}: {source}")]
    Failed {
        /// What was being done, to what.
        act: String,
        /// How it failed.
        source: ProcessError,
    },
    /// This machine's disk failed.
    #[error("cannot {act}: {source}")]
    Files {
        /// What was being done, to what.
        act: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What it answered is not what is known of it.
    #[error("cannot {act}: nix printed what Clavel does not understand ({why}); Clavel knows Nix 2.8 to 2.34")]
    Unexpected {
        /// What was being done, to what.
        act: String,
        /// What is wrong with it.
        why: String,
    },
}

impl StoreError {
    /// Whether it was ended because it took too long.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed { source: ProcessError::TimedOut { .. }, .. })
    }

    /// Whether the store itself said no, and was not ended from outside.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Failed { source: ProcessError::Failed { .. }, .. })
    }

    /// The engine's own message, where it said something.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source, .. } => source.nix_message(),
            Self::Files { .. } | Self::Unexpected { .. } => self.to_string(),
        }
    }
}
