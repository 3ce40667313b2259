//! What starts a round of `claveld run`: a change in a repository on this machine, or time.

use std::path::PathBuf;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::model::{FlakeReference, Source};

/// How long a repository has to be quiet before it is looked at: a push writes many files.
const QUIET: Duration = Duration::from_millis(100);
/// How long it is waited for that at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why repositories cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path}: {source}; without it a change is found at the next poll", path = path.display())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// Watches the repositories of sources on this machine.
#[derive(Debug)]
pub struct Watcher {
    events: mpsc::Receiver<()>,
    // Dropping it would end the watching.
    _watcher: notify::RecommendedWatcher,
}

impl Watcher {
    /// Watches every source of `sources` that is a git repository on this machine.
    pub fn new(sources: &[Source]) -> Result<Self, WatchError> {
        // One waiting event says all there is to say: look again.
        let (sender, events) = mpsc::channel(1);
        let handler = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_telling(&event)) {
                // A full channel already says so.
                let _ = sender.try_send(());
            }
        };
        let at = |path: PathBuf| move |source| WatchError { path, source };
        let mut watcher = notify::recommended_watcher(handler).map_err(at(PathBuf::from("this machine's files")))?;
        // The content of a flake that names its revision never changes.
        let moving = sources.iter().map(|source| &source.flake).filter(|flake| !flake.has_revision());
        for repository in moving.filter_map(FlakeReference::local_repository) {
            let nested = repository.join(".git");
            let git_dir = if nested.is_dir() { nested } else { repository };
            // A ref moves below refs/, or in packed-refs and HEAD right here.
            for (path, mode) in
                [(git_dir.clone(), RecursiveMode::NonRecursive), (git_dir.join("refs"), RecursiveMode::Recursive)]
            {
                watcher.watch(&path, mode).map_err(at(path))?;
            }
        }
        Ok(Self { events, _watcher: watcher })
    }

    /// Waits for a change that has come to rest, for `poll` at most.
    pub async fn next(&mut self, poll: Duration) {
        match timeout(poll, self.events.recv()).await {
            Err(_elapsed) => {}
            Ok(None) => tokio::time::sleep(poll).await,
            Ok(Some(())) => {
                let at_rest = async { while let Ok(Some(())) = timeout(QUIET, self.events.recv()).await {} };
                // A repository that never rests is looked at all the same.
                let _ = timeout(PATIENCE, at_rest).await;
            }
        }
    }
}

/// Reading moves nothing, and a lock file comes before the move it is for.
fn is_telling(event: &notify::Event) -> bool {
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    !matches!(event.kind, EventKind::Access(_)) && (event.paths.is_empty() || !event.paths.iter().all(is_lock))
}
