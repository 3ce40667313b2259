//! Watches the local repositories of sources. This is the I/O; `trigger` decides what a change means.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::trigger::{Detection, Trigger};
use crate::model::{Source, describe_error};

/// The time that a repository has to be quiet before claveld reads it: a push writes many files.
const QUIET: Duration = Duration::from_millis(100);
/// The longest time that claveld waits for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// The number of events that may wait. More events than that mean that some were lost.
const MAX_EVENTS: usize = 1024;

/// The reason why a repository cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path} (claveld finds a change there at the next poll)", path = path.display())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// Watches local repositories.
#[derive(Debug)]
pub(super) struct RepositoryWatcher {
    watcher: notify::RecommendedWatcher,
    events: mpsc::Receiver<WatchEvent>,
    /// The changes that were seen and not reported yet. They outlive a wait that is interrupted.
    pending: Pending,
}

/// Changes that the next trigger is about.
#[derive(Debug, Default)]
struct Pending {
    repositories: BTreeSet<PathBuf>,
    is_lost: bool,
}

/// An event of the system.
#[derive(Debug)]
enum WatchEvent {
    At(Vec<PathBuf>),
    Lost,
}

impl RepositoryWatcher {
    /// A watcher that watches nothing yet.
    pub(super) fn new() -> Result<Self, WatchError> {
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let handler = move |event: notify::Result<notify::Event>| {
            let event = match event {
                Ok(event) if event.need_rescan() => WatchEvent::Lost,
                Ok(event) if is_relevant(&event) => WatchEvent::At(event.paths),
                Ok(_) => return,
                Err(_) => WatchEvent::Lost,
            };
            // A full queue counts as lost events.
            let _ = sender.try_send(event);
        };
        let error = |source| WatchError { path: "the files of this machine".into(), source };
        Ok(Self { watcher: notify::recommended_watcher(handler).map_err(error)?, events, pending: Pending::default() })
    }

    /// Watches the repository of `source`, or watches it again after it was replaced. Returns how changes of the source are
    /// noticed from now on.
    pub(super) fn watch(&mut self, source: &Source) -> Result<Detection, WatchError> {
        let Some(repository) = source.flake.changing_repository() else { return Ok(Detection::Polled) };
        let nested = repository.join(".git");
        let is_work_tree = nested.is_dir();
        let git_dir = if is_work_tree { nested } else { repository };
        // A ref is a file below refs/, or stands in packed-refs and HEAD in the folder itself.
        let folders =
            [(git_dir.clone(), RecursiveMode::NonRecursive), (git_dir.join("refs"), RecursiveMode::Recursive)];
        for (path, mode) in folders {
            self.watcher.watch(&path, mode).map_err(|source| WatchError { path, source })?;
        }
        // Without a branch, Nix takes the files of the work tree as well, and those are not watched.
        let takes_work_tree = is_work_tree && source.flake.branch().is_none();
        Ok(if takes_work_tree { Detection::PartlyWatched(git_dir) } else { Detection::Watched(git_dir) })
    }

    /// Watches a folder in which other processes leave a word.
    pub(super) fn watch_folder(&mut self, folder: &Path) -> Result<(), WatchError> {
        let error = |source| WatchError { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(|source| error(notify::Error::io(source)))?;
        self.watcher.watch(folder, RecursiveMode::NonRecursive).map_err(error)
    }

    /// Waits until a repository in `repositories` changed and was quiet for a moment. If the wait is interrupted, the next one
    /// reports what this one saw.
    pub(super) async fn next(&mut self, repositories: &BTreeSet<PathBuf>) -> Trigger {
        let Self { events, pending, .. } = self;
        loop {
            if pending.is_empty() {
                match events.recv().await {
                    Some(event) => pending.note(event, repositories),
                    // The watcher ended: the polls go on.
                    None => std::future::pending().await,
                }
            }
            let at_rest = async {
                while let Ok(Some(event)) = timeout(QUIET, events.recv()).await {
                    pending.note(event, repositories);
                }
            };
            // A repository that is never quiet is read all the same.
            let _ = timeout(PATIENCE, at_rest).await;
            let Pending { repositories: changed, is_lost } = std::mem::take(pending);
            if is_lost || events.len() >= MAX_EVENTS {
                return Trigger::EventsLost;
            }
            if !changed.is_empty() {
                return Trigger::Changed(changed);
            }
        }
    }
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.repositories.is_empty() && !self.is_lost
    }

