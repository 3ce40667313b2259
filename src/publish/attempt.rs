//! One attempt to publish: the branch as the attempt finds it, and the check that this claveld may build on it.
//!
//! An attempt ends with a commit, or with another writer's commit in its way. In the second case a new attempt begins here.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::base::{PublishBase, PublishBaseError};
use super::error::PublishError;
use super::note::{IndexOrigin, PublishNote, PublishedIndex};
use super::operate::RemovedKeys;
use super::plan::PublishInput;
use super::settled::{self, Look, Scope, SettledNote, SourceDigests};
use crate::branch::{
    BranchError, BranchWriter, History, Identity, Layout, OpenBranch, Remote, RevisionLookup, Snapshot,
};
use crate::model::{BranchFile as _, BranchName, Index, Name, PublicKey, PublishPolicy, Revision, Root, Sha256Digest};
use crate::signers::Signers;
use crate::trust::{Anchor, Signed, TrustedRoot, digest};

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
    /// The condition under which a deployment is published.
    pub policy: PublishPolicy,
    /// The author and committer of claveld's commits; none for `claveld` with the name of its key.
    pub author: Option<Identity>,
}

impl PublishSettings {
    /// The folder for the copy of a remote repository.
    pub fn copy(&self) -> PathBuf {
        self.state_directory.join("publish.git")
    }

    /// The note of the last publication to this branch.
    pub(super) fn note(&self) -> PublishNote {
        PublishNote::of(&self.state_directory, &self.repository, &self.branch)
    }

    /// Reads and verifies what a publication builds on, and checks that the branch did not go back.
    pub(super) fn read_base(
        &self,
        FoundBranch { on, files, last }: &FoundBranch<'_>,
        anchor: &Anchor,
        scope: &Scope,
    ) -> Result<PublishBase, PublishError> {
        // What this claveld only found may be the work of a stolen key.
        let own = last.filter(|last| last.origin == IndexOrigin::Published);
        let base = match files {
            None => PublishBase::new_branch(anchor),
            Some(files) => PublishBase::read(on, files, anchor, &self.branch, own.as_ref(), scope),
        };
        let base = base.map_err(|source| self.branch_error(source))?;
        if let Some(last) = last
            && let Err(regression) = last.check(&base.branch_index())
        {
            let (repository, branch) = (self.repository.to_string(), self.branch.to_string());
            let note = self.note().path().to_owned();
            return Err(PublishError::WentBack { repository, branch, last: Box::new(*last), regression, note });
        }
        Ok(base)
    }

    /// Refuses to publish documents that no agent would believe.
    pub(super) fn check_keys(&self, keys: &[PublicKey], root: &TrustedRoot) -> Result<(), PublishError> {
        if root.publisher().suffices(keys) {
            return Ok(());
        }
        Err(PublishError::NoPublisher {
            repository: self.repository.to_string(),
            keys: keys.iter().map(|key| format!("`{}`", key.id())).collect(),
            threshold: root.publisher().threshold(),
            version: root.root().version,
            publishers: root.publisher().key_ids().map(ToString::to_string).collect(),
        })
    }

    /// The error about this branch, whose repository is named without secrets.
    pub(super) fn branch_error(&self, source: PublishBaseError) -> PublishError {
        PublishError::Branch { repository: self.repository.to_string(), branch: self.branch.to_string(), source }
    }
}

/// The settings, the keys and the trust of a publisher: all that an attempt begins with.
#[derive(Debug)]
pub(super) struct PublishContext {
    pub(super) settings: PublishSettings,
    pub(super) signers: Signers,
    pub(super) anchor: Anchor,
    pub(super) note: PublishNote,
    pub(super) settled: SettledNote,
}

/// A branch that was opened, its files, and the last index that was noted of it.
pub(super) struct FoundBranch<'a> {
    pub(super) on: &'a OpenBranch,
    /// The files; none where there is no branch.
    pub(super) files: Option<&'a Snapshot>,
    pub(super) last: Option<PublishedIndex>,
}

