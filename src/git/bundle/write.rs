//! Makes a bundle of a branch.

use std::collections::HashSet;
use std::io::{BufWriter, Write};

use gix::ObjectId;
use gix::objs::Kind;
use gix::odb::pack;
use gix::odb::pack::data::output::bytes::FromEntriesIter;
use gix::odb::pack::data::output::count::PackLocation;
use gix::odb::pack::data::output::{Count, Entry, entry};

use super::header::BundleHeader;
use crate::git::address::CommitId;
use crate::git::objects::{Mode, ObjectReader, ReadError};
use crate::git::repository::{GitError, Repository};
use crate::model::BranchName;

/// How many objects are compressed before they are written.
const CHUNK: usize = 64;

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum BundleWriteError {
    /// The repository has only the end of the history.
    #[error(
        "cannot make a bundle of commit {tip}: this repository is a shallow clone, which lacks the earlier commits; fetch them with `git \
         fetch --unshallow`, or name another repository"
    )]
    Shallow {
        /// The commit.
        tip: CommitId,
    },
    /// The bundle would be empty.
    #[error("there is nothing new since commit {0}, so no bundle was made")]
    NothingNew(CommitId),
    /// The branch is not made on top of the commit.
    #[error(
        "cannot make a bundle since commit {since}: it is not in the history of the branch, whose commit is {tip}; leave out --since, for \
         a complete bundle"
    )]
    NotBefore {
        /// The commit that was named.
        since: CommitId,
        /// The commit of the branch.
        tip: CommitId,
    },
    /// An object of the branch cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The bundle cannot be written.
    #[error("cannot write the bundle")]
    Write(#[from] std::io::Error),
}

impl Repository {
    /// Writes the branch as a bundle: all of its history up to `tip`, or what is new since the commit `since`.
    pub fn write_bundle(
        &self,
        branch: &BranchName,
        tip: CommitId,
        since: Option<CommitId>,
        output: &mut impl Write,
    ) -> Result<(), BundleWriteError> {
        let here = self.separate_handle()?;
        let act = || format!("make a bundle of {}", self.path().display());
        let git = |error: &gix::Error| GitError::new(act(), error);
        if here.is_shallow().map_err(|error| git(&error))? {
            return Err(BundleWriteError::Shallow { tip });
        }
        if let Some(since) = since {
            if since == tip {
                return Err(BundleWriteError::NothingNew(since));
            }
            if !commits_until(&here, &[tip.object()], &HashSet::new())?.contains(&since.object()) {
                return Err(BundleWriteError::NotBefore { since, tip });
            }
        }
        let known: Vec<ObjectId> = since.map(CommitId::object).into_iter().collect();
        let objects = objects_since(&here, &[tip.object()], &known)?;
        BundleHeader::of(branch, tip, since).write(output)?;
        write_pack(&here, objects, output).map_err(|error| git(&error))?;
        Ok(output.flush()?)
    }
}

impl Repository {
    /// The newest commit that a bundle of `tip` may build on for readers who have one of `commits` each: that one of them which all
    /// others are made on top of. `None` where there is none, or where one of them is not in the history of `tip`.
    pub fn common_prerequisite(
        &self,
        tip: CommitId,
        commits: &[CommitId],
    ) -> Result<Option<CommitId>, BundleWriteError> {
        let here = self.separate_handle()?;
        let history = |of: CommitId| commits_until(&here, &[of.object()], &HashSet::new());
        let all: HashSet<ObjectId> = history(tip)?.into_iter().collect();
        if !commits.iter().all(|commit| all.contains(&commit.object())) {
            return Ok(None);
        }
        let mut common: HashSet<ObjectId> = all;
        for commit in commits.iter().copied().collect::<std::collections::BTreeSet<_>>() {
            let of_this: HashSet<ObjectId> = history(commit)?.into_iter().collect();
            common.retain(|id| of_this.contains(id));
        }
        Ok(commits.iter().copied().find(|commit| common.contains(&commit.object())))
    }

