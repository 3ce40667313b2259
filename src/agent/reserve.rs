//! Room for the agent's own records on a disk that is full: a file in the state folder that is removed when it is needed.
//!
//! A switch may fill the disk. Then the agent could not record that it failed, arm the way back, nor have Nix set a profile, and the machine
//! would stay with what does not work. What is recorded belongs to `state`, `activating` and `way_back`.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::disk::{self, Access, Durability};
use crate::host::free_space;

/// The name of the file in the state folder.
pub(super) const RESERVE: &str = "reserve";

/// Its length: 1 MiB. Records have some KiB, and Nix writes less than half of it to set a profile.
const LENGTH: usize = 1 << 20;

/// How much has to be free for the file to be made: it must not itself fill the disk, nor be made and removed in turns.
const FREE_TO_MAKE: u64 = 8 << 20;

/// Makes the file where it is not there and the disk of the state folder has room for it.
pub(super) fn keep(state: &Path) -> io::Result<()> {
    let path = state.join(RESERVE);
    if path.try_exists()? || free_space(state).is_some_and(|free| free < FREE_TO_MAKE) {
        return Ok(());
    }
    // A file system that compresses would keep no room for zeros.
    let mut bytes = vec![0; LENGTH];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    disk::replace(&path, &bytes, Access::Owner, Durability::Synced)
}

/// Makes room before a step that needs some, where the disk of the state folder has next to none.
pub(super) fn release_if_needed(state: &Path) {
    if free_space(state).is_some_and(|free| free < LENGTH as u64) {
        release(state);
    }
}

/// Replaces a record of the agent, for its owner alone, and makes room for it where there is none.
pub(super) fn replace_record(state: &Path, path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    with_room(|| disk::replace(path, bytes, Access::Owner, durability), || release(state))
}

/// The state folder of a folder that is a unit's: `activations/UNIT` and `way-back/UNIT`.
pub(super) fn state_of(folder: &Path) -> PathBuf {
    folder.ancestors().nth(2).unwrap_or(folder).to_owned()
}

/// Removes the file, and says whether it was there.
fn release(state: &Path) -> bool {
    std::fs::remove_file(state.join(RESERVE)).is_ok()
}

/// Writes, and once more where the disk was full and is not any more.
fn with_room(mut write: impl FnMut() -> io::Result<()>, release: impl FnOnce() -> bool) -> io::Result<()> {
    let is_full = |error: &io::Error| matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
    match write() {
        Err(error) if is_full(&error) && release() => write(),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The result of writing with the reserve `there` or not, if the first `full` writes find no room; and the number of writes.
    fn write(full: u32, there: bool, kind: ErrorKind) -> (bool, u32) {
        let writes = Cell::new(0);
        let written = with_room(
            || {
                writes.set(writes.get() + 1);
                if writes.get() > full { Ok(()) } else { Err(kind.into()) }
            },
            || there,
        );
        (written.is_ok(), writes.get())
    }

    #[test]
    fn a_record_is_written_once_more_where_that_made_room() {
        let full = ErrorKind::StorageFull;
        assert_eq!(write(0, true, full), (true, 1));
        assert_eq!(write(1, true, full), (true, 2));
        assert_eq!(write(1, true, ErrorKind::QuotaExceeded), (true, 2));
        assert_eq!(write(2, true, full), (false, 2));
        assert_eq!(write(1, false, full), (false, 1));
        assert_eq!(write(1, true, ErrorKind::PermissionDenied), (false, 1));
    }

    #[test]
    fn the_file_is_made_once_and_stays_while_there_is_room() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path()).unwrap();
        let path = state.path().join(RESERVE);
        let made = std::fs::read(&path).unwrap();
        assert_eq!(made.len(), LENGTH);
        keep(state.path()).unwrap();
        release_if_needed(state.path());
        assert_eq!(std::fs::read(&path).unwrap(), made);
        assert!(release(state.path()) && !release(state.path()));
    }

    #[test]
    fn the_state_folder_is_two_above_that_of_a_unit() {
        assert_eq!(state_of(Path::new("/s/activations/reserve")), Path::new("/s"));
    }
}
