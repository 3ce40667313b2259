//! The interface to a Nix store: look up paths and their content, fetch, keep, delete, set a profile.
//!
//! An engine implements it; today that is the machine's own Nix (`nix.rs`). `agent` and `publish` decide what to fetch, and
//! check the result.

mod cache;
mod derivation;
mod nix;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use cache::{CacheEntries, CacheEntry, CacheKeys};
pub use derivation::DerivationError;

use crate::model::{NarTemplateSpecification, StorePath, Substituter, describe_error};
use crate::process::{ProcessError, TraceDetail};

/// The result of a store operation, once it has ended.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A Nix store on this machine, and the caches that it can ask.
pub trait Store: fmt::Debug + Send + Sync {
    /// The path of this machine at which the files of `path` are, if the store has them.
    fn files_of(&self, path: &StorePath) -> PathBuf;

    /// Fetches the path of `template` and all that it needs, and makes a GC root at `gc_root`. Only the caches of the template are
    /// asked, only its keys are trusted, and nothing is built.
    fn fetch<'a>(&'a self, template: &'a NarTemplateSpecification, gc_root: &'a Path) -> StoreFuture<'a, ()>;

    /// Makes a GC root at `gc_root` for `path`, which has to be in the store. Nothing is fetched.
    fn keep<'a>(&'a self, path: &'a StorePath, gc_root: &'a Path) -> StoreFuture<'a, ()>;

    /// The entries of those of `paths` that `cache` has.
    fn look_up<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries>;

    /// The entries that `cache` has for `paths` and all that they need; an error if it lacks one of them.
    fn look_up_closure<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries>;

    /// The entries of those of `paths` that are in the store, and of all that these need.
    fn closures_here<'a>(&'a self, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries>;

    /// Deletes `paths` and all paths of the store that need one of them. A path that a GC root or a process of this machine
    /// uses stays, and is an error.
    fn delete<'a>(&'a self, paths: &'a [StorePath]) -> StoreFuture<'a, ()>;

    /// Makes `path` the newest generation of `profile`. Nothing is fetched.
    fn set_profile<'a>(&'a self, profile: &'a Path, path: &'a StorePath) -> StoreFuture<'a, ()>;

    /// Writes the files of `path`, which has to be in the store, as a NAR.
    fn dump(&self, path: &StorePath, output: &mut dyn io::Write) -> io::Result<()>;

    /// The file of the derivation at `path`.
    fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError>;
}

/// The destination of an engine's output while it fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is collected, and only errors have it.
    Capture,
    /// It goes to standard error at once, for a person who watches.
    Inherit,
}

/// Opens the store of this machine. No command may take longer than `deadline`. `root` selects a store other than the machine's
/// own: the folder that has a `nix/store` below it.
pub fn open(root: Option<PathBuf>, deadline: Duration, output: Output) -> Arc<dyn Store> {
    Arc::new(nix::MachineNix { root, deadline, output })
}

/// The reason why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The program of the engine failed.
    #[error("cannot {act}")]
    Failed {
        /// The operation and its object, such as `fetch /nix/store/…`.
        act: String,
        /// How the program failed.
        source: ProcessError,
    },
    /// A file of this machine could not be read.
    #[error("cannot {act}")]
    Files {
        /// The operation and its object, such as `fetch /nix/store/…`.
        act: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The program printed something of an unknown form.
    #[error("cannot {act}: nix printed something that Clavel does not understand ({why}); use a Nix from 2.8 to 2.34")]
    Unexpected {
        /// The operation and its object, such as `fetch /nix/store/…`.
        act: String,
        /// The first thing that is wrong with it.
        why: String,
    },
}

impl StoreError {
    /// Whether the program was ended at its deadline.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Failed { source: ProcessError::TimedOut { .. }, .. })
    }

    /// Whether the program itself exited with an error, and was not ended by Clavel or a signal.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Failed { source: ProcessError::Failed { .. }, .. })
    }

    /// The message of the engine, or Clavel's own if the engine printed none.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source, .. } => source.nix_message(TraceDetail::Short),
            Self::Files { .. } | Self::Unexpected { .. } => describe_error(self),
        }
    }
}
