//! A bundle with closures: one tar file that has a branch, as a git bundle, and the files of what the branch names.
//!
//! Extracted, it is a binary cache as Nix knows it. `tar` is one member, `manifest` says what is in the file, `narinfo` is the entry of
//! a store path, `order` puts the paths in the order of their references, `write` writes the file and resumes (`gradual_sync`: no faster than the disk, `hasher`: beside the writing), `read` finds the members
//! by seeking, and `check` compares each NAR with its entry. docs/format.md has the bytes.
//!
//! Nothing of such a file is trusted: sizes and counts have bounds, and only the one form that `write` gives is read. Which keys count
//! is for the caller to say. Asking a store or running programs does not belong here.

mod check;
mod gradual_sync;
mod hasher;
mod manifest;
mod narinfo;
mod order;
mod read;
mod tar;
mod write;

pub use check::{ClosureCheck, Requirement};
pub use manifest::{CarriedDeployment, CarriedPath, Manifest, ManifestError, ManifestFile};
pub use narinfo::{Narinfo, NarinfoError};
pub use order::{UnorderedPath, in_order_of_references};
pub use read::{ClosureBundle, ReadError, git_bundle_in};
pub use tar::Span;
pub use write::{ClosureWriter, WriteError, Written};
