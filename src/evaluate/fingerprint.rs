//! Fingerprints of files: the same fingerprint means that the same read gives the same result. It reads the source's tree.
//!
//! Which reads matter is for `observe` to find out, and for `record` to remember.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::observe::{FileRead, ReadKind};
use crate::model::{Sha256Digest, StorePath};

/// The digest of everything that one read can tell apart.
pub(super) type Fingerprint = Sha256Digest;

/// The files of a source, read as an evaluation read them. Each read is made once.
#[derive(Debug)]
pub(super) struct SourceFiles {
    tree: PathBuf,
    known: HashMap<FileRead, Option<Fingerprint>>,
}

impl SourceFiles {
    pub(super) fn new(tree: PathBuf) -> Self {
        Self { tree, known: HashMap::new() }
    }

    /// The fingerprint of `read` now; none where it cannot be read, so that its result is not known.
    pub(super) fn fingerprint(&mut self, read: &FileRead) -> Option<Fingerprint> {
        if let Some(known) = self.known.get(read) {
            return *known;
        }
        let path = self.tree.join(&read.path);
        let result = match read.kind {
            ReadKind::Status => status(&path),
            ReadKind::Content => content(&path),
        };
        let fingerprint = match result {
            Ok(fingerprint) => Some(fingerprint),
            Err(error) if is_absent(&error) => Some(digest("absent", &[])),
            Err(_) => None,
        };
        self.known.insert(read.clone(), fingerprint);
        fingerprint
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn status(path: &PathBuf) -> io::Result<Fingerprint> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        // Some system calls stop at a link, and some follow it.
        let target = fs::metadata(path).map_or("absent", |target| kind(&target));
        return Ok(digest(&format!("link to a {target}"), fs::read_link(path)?.as_os_str().as_bytes()));
    }
    Ok(digest(kind(&metadata), &[]))
}

fn kind(metadata: &fs::Metadata) -> &'static str {
    match metadata.permissions().mode() & 0o100 {
        _ if metadata.is_dir() => "folder",
        0 => "file",
        _ => "program",
    }
}

fn content(path: &PathBuf) -> io::Result<Fingerprint> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return digest_of(kind(&metadata), fs::File::open(path)?);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = if entry.file_type()?.is_symlink() { "link" } else { kind(&entry.metadata()?) };
        names.push([entry.file_name().as_bytes(), b"\0", kind.as_bytes(), b"\0"].concat());
    }
    names.sort();
    Ok(digest("folder", &names.concat()))
}

fn digest(kind: &str, bytes: &[u8]) -> Fingerprint {
    let hash = Sha256::new().chain_update(kind).chain_update([0]).chain_update(bytes).finalize();
    Sha256Digest::from_bytes(hash.into())
}

/// The same digest without holding all bytes in memory: a flake may have files of any size.
fn digest_of(kind: &str, mut bytes: impl io::Read) -> io::Result<Fingerprint> {
    let mut hash = Sha256::new().chain_update(kind).chain_update([0]);
    let mut piece = vec![0; 64 << 10];
    loop {
        match bytes.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Sha256Digest::from_bytes(hash.finalize().into()))
}

/// Whether `path` is in the store.
pub(super) fn is_in_store(path: &StorePath) -> bool {
    Path::new(&path.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(tree: &Path, kind: ReadKind, path: &str) -> Option<Fingerprint> {
        SourceFiles::new(tree.to_owned()).fingerprint(&FileRead { path: path.into(), kind })
    }

    #[test]
    fn everything_that_a_read_can_tell_apart_has_another_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        let file = tree.join("a");
        let both = |path: &str| {
            let of = |kind| fingerprint(tree, kind, path).unwrap();
            (of(ReadKind::Status), of(ReadKind::Content))
        };
        let absent = both("a");
        fs::write(&file, "one").unwrap();
        let one = both("a");
        fs::write(&file, "two").unwrap();
        let two = both("a");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let program = both("a");
        fs::remove_file(&file).unwrap();
        fs::write(tree.join("b"), "two").unwrap();
        std::os::unix::fs::symlink("b", &file).unwrap();
        let link = both("a");
        fs::remove_file(tree.join("b")).unwrap();
        let link_to_nothing = both("a");
        fs::create_dir(tree.join("b")).unwrap();
        let link_to_a_folder = both("a");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        let folder = both("a");
        fs::write(file.join("x"), "").unwrap();
        let with_a_file = both("a");
        assert_eq!(one.0, two.0, "the status does not depend on the bytes");
        assert_eq!(two.1, link.1, "bytes are read through a link");
        assert_eq!(folder.0, with_a_file.0);
        let statuses = [absent.0, one.0, program.0, link.0, link_to_nothing.0, link_to_a_folder.0, folder.0];
        let contents = [absent.1, one.1, two.1, program.1, folder.1, with_a_file.1];
        for all in [&statuses[..], &contents[..]] {
            let distinct: std::collections::BTreeSet<_> = all.iter().collect();
            assert_eq!(distinct.len(), all.len());
        }
        assert_eq!(fingerprint(tree, ReadKind::Status, "a/x/y"), Some(absent.0), "nothing exists below a file");
    }
}
