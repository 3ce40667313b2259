//! The branch that carries a fleet: its files, and how they are read and written.
//!
//! This room has the layout, the chain of roots, the index and the documents that it lists, the approvals, and the history.
//! Everything that it reads is verified, or an error. The objects and refs belong to `git`; `publish` decides what to write,
//! and `agent` decides what a machine accepts.

mod approvals;
mod documents;
#[cfg(test)]
pub(crate) mod fixture;
mod history;
mod layout;
mod layout_check;
mod read_back;
mod rehearse;
mod root_chain;
mod static_reader;
mod static_tip;
mod writer;

pub use approvals::AgentsByDeployment;
pub use documents::{Branch, BranchError, VerifiedIndex, find_document};
pub use history::{History, PastDeployment, PastFile, RevisionLookup, past_files, search_files};
pub use layout::Layout;
pub use layout_check::{ForeignEntry, LayoutError};
pub use read_back::{ReadBack, ReadBackError};
pub use rehearse::{Rehearsal, rehearse, rehearse_mirror};
pub use root_chain::{RootChain, RootsError};
pub use static_reader::{read_static, static_roots};
pub use static_tip::{StaticApprovals, StaticHead, StaticRoots, StaticTip, StaticTipError};
pub use writer::{BranchWriter, FETCH_DEADLINE, OpenBranch, Proposal, WriteError};

/// The types of `git` that a caller has to name to use this room: `Remote` for [`BranchWriter`], `Snapshot` and `CommitId` for
/// [`OpenBranch`], `Change`, `Authorship` and `Identity` for [`Proposal`],
/// and the names in a static folder. `publish` takes them from here, because it may not use `git`.
pub use crate::git::{
    Authorship, Change, CommitId, Identity, ReadError as CommitReadError, Remote, STATIC_TIP, Snapshot,
    static_object_path,
};
