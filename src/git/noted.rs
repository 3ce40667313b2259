//! Small files of Clavel's own beside or in a copy of a repository. Each is a note that costs nothing but time where it is lost.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::model::json;

/// The beginning of the name of a note that is being written.
const UNFINISHED: &str = ".clavel-note-";

/// The note at `path`, of at most `limit` bytes; none where there is none that can be read.
pub(super) fn read_note<T: DeserializeOwned>(path: &Path, limit: u64) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit + 1).read_to_end(&mut bytes).ok()?;
    json::parse(&bytes, limit).ok()
}

/// Replaces the note at `path`.
pub(super) fn replace_note(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

/// Removes the notes in `folder` that a killed process has not finished. No other process may be writing one there.
pub(super) fn remove_unfinished_notes(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
