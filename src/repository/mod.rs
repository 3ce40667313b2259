//! The branch as git holds it: reading a commit without checking it out, committing with compare-and-swap, fetching one
//! branch, and pushing it.
//!
//! Everything that touches a git object, a ref or a remote stands here. What the bytes mean beyond their paths
//! (signatures, roles, who may say what) is `trust`'s, and when to fetch or publish is `agent`'s and `publish`'s.

mod address;
mod approvals;
mod branch;
mod commit;
mod complete;
mod fetch;
#[cfg(test)]
mod fixture;
mod folder;
mod git;
mod layout;
mod leftovers;
mod preview;
mod push;
mod roots;
mod snapshot;
mod unchecked;
mod writer;

pub use address::{CommitId, RefName, RemoteUrl};
pub use approvals::{Takers, approval_path, approvals_folder};
pub use branch::{Branch, BranchError, Files, INDEX_PATH, README_PATH, VerifiedIndex};
pub use commit::{Change, CommitError, Identity, NewCommit};
pub use fetch::{Depth, FetchError, FetchRequest, Fetched, Remedy};
pub use git::{GitError, OpenError, Repository};
pub use layout::LayoutError;
pub use leftovers::Leftovers;
pub use preview::{Preview, PreviewError};
pub use push::{Push, PushError};
pub use roots::{ROOT_PATH, Roots, RootsError, root_path};
pub use snapshot::{Entry, Mode, ReadError, Snapshot};
pub use unchecked::Unchecked;
pub use writer::{BranchWriter, WriteError, Written};
