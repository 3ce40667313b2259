//! A source of files by their paths: a commit, or memory.

use std::collections::BTreeMap;

use super::objects::ReadError;
use super::snapshot::Snapshot;

/// A source of files by their paths: a commit, or memory.
pub trait Files {
    /// The regular file at `path`, of at most `limit` bytes; `None` if it does not exist.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError>;

    /// The folder at `path` as git writes it, of at most `limit` bytes; `None` if it does not exist. The top is the empty string.
    ///
    /// It is for a reader that checks these bytes itself. A larger tree gives [`ReadError::TooLarge`], and is not inflated.
    fn tree(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError>;
}

impl Files for Snapshot {
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Self::read(self, path, limit)
    }

    fn tree(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Self::tree(self, path, limit)
    }
}

/// Files in memory. Their trees name no objects.
impl Files for BTreeMap<String, Vec<u8>> {
    fn read(&self, path: &str, _limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(self.get(path).cloned())
    }

    fn tree(&self, path: &str, _limit: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        // Git sorts a folder as if its name ended in `/`.
        let entries: BTreeMap<&str, &str> = self
            .range(prefix.clone()..)
            .map_while(|(file, _)| file.strip_prefix(&prefix))
            .map(|rest| rest.find('/').map_or((rest, "100644"), |end| (&rest[..=end], "40000")))
            .collect();
        let entry = |(name, mode): (&str, &str)| {
            let name = name.strip_suffix('/').unwrap_or(name);
            [format!("{mode} {name}\0").as_bytes(), &[0; 20]].concat()
        };
        Ok((!entries.is_empty()).then(|| entries.into_iter().flat_map(entry).collect()))
    }
}
