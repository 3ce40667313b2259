//! A note in claveld's state folder of the index that this claveld published or saw last on each branch.
//!
//! The branch remains the state; the loss of the note costs one check. A branch that is older than the note went back:
//! somebody restored a backup, rewrote the branch, or serves an old copy. If claveld signed on top of that, a second content
//! would carry a version that agents may have seen already, and those agents would refuse it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::branch::{CommitId, Remote};
use crate::disk::{self, Access, Durability};
use crate::model::json::{self, StateVersion};
use crate::model::{BranchName, Epoch, FleetId, IndexVersion, Sha256Digest};

/// The most bytes that the file may have: enough for thousands of branches.
const MAX_BYTES: u64 = 1 << 20;

/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoteFile {
    /// The last index of each branch, by the repository and the name of the branch.
    branches: BTreeMap<String, PublishedIndex>,
    version: StateVersion<NEWEST>,
}

/// How this claveld came to know an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexOrigin {
    /// It published the index itself, so it knows who signed what the index lists.
    Published,
    /// It found the index on the branch.
    Found,
}

/// An index that this claveld knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedIndex {
    /// The fleet of the index.
    pub fleet: FleetId,
    /// The epoch of the index.
    pub epoch: Epoch,
    /// Its version.
    pub version: IndexVersion,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
    /// The commit that has the index.
    pub commit: CommitId,
    /// How claveld came to know it.
    pub origin: IndexOrigin,
}

/// The index that a branch has now.
#[derive(Debug, Clone, Copy)]
pub(super) struct BranchIndex {
    pub(super) fleet: FleetId,
    /// The newest root's epoch.
    pub(super) epoch: Epoch,
    /// The version and digest of the index of that epoch; none where there is no such index.
    pub(super) index: Option<(IndexVersion, Sha256Digest)>,
}

/// The way in which a branch is behind the index that claveld published to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BranchRegression {
    /// The branch has an older epoch.
    #[error("its root is at epoch {0} now")]
    Epoch(Epoch),
    /// The branch has no index.
    #[error("it has no index now")]
    Nothing,
    /// The branch has an older index.
    #[error("it is at version {0} now")]
    Older(IndexVersion),
    /// The branch has another index of the same version.
    #[error("it has another index under that version now, {0}")]
    Other(Sha256Digest),
}

impl PublishedIndex {
    /// Checks that a branch with this index may be continued.
    pub(super) fn check(&self, found: &BranchIndex) -> Result<(), BranchRegression> {
        // Another fleet or a later epoch starts counting again.
        if found.fleet != self.fleet || found.epoch > self.epoch {
            return Ok(());
        }
        if found.epoch < self.epoch {
            return Err(BranchRegression::Epoch(found.epoch));
        }
        match found.index {
            None => Err(BranchRegression::Nothing),
            Some((version, _)) if version < self.version => Err(BranchRegression::Older(version)),
            Some((version, digest)) if version == self.version && digest != self.sha256 => {
                Err(BranchRegression::Other(digest))
            }
            Some(_) => Ok(()),
        }
    }
}

/// The reason why the note cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PublishNoteError {
    /// The file cannot be read or written.
    #[error("cannot {act} the note of the last publication {}", path.display())]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not such a note.
    #[error(
        "cannot read the note of the last publication {} (delete the file to continue, which costs only the check \
         whether the branch went back)", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: json::JsonError,
    },
}

/// The note about one branch of one repository.
#[derive(Debug)]
pub(super) struct PublishNote {
    path: PathBuf,
    branch: String,
}

impl PublishNote {
    pub(super) fn of(state_directory: &Path, repository: &Remote, branch: &BranchName) -> Self {
        Self { path: state_directory.join("published.json"), branch: format!("{repository} {branch}") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The index that was published or found last; none where the note has none.
    pub(super) fn last(&self) -> Result<Option<PublishedIndex>, PublishNoteError> {
        Ok(self.all()?.branches.get(&self.branch).copied())
    }

    /// Notes an index. If two processes write, the later one wins; a note of the older index only checks less.
    pub(super) fn write(&self, published: PublishedIndex) -> Result<(), PublishNoteError> {
        let mut all = self.all()?;
        if all.branches.get(&self.branch) == Some(&published) {
            return Ok(());
        }
        all.branches.insert(self.branch.clone(), published);
        self.replace(&json::render(&all)).map_err(|source| self.io("write", source))
    }

    fn all(&self) -> Result<NoteFile, PublishNoteError> {
        let bytes = match disk::read(&self.path, MAX_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(NoteFile::default()),
            read => read.map_err(|source| self.io("read", source))?,
        };
        json::parse_state(&bytes, MAX_BYTES, NEWEST)
            .map_err(|source| PublishNoteError::Malformed { path: self.path.clone(), source })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        disk::check_length(bytes, MAX_BYTES)?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        // The note holds no secret, and another user than claveld's may run `clavel hold`.
        disk::replace(&self.path, bytes, Access::Everyone, Durability::Synced)
    }

    fn io(&self, act: &'static str, source: io::Error) -> PublishNoteError {
        PublishNoteError::Io { act, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::describe_error;
    use crate::trust::digest;

    fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(number: u64) -> T {
        number.try_into().unwrap()
    }

    fn published() -> PublishedIndex {
        let fleet = FleetId::of(digest(b"fleet"));
        let commit = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        PublishedIndex {
            fleet,
            epoch: number(2),
            version: number(7),
            sha256: digest(b"seven"),
            commit,
            origin: IndexOrigin::Published,
        }
    }

    fn found(epoch: u64, index: Option<(u64, &[u8])>) -> BranchIndex {
        let index = index.map(|(version, bytes)| (number(version), digest(bytes)));
        BranchIndex { fleet: published().fleet, epoch: number(epoch), index }
    }

    #[test]
    fn a_branch_may_have_the_noted_index_or_a_newer_one() {
        for fine in
            [found(2, Some((7, b"seven"))), found(2, Some((8, b"eight"))), found(3, None), found(3, Some((1, b"")))]
        {
            assert_eq!(published().check(&fine), Ok(()), "{fine:?}");
        }
        let others = BranchIndex { fleet: FleetId::of(digest(b"other")), ..found(1, None) };
        assert_eq!(published().check(&others), Ok(()));
    }

    #[test]
    fn a_branch_with_an_older_or_another_index_is_refused() {
        for (behind, why) in [
            (found(1, Some((9, b"nine"))), BranchRegression::Epoch(number(1))),
            (found(2, None), BranchRegression::Nothing),
            (found(2, Some((6, b"six"))), BranchRegression::Older(number(6))),
            (found(2, Some((7, b"other"))), BranchRegression::Other(digest(b"other"))),
        ] {
            assert_eq!(published().check(&behind), Err(why));
        }
    }

    #[test]
    fn each_branch_has_its_own_note_and_a_damaged_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("not/yet/there");
        let note = |branch: &str| PublishNote::of(&state, &"/srv/fleet.git".parse().unwrap(), &branch.parse().unwrap());
        assert_eq!(note("deployments").last().unwrap(), None);
        note("deployments").write(published()).unwrap();
        let later = PublishedIndex { version: number(8), ..published() };
        note("other").write(later).unwrap();
        assert_eq!(note("deployments").last().unwrap(), Some(published()));
        assert_eq!(note("other").last().unwrap(), Some(later));
        std::fs::write(state.join("published.json"), "{").unwrap();
        let error = describe_error(&note("other").last().unwrap_err());
        assert!(error.contains("): at `") && error.contains("delete the file"), "{error}");
    }
}
