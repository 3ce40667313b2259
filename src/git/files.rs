//! A source of files by their paths: a commit, or memory.

use std::collections::BTreeMap;

use super::objects::ReadError;
use super::snapshot::Snapshot;

/// A source of files by their paths: a commit, or memory.
pub trait Files {
    /// The regular file at `path`, of at most `limit` bytes; `None` if it does not exist.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError>;
}

impl Files for Snapshot {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Self::read(self, path, limit)
    }
}

/// Files in memory.
impl Files for BTreeMap<String, Vec<u8>> {
    fn read(&self, path: &str, _limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.get(path).cloned())
    }
}
