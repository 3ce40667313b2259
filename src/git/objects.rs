//! Reads the objects of one commit, each within a limit, with errors that name the path.

use std::fmt;

pub use gix::ObjectId;
use gix::bstr::BString;
use gix::objs::{Kind, TreeRefIter};

use super::address::CommitId;
use super::folder::TreeFolder;
use super::repository::in_one_line;

/// The largest tree object that is read: 2 MiB, some 13,000 of the longest names in one folder.
const MAX_TREE_BYTES: u64 = 2 << 20;

/// The largest commit object that is read: 1 MiB, more than any message that people write.
const MAX_COMMIT_BYTES: u64 = 1 << 20;

/// The kind of an entry of a folder, as its mode says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A regular file, mode 100644.
    File,
    /// A file with the executable bit, mode 100755.
    Executable,
    /// A symbolic link.
    Symlink,
    /// A folder.
    Folder,
    /// A submodule, which is a commit of another repository.
    Submodule,
    /// A mode that git no longer writes.
    Other(u16),
}

impl Mode {
    pub(super) fn of(mode: gix::objs::tree::EntryMode) -> Self {
        match mode.value() {
            0o100_644 => Self::File,
            0o100_755 => Self::Executable,
            0o120_000 => Self::Symlink,
            0o040_000 => Self::Folder,
            0o160_000 => Self::Submodule,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("a file"),
            Self::Executable => f.write_str("an executable file"),
            Self::Symlink => f.write_str("a symbolic link"),
            Self::Folder => f.write_str("a folder"),
            Self::Submodule => f.write_str("a submodule"),
            Self::Other(mode) => write!(f, "an entry of mode {mode:o}"),
        }
    }
}

/// The reason why a file or folder of a commit cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The entry at the path is of another kind than expected.
    #[error("cannot read `{path}` of commit {commit}: it is {found}, where only {wanted} is accepted")]
    Unexpected {
        /// The path.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The kind of the entry.
        found: Mode,
        /// The kind that was expected.
        wanted: &'static str,
    },
    /// The object is larger than the limit, and was not read.
    #[error("cannot read `{path}` of commit {commit}: it has {size} bytes, and {limit} are allowed")]
    TooLarge {
        /// The path.
        path: String,
        /// The commit.
        commit: CommitId,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The folder has more entries than the limit.
    #[error("cannot list `{path}` of commit {commit}: it has {count} entries, and {limit} are allowed")]
    TooMany {
        /// The folder; `/` is the root.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The number of entries.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// The repository lacks an object, because a pack is broken or after a power cut.
    #[error("cannot read `{path}` of commit {commit}: the repository lacks object {object}; check it with `git fsck`")]
    Missing {
        /// The path that was read.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The object that is missing.
        object: String,
    },
    /// The repository has the object, and git cannot read it.
    #[error(
        "cannot read `{path}` of commit {commit}: object {object} is damaged: {why}; check the repository with `git fsck`"
    )]
    Damaged {
        /// The path that was read.
        path: String,
        /// The commit.
        commit: CommitId,
        /// The object.
        object: String,
        /// The error of git.
        why: String,
    },
}

/// Reads the objects of one commit. Its errors name the path of the object.
pub(super) struct ObjectReader<'a> {
    pub(super) repository: &'a gix::Repository,
    pub(super) commit: CommitId,
}

impl ObjectReader<'_> {
    /// The commit's root tree.
    pub(super) fn root(&self) -> Result<ObjectId, ReadError> {
        Ok(self.decoded()?.tree)
    }

    /// The commit's parents.
    pub(super) fn parents(&self) -> Result<Vec<ObjectId>, ReadError> {
        Ok(self.decoded()?.parents.to_vec())
    }

    /// The time at which it was made, in seconds since 1970.
    pub(super) fn seconds(&self) -> Result<i64, ReadError> {
        Ok(self.decoded()?.committer.time.seconds)
    }

    fn decoded(&self) -> Result<gix::objs::Commit, ReadError> {
        let id = self.commit.object();
        let bytes = self.object("/", id, Kind::Commit, MAX_COMMIT_BYTES)?;
        let commit = gix::objs::CommitRef::from_bytes(&bytes, id.kind());
        let commit = commit.and_then(gix::objs::CommitRef::into_owned);
        commit.map_err(|error| self.damaged("/", id, in_one_line(&error)))
    }

    /// The folder of the tree `id`, which is at `path`.
    pub(super) fn folder(&self, path: &str, id: ObjectId) -> Result<TreeFolder, ReadError> {
        let bytes = self.object(path, id, Kind::Tree, MAX_TREE_BYTES)?;
        TreeFolder::of(bytes, id.kind()).map_err(|why| self.damaged(path, id, why.to_string()))
    }

    /// The entries of the tree `id`, in the order of its bytes.
    pub(super) fn entries(&self, path: &str, id: ObjectId) -> Result<Vec<(BString, Mode, ObjectId)>, ReadError> {
        let bytes = self.object(path, id, Kind::Tree, MAX_TREE_BYTES)?;
        let entries = TreeRefIter::from_bytes(&bytes, id.kind());
        entries
            .map(|entry| entry.map(|entry| (entry.filename.to_owned(), Mode::of(entry.mode), entry.oid.to_owned())))
            .collect::<Result<_, _>>()
            .map_err(|error| self.damaged(path, id, in_one_line(&error)))
    }

    /// The size of the object, if the repository has it and it is of this kind. The object is not inflated for that.
    pub(super) fn size(&self, path: &str, id: ObjectId, kind: Kind) -> Result<u64, ReadError> {
        let header =
            self.repository.try_find_header(id).map_err(|error| self.damaged(path, id, in_one_line(&error)))?;
        let Some(header) = header else {
            return Err(ReadError::Missing { path: path.to_owned(), commit: self.commit, object: id.to_string() });
        };
        if header.kind() != kind {
            return Err(self.damaged(path, id, format!("it is a {}, not a {kind}", header.kind())));
        }
        Ok(header.size())
    }

    /// The bytes of the object, at most `limit`.
    pub(super) fn object(&self, path: &str, id: ObjectId, kind: Kind, limit: u64) -> Result<Vec<u8>, ReadError> {
        let size = self.size(path, id, kind)?;
        if size > limit {
            return Err(ReadError::TooLarge { path: path.to_owned(), commit: self.commit, size, limit });
        }
        let object = self.repository.find_object(id).map_err(|error| self.damaged(path, id, in_one_line(&error)))?;
        Ok(object.detach().data)
    }

    pub(super) fn damaged(&self, path: &str, id: ObjectId, why: String) -> ReadError {
        ReadError::Damaged { path: path.to_owned(), commit: self.commit, object: id.to_string(), why }
    }
}
