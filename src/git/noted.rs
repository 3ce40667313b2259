//! Small files of Clavel's own beside or in a copy of a repository. Each is a note that costs nothing but time where it is lost.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::model::json;

/// The note at `path`, of at most `limit` bytes; none where there is none that can be read.
pub(super) fn read_note<T: DeserializeOwned>(path: &Path, limit: u64) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
    json::parse(&bytes, limit).ok()
}

/// Replaces the note at `path`.
pub(super) fn replace_note(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}
