//! The branch that carries a fleet: which files it has, and how they are read and written.
//!
//! The layout, the chain of roots, the index and the documents it lists, the approvals, and the history. Everything that is
//! read here comes out verified or as an error. The objects and refs behind it belong to `git`; what to write belongs to
//! `publish`, and what to believe of it on a machine belongs to `agent`.

mod approvals;
mod documents;
mod history;
mod layout;
mod layout_check;
mod root_chain;
mod writer;

pub use approvals::Takers;
pub use documents::{Branch, BranchError, VerifiedIndex};
pub use history::{Found, History, Past};
pub use layout::Layout;
pub use layout_check::LayoutError;
pub use root_chain::{RootChain, RootsError};
pub use writer::{BranchWriter, OpenBranch, Proposal, WriteError};

pub use crate::git::{Change, CommitId, Identity, ReadError, Remote, Snapshot};
