//! Removes the files that an interrupted fetch left in a cache: parts of packs, and locks.
//!
//! The caller has to know that no other process works in the cache.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::address::RefName;
use super::bundle::incoming::Incoming;
use super::noted::remove_unfinished_notes;
use super::repository::{GitError, Repository};

/// The number of loose objects after which a cache is better discarded. An agent of 1,024 deployments needs some 6,000 at first.
const MANY_LOOSE_OBJECTS: usize = 16_384;

/// The state of a cache after its leftovers were removed.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftovers {
    /// The cache has no leftovers.
    Cleared,
    /// A pack is complete, and it is unknown whether the ref moved to its commit. The cache has to be started afresh.
    PackInDoubt,
}

impl Repository {
    /// Removes the parts of packs and the locks that an interrupted fetch into the ref `into` left. No other program may work in
    /// this repository.
    pub fn clear_leftovers(&self, into: &RefName) -> Result<Leftovers, GitError> {
        let act = || format!("remove the files that an interrupted fetch left in {}", self.path().display());
        let failed = |error: io::Error| GitError::io(act(), &error);
        let git_dir = self.git_dir();
        Incoming::remove_leftover(&git_dir).map_err(failed)?;
        remove_unfinished_notes(&git_dir).map_err(failed)?;
        for locked in ["shallow", "packed-refs", "config", "HEAD", into.as_str()] {
            remove_file(&git_dir.join(format!("{locked}.lock"))).map_err(failed)?;
        }
        let files = files_in(&git_dir.join("objects/pack")).map_err(failed)?;
        if files.iter().any(|file| has_extension(file, "keep")) {
            return Ok(Leftovers::PackInDoubt);
        }
        parts_of_packs(&git_dir)
            .and_then(|parts| parts.iter().try_for_each(|file| remove_file(file)))
            .map_err(failed)?;
        Ok(Leftovers::Cleared)
    }

    /// Whether a cache has so many loose objects that it is better discarded, with [`Repository::start_afresh`]. Those of static folders
    /// come as loose objects, some eight with each publication.
    pub fn has_many_loose_objects(&self) -> Result<bool, GitError> {
        let git_dir = self.git_dir();
        let act = || format!("count the objects in {}", git_dir.display());
        Ok(loose_objects(&git_dir).map_err(|error| GitError::io(act(), &error))?.len() > MANY_LOOSE_OBJECTS)
    }

    /// The size of everything that fetches have written here, in bytes, including the one that runs now.
    pub fn fetched_bytes(&self) -> Result<u64, GitError> {
        let git_dir = self.git_dir();
        let act = || format!("read the size of {}", git_dir.display());
        let mut files = files_in(&git_dir.join("objects/pack")).map_err(|error| GitError::io(act(), &error))?;
        files.extend(files_in(&Incoming::packs_below(&git_dir)).map_err(|error| GitError::io(act(), &error))?);
        files.extend(loose_objects(&git_dir).map_err(|error| GitError::io(act(), &error))?);
        files.extend(["shallow", "shallow.lock"].map(|name| git_dir.join(name)));
        // A file that was deleted meanwhile has no size.
        Ok(files.iter().filter_map(|file| fs::symlink_metadata(file).ok()).map(|metadata| metadata.len()).sum())
    }
}

/// The files of loose objects in a repository.
fn loose_objects(git_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_of_loose = |folder: &PathBuf| folder.file_name().is_some_and(|name| name.len() == 2);
    let folders = files_in(&git_dir.join("objects"))?.into_iter().filter(is_of_loose);
    let files: Vec<Vec<PathBuf>> = folders.map(|folder| files_in(&folder)).collect::<io::Result<_>>()?;
    Ok(files.into_iter().flatten().collect())
}

/// The parts of packs in a repository, which a fetch has not completed.
pub(super) fn parts_of_packs(git_dir: &Path) -> io::Result<HashSet<PathBuf>> {
    let files: HashSet<PathBuf> = files_in(&git_dir.join("objects/pack"))?.into_iter().collect();
    let is_complete = |file: &Path| {
        let is_pack = has_extension(file, "pack") || has_extension(file, "idx");
        is_pack && ["pack", "idx"].iter().all(|half| files.contains(&file.with_extension(half)))
    };
    Ok(files.iter().filter(|file| !is_complete(file)).cloned().collect())
}

