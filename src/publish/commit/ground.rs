//! What a try begins with: the branch as it is, and whether this claveld may go on from it.

use std::time::SystemTime;

use super::super::history::{Found, History};
use super::super::note::Published;
use super::super::standing::{Standing, StandingError};
use super::{PublishError, Publisher};
use crate::model::{Name, Revision};
use crate::repository::{CommitId, Repository};
use crate::trust::TrustedRoot;

/// The branch as one try finds it.
pub(super) struct Ground {
    pub(super) repository: Repository,
    pub(super) tip: Option<CommitId>,
    pub(super) standing: Standing,
    pub(super) now: SystemTime,
}

impl Publisher<'_> {
    /// Reads the branch, and makes sure that this claveld may go on from it.
    pub(super) fn ground(&self) -> Result<Ground, PublishError> {
        // First what was published last: another process may publish before the branch is read, never the other way round.
        let last = self.note.last()?;
        let (repository, tip) = self.writer().open()?;
        let standing = self.standing(&repository, tip, last.as_ref()).map_err(|source| self.refused(source))?;
        if let Some(last) = last
            && let Err(behind) = last.check(&standing.shown())
        {
            let (repository, branch, note) = self.place();
            return Err(PublishError::WentBack { repository, branch, last: Box::new(last), behind, note });
        }
        self.check_key(&standing.root)?;
        Ok(Ground { repository, tip, standing, now: SystemTime::now() })
    }

    pub(super) fn past(&self, ground: &Ground, name: &Name, revision: Revision) -> Result<Found, PublishError> {
        let Ground { repository, tip: Some(tip), standing, .. } = ground else { return Ok(Found::Nowhere) };
        let history = History { repository, tip: *tip, root: &standing.root, branch: &self.config.branch };
        history.find(name, revision).map_err(|error| self.refused(error.into()))
    }

    fn refused(&self, source: StandingError) -> PublishError {
        let (repository, branch, _) = self.place();
        PublishError::Branch { repository, branch, source }
    }

    fn standing(
        &self,
        repository: &Repository,
        tip: Option<CommitId>,
        last: Option<&Published>,
    ) -> Result<Standing, StandingError> {
        match tip {
            None => Standing::nothing(&self.anchor),
            Some(tip) => Standing::read(repository, tip, &self.anchor, &self.config.branch, last),
        }
    }

    fn check_key(&self, root: &TrustedRoot) -> Result<(), PublishError> {
        let keys = self.signers.public();
        if root.publisher().suffices(&keys) {
            return Ok(());
        }
        Err(PublishError::NoPublisher {
            repository: self.config.repository.to_string(),
            keys: keys.iter().map(|key| format!("`{}`", key.id())).collect(),
            threshold: root.publisher().threshold(),
            version: root.root().version,
            publishers: root.publisher().key_ids().map(ToString::to_string).collect(),
        })
    }
}
