//! One attempt to publish: the branch as the attempt finds it, and the check that this claveld may build on it.
//!
//! An attempt ends with a commit, or with another writer's commit in its way. In the second case a new attempt begins here.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::base::{PublishBase, PublishBaseError};
use super::error::PublishError;
use super::note::{PublishNote, PublishedIndex};
use crate::branch::{BranchError, BranchWriter, History, OpenBranch, Remote, RevisionLookup};
use crate::model::{BranchName, Name, PublishPolicy, Revision};
use crate::signers::Signers;
use crate::trust::{Anchor, TrustedRoot};

/// The place and the manner of publishing.
#[derive(Debug, Clone)]
pub struct PublishSettings {
    /// The repository that carries the branch.
    pub repository: Remote,
    /// The branch.
    pub branch: BranchName,
    /// The time that an index is valid.
    pub validity: Duration,
    /// The folder for the copy of a remote repository, and for the note of the last publication.
    pub state_directory: PathBuf,
    /// The command that git runs in place of `ssh`.
    pub ssh_command: Option<String>,
    /// The condition under which a deployment is published.
    pub policy: PublishPolicy,
}

/// The settings, the keys and the trust of a publisher: all that an attempt begins with.
#[derive(Debug)]
pub(super) struct PublishContext {
    pub(super) settings: PublishSettings,
    pub(super) signers: Signers,
    pub(super) anchor: Anchor,
    pub(super) note: PublishNote,
}

/// The branch as one attempt finds it.
pub(super) struct PublishAttempt {
    pub(super) on: OpenBranch,
    pub(super) base: PublishBase,
    pub(super) now: SystemTime,
}

impl PublishContext {
    /// Reads the branch, and checks that this claveld may build on it.
    pub(super) fn begin(&self, writer: &BranchWriter<'_>) -> Result<PublishAttempt, PublishError> {
        // The note is read before the branch: another process that publishes in between can only make the branch newer.
        let last = self.note.last()?;
        let on = writer.open()?;
        let base = self.base(&on, last.as_ref()).map_err(|source| self.branch_error(source))?;
        if let Some(last) = last
            && let Err(regression) = last.check(&base.branch_index())
        {
            let (repository, branch) = self.names();
            let note = self.note.path().to_owned();
            return Err(PublishError::WentBack { repository, branch, last: Box::new(last), regression, note });
        }
        self.check_keys(&base.root)?;
        Ok(PublishAttempt { on, base, now: SystemTime::now() })
    }

    /// Looks for a revision of a deployment in the history of the branch.
    pub(super) fn find_in_history(
        &self,
        attempt: &PublishAttempt,
        name: &Name,
        revision: Revision,
    ) -> Result<RevisionLookup, PublishError> {
        let PublishAttempt { on, base, .. } = attempt;
        let history = History { on, root: &base.root, branch: &self.settings.branch };
        history.find(name, revision).map_err(|error| self.branch_error(BranchError::from(error).into()))
    }

    fn base(&self, on: &OpenBranch, last: Option<&PublishedIndex>) -> Result<PublishBase, PublishBaseError> {
        match on.files().map_err(BranchError::from)? {
            None => PublishBase::new_branch(&self.anchor),
            Some(files) => PublishBase::read(on, &files, &self.anchor, &self.settings.branch, last),
        }
    }

    fn branch_error(&self, source: PublishBaseError) -> PublishError {
        let (repository, branch) = self.names();
        PublishError::Branch { repository, branch, source }
    }

    /// The repository, without secrets, and the branch.
    fn names(&self) -> (String, String) {
        (self.settings.repository.to_string(), self.settings.branch.to_string())
    }

    fn check_keys(&self, root: &TrustedRoot) -> Result<(), PublishError> {
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