/// The branch as one attempt finds it.
pub(super) struct PublishAttempt {
    pub(super) on: OpenBranch,
    pub(super) base: PublishBase,
    pub(super) now: SystemTime,
    /// The bins that the attempt looks at.
    pub(super) scope: Scope,
    /// The digests of the input, for the bins of this branch; none for an operator's request.
    pub(super) digests: Option<SourceDigests>,
}

impl PublishContext {
    /// Reads the branch, and checks that this claveld may build on it. For `input` it reads the bins in which something may have
    /// changed, and without an input all of them.
    pub(super) async fn begin(
        &self,
        writer: &BranchWriter<'_>,
        input: Option<(&PublishInput<'_>, Look)>,
    ) -> Result<PublishAttempt, PublishError> {
        // The note is read before the branch: another process that publishes in between can only make the branch newer.
        let last = self.note.last()?;
        let on = writer.open().await?;
        let files = on.files().map_err(|error| self.settings.branch_error(BranchError::from(error).into()))?;
        // What this claveld only found may be the work of a stolen key.
        let own = last.filter(|last| last.origin == IndexOrigin::Published);
        let (scope, digests) = self.scope(&on, files.as_ref(), own.as_ref(), input);
        let found = FoundBranch { on: &on, files: files.as_ref(), last };
        let mut base = self.settings.read_base(&found, &self.anchor, &scope)?;
        let now = SystemTime::now();
        base.branch.end_holds(now.into());
        self.settings.check_keys(&self.signers.public(), &base.root)?;
        Ok(PublishAttempt { on, base, now, scope, digests })
    }

    /// The bins to look at, and the digests of the input for the bins of the branch.
    fn scope(
        &self,
        on: &OpenBranch,
        files: Option<&Snapshot>,
        last: Option<&PublishedIndex>,
        input: Option<(&PublishInput<'_>, Look)>,
    ) -> (Scope, Option<SourceDigests>) {
        let claimed = || {
            let file = files?.read(Layout::INDEX, Index::MAX_BYTES).ok()??;
            Some((Signed::<Index>::parse(&file).ok()?.unverified().bins.count(), digest(&file)))
        };
        let Some(((input, look), files)) = input.zip(files) else { return (Scope::All, None) };
        let Some((count, index)) = claimed() else { return (Scope::All, None) };
        let digests = settled::digests(count, input.evaluations);
        let scope = || {
            let settled = self.settled.read()?;
            // Only what this claveld published itself is known to be right.
            if look == Look::Everything || settled.index != index || last?.sha256 != index {
                return None;
            }
            let before = on.repository().snapshot(settled.commit).ok()?;
            let touched = settled::touched_bins(count, &before, files)?;
            Some(settled.scope(count, &digests, &touched, input, self.context_digest(input, files)))
        };
        (scope().unwrap_or(Scope::All), Some(digests))
    }

    /// The digest of what the decisions of a round depend on, beside the sources' drafts and the branch's documents.
    pub(super) fn context_digest(&self, input: &PublishInput<'_>, files: &Snapshot) -> Sha256Digest {
        let root = files.read(Layout::NEWEST_ROOT, Root::MAX_BYTES).ok().flatten().unwrap_or_default();
        let failures: Vec<_> = input.evaluations.iter().map(|evaluation| &evaluation.drafts.failures).collect();
        let keys = self.signers.public();
        let PublishSettings { policy, validity, .. } = &self.settings;
        let context = format!("{:?} {failures:?} {keys:?} {policy:?} {validity:?} {}", input.configured, digest(&root));
        digest(context.as_bytes())
    }

    /// Looks for a revision of a deployment in the history of the branch.
    pub(super) fn find_in_history(
        &self,
        attempt: &PublishAttempt,
        name: &Name,
        revision: Revision,
        removed_keys: RemovedKeys,
    ) -> Result<RevisionLookup, PublishError> {
        let PublishAttempt { on, base, .. } = attempt;
        let older = match removed_keys {
            RemovedKeys::Trusted => &base.older_roots[..],
            RemovedKeys::NotTrusted => &[],
        };
        let history = History { on, root: &base.root, older, branch: &self.settings.branch };
        history.find(name, revision).map_err(|error| self.settings.branch_error(BranchError::from(error).into()))
    }
}
