//! Pushing on beside the rounds of `claveld run`: each mirror has a task of its own, at the time that `mirror_state` says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};

use super::mirror_state::{MirrorReport, MirrorState};
use super::push_on::{AT_ONCE, MirrorPusher, mirror_reports, now, write_mirror_metrics};
use crate::config::ClaveldConfig;
use crate::git::Remote;
use crate::model::describe_error;

/// How long a mirror is left alone to which another process pushes, or of which nothing can be remembered.
const LEFT_ALONE: Duration = Duration::from_secs(30);

/// The pushes of a daemon. They end when this is dropped.
#[derive(Debug)]
pub(super) struct PushTasks<'a> {
    config: &'a ClaveldConfig,
    pusher: Arc<MirrorPusher>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<Option<MirrorState>>,
    /// The mirror of each task that runs, by its place in the configuration.
    running: BTreeMap<usize, Id>,
    /// Until when a mirror is left alone.
    not_before: BTreeMap<usize, Instant>,
}

impl<'a> PushTasks<'a> {
    /// None runs yet.
    pub(super) fn new(config: &'a ClaveldConfig) -> Self {
        Self {
            config,
            pusher: Arc::new(MirrorPusher::of(&config.publish)),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            not_before: BTreeMap::new(),
        }
    }

    /// Starts the pushes whose time has come. Returns how long it is until the next one; none where nothing is to be pushed.
    pub(super) fn begin(&mut self) -> Option<Duration> {
        let mirrors = &self.config.publish.mirrors;
        if mirrors.is_empty() {
            return None;
        }
        let published = self.pusher.published().unwrap_or_else(|error| {
            // A round says so.
            tracing::debug!(error = %describe_error(&error), "cannot push the branch on");
            None
        });
        let (_, tip) = published?;
        let known: BTreeMap<String, MirrorState> =
            mirror_reports(self.config).into_iter().map(|MirrorReport { mirror, state }| (mirror, state)).collect();
        let mut waits = Vec::new();
        for (place, mirror) in mirrors.iter().enumerate() {
            if self.running.contains_key(&place) {
                continue;
            }
            let alone = self.not_before.get(&place).map(|until| until.saturating_duration_since(Instant::now()));
            let state = MirrorState::aimed_at(known.get(&mirror.to_string()).cloned(), tip, now());
            let Some(due) = state.due(tip, now()) else { continue };
            let wait = due.since(now()).max(alone.unwrap_or_default());
            if wait.is_zero() {
                self.start(place, mirror);
            } else {
                waits.push(wait);
            }
        }
        waits.into_iter().min()
    }

    fn start(&mut self, place: usize, mirror: &Remote) {
        let (pusher, slots, mirror) = (Arc::clone(&self.pusher), Arc::clone(&self.slots), mirror.clone());
        let task = self.tasks.spawn(async move {
            // Nobody closes it.
            let _slot = slots.acquire().await;
            pusher.catch_up(&mirror).await
        });
        self.running.insert(place, task.id());
    }

    /// Waits until a push has ended; for ever where none runs. Returns the mirror that is level by it.
    pub(super) async fn done(&mut self) -> Option<MirrorReport> {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let (id, state) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                tracing::warn!(%error, "a push to a mirror ended");
                (error.id(), None)
            }
        };
        let place = self.running.iter().find_map(|(place, of)| (*of == id).then_some(*place))?;
        self.running.remove(&place);
        self.not_before.remove(&place);
        write_mirror_metrics(self.config);
        match state {
            Some(state @ MirrorState::Level { .. }) => {
                let mirror = self.config.publish.mirrors.get(place)?.to_string();
                Some(MirrorReport { mirror, state })
            }
            Some(MirrorState::Behind { .. } | MirrorState::Rewritten { .. }) => None,
            None => {
                self.not_before.insert(place, Instant::now() + LEFT_ALONE);
                None
            }
        }
    }
}
