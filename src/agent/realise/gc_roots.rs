//! The GC roots: links that keep a realised store path from the garbage collector.

use std::io;
use std::path::{Path, PathBuf};

use super::error::RealiseError;

/// The links to the store path of a deployment.
#[derive(Debug)]
pub(in crate::agent) struct GcRoots {
    /// The link of a path that is as pinned.
    pub(in crate::agent) kept: PathBuf,
    /// The link of a path that was not compared with its pins yet.
    pub(in crate::agent) unchecked: PathBuf,
}

/// Removes a link, if it exists, and makes its folder.
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

/// Removes the links in `folder` whose names `is_needed` does not know. Whatever is no link stays.
pub(in crate::agent) fn remove_others(folder: &Path, is_needed: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_symlink() && !entry.file_name().to_str().is_some_and(&is_needed) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
