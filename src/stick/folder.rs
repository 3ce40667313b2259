//! `clavel-status/AGENT.json` beside a bundle, written whole or not at all, and read within bounds.
//!
//! The owner of the medium may put links there. So the folder is opened without following one, and everything else goes by the open
//! folder.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::model::{AgentStatus, BranchFile as _, Name};

/// The name of the folder beside the bundles.
pub const FOLDER: &str = "clavel-status";
/// The most statuses that are read of one medium.
pub const MAX_STATUSES: usize = 4096;

/// A file of a status: its name, and its bytes if it could be read.
#[derive(Debug)]
pub struct StatusFile {
    /// The name of the agent that the name of the file gives.
    pub agent: Name,
    /// The bytes.
    pub bytes: io::Result<Vec<u8>>,
}

fn open(medium: &Path) -> rustix::io::Result<OwnedFd> {
    let medium = rustix::fs::open(medium, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    open_below(&medium)
}

fn open_below(medium: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(medium, FOLDER, flags, Mode::empty())
}

fn read(folder: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    // A pipe must not stop the reader.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(folder, name, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(AgentStatus::MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of the status of `agent` on the medium, if there is one that can be read. One byte more than is allowed is read of a longer
/// one.
pub fn read_own(medium: &Path, agent: &Name) -> Option<Vec<u8>> {
    read(&open(medium).ok()?, &file_of(agent)).ok()
}

/// The statuses on the medium, sorted by the names of their files: at most [`MAX_STATUSES`]. Hidden files and those of other names are
/// left alone.
pub fn read_all(medium: &Path) -> io::Result<Vec<StatusFile>> {
    let folder = match open(medium) {
        Ok(folder) => folder,
        Err(Errno::NOENT) if medium.is_dir() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut agents: Vec<Name> = Vec::new();
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(".json")?.parse().ok());
        agents.extend(name);
        if agents.len() > MAX_STATUSES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {MAX_STATUSES} statuses are in it"),
            ));
        }
    }
    agents.sort();
    let found = |agent: Name| StatusFile { bytes: read(&folder, &file_of(&agent)), agent };
    Ok(agents.into_iter().map(found).collect())
}

/// Replaces the status of `agent` on the medium, and returns once it is there, also after the medium is pulled out.
pub fn leave(medium: &Path, agent: &Name, bytes: &[u8]) -> io::Result<()> {
    let medium = rustix::fs::open(medium, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let folder = match open_below(&medium) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(&medium, FOLDER, Mode::from_raw_mode(0o755))?;
            rustix::fs::fsync(&medium)?;
            open_below(&medium)?
        }
        opened => opened?,
    };
    let name = file_of(agent);
    // Only one agent has this name, so what is there is left from a write that was ended.
    let beside = format!(".{name}.new");
    match rustix::fs::unlinkat(&folder, &beside, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(&folder, &beside, flags, Mode::from_raw_mode(0o644))?);
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let renamed = written.and_then(|()| Ok(rustix::fs::renameat(&folder, &beside, &folder, &name)?));
    if let Err(error) = renamed {
        // A medium that is full has the room again.
        let _ = rustix::fs::unlinkat(&folder, &beside, AtFlags::empty());
        return Err(error);
    }
    Ok(rustix::fs::fsync(&folder)?)
}

fn file_of(agent: &Name) -> String {
    format!("{agent}.json")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_status_is_replaced_and_read_and_nothing_else_is() {
        let stick = tempfile::tempdir().unwrap();
        assert!(read_all(stick.path()).unwrap().is_empty());
        leave(stick.path(), &name("web-2"), b"0").unwrap();
        leave(stick.path(), &name("web-1"), b"1").unwrap();
        leave(stick.path(), &name("web-1"), b"2").unwrap();
        let folder = stick.path().join(FOLDER);
        fs::write(folder.join(".web-3.json.new"), "3").unwrap();
        fs::write(folder.join("readme.txt"), "4").unwrap();
        symlink("/etc/hostname", folder.join("web-4.json")).unwrap();
        let found = read_all(stick.path()).unwrap();
        let shown: Vec<_> = found.iter().map(|file| (file.agent.as_str(), file.bytes.as_ref().ok())).collect();
        assert_eq!(shown, [("web-1", Some(&b"2".to_vec())), ("web-2", Some(&b"0".to_vec())), ("web-4", None)]);
        assert_eq!(read_own(stick.path(), &name("web-1")), Some(b"2".to_vec()));
        assert!(read_all(&stick.path().join("no")).is_err());
    }

    #[test]
    fn a_link_on_the_medium_leads_nowhere() {
        let (stick, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(other.path(), stick.path().join(FOLDER)).unwrap();
        assert!(leave(stick.path(), &name("web-1"), b"1").is_err());
        assert!(read_all(stick.path()).is_err());
        fs::remove_file(stick.path().join(FOLDER)).unwrap();
        fs::create_dir(stick.path().join(FOLDER)).unwrap();
        let victim = other.path().join("victim");
        fs::write(&victim, "as it was").unwrap();
        symlink(&victim, stick.path().join(FOLDER).join("web-1.json")).unwrap();
        symlink(&victim, stick.path().join(FOLDER).join(".web-1.json.new")).unwrap();
        leave(stick.path(), &name("web-1"), b"1").unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
        assert_eq!(read_own(stick.path(), &name("web-1")), Some(b"1".to_vec()));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    }
}