/// Removes the parts of packs that are not among those of `before`.
pub(super) fn remove_parts_since(git_dir: &Path, before: &HashSet<PathBuf>) -> io::Result<()> {
    Incoming::remove_leftover(git_dir)?;
    let now = parts_of_packs(git_dir)?;
    now.difference(before).try_for_each(|file| remove_file(file))
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension() == Some(OsStr::new(extension))
}

/// The files in `folder`; none if the folder does not exist.
fn files_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn remove_file(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::fetch::{Depth, FetchRequest, Fetched};
    use super::super::fixture::{self, TestFolder};
    use super::*;
    use crate::model::BranchPart;

    fn into() -> RefName {
        "refs/clavel/fetched".parse().unwrap()
    }

    /// A cache that holds one fetched pack, and its folder of packs.
    fn fetched(dir: &TestFolder) -> (Repository, PathBuf) {
        let (remote, cache) = (dir.repository("remote.git"), dir.repository("cache.git"));
        fixture::put(&remote, None, &[("a.json", "1")]);
        let request = FetchRequest {
            remote: &dir.path().join("remote.git").display().to_string().parse().unwrap(),
            branch: &fixture::branch(),
            into: &into(),
            depth: Depth::Tip,
            part: &BranchPart::Whole,
            read_static: |_, _, _| Ok(()),
            interrupt: &AtomicBool::new(false),
        };
        assert!(matches!(cache.fetch(&request), Ok(Fetched::Moved(_))));
        (cache, dir.path().join("cache.git/objects/pack"))
    }

    #[test]
    fn incomplete_packs_and_locks_are_removed_and_complete_packs_stay() {
        let dir = TestFolder::new();
        let (cache, packs) = fetched(&dir);
        let (tip, size) = (cache.tip_of_ref(&into()).unwrap(), cache.fetched_bytes().unwrap());
        let name = "pack-0123456789012345678901234567890123456789";
        let git_dir = dir.path().join("cache.git");
        let left = [
            packs.join(".tmpAbC"),
            packs.join(format!("{name}.pack")),
            packs.join("other.idx"),
            git_dir.join("shallow.lock"),
            git_dir.join("refs/clavel/fetched.lock"),
        ];
        for file in &left {
            fs::write(file, "x").unwrap();
        }
        assert!(cache.fetched_bytes().unwrap() > size);
        assert_eq!(cache.clear_leftovers(&into()).unwrap(), Leftovers::Cleared);
        assert!(left.iter().all(|file| !file.exists()));
        assert_eq!((cache.tip_of_ref(&into()).unwrap(), cache.fetched_bytes().unwrap()), (tip, size));
        fixture::git(&git_dir, &["fsck", "--strict"]);
    }

    #[test]
    fn only_the_parts_of_a_fetch_that_failed_are_removed() {
        let dir = TestFolder::new();
        let (cache, packs) = fetched(&dir);
        let (git_dir, size) = (dir.path().join("cache.git"), cache.fetched_bytes().unwrap());
        let [earlier, later] = [".tmpEarlier", ".tmpLater"].map(|name| packs.join(name));
        fs::write(&earlier, "").unwrap();
        let before = parts_of_packs(&git_dir).unwrap();
        fs::write(&later, "x").unwrap();
        remove_parts_since(&git_dir, &before).unwrap();
        assert!(earlier.exists() && !later.exists());
        assert_eq!(cache.fetched_bytes().unwrap(), size);
    }

    #[test]
    fn a_pack_with_a_keep_file_is_in_doubt() {
        let dir = TestFolder::new();
        let (cache, packs) = fetched(&dir);
        fs::write(packs.join("pack-0123456789012345678901234567890123456789.keep"), "").unwrap();
        assert_eq!(cache.clear_leftovers(&into()).unwrap(), Leftovers::PackInDoubt);
    }
}
