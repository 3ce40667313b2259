//! Bare git repositories: addresses, objects, refs, one atomic commit, fetch and push.
//!
//! All code that reads or writes a git object or a remote belongs here, and all that moves a ref. (`claveld/hook.rs` reads symbolic
//! refs, since git gives its hooks the names as they were pushed.) Documents and signatures do not: `branch` reads
//! the meaning of the files, and `agent` and `claveld` decide when to fetch and publish.

mod address;
mod commit;
mod complete;
mod credentials;
mod fetch;
mod fetch_error;
mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod folder;
mod leftovers;
mod lock;
mod objects;
mod persist;
mod preview;
mod push;
mod remote;
mod repository;
mod snapshot;

pub use address::{CommitId, RefName};
pub use commit::{Change, CommitError, Identity, NewCommit, Prepared, PreparedCommit};
pub use credentials::Credentials;
pub use fetch::{Depth, FetchRequest, Fetched};
pub use fetch_error::{FetchError, Remedy};
pub use files::Files;
pub use leftovers::Leftovers;
pub use lock::HeldLock;
pub use objects::{Mode, ObjectId, ReadError};
pub use preview::{Preview, PreviewError};
pub use push::{Push, PushError};
pub use remote::Remote;
pub use repository::{GitError, OpenError, Repository};
pub use snapshot::{Snapshot, TreeEntry};
