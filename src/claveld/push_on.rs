//! Pushes the branch on to the mirrors, after it was published. `mirror_state` decides when; nothing waits for this, and it fails nothing.

use std::fs::TryLockError;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};

use super::metrics::write_metrics;
use super::mirror_state::{MirrorReport, MirrorState, PushResult};
use super::mirror_states::MirrorStates;
use super::setup;
use super::source_state::SourceStates;
use super::static_mirror::StaticMirror;
use crate::branch::{BranchWriter, WriteError};
use crate::config::{ClaveldConfig, PublishConfig};
use crate::disk::FileLock;
use crate::git::{CommitId, Push, PushError, Remote, Repository, StaticUrl};
use crate::model::{BranchName, Sha256Digest, Timestamp, describe_error};
use crate::trust::AnchorLocation;

/// The longest time that one push to a mirror may take.
const DEADLINE: Duration = Duration::from_mins(2);
/// How many mirrors are pushed to at the same time.
pub(super) const AT_ONCE: usize = 8;

/// Pushes the branch of one configuration on.
#[derive(Debug, Clone)]
pub(super) struct MirrorPusher {
    repository: Remote,
    branch: BranchName,
    /// What verifies the branch before it is exported.
    root: AnchorLocation,
    /// Claveld's own copy of a repository elsewhere.
    copy: PathBuf,
    state_directory: PathBuf,
    states: MirrorStates,
}

/// The repository on this machine that has the branch, and the branch's tip.
type OpenTip = (Repository, CommitId);

impl MirrorPusher {
    pub(super) fn of(config: &PublishConfig) -> Self {
        let PublishConfig { repository, branch, root, state_directory, .. } = config;
        Self {
            repository: repository.clone(),
            branch: branch.clone(),
            root: root.clone(),
            copy: setup::settings(config).copy(),
            state_directory: state_directory.clone(),
            states: MirrorStates::of(state_directory),
        }
    }

    /// The published tip, and the repository that has it; none before the first publication. The tip of claveld's copy of a repository
    /// elsewhere may be a commit that another writer overtakes, so it does not count there.
    pub(super) fn published(&self) -> Result<Option<OpenTip>, WriteError> {
        match self.repository.local_path() {
            Some(path) => {
                let repository = Repository::open(&path)?;
                let tip = repository.tip(&self.branch)?;
                Ok(tip.map(|tip| (repository, tip)))
            }
            None => self.states.tip().map(|tip| Ok((Repository::open(&self.copy)?, tip))).transpose(),
        }
    }

