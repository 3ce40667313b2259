//! Makes one atomic commit on a branch.
//!
//! The objects are written first, and then synced to the disk. The branch moves last, and only if it is still at the commit
//! where the caller read it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gix::ObjectId;
use gix::objs::tree::EntryKind;
use gix::refs::transaction::{PreviousValue, RefEdit};

use super::address::{CommitId, RefName};
use super::identity::{Authorship, Identity};
use super::lock::HeldLock;
use super::objects::ReadError;
use super::persist::persist;
use super::repository::{GitError, Repository};
use super::shared::{Sharing, shut_out};
use super::snapshot::Snapshot;
use crate::disk::sync_file_system;
use crate::model::{BranchName, printable_lines};

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
    /// The file at `from` is at `to` instead. Nothing happens if it does not exist.
    Move {
        /// Its path before the commit, whatever the other changes are.
        from: String,
        /// Its new path.
        to: String,
    },
    /// The file at `path` is removed if it exists, and so is a folder that becomes empty.
    Remove {
        /// Like `a.json` or `folder/a.json`.
        path: String,
    },
    /// An entry is removed by the bytes of its name, which may be none that a file can have.
    RemoveEntry {
        /// The folder; empty for the top.
        folder: String,
        /// The name in the folder.
        name: Vec<u8>,
    },
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Put { path, .. } | Self::Move { to: path, .. } | Self::Remove { path } => path,
            Self::RemoveEntry { folder, .. } => folder,
        }
    }
}

/// A commit that is to be made.
#[derive(Debug)]
pub struct NewCommit<'a> {
    /// The branch it is made on.
    pub branch: &'a BranchName,
    /// The commit where the caller read the branch. It becomes the parent. `None` is a branch that does not exist yet.
    pub expected: Option<CommitId>,
    /// The changes. If they change nothing, no commit is made.
    pub changes: &'a [Change],
    /// The message; a final newline is added.
    pub message: &'a str,
    /// The author and the committer.
    pub by: &'a Authorship,
    /// The time of the commit.
    pub at: SystemTime,
}

