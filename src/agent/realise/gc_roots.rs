//! The links that keep what was realised from the garbage collector.

use std::io;
use std::path::{Path, PathBuf};

use super::error::RealiseError;

/// Where what was realised is linked, so that no garbage collection takes it away.
#[derive(Debug)]
pub(in crate::agent) struct GcRoots {
    /// Where it stays.
    pub(in crate::agent) kept: PathBuf,
    /// Where it is while nobody knows yet whether it is what is pinned.
    pub(in crate::agent) unchecked: PathBuf,
}

/// Takes a link away, if it is there, and makes its folder.
pub(in crate::agent) fn unlink(link: &Path) -> Result<(), RealiseError> {
    let io = |act, source| RealiseError::Root { act, path: link.to_owned(), source };
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder).map_err(|source| io("make the folder of", source))?;
    }
    match std::fs::remove_file(link) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(io("remove", source)),
        _ => Ok(()),
    }
}
