//! The branch that carries a fleet: which files it has, and how they are read and written.
//!
//! The layout, the chain of roots, the index and the documents it lists, the approvals, and the history. Everything that is
//! read here comes out verified or as an error. The objects and refs behind it belong to `git`; what to write belongs to
//! `publish`, and what to believe of it on a machine belongs to `agent`.

mod approvals;
mod documents;
mod history;
mod layout;
mod root_chain;
mod writer;

pub use approvals::{Takers, approval_path, approvals_folder};
pub use documents::{Branch, BranchError, INDEX_PATH, README_PATH, VerifiedIndex};
pub use history::{Found, History, Past};
pub use layout::{LayoutError, check_layout};
pub use root_chain::{ROOT_PATH, Roots, RootsError, root_path};
pub use writer::{BranchWriter, OpenBranch, Proposal, WriteError};

pub use crate::git::{Change, CommitId, Identity, ReadError, Remote, Snapshot};
