//! The one place that replaces a file on disk.
//!
//! A reader finds the old bytes or the new ones, and never a mixture. If the caller asks for it, that holds after a power cut
//! too. This is a room of its own because `agent`, `publish`, `evaluate` and `cli` all write files, and share no other room
//! that may use the disk. The bytes and their meaning belong to the room that calls.
//!
//! `tempfile` creates the new file in the same folder and renames it. It syncs neither the file nor the folder, so `replace`
//! does. (The crate atomic-write-file does all of it, but it always syncs, and it gives a new file the permissions that the
//! umask leaves, while the state of an agent is for its owner alone.)

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The users who may read a file that replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The owner alone, mode 0600.
    Owner,
    /// Every user of the machine, mode 0644.
    Everyone,
    /// The same users as for the file that is replaced, which has to exist.
    Unchanged,
}

/// Whether a file has to outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The file and its folder are on the disk when the call returns.
    Synced,
    /// The system writes them to the disk later. After a power cut the file may be missing or empty.
    Unsynced,
}

/// Replaces or creates the file at `path`, so that it has the content `bytes`.
pub fn replace(path: &Path, bytes: &[u8], access: Access, durability: Durability) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let permissions = match access {
        Access::Owner => Permissions::from_mode(0o600),
        Access::Everyone => Permissions::from_mode(0o644),
        Access::Unchanged => fs::metadata(path)?.permissions(),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(permissions)?;
    if durability == Durability::Synced {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    match durability {
        // The new name is on the disk only after the folder was synced.
        Durability::Synced => File::open(folder)?.sync_all(),
        Durability::Unsynced => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_file_is_created_and_replaced_with_the_requested_access() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert!(replace(&path, b"0", Access::Unchanged, Durability::Synced).is_err());
        replace(&path, b"1", Access::Owner, Durability::Synced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"1".to_vec(), 0o600));
        replace(&path, b"2", Access::Everyone, Durability::Unsynced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"2".to_vec(), 0o644));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"3", Access::Unchanged, Durability::Synced).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"3".to_vec(), 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"1", Access::Owner, Durability::Synced).is_err());
        assert!(path.is_dir() && fs::read_dir(folder.path()).unwrap().count() == 1);
    }
}