    /// Pushes the newest commit to `mirror`, and again where there is a newer one by then. Returns how the mirror is then; none where
    /// another process pushes to it, or nothing is known of it.
    pub(super) async fn catch_up(&self, mirror: &Remote) -> Option<MirrorState> {
        match self.try_to_catch_up(mirror).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%mirror, %error, "cannot push the branch on, or remember that");
                None
            }
        }
    }

    async fn try_to_catch_up(&self, mirror: &Remote) -> io::Result<Option<MirrorState>> {
        let mut last = None;
        loop {
            let lock = match self.lock(mirror) {
                Ok(lock) => lock,
                // That process looks at the tip again when it is done.
                Err(TryLockError::WouldBlock) => return Ok(last),
                Err(TryLockError::Error(error)) => return Err(error),
            };
            let published = self.published().map_err(|error| io::Error::other(describe_error(&error)))?;
            let Some((repository, tip)) = published else { return Ok(None) };
            let state = self.states.update(mirror, |before| MirrorState::aimed_at(before, tip, now()))?;
            if state.due(tip, now()).is_none_or(|due| due > now()) {
                return Ok(Some(state));
            }
            let (commit, result) = self.push(mirror, &repository, tip).await;
            if commit != tip {
                self.states.set_tip(commit)?;
            }
            let state = self.states.update(mirror, |before| {
                let before = before.unwrap_or_else(|| state.clone());
                before.after(commit, result, now())
            })?;
            drop(lock);
            if !matches!(state, MirrorState::Level { .. }) {
                return Ok(Some(state));
            }
            last = Some(state);
        }
    }

    /// The lock on pushing to a mirror.
    fn lock(&self, mirror: &Remote) -> Result<FileLock, TryLockError> {
        let folder = self.state_directory.join("pushing");
        std::fs::create_dir_all(&folder).map_err(TryLockError::Error)?;
        FileLock::try_take(&folder.join(format!("{}.lock", Sha256Digest::of(mirror.to_string()).short())))
    }

    /// Pushes `tip` to `mirror`, or what is newer where the mirror has that already. Returns which commit, and the result.
    async fn push(&self, mirror: &Remote, repository: &Repository, tip: CommitId) -> (CommitId, PushResult) {
        if let Some(folder) = mirror.static_url().and_then(StaticUrl::folder) {
            let (branch, root) = (self.branch.clone(), self.root.clone());
            return (tip, StaticMirror { folder, branch, root }.bring_to(repository, tip).await);
        }
        let first = self.push_commit(mirror, repository, tip).await;
        if !matches!(first, Err(PushError::Diverged { .. })) {
            return (tip, self.result(first));
        }
        // Another claveld may have published meanwhile, and pushed that on.
        match self.newest().await {
            Ok(Some((repository, newest))) if newest != tip => {
                let second = self.push_commit(mirror, &repository, newest).await;
                (newest, self.result(second))
            }
            Ok(_) => (tip, self.result(first)),
            Err(error) => (tip, PushResult::failed(describe_error(&error))),
        }
    }

    async fn push_commit(&self, mirror: &Remote, repository: &Repository, commit: CommitId) -> Result<(), PushError> {
        Push { remote: mirror, branch: &self.branch, commit, within: DEADLINE }.run(repository).await
    }

    /// The tip as it is now. A repository elsewhere is fetched into a copy of its own: a round may be at work in the other one.
    async fn newest(&self) -> Result<Option<OpenTip>, WriteError> {
        if self.repository.local_path().is_some() {
            return self.published();
        }
        let copy = self.state_directory.join("pushing/newest.git");
        let on = BranchWriter { remote: &self.repository, branch: &self.branch, copy: &copy }.open().await?;
        Ok(on.tip().map(|tip| (on.repository().clone(), tip)))
    }

    fn result(&self, pushed: Result<(), PushError>) -> PushResult {
        match pushed {
            Ok(()) => PushResult::Pushed,
            Err(PushError::Diverged { .. }) => PushResult::Rewritten(rewritten(&self.branch, &self.repository)),
            Err(
                error @ (PushError::Moved { .. }
                | PushError::Declined { .. }
                | PushError::Failed { .. }
                | PushError::NotRun { .. }
                | PushError::Static { .. }
                | PushError::Bundle { .. }),
            ) => {
                let retry_after = match &error {
                    PushError::Failed { retry_after, .. } => *retry_after,
                    _ => None,
                };
                PushResult::Failed { error: describe_error(&error), retry_after }
            }
        }
    }
}

/// What is wrong with a mirror that has another history.
pub(super) fn describe_rewritten(branch: &BranchName, repository: &Remote) -> String {
    format!(
        "its branch `{branch}` has commits that the one of {repository} does not have: somebody else writes there, or one of the two was \
         rewritten"
    )
}

/// The error of a push to a mirror with another history.
fn rewritten(branch: &BranchName, repository: &Remote) -> String {
    let what = describe_rewritten(branch, repository);
    format!(
        "{what}. Find out whose commits they are (`git log`); then delete that branch of the mirror, and claveld pushes it anew, or take \
         the mirror out of `publish.mirrors`"
    )
}

/// Pushes the branch on to every mirror that it is time for. Returns how all of them are then.
pub async fn push_on(config: &ClaveldConfig) -> Vec<MirrorReport> {
    let mirrors = &config.publish.mirrors;
    if mirrors.is_empty() {
        return Vec::new();
    }
    let pusher = MirrorPusher::of(&config.publish);
    let each = stream::iter(mirrors).map(|mirror| pusher.catch_up(mirror)).buffer_unordered(AT_ONCE);
    each.for_each(async |_| ()).await;
    write_mirror_metrics(config);
    mirror_reports(config)
}

/// How the mirrors were at the last attempt; without those of which nothing is known.
pub fn mirror_reports(config: &ClaveldConfig) -> Vec<MirrorReport> {
    MirrorStates::of(&config.publish.state_directory).reports(&config.publish.mirrors)
}

/// Replaces the file of metrics after a push. An error is told by the next round.
pub(super) fn write_mirror_metrics(config: &ClaveldConfig) {
    let Some(path) = &config.metrics_file else { return };
    let remembered = SourceStates::of(&config.publish.state_directory).file();
    if let Err(error) = write_metrics(path, &remembered, &mirror_reports(config)) {
        tracing::debug!(path = %path.display(), %error, "cannot write the metrics");
    }
}

/// The time now.
pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}