    /// The commit that `commit` was made on top of; `None` for the first one.
    pub fn parent_of(&self, commit: CommitId) -> Result<Option<CommitId>, BundleWriteError> {
        let here = self.separate_handle()?;
        let parents = ObjectReader { repository: &here, commit }.parents()?;
        Ok(parents.first().copied().map(CommitId::from))
    }
}

/// The commits that `tips` lead to and that are not in `known`, the newest first.
fn commits_until(
    here: &gix::Repository,
    tips: &[ObjectId],
    known: &HashSet<ObjectId>,
) -> Result<Vec<ObjectId>, ReadError> {
    let (mut seen, mut found, mut next) = (known.clone(), Vec::new(), tips.to_vec());
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        next.extend(ObjectReader { repository: here, commit: id.into() }.parents()?);
        found.push(id);
    }
    Ok(found)
}

/// The objects that `tips` lead to and that a reader with the commits `known` lacks: commits first, then folders and files, those of the
/// newest commit before the others.
fn objects_since(here: &gix::Repository, tips: &[ObjectId], known: &[ObjectId]) -> Result<Vec<ObjectId>, ReadError> {
    let earlier: HashSet<ObjectId> = commits_until(here, known, &HashSet::new())?.into_iter().collect();
    let commits = commits_until(here, tips, &earlier)?;
    let mut seen = HashSet::new();
    for commit in known {
        add_files(here, *commit, &mut seen, &mut Vec::new())?;
    }
    let mut objects = commits.clone();
    for commit in commits {
        add_files(here, commit, &mut seen, &mut objects)?;
    }
    Ok(objects)
}

/// Adds the folders and files of a commit that are not in `seen`.
fn add_files(
    here: &gix::Repository,
    commit: ObjectId,
    seen: &mut HashSet<ObjectId>,
    objects: &mut Vec<ObjectId>,
) -> Result<(), ReadError> {
    let reader = ObjectReader { repository: here, commit: commit.into() };
    let mut folders = vec![(String::new(), reader.root()?)];
    while let Some((path, tree)) = folders.pop() {
        if !seen.insert(tree) {
            continue;
        }
        objects.push(tree);
        for (name, mode, id) in reader.entries(if path.is_empty() { "/" } else { &path }, tree)? {
            let below = || if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            match mode {
                Mode::Folder => folders.push((below(), id)),
                // It names a commit of another repository.
                Mode::Submodule => {}
                Mode::File | Mode::Executable | Mode::Symlink | Mode::Other(_) => {
                    if !seen.contains(&id) {
                        reader.size(&below(), id, Kind::Blob)?;
                        seen.insert(id);
                        objects.push(id);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Writes the objects as a pack. Those that a pack of the repository has are copied from there as they are.
pub(super) fn write_pack(
    here: &gix::Repository,
    objects: Vec<ObjectId>,
    output: &mut impl Write,
) -> Result<(), gix::Error> {
    let (hash, version) = (here.object_hash(), pack::data::Version::V2);
    let count = u32::try_from(objects.len()).unwrap_or(u32::MAX);
    let counts = objects.into_iter().map(|id| Count { id, entry_pack_location: PackLocation::NotLookedUp }).collect();
    let mut database = here.objects.clone().into_inner();
    database.prevent_pack_unload();
    let options = entry::iter_from_counts::Options {
        // One thread gives the chunks in their order, which deltas need.
        thread_limit: Some(1),
        mode: entry::iter_from_counts::Mode::PackCopyAndBaseObjects,
        // Another machine has none of this repository's packs.
        allow_thin_pack: false,
        chunk_size: CHUNK,
        version,
        compression: gix::zlib::Compression::DEFAULT,
    };
    let entries = entry::iter_from_counts(counts, database, Box::new(gix::progress::Discard), options)?;
    let entries = entries.map(|chunk| chunk.map(|(_, entries): (_, Vec<Entry>)| entries));
    for written in FromEntriesIter::new(entries, BufWriter::new(output), count, version, hash) {
        written?;
    }
    Ok(())
}
