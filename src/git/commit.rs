//! Makes one atomic commit on a branch.
//!
//! The objects are written first, then synced to the disk; the branch moves last, and only if it is still where the caller
//! saw it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use gix::refs::transaction::{PreviousValue, RefEdit};

use super::address::{CommitId, RefName};
use super::repository::{GitError, Repository};
use crate::model::BranchName;

/// A lock older than this belongs to a process that is gone: ten minutes.
pub(super) const STALE_AFTER: Duration = Duration::from_mins(10);

/// One change to the branch's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The regular file at `path` holds `bytes`, whatever was there before.
    Put {
        /// Like `a.json` or `folder/a.json`.
        path: String,
        /// The whole file.
        bytes: Vec<u8>,
    },
    /// Nothing is at `path`, if anything ever was; a folder that becomes empty vanishes.
    Remove {
        /// Like `a.json` or `folder/a.json`.
        path: String,
    },
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Put { path, .. } | Self::Remove { path } => path,
        }
    }
}

/// The author of a commit, as git records it. It proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The name, without `<`, `>` and line ends.
    pub name: String,
    /// The mail address, likewise.
    pub email: String,
}

/// A commit about to be made.
#[derive(Debug)]
pub struct NewCommit<'a> {
    /// The branch it is made on.
    pub branch: &'a BranchName,
    /// Where the branch was seen, and the commit's parent; `None` is a branch that does not exist yet.
    pub expected: Option<CommitId>,
    /// What changes. When they change nothing, no commit is made.
    pub changes: &'a [Change],
    /// Why; a final newline is added.
    pub message: &'a str,
    /// Author and committer.
    pub by: &'a Identity,
    /// When, for author and committer.
    pub at: SystemTime,
}