    /// Adds the repositories of an event.
    fn note(&mut self, event: WatchEvent, repositories: &BTreeSet<PathBuf>) {
        match event {
            WatchEvent::At(paths) if !paths.is_empty() => {
                let inside = |repository: &&PathBuf| paths.iter().any(|path| path.starts_with(repository));
                self.repositories.extend(repositories.iter().filter(inside).cloned());
            }
            WatchEvent::At(_) | WatchEvent::Lost => self.is_lost = true,
        }
    }
}

/// Whether an event can mean a change: reading changes nothing, and a lock file precedes the change that it is for.
fn is_relevant(event: &notify::Event) -> bool {
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "lock");
    !matches!(event.kind, EventKind::Access(_)) && (event.paths.is_empty() || !event.paths.iter().all(is_lock))
}

/// The watched repositories, and the errors about those that cannot be watched. One failure does not concern the others.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) repositories: BTreeSet<PathBuf>,
    errors: BTreeMap<PathBuf, String>,
}

impl Watched {
    /// Notes a repository that is watched.
    pub(super) fn add(&mut self, detection: &Detection) {
        if let Detection::Watched(repository) | Detection::PartlyWatched(repository) = detection {
            self.errors.retain(|path, _| !path.starts_with(repository));
            self.repositories.insert(repository.clone());
        }
    }

    /// Notes a folder that is watched.
    pub(super) fn add_folder(&mut self, folder: PathBuf) {
        self.repositories.insert(folder);
    }

    /// Notes an error. Returns whether it is a new one.
    pub(super) fn is_new_error(&mut self, error: &WatchError) -> bool {
        let text = describe_error(error);
        self.errors.insert(error.path.clone(), text.clone()).is_none_or(|before| before != text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(flake: &str) -> Source {
        Source::bare(flake.parse().unwrap())
    }

    #[test]
    fn one_repository_that_cannot_be_watched_does_not_concern_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let bare = dir.path().join("fleet.git");
        std::fs::create_dir_all(bare.join("refs")).unwrap();
        let mut watcher = RepositoryWatcher::new().unwrap();
        let absent = source(&format!("git+file://{}/absent.git", dir.path().display()));
        let error = watcher.watch(&absent).unwrap_err();
        let detection = watcher.watch(&source(&format!("git+file://{}", bare.display()))).unwrap();
        assert_eq!(detection, Detection::Watched(bare));
        assert_eq!(watcher.watch(&source("git+https://git.example.org/fleet")).unwrap(), Detection::Polled);
        let mut state = Watched::default();
        assert!(state.is_new_error(&error) && !state.is_new_error(&error));
    }

    #[test]
    fn a_work_tree_is_watched_in_part_unless_the_source_names_a_branch() {
        let dir = tempfile::tempdir().unwrap();
        let git_dir = dir.path().join(".git");
        std::fs::create_dir_all(git_dir.join("refs")).unwrap();
        let mut watcher = RepositoryWatcher::new().unwrap();
        let flake = format!("git+file://{}", dir.path().display());
        assert_eq!(watcher.watch(&source(&flake)).unwrap(), Detection::PartlyWatched(git_dir.clone()));
        assert_eq!(watcher.watch(&source(&format!("{flake}?ref=main"))).unwrap(), Detection::Watched(git_dir));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_change_names_its_repository() {
        let dir = tempfile::tempdir().unwrap();
        let repositories = ["a.git", "b.git"].map(|name| dir.path().join(name));
        let mut watcher = RepositoryWatcher::new().unwrap();
        for repository in &repositories {
            std::fs::create_dir_all(repository.join("refs/heads")).unwrap();
            watcher.watch(&source(&format!("git+file://{}", repository.display()))).unwrap();
        }
        std::fs::write(repositories[1].join("refs/heads/main"), "x").unwrap();
        let changed = watcher.next(&repositories.clone().into()).await;
        assert_eq!(changed, Trigger::Changed([repositories[1].clone()].into()));
    }
}