/// The reason why no commit was made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another writer moved the branch. The caller has to read it again, and decide again.
    #[error(
        "cannot commit to branch `{branch}`: it was {}, and another program moved it, so that it is {}; try again",
        describe_tip(*expected), describe_tip(*found)
    )]
    TipMoved {
        /// The branch.
        branch: BranchName,
        /// The commit where the caller read it.
        expected: Option<CommitId>,
        /// The commit where it is now.
        found: Option<CommitId>,
    },
    /// Another writer holds a lock, and still held it when the wait ended.
    #[error("cannot commit to branch `{branch}`: another program holds the lock {}; try again", lock.file.display())]
    Locked {
        /// The branch.
        branch: BranchName,
        /// The lock.
        lock: HeldLock,
    },
    /// A lock was left behind by a program that died.
    #[error("cannot commit to branch `{branch}`: {lock}")]
    StaleLock {
        /// The branch.
        branch: BranchName,
        /// The lock.
        lock: HeldLock,
    },
    /// The path is not one that a file of a git tree can have.
    #[error("cannot commit `{path}`: {why}")]
    BadPath {
        /// The path.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The superuser would leave files that the owner of the repository cannot change.
    #[error(
        "cannot write to the git repository {}: it belongs to {owner}, who could not push to it any more; run this as that user, \
         with `sudo -u {owner} …`",
        path.display()
    )]
    OfAnother {
        /// The repository.
        path: PathBuf,
        /// The user, as sudo takes it.
        owner: String,
    },
    /// The objects could not be synced to the disk, so the branch was not moved.
    #[error("cannot sync the objects of {} to the disk, so the branch was not moved", path.display())]
    NotDurable {
        /// The repository.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The commit could not be read back, so the branch was not moved.
    #[error("the branch was not moved, because nobody could read what was about to be committed")]
    Unreadable(#[source] ReadError),
    /// The commit before it cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
}

fn describe_tip(tip: Option<CommitId>) -> String {
    tip.map_or_else(|| "absent".to_owned(), |tip| format!("at {tip}"))
}

/// The result of preparing a commit.
pub enum Prepared {
    /// The changes change nothing: the branch is right at this tip.
    Unchanged(CommitId),
    /// A commit that is to be read and then finished.
    New(Box<PreparedCommit>),
}

/// A commit that is in memory alone.
pub struct PreparedCommit {
    files: Snapshot,
}

impl PreparedCommit {
    /// Its files.
    pub fn files(&self) -> &Snapshot {
        &self.files
    }
}

impl Repository {
    /// Makes one commit and moves the branch to it, if the branch is still at `new.expected`. Returns the id of the commit,
    /// or that of the tip if the changes change nothing.
    pub fn commit(&self, new: &NewCommit<'_>) -> Result<CommitId, CommitError> {
        match self.prepare(new)? {
            Prepared::Unchanged(tip) => Ok(tip),
            Prepared::New(commit) => self.finish(new, *commit),
        }
    }

    /// Makes a commit in memory, for a caller that reads it before it is on the disk.
    pub fn prepare(&self, new: &NewCommit<'_>) -> Result<Prepared, CommitError> {
        for change in new.changes {
            let path = change.path();
            // What nobody may write can stand there all the same, and has to go.
            if matches!(change, Change::RemoveEntry { .. }) {
                continue;
            }
            check_path(path).map_err(|why| CommitError::BadPath { path: path.to_owned(), why })?;
        }
        self.check_owner()?;
        self.check_tip(new)?;
        let local = self.local().with_object_memory();
        let before = self.tree_of(&local, new.expected)?;
        let after = self.write_tree(&local, before, new)?;
        if let (Some(tip), true) = (new.expected, before == after) {
            return Ok(Prepared::Unchanged(tip));
        }
        let commit = self.write_commit(&local, new, after)?;
        let files = Snapshot::of(local, commit).map_err(CommitError::Unreadable)?;
        Ok(Prepared::New(Box::new(PreparedCommit { files })))
    }

    /// Writes the objects of a prepared commit, and moves the branch to it.
    pub fn finish(&self, new: &NewCommit<'_>, commit: PreparedCommit) -> Result<CommitId, CommitError> {
        self.check_tip(new)?;
        let PreparedCommit { files } = commit;
        let (id, mut local) = (files.commit(), files.into_repository());
        let failed = |error| GitError::new(format!("write the objects of {id} to {}", self.path().display()), &error);
        let objects = local.objects.take_object_memory().unwrap_or_default();
        let written = persist(&mut local, objects).map_err(failed)?;
        let (sharing, top) = (Sharing::of(&local)?, local.objects.store_ref().path().to_owned());
        for file in written {
            sharing.apply_below(&top, &file).map_err(|error| self.not_shared(&file, &error))?;
        }
        // gix writes objects without fsync. If a power cut removed objects that the branch points to, the branch would stay
        // broken, so all objects are synced before the branch moves. One call syncs all of them.
        sync_file_system(&self.git_dir())
            .map_err(|source| CommitError::NotDurable { path: self.path().to_owned(), source })?;
        self.move_branch(&local, new, id)?;
        Ok(id)
    }

    fn not_shared(&self, file: &Path, error: &io::Error) -> GitError {
        let act = format!("give {} the mode of core.sharedRepository in {}", file.display(), self.path().display());
        GitError::io(act, error)
    }

    /// Refuses to write what the owner of the repository could not change any more.
    fn check_owner(&self) -> Result<(), CommitError> {
        let (folder, sharing) = (self.git_dir(), Sharing::of(&self.local())?);
        let owner = shut_out(&folder, sharing)
            .map_err(|error| GitError::io(format!("read the owner of {}", folder.display()), &error))?;
        owner.map_or(Ok(()), |owner| Err(CommitError::OfAnother { path: folder, owner }))
    }

    fn check_tip(&self, new: &NewCommit<'_>) -> Result<(), CommitError> {
        let found = self.tip(new.branch)?;
        if found == new.expected {
            return Ok(());
        }
        Err(CommitError::TipMoved { branch: new.branch.clone(), expected: new.expected, found })
    }

    fn tree_of(&self, local: &gix::Repository, commit: Option<CommitId>) -> Result<ObjectId, GitError> {
        let Some(commit) = commit else { return Ok(ObjectId::empty_tree(local.object_hash())) };
        let act = || format!("read the tree of commit {commit} in {}", self.path().display());
        let commit = local.find_commit(commit.object()).map_err(|error| GitError::new(act(), &error))?;
        Ok(commit.tree_id().map_err(|error| GitError::new(act(), &error))?.detach())
    }

    /// Writes the blobs and trees. Returns the id of the new root tree.
    fn write_tree(
        &self,
        local: &gix::Repository,
        root: ObjectId,
        new: &NewCommit<'_>,
    ) -> Result<ObjectId, CommitError> {
        let failed =
            |what: &str, error: &gix::Error| GitError::new(format!("write {what} to {}", self.path().display()), error);
        let tree = local.find_tree(root).map_err(|error| failed("a tree", &error))?;
        let tree = tree.decode().map_err(|error| failed("a tree", &error))?;
        let mut editor = gix::objs::tree::Editor::new(tree.into(), &local.objects, local.object_hash());
        let before = new.expected.map(|tip| self.snapshot(tip)).transpose()?;
        // Everything that is removed goes first: a file may take the place of a folder that becomes empty.
        for change in new.changes {
            if let Change::RemoveEntry { folder, name } = change {
                let parts = folder.split('/').filter(|part| !part.is_empty()).map(str::as_bytes).chain([&name[..]]);
                editor.remove(parts.map(gix::bstr::BStr::new)).map_err(|error| failed(folder, &error))?;
                continue;
            }
            let (Change::Move { from: path, .. } | Change::Remove { path }) = change else { continue };
            editor.remove(path.split('/')).map_err(|error| failed(path, &error))?;
        }
        for change in new.changes {
            let path = change.path();
            match change {
                Change::Remove { .. } | Change::RemoveEntry { .. } => continue,
                Change::Move { from, .. } => {
                    let Some(blob) = before.as_ref().map(|files| files.file_id(from)).transpose()?.flatten() else {
                        continue;
                    };
                    editor.upsert(path.split('/'), EntryKind::Blob, blob)
                }
                Change::Put { bytes, .. } => {
                    let blob = local.write_blob(bytes).map_err(|error| failed(path, &error))?.detach();
                    editor.upsert(path.split('/'), EntryKind::Blob, blob)
                }
            }
            .map_err(|error| failed(path, &error))?;
        }
        let written = editor.write(|tree| local.write_object(tree).map(gix::Id::detach));
        Ok(written.map_err(|error| failed("a tree", &error))?)
    }

    fn write_commit(&self, local: &gix::Repository, new: &NewCommit<'_>, tree: ObjectId) -> Result<CommitId, GitError> {
        let by = |identity: &Identity| gix::actor::Signature {
            name: identity.name().into(),
            email: identity.email().into(),
            time: gix::date::Time { seconds: seconds(new.at), offset: 0 },
        };
        let commit = gix::objs::Commit {
            tree,
            parents: new.expected.map(CommitId::object).into_iter().collect(),
            author: by(&new.by.author),
            committer: by(&new.by.committer),
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
        let branch = new.branch.clone();
        match HeldLock::first_of(&self.git_dir(), &[name.as_str(), "packed-refs"]) {
            Some(lock) if lock.is_stale() => Err(CommitError::StaleLock { branch, lock }),
            Some(lock) => Err(CommitError::Locked { branch, lock }),
            None => Err(error.into()),
        }
    }

    /// Moves the ref `name` from `expected` to `commit`. It fails if the ref is at another commit.
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
        let shared = Sharing::of(local)?.apply_below(local.common_dir(), &file);
        if let Err(error) = shared {
            // The ref has moved, and its folder may belong to another user who shares it already.
            tracing::warn!(file = %file.display(), %error, "cannot give a ref the mode of core.sharedRepository");
        }
        if let Err(error) = sync_file(&file) {
            // Every process of this machine sees that the ref has moved. A power cut in the next seconds could undo that,
            // and the commit before it is valid too.
            tracing::warn!(file = %file.display(), %error, "cannot sync a ref to the disk");
        }
        Ok(())
    }
}

/// The message of a commit as git accepts it.
fn message(text: &str) -> String {
    // `git log` shows it at a terminal, and parts of it come from a flake. Git also ends a message at the first NUL.
    let text = printable_lines(text);
    if text.ends_with('\n') { text } else { format!("{text}\n") }
}

fn seconds(at: SystemTime) -> i64 {
    at.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0)
}

fn check_path(path: &str) -> Result<(), &'static str> {
    for part in path.split('/') {
        match part {
            "" => return Err("a path may not have empty parts, or begin or end with `/`"),
            "." | ".." => return Err("a path may not have the parts `.` and `..`"),
            _ if part.eq_ignore_ascii_case(".git") => return Err("a git tree may not have an entry `.git`"),
            _ if part.contains(|c: char| c.is_control() || c == '\\') => {
                return Err("a path may not have control characters or backslashes");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Syncs one file and its folder, which has the file's name, to the disk.
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
