//! The daemon: waits for a trigger, reads the sources that it is about, and runs a round, for ever.
//!
//! A failed round is reported and tried again at the next poll. The branch keeps its last good state meanwhile. This file
//! holds the order of things; `trigger` decides what is due, and the caller prints the events.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use super::round::{RoundEvent, RoundOutcome, RoundRunner, Target};
use super::trigger::{Detection, LastRead, PollSchedule, Trigger};
use super::watch::{RepositoryWatcher, WatchError, Watched};
use crate::config::ClaveldConfig;
use crate::evaluate::{EvalMode, Evaluation};
use crate::model::{FlakeReference, Name, Source, Timestamp};
use crate::publish::{KeptBack, PublishError, PublishReport, Waiting};

/// An event of the daemon, for its log.
#[derive(Debug)]
pub enum DaemonEvent<'a> {
    /// A round makes progress.
    Progress(RoundEvent<'a>),
    /// A round ended.
    RoundFinished(&'a RoundOutcome),
    /// Postponed deployments were published.
    PostponedPublished(&'a PublishReport),
    /// These deployments are postponed, for a new reason.
    Postponed(&'a Postponed),
    /// Nothing was published.
    PublishFailed(&'a PublishError),
    /// A repository cannot be watched.
    WatchFailed(&'a WatchError),
}

/// The deployments that wait for a cache, and those that an operator holds back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Postponed {
    /// The deployments that wait.
    pub waiting: Vec<Waiting>,
    /// The changes that holds keep back.
    pub kept_back: Vec<KeptBack>,
}

impl Postponed {
    fn of(report: &PublishReport) -> Self {
        Self { waiting: report.unready.waiting.clone(), kept_back: report.kept_back.clone() }
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.waiting.iter().map(|waiting| &waiting.name).chain(self.kept_back.iter().map(|kept| &kept.name))
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.kept_back.is_empty()
    }

    /// Adds the postponed deployments of a round about some sources.
    fn extend(&mut self, other: &Self) {
        let Self { waiting, kept_back } = other.without(self);
        self.waiting.extend(waiting);
        self.kept_back.extend(kept_back);
    }

    /// The entries that are not in `other`.
    fn without(&self, other: &Self) -> Self {
        let waiting = self.waiting.iter().filter(|entry| !other.waiting.contains(entry)).cloned().collect();
        let kept_back = self.kept_back.iter().filter(|entry| !other.kept_back.contains(entry)).cloned().collect();
        Self { waiting, kept_back }
    }
}

/// A daemon that evaluates and publishes until it is dropped.
pub struct Daemon<'a> {
    config: &'a ClaveldConfig,
    runner: RoundRunner<'a>,
    on_event: &'a dyn Fn(DaemonEvent<'_>),
    schedule: PollSchedule,
    watcher: Option<RepositoryWatcher>,
    watched: Watched,
    /// The last evaluation of each source that is published.
    known: Vec<Evaluation>,
    postponed: Postponed,
    /// The sources that were evaluated and not checked at another location yet.
    unchecked_relocations: BTreeSet<FlakeReference>,
    /// When the index has to be signed again, by the clock on the wall: it goes on while the machine sleeps.
    sign_anew_at: Option<Timestamp>,
}

impl<'a> Daemon<'a> {
    /// Reads the keys that `config` names. `on_event` is called for each event.
    pub fn new(config: &'a ClaveldConfig, on_event: &'a dyn Fn(DaemonEvent<'_>)) -> Result<Self, PublishError> {
        let watcher = RepositoryWatcher::new();
        if let Err(error) = &watcher {
            on_event(DaemonEvent::WatchFailed(error));
        }
        Ok(Self {
            config,
            runner: RoundRunner::new(config, EvalMode::Changed)?,
            on_event,
            schedule: PollSchedule::new(&config.sources, config.poll_interval),
            watcher: watcher.ok(),
            watched: Watched::default(),
            known: Vec::new(),
            postponed: Postponed::default(),
            unchecked_relocations: BTreeSet::new(),
            sign_anew_at: None,
        })
    }

    /// Runs for ever.
    pub async fn run(mut self) {
        let mut trigger = Trigger::Start;
        loop {
            self.handle(&trigger).await;
            trigger = self.next_trigger().await;
        }
    }

    async fn handle(&mut self, trigger: &Trigger) {
        tracing::debug!(?trigger, "a round begins");
        let asked = match trigger {
            Trigger::RetryPostponed => self.sources_of_postponed(),
            other => self.schedule.sources_of(other, Instant::now()),
        };
        for source in self.config.sources.iter().filter(|source| asked.contains(&source.flake)) {
            self.watch(source);
        }
        let targets = self.runner.find_changed(&asked, &self.known).await;
        let now = Instant::now();
        for source in &asked {
            self.schedule.note_read(source, now, LastRead::Good);
        }
        match trigger {
            Trigger::RetryPostponed => self.retry_postponed(&asked, &targets).await,
            // An operator's hold or release is a change in the repository of the branch, which may be the one of a source.
            Trigger::Changed(_) | Trigger::EventsLost if !self.postponed.is_empty() => {
                self.schedule.retry_postponed_at = Some(now);
            }
            Trigger::Start | Trigger::Changed(_) | Trigger::EventsLost | Trigger::Poll | Trigger::SignAnew => {}
        }
        if !targets.is_empty() || *trigger == Trigger::SignAnew {
            self.publish(&targets).await;
        }
    }

    /// Watches the repository of a source, so that the next change is noticed at once.
    fn watch(&mut self, source: &Source) {
        let Some(watcher) = &mut self.watcher else { return };
        let detection = watcher.watch(source).unwrap_or_else(|error| {
            if self.watched.is_new_error(&error) {
                (self.on_event)(DaemonEvent::WatchFailed(&error));
            }
            Detection::Polled
        });
        self.watched.add(&detection);
        self.schedule.set_detection(&source.flake, detection);
    }

    /// Runs a round about `targets`.
    async fn publish(&mut self, targets: &[Target<'a>]) {
        let on_event = |event: RoundEvent<'_>| (self.on_event)(DaemonEvent::Progress(event));
        let outcome = self.runner.run(targets, &self.known, &on_event).await;
        let now = Instant::now();
        self.known.retain(|known| targets.iter().all(|target| target.source.flake != known.source.flake));
        match outcome {
            Ok(outcome) => {
                (self.on_event)(DaemonEvent::RoundFinished(&outcome));
                for broken in &outcome.broken_sources {
                    self.schedule.note_read(&broken.source, now, LastRead::Failed);
                }
                self.sign_anew_at = Some(outcome.report.sign_anew_at);
                self.postponed.extend(&Postponed::of(&outcome.report));
                self.known.extend(outcome.evaluations);
            }
            Err(error) => {
                (self.on_event)(DaemonEvent::PublishFailed(&error));
                // The branch does not have these evaluations, so the next round has to do them again.
                for target in targets {
                    self.schedule.note_read(&target.source.flake, now, LastRead::Failed);
                }
                self.sign_anew_at = None;
                self.schedule.sign_anew_at = Some(now + self.config.poll_interval);
            }
        }
        self.schedule_retry(now);
        self.unchecked_relocations.extend(targets.iter().map(|target| target.source.flake.clone()));
    }

    /// The sources that have postponed deployments. A held deployment that no evaluation has may be of any source.
    fn sources_of_postponed(&self) -> BTreeSet<FlakeReference> {
        let names: BTreeSet<&Name> = self.postponed.names().collect();
        let has = |known: &Evaluation, name: &Name| known.drafts.deployments.iter().any(|draft| draft.name == *name);
        let is_homeless = |name: &&Name| !self.known.iter().any(|known| has(known, name));
        let takes_all = names.iter().any(is_homeless);
        let concerned = self.known.iter().filter(|known| takes_all || names.iter().any(|name| has(known, name)));
        concerned.map(|known| known.source.flake.clone()).collect()
    }

    /// Publishes the deployments of the sources in `asked` that a cache has by now, or that an operator released. The sources
    /// in `changed` get a round of their own: their known evaluations are out of date, and a hook may have published newer
    /// ones already.
    async fn retry_postponed(&mut self, asked: &BTreeSet<FlakeReference>, changed: &[Target<'a>]) {
        let is_changed = |flake: &FlakeReference| changed.iter().any(|target| target.source.flake == *flake);
        let is_current = |known: &&Evaluation| asked.contains(&known.source.flake) && !is_changed(&known.source.flake);
        let current: Vec<Evaluation> = self.known.iter().filter(is_current).cloned().collect();
        match self.runner.publish_known(&current).await {
            Ok(report) => {
                let still = Postponed::of(&report);
                let new = still.without(&self.postponed);
                if report.commit.is_some() {
                    (self.on_event)(DaemonEvent::PostponedPublished(&report));
                } else if !new.is_empty() {
                    (self.on_event)(DaemonEvent::Postponed(&new));
                }
                self.postponed = still;
            }
            Err(error) => (self.on_event)(DaemonEvent::PublishFailed(&error)),
        }
        self.schedule_retry(Instant::now());
    }

    fn schedule_retry(&mut self, now: Instant) {
        self.schedule.retry_postponed_at = (!self.postponed.is_empty()).then(|| now + self.config.poll_interval);
    }

    /// Waits for the next trigger, and does the second evaluations meanwhile.
    async fn next_trigger(&mut self) -> Trigger {
        loop {
            let now = Instant::now();
            if let Some(at) = self.sign_anew_at {
                self.schedule.sign_anew_at = Some(now + until(at));
            }
            if let Some(trigger) = self.schedule.trigger_at(now) {
                return trigger;
            }
            let Self { runner, schedule, watcher, watched, unchecked_relocations, .. } = self;
            let change = async {
                match watcher {
                    Some(watcher) => watcher.next(&watched.repositories).await,
                    None => std::future::pending().await,
                }
            };
            let meanwhile = async {
                let is_unchecked = |target: &Target<'_>| unchecked_relocations.contains(&target.source.flake);
                let targets: Vec<_> = runner.all_targets().into_iter().filter(is_unchecked).collect();
                runner.check_relocations(&targets, &|_| ()).await;
                unchecked_relocations.clear();
                std::future::pending::<()>().await;
            };
            tokio::select! {
                trigger = change => return trigger,
                () = tokio::time::sleep(schedule.wait(now)) => {}
                () = meanwhile => {}
            }
        }
    }
}

/// The time from now until `at`; nothing where that is over.
fn until(at: Timestamp) -> Duration {
    at.since(SystemTime::now().into())
}
