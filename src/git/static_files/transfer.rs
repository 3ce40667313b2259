//! What the reader of a static folder is given. `branch` has the reader, since this room knows no document.

use super::error::StaticError;
use crate::model::{BranchPart, FileDigest};

/// Gets files of a static folder, and keeps those that are files of the branch.
pub trait StaticTransfer {
    /// The file at `path` of the branch, with this digest: as it was read before, or from the folder. It is kept.
    fn file(&mut self, path: &str, digest: &FileDigest) -> Result<Vec<u8>, StaticError>;

    /// An object that is no file of the branch. It is not kept.
    fn object(&mut self, digest: &FileDigest) -> Result<Vec<u8>, StaticError>;

    /// The file at `path` of the branch as it was read before, of at most `limit` bytes.
    fn known(&self, path: &str, limit: u64) -> Option<Vec<u8>>;

    /// Keeps bytes that came with the tip as the file at `path` of the branch.
    fn keep(&mut self, path: &str, bytes: &[u8]) -> Result<(), StaticError>;
}

/// Reads the part of the branch that the tip names. Nothing of it is believed: it is verified once it is a commit.
pub type ReadStatic = fn(&[u8], &BranchPart, &mut dyn StaticTransfer) -> Result<(), StaticError>;
