//! What a try begins with: the branch as it is, and whether this claveld may go on from it.

use std::time::SystemTime;

use super::super::note::Published;
use super::super::standing::{Standing, StandingError};
use super::{PublishError, Publisher};
use crate::branch::{BranchWriter, Found, History, OpenBranch};
use crate::model::{Name, Revision};
use crate::trust::TrustedRoot;

/// The branch as one try finds it.
pub(super) struct Ground {
    pub(super) on: OpenBranch,
    pub(super) standing: Standing,
    pub(super) now: SystemTime,
}

impl Publisher {
    /// Reads the branch, and makes sure that this claveld may go on from it.
    pub(super) fn ground(&self, writer: &BranchWriter<'_>) -> Result<Ground, PublishError> {
        // First what was published last: another process may publish before the branch is read, never the other way round.
        let last = self.note.last()?;
        let on = writer.open()?;
        let standing = self.standing(&on, last.as_ref()).map_err(|source| self.refused(source))?;
        if let Some(last) = last
            && let Err(behind) = last.check(&standing.shown())
        {
            let (repository, branch, note) = self.place();
            return Err(PublishError::WentBack { repository, branch, last: Box::new(last), behind, note });
        }
        self.check_key(&standing.root)?;
        Ok(Ground { on, standing, now: SystemTime::now() })
    }

    pub(super) fn past(&self, ground: &Ground, name: &Name, revision: Revision) -> Result<Found, PublishError> {
        let Ground { on, standing, .. } = ground;
        let history = History { on, root: &standing.root, branch: &self.settings.branch };
        history.find(name, revision).map_err(|error| self.refused(error.into()))
    }

    fn refused(&self, source: StandingError) -> PublishError {
        let (repository, branch, _) = self.place();
        PublishError::Branch { repository, branch, source }
    }

    fn standing(&self, on: &OpenBranch, last: Option<&Published>) -> Result<Standing, StandingError> {
        match on.files()? {
            None => Standing::nothing(&self.anchor),
            Some(files) => Standing::read(on, &files, &self.anchor, &self.settings.branch, last),
        }
    }

    fn check_key(&self, root: &TrustedRoot) -> Result<(), PublishError> {
        let keys = self.signers.public();
        if root.publisher().suffices(&keys) {
            return Ok(());
        }
        Err(PublishError::NoPublisher {
            repository: self.settings.repository.to_string(),
            keys: keys.iter().map(|key| format!("`{}`", key.id())).collect(),
            threshold: root.publisher().threshold(),
            version: root.root().version,
            publishers: root.publisher().key_ids().map(ToString::to_string).collect(),
        })
    }
}