/// The reason why no commit was made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Somebody else moved the branch: read it again, and decide again.
    #[error(
        "cannot commit to branch `{branch}`: it was {}, and has moved to {}; read it again and decide again",
        describe_tip(*expected), describe_tip(*found)
    )]
    TipMoved {
        /// The branch.
        branch: BranchName,
        /// Where it was seen.
        expected: Option<CommitId>,
        /// Where it is.
        found: Option<CommitId>,
    },
    /// Another writer holds a lock, and held it for longer than was waited: try again.
    #[error("cannot commit to branch `{branch}`: another program holds the lock {}; try again", lock.display())]
    Locked {
        /// The branch.
        branch: BranchName,
        /// The lock file.
        lock: PathBuf,
    },
    /// A lock was left behind by a program that died.
    #[error(
        "cannot commit to branch `{branch}`: the lock {} is {} old; \
         if no git program is at work in this repository, delete that file",
        lock.display(), humantime::format_duration(*age)
    )]
    StaleLock {
        /// The branch.
        branch: BranchName,
        /// The lock file.
        lock: PathBuf,
        /// How long it has been there.
        age: Duration,
    },
    /// A path cannot stand in a git tree, or is no place for a file.
    #[error("cannot commit `{path}`: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// What was written could not be brought to the disk, so the branch was left alone.
    #[error("cannot bring the objects of {} to the disk: {source}; the branch was not moved", path.display())]
    NotDurable {
        /// The repository.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Git could not do it.
    #[error(transparent)]
    Git(#[from] GitError),
}

fn describe_tip(tip: Option<CommitId>) -> String {
    tip.map_or_else(|| "not there".to_owned(), |tip| format!("at {tip}"))
}

impl Repository {
    /// Makes one commit and moves the branch to it, if the branch still is where `new.expected` says; its id, or the
    /// tip as it was when the changes change nothing.
    pub fn commit(&self, new: &NewCommit<'_>) -> Result<CommitId, CommitError> {
        for change in new.changes {
            let path = change.path();
            check_path(path).map_err(|why| CommitError::BadPath { path: path.to_owned(), why })?;
        }
        let found = self.tip(new.branch)?;
        if found != new.expected {
            return Err(CommitError::TipMoved { branch: new.branch.clone(), expected: new.expected, found });
        }
        let local = self.local();
        let before = self.tree_of(&local, new.expected)?;
        let after = self.write_tree(&local, before, new.changes)?;
        if let (Some(tip), true) = (new.expected, before == after) {
            return Ok(tip);
        }
        let commit = self.write_commit(&local, new, after)?;
        // gix writes objects without fsync. A branch that points to objects which a power cut took away is broken for
        // good, so everything reaches the disk before the branch moves. One call for all of them: a first publication
        // writes thousands of files.
        sync_file_system(&self.git_dir())
            .map_err(|source| CommitError::NotDurable { path: self.path().to_owned(), source })?;
        self.move_branch(&local, new, commit)?;
        Ok(commit)
    }

    fn tree_of(&self, local: &gix::Repository, commit: Option<CommitId>) -> Result<ObjectId, GitError> {
        let Some(commit) = commit else { return Ok(ObjectId::empty_tree(local.object_hash())) };
        let act = || format!("read the tree of commit {commit} in {}", self.path().display());
        let commit = local.find_commit(commit.object()).map_err(|error| GitError::new(act(), &error))?;
        Ok(commit.tree_id().map_err(|error| GitError::new(act(), &error))?.detach())
    }

    /// Writes the blobs and trees; the new root.
    fn write_tree(&self, local: &gix::Repository, root: ObjectId, changes: &[Change]) -> Result<ObjectId, GitError> {
        let failed =
            |what: &str, error: &gix::Error| GitError::new(format!("write {what} to {}", self.path().display()), error);
        let tree = local.find_tree(root).map_err(|error| failed("a tree", &error))?;
        let tree = tree.decode().map_err(|error| failed("a tree", &error))?;
        let mut editor = gix::objs::tree::Editor::new(tree.into(), &local.objects, local.object_hash());
        for change in changes {
            let path = change.path();
            match change {
                Change::Put { bytes, .. } => {
                    let blob = local.write_blob(bytes).map_err(|error| failed(path, &error))?.detach();
                    editor.upsert(path.split('/'), EntryKind::Blob, blob)
                }
                Change::Remove { .. } => editor.remove(path.split('/')),
            }
            .map_err(|error| failed(path, &error))?;
        }
        editor.write(|tree| local.write_object(tree).map(gix::Id::detach)).map_err(|error| failed("a tree", &error))
    }

    fn write_commit(&self, local: &gix::Repository, new: &NewCommit<'_>, tree: ObjectId) -> Result<CommitId, GitError> {
        let by = gix::actor::Signature {
            name: new.by.name.as_str().into(),
            email: new.by.email.as_str().into(),
            time: gix::date::Time { seconds: seconds(new.at), offset: 0 },
        };
        let commit = gix::objs::Commit {
            tree,
            parents: new.expected.map(CommitId::object).into_iter().collect(),
            author: by.clone(),
            committer: by,
            encoding: None,
            message: message(new.message).into(),
            extra_headers: Vec::new(),
        };
        let written = local.write_object(&commit);
        let id = written.map_err(|error| GitError::new(format!("write a commit to {}", self.path().display()), &error));
        Ok(id?.detach().into())
    }

    fn move_branch(&self, local: &gix::Repository, new: &NewCommit<'_>, commit: CommitId) -> Result<(), CommitError> {
        let name = RefName::of(new.branch);
        let Err(error) = self.move_ref(local, &name, new.expected, commit) else { return Ok(()) };
        let found = self.tip(new.branch)?;
        if found != new.expected {
            return Err(CommitError::TipMoved { branch: new.branch.clone(), expected: new.expected, found });
        }
        let held = held_lock(&self.git_dir(), &[name.as_str(), "packed-refs"]);
        let branch = new.branch.clone();
        match held {
            Some((lock, age)) if age >= STALE_AFTER => Err(CommitError::StaleLock { branch, lock, age }),
            Some((lock, _)) => Err(CommitError::Locked { branch, lock }),
            None => Err(error.into()),
        }
    }

    /// Moves the ref `name` from `expected` to `commit`, or fails when it is anywhere else.
    pub(super) fn move_ref(
        &self,
        local: &gix::Repository,
        name: &RefName,
        expected: Option<CommitId>,
        commit: CommitId,
    ) -> Result<(), GitError> {
        let act = || format!("move the ref `{name}` of {} to {commit}", self.path().display());
        let full = gix::refs::FullName::try_from(name.as_str())
            .map_err(|error| GitError { act: act(), why: error.to_string() })?;
        let expected = match expected {
            Some(tip) => PreviousValue::MustExistAndMatch(gix::refs::Target::Object(tip.object())),
            None => PreviousValue::MustNotExist,
        };
        let edit = RefEdit::update(full, commit.object(), expected, "");
        local.edit_reference(edit).map_err(|error| GitError::new(act(), &error))?;
        let file = local.common_dir().join(name.as_str());
        if let Err(error) = sync_file(&file) {
            // The ref has moved, for every process of this machine; only a power cut in the next seconds could take it
            // back, to a state that was right too.
            tracing::warn!(file = %file.display(), %error, "cannot bring a ref to the disk");
        }
        Ok(())
    }
}

fn message(text: &str) -> String {
    // Git ends a commit's message at the first NUL, and fsck complains of it.
    let text = text.replace('\0', "\u{fffd}");
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

/// The first of these files in `git_dir` that is locked, with how old its lock is.
pub(super) fn held_lock(git_dir: &Path, names: &[&str]) -> Option<(PathBuf, Duration)> {
    names.iter().find_map(|name| {
        let lock = git_dir.join(format!("{name}.lock"));
        let age = age(&lock)?;
        Some((lock, age))
    })
}

/// How old the file is; `None` where there is none.
fn age(file: &Path) -> Option<Duration> {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified()).ok()?;
    let age = SystemTime::now().duration_since(modified).unwrap_or_default();
    Some(Duration::from_secs(age.as_secs()))
}

fn check_path(path: &str) -> Result<(), &'static str> {
    for part in path.split('/') {
        match part {
            "" => return Err("a path has no empty parts, and neither begins nor ends with `/`"),
            "." | ".." => return Err("a path has no `.` or `..`"),
            _ if part.eq_ignore_ascii_case(".git") => return Err("`.git` cannot stand in a git tree"),
            _ if part.contains(|c: char| c.is_control() || c == '\\') => {
                return Err("a path has no control characters and no backslash");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Brings all that was written to `folder`'s file system to the disk.
#[cfg(target_os = "linux")]
fn sync_file_system(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// Brings all that was written to the disk; other systems than Linux have no call for a single file system.
#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "one signature for all systems")]
fn sync_file_system(_: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Brings one file, and its name in its folder, to the disk.
pub(super) fn sync_file(file: &Path) -> io::Result<()> {
    File::open(file)?.sync_all()?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
