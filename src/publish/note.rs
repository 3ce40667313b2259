//! What this claveld published last, in a file of its state folder.
//!
//! The branch is the state, and this is no second one: losing it costs one check. Where a branch shows less than was
//! published to it, somebody restored a backup, rewrote it, or shows an old copy. What claveld would sign on top of that
//! would be a second content under a version that is out in the world, and every agent that saw the first would refuse it.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::branch::{CommitId, Remote};
use crate::model::{BranchName, Epoch, FleetId, IndexVersion, Sha256Digest, json};

/// The most bytes that are read of the file: thousands of branches.
const LARGEST: u64 = 1 << 20;

/// An index that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Published {
    /// The fleet that it is of.
    pub fleet: FleetId,
    /// The epoch that it was signed in.
    pub epoch: Epoch,
    /// Its version.
    pub version: IndexVersion,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
    /// The commit that it is in.
    pub commit: CommitId,
}

/// What a branch shows now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) fleet: FleetId,
    /// The newest root's epoch.
    pub(super) epoch: Epoch,
    /// The index of that epoch, where there is one.
    pub(super) index: Option<(IndexVersion, Sha256Digest)>,
}

/// How a branch falls behind what was published to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Behind {
    /// It shows an older epoch.
    #[error("its root is at epoch {0} now")]
    Epoch(Epoch),
    /// It shows no index.
    #[error("it has no index now")]
    Nothing,
    /// It shows an older index.
    #[error("it is at version {0} now")]
    Older(IndexVersion),
    /// It shows another index of the same version.
    #[error("it has another index under that version now, {0}")]
    Other(Sha256Digest),
}

impl Published {
    /// Whether a branch that shows this may be gone on from.
    pub(super) fn check(&self, shown: &Shown) -> Result<(), Behind> {
        // Another fleet, or a later epoch, begins to count anew.
        if shown.fleet != self.fleet || shown.epoch > self.epoch {
            return Ok(());
        }
        if shown.epoch < self.epoch {
            return Err(Behind::Epoch(shown.epoch));
        }
        match shown.index {
            None => Err(Behind::Nothing),
            Some((version, _)) if version < self.version => Err(Behind::Older(version)),
            Some((version, digest)) if version == self.version && digest != self.sha256 => Err(Behind::Other(digest)),
            Some(_) => Ok(()),
        }
    }
}

/// Why it cannot be told what was published last.
#[derive(Debug, thiserror::Error)]
pub enum NoteError {
    /// The file cannot be read or written.
    #[error("cannot {act} {}, where claveld notes what it published last: {source}", path.display())]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not say that.
    #[error(
        "{} does not say what was published last: {why}; delete it to go on: that costs nothing but the check whether the \
         branch went back", path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: json::JsonError,
    },
}

/// The file, and the branch of a repository that is asked about.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    branch: String,
}

impl Note {
    pub(super) fn of(state_directory: &Path, repository: &Remote, branch: &BranchName) -> Self {
        Self { path: state_directory.join("published.json"), branch: format!("{repository} {branch}") }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What was published last to the branch; none where that is not known.
    pub(super) fn last(&self) -> Result<Option<Published>, NoteError> {
        Ok(self.all()?.get(&self.branch).copied())
    }

    /// Notes what was published. Of two processes the later one counts, whichever that is: an older note checks less.
    pub(super) fn write(&self, published: Published) -> Result<(), NoteError> {
        let mut all = self.all()?;
        all.insert(self.branch.clone(), published);
        self.replace(&json::render(&all)).map_err(|source| self.io("write", source))
    }

    fn all(&self) -> Result<BTreeMap<String, Published>, NoteError> {
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&self.path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            read => read.map_err(|source| self.io("read", source))?,
        };
        json::parse(&bytes, LARGEST).map_err(|why| NoteError::Malformed { path: self.path.clone(), why })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        // Nothing of it is secret, and whoever runs `clavel hold` may be another user than claveld's.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    }

    fn io(&self, act: &'static str, source: io::Error) -> NoteError {
        NoteError::Io { act, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::digest;

    fn number<T: TryFrom<u64, Error: std::fmt::Debug>>(number: u64) -> T {
        number.try_into().unwrap()
    }

    fn published() -> Published {
        let fleet = FleetId::of(digest(b"fleet"));
        let commit = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        Published { fleet, epoch: number(2), version: number(7), sha256: digest(b"seven"), commit }
    }

    fn shown(epoch: u64, index: Option<(u64, &[u8])>) -> Shown {
        let index = index.map(|(version, bytes)| (number(version), digest(bytes)));
        Shown { fleet: published().fleet, epoch: number(epoch), index }
    }

    #[test]
    fn a_branch_may_be_as_it_was_left_or_further() {
        for fine in
            [shown(2, Some((7, b"seven"))), shown(2, Some((8, b"eight"))), shown(3, None), shown(3, Some((1, b"")))]
        {
            assert_eq!(published().check(&fine), Ok(()), "{fine:?}");
        }
        let others = Shown { fleet: FleetId::of(digest(b"other")), ..shown(1, None) };
        assert_eq!(published().check(&others), Ok(()));
    }

    #[test]
    fn a_branch_that_went_back_or_another_way_is_told() {
        for (behind, why) in [
            (shown(1, Some((9, b"nine"))), Behind::Epoch(number(1))),
            (shown(2, None), Behind::Nothing),
            (shown(2, Some((6, b"six"))), Behind::Older(number(6))),
            (shown(2, Some((7, b"other"))), Behind::Other(digest(b"other"))),
        ] {
            assert_eq!(published().check(&behind), Err(why));
        }
    }

    #[test]
    fn each_branch_has_its_own_note_and_a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("not/yet/there");
        let note = |branch: &str| Note::of(&state, &"/srv/fleet.git".parse().unwrap(), &branch.parse().unwrap());
        assert_eq!(note("deployments").last().unwrap(), None);
        note("deployments").write(published()).unwrap();
        let later = Published { version: number(8), ..published() };
        note("other").write(later).unwrap();
        assert_eq!(note("deployments").last().unwrap(), Some(published()));
        assert_eq!(note("other").last().unwrap(), Some(later));
        std::fs::write(state.join("published.json"), "{").unwrap();
        let error = note("other").last().unwrap_err().to_string();
        assert!(error.contains("published.json does not say") && error.contains("delete it"), "{error}");
    }
}
