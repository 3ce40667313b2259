//! Files on disk: replacing one, reading one that has a bound, and locking one.
//!
//! A reader finds the old bytes or the new ones, and never a mixture. If the caller asks for it, that holds after a power cut
//! too. This is a room of its own because `agent`, `publish`, `evaluate` and `cli` all use files, and share no other room
//! that may use the disk. The bytes and their meaning belong to the room that calls.
//!
//! `tempfile` creates the new file in the same folder and renames it. It syncs neither the file nor the folder, so `put`
//! does. (The crate atomic-write-file does all of it, but it always syncs, and it gives a new file the permissions that the
//! umask leaves, while the state of an agent is for its owner alone.)

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Read as _, Write as _};
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

/// The end of the name of a file that is to replace another one. The name begins with a dot and the name of the other, and has random
/// characters between.
const UNFINISHED: &str = ".new";
/// The number of these characters.
const RANDOM_CHARACTERS: usize = 6;
/// The most characters of the other's name in it. Each has at most four bytes, and the whole name at most 255.
const MAX_NAME_CHARACTERS: usize = 60;

/// Replaces or creates the file at `path`, so that it has the content `bytes`.
pub fn replace(path: &Path, bytes: &[u8], access: Access, durability: Durability) -> io::Result<()> {
    let permissions = match access {
        Access::Owner => Permissions::from_mode(0o600),
        Access::Everyone => Permissions::from_mode(0o644),
        Access::Unchanged => fs::metadata(path)?.permissions(),
    };
    put(path, None, durability, |file| {
        file.write_all(bytes)?;
        file.set_permissions(permissions)
    })
}

/// Creates or replaces the file at `path` with what `write` writes. It has its name once it is complete and on the disk. Its mode is
/// set as it is created, since a stick's file system may have no modes to change.
pub fn create_whole<T, E: From<io::Error>>(path: &Path, write: impl FnOnce(&mut File) -> Result<T, E>) -> Result<T, E> {
    put(path, Some(Permissions::from_mode(0o644)), Durability::Synced, write)
}

/// Removes the unfinished files of processes that were killed while they replaced the file at `path`. No other process may be replacing
/// it now.
pub fn remove_unfinished(path: &Path) -> io::Result<()> {
    let begin = unfinished_begin(path);
    let entries = match fs::read_dir(folder_of(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let rest = name.as_encoded_bytes().strip_prefix(begin.as_bytes());
        let random = rest.and_then(|rest| rest.strip_suffix(UNFINISHED.as_bytes()));
        if random
            .is_some_and(|random| random.len() == RANDOM_CHARACTERS && random.iter().all(u8::is_ascii_alphanumeric))
        {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// The beginning of the names of the unfinished files that are to replace the file at `path`.
fn unfinished_begin(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let short: String = name.chars().take(MAX_NAME_CHARACTERS).collect();
    format!(".{short}.")
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Gives a new file, which is created with `permissions`, the name `path` after `write` has written it.
fn put<T, E: From<io::Error>>(
    path: &Path,
    permissions: Option<Permissions>,
    durability: Durability,
    write: impl FnOnce(&mut File) -> Result<T, E>,
) -> Result<T, E> {
    let (folder, begin) = (folder_of(path), unfinished_begin(path));
    let mut new = tempfile::Builder::new();
    new.prefix(&begin).suffix(UNFINISHED).rand_bytes(RANDOM_CHARACTERS);
    if let Some(permissions) = permissions {
        new.permissions(permissions);
    }
    let mut file = new.tempfile_in(folder)?;
    let written = write(file.as_file_mut())?;
    if durability == Durability::Synced {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    if durability == Durability::Synced {
        // The new name is on the disk only after the folder was synced.
        File::open(folder)?.sync_all()?;
    }
    Ok(written)
}

/// Syncs the file system of `folder` to the disk: one call for many files.
#[cfg(target_os = "linux")]
pub fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Syncs all file systems to the disk; other systems than Linux have no call for a single one.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "one signature for all systems")]
pub fn sync_file_system(_: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Reads the file at `path`. One of more than `limit` bytes is an error of the kind [`io::ErrorKind::FileTooLarge`], and the rest
/// of it is not read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    check_length(&bytes, limit)?;
    Ok(bytes)
}

/// Reads the text file at `path`, as [`read`] does.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
}

/// Checks that [`read`] with this limit can read a file with the content `bytes`. A writer asks before it replaces the file.
pub fn check_length(bytes: &[u8], limit: u64) -> io::Result<()> {
    let too_long = || io::Error::new(io::ErrorKind::FileTooLarge, format!("at most {limit} bytes are allowed"));
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(()) }
}

/// The lock on a file, which no other process has as long as this value lives.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct FileLock(File);

impl FileLock {
    /// Takes the lock on the file at `path`, which is created where it does not exist. It does not wait for another process.
    pub fn try_take(path: &Path) -> Result<Self, TryLockError> {
        let file = Self::open(path).map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(Self(file))
    }

    /// The same, and waits for another process. This is for a lock that nobody holds for longer than it takes to replace a file.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = Self::open(path)?;
        file.lock()?;
        Ok(Self(file))
    }

    fn open(path: &Path) -> io::Result<File> {
        File::options().create(true).append(true).open(path)
    }

    /// The open file that is the lock. A process that inherits it holds the lock, for as long as it keeps the file open.
    pub fn into_file(self) -> File {
        self.0
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
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "1234").unwrap();
        assert_eq!((read(&path, 4).unwrap(), read_text(&path, 4).unwrap()), (b"1234".to_vec(), "1234".to_owned()));
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        fs::write(&path, b"\xff").unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_lock_is_taken_once_and_ends_with_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let lock = FileLock::try_take(&path).unwrap();
        assert!(matches!(FileLock::try_take(&path), Err(TryLockError::WouldBlock)));
        drop(lock);
        assert!(FileLock::try_take(&path).is_ok());
        assert!(matches!(FileLock::try_take(&folder.path().join("no/lock")), Err(TryLockError::Error(_))));
    }

    #[test]
    fn what_a_killed_process_left_of_a_file_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let others =
            ["a.json", ".a.json", ".b.json.abcDE1.new", ".a.json.abcDE1.newer", ".a.json.ab-DE1.new", ".a.json.x.new"];
        for name in others {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let before = names();
        // The second name is too long for another one that contains it.
        for name in ["a.json".to_owned(), "\u{20ac}".repeat(80)] {
            let path = folder.path().join(&name);
            let unfinished = create_whole(&path, |file| {
                let unfinished: Vec<String> = names().difference(&before).cloned().collect();
                file.write_all(b"1").map(|()| unfinished)
            });
            let [unfinished] = &unfinished.unwrap()[..] else { panic!() };
            fs::write(folder.path().join(unfinished), "").unwrap();
            remove_unfinished(&path).unwrap();
            assert!(!names().contains(unfinished));
            assert_eq!(fs::read(&path).unwrap(), b"1");
            if name != "a.json" {
                fs::remove_file(&path).unwrap();
            }
        }
        assert_eq!(names(), before);
        remove_unfinished(&folder.path().join("no/a.json")).unwrap();
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
