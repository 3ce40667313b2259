//! Notices that a stick with a bundle may have been plugged in. What is on it, the next pass finds out.
//!
//! It watches the folders in which a bundle may appear, and the list of mounted file systems, because a file system that is mounted over a
//! folder changes nothing in the folder above it. Where that is not possible, the agent still looks after each interval.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::AgentConfig;
use crate::git::BundleFiles;

/// The time that the folders have to be quiet: a bundle that is copied to a stick is written in many steps.
const QUIET: Duration = Duration::from_millis(500);
/// The longest time that the agent waits for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Watches the folders of the bundles in a configuration.
#[derive(Debug)]
pub(super) struct BundleWatcher {
    watcher: notify::RecommendedWatcher,
    events: mpsc::Receiver<()>,
    watched: BTreeSet<PathBuf>,
    mounts: Option<Mounts>,
}

impl BundleWatcher {
    /// A watcher, where the configuration names a bundle and the system can watch.
    pub(super) fn of(config: &AgentConfig) -> Option<Self> {
        let bundles: Vec<BundleFiles> = config.mirrors.iter().filter_map(|mirror| mirror.bundle()).cloned().collect();
        if bundles.is_empty() {
            return None;
        }
        // One event is as good as many.
        let (sender, events) = mpsc::channel(1);
        let handler = move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_relevant(&event, &bundles)) {
                let _ = sender.try_send(());
            }
        };
        match notify::recommended_watcher(handler) {
            Ok(watcher) => Some(Self { watcher, events, watched: BTreeSet::new(), mounts: Mounts::open() }),
            Err(error) => {
                tracing::warn!(%error, "cannot watch for bundles; they are found after each interval");
                None
            }
        }
    }

    /// Watches the folders that are there now. It has to be called before a pass, so that nothing is missed that comes after it looked.
    pub(super) fn refresh(&mut self, config: &AgentConfig) {
        let bundles = config.mirrors.iter().filter_map(|mirror| mirror.bundle());
        let folders: BTreeSet<PathBuf> = bundles.flat_map(BundleFiles::folders).collect();
        for gone in self.watched.difference(&folders) {
            // The system ends a watch by itself where the folder is gone.
            let _ = self.watcher.unwatch(gone);
        }
        for folder in &folders {
            // Another file system may be mounted there by now, so each folder is watched anew.
            if self.watched.contains(folder) {
                let _ = self.watcher.unwatch(folder);
            }
            if let Err(error) = self.watcher.watch(folder, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %folder.display(), %error, "cannot watch a folder of bundles");
            }
        }
        self.watched = folders;
    }

    /// Waits until something has changed, and was quiet for a moment.
    pub(super) async fn changed(&mut self) {
        tokio::select! {
            event = self.events.recv() => {
                if event.is_none() {
                    std::future::pending::<()>().await;
                }
            }
            () = Mounts::changed(self.mounts.as_ref()) => {}
        }
        let at_rest = async { while let Ok(Some(())) = timeout(QUIET, self.events.recv()).await {} };
        // A folder that is never quiet is read all the same.
        let _ = timeout(PATIENCE, at_rest).await;
    }
}

/// Whether an event can mean that a bundle is there: reading changes nothing, and a pass reads. A folder such as `/tmp` has many files of
/// others.
fn is_relevant(event: &notify::Event, bundles: &[BundleFiles]) -> bool {
    let is_near = |path: &PathBuf| bundles.iter().any(|bundle| bundle.is_near(path));
    !matches!(event.kind, EventKind::Access(_)) && (event.paths.is_empty() || event.paths.iter().any(is_near))
}

/// The list of mounted file systems, which Linux reports as ready when it has changed (`proc_pid_mounts(5)`).
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Mounts(tokio::io::unix::AsyncFd<std::fs::File>);

#[cfg(target_os = "linux")]
impl Mounts {
    #[expect(
        deprecated,
        reason = "what replaces it is `unsafe`; a file that is owned here stays open as long as it is registered"
    )]
    fn open() -> Option<Self> {
        let file = std::fs::File::open("/proc/self/mounts").ok()?;
        tokio::io::unix::AsyncFd::with_interest(file, tokio::io::Interest::PRIORITY).ok().map(Self)
    }

    async fn changed(mounts: Option<&Self>) {
        let ready = match mounts {
            Some(Self(file)) => file.ready(tokio::io::Interest::PRIORITY).await.ok(),
            None => None,
        };
        match ready {
            Some(mut ready) => ready.clear_ready(),
            None => std::future::pending().await,
        }
    }
}

#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
struct Mounts;

#[cfg(not(target_os = "linux"))]
impl Mounts {
    fn open() -> Option<Self> {
        None
    }

    async fn changed(_: Option<&Self>) {
        std::future::pending().await
    }
}
