//! The daemon: waits for a trigger, reads the sources that it is about, and runs a round, for ever.
//!
//! A failed round is reported and tried again at the next poll. The branch keeps its last good state meanwhile. This file
//! holds the order of things; `trigger` decides what is due, and the caller prints the events.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::background::{Background, SelfCheckTimes};
use super::findings::{Finding, FindingLog, RoundNews};
use super::mirror_state::MirrorReport;
use super::push_on::{mirror_reports, now as wall_clock};
use super::push_tasks::PushTasks;
use super::round::{RoundEvent, RoundOutcome, RoundRunner, Target, WrongAnswers};
use super::setup::operations;
use super::trigger::{Detection, LastRead, PollSchedule, Trigger};
use super::watch::{RepositoryWatcher, WatchError, Watched};
use crate::config::ClaveldConfig;
use crate::evaluate::{EvalMode, Evaluation};
use crate::model::{FlakeReference, Name, Source, Timestamp};
use crate::publish::{PublishError, PublishReport};

/// An event of the daemon, for its log.
#[derive(Debug)]
pub enum DaemonEvent<'a> {
    /// A round makes progress.
    Progress(RoundEvent<'a>),
    /// A round ended, with these news.
    RoundFinished(&'a RoundOutcome, &'a RoundNews<'a>),
    /// Postponed deployments were published.
    PostponedPublished(&'a PublishReport),
    /// There are news, and nothing was published.
    News(&'a RoundNews<'a>),
    /// The branch was pushed on to a mirror.
    PushedOn(&'a MirrorReport),
    /// The self-check found recorded values that were wrong.
    WrongAnswers(&'a WrongAnswers),
    /// A repository cannot be watched.
    WatchFailed(&'a WatchError),
}

/// The names of the deployments that wait for a cache, or that an operator holds back.
#[derive(Debug, Default)]
struct Postponed(BTreeSet<Name>);

impl Postponed {
    fn of(report: &PublishReport) -> Self {
        let waiting = report.unready.waiting.iter().map(|waiting| &waiting.name);
        Self(waiting.chain(report.kept_back.iter().map(|kept| &kept.name)).cloned().collect())
    }
}

/// A daemon that evaluates and publishes until it is dropped.
pub struct Daemon<'a> {
    config: &'a ClaveldConfig,
    runner: Rc<RoundRunner<'a>>,
    background: Background<'a>,
    /// The pushes to mirrors. They go on beside the rounds.
    pushes: PushTasks<'a>,
    self_check: Rc<SelfCheckTimes>,
    on_event: &'a dyn Fn(DaemonEvent<'_>),
    schedule: PollSchedule,
    watcher: Option<RepositoryWatcher>,
    watched: Watched,
    /// The folder in which an operator's request leaves a word.
    operations: PathBuf,
    /// The last evaluation of each source that is published.
    known: Vec<Evaluation>,
    postponed: Postponed,
    /// What the log said of each finding.
    log: RefCell<FindingLog>,
    /// When the index has to be signed again, by the clock on the wall: it goes on while the machine sleeps.
    sign_anew_at: Option<Timestamp>,
}

impl<'a> Daemon<'a> {
    /// Reads the keys that `config` names. `on_event` is called for each event.
    pub fn new(config: &'a ClaveldConfig, on_event: &'a dyn Fn(DaemonEvent<'_>)) -> Result<Self, PublishError> {
        let operations = operations(&config.publish);
        let (mut watcher, mut seen) = (None, Watched::default());
        let folder_watched = RepositoryWatcher::new().and_then(|new| watcher.insert(new).watch_folder(&operations));
        match folder_watched {
            Ok(()) => seen.add_folder(operations.clone()),
            Err(error) => on_event(DaemonEvent::WatchFailed(&error)),
        }
        Ok(Self {
            config,
            runner: Rc::new(RoundRunner::new(config, EvalMode::Changed)?),
            background: Background::default(),
            pushes: PushTasks::new(config),
            self_check: Rc::new(SelfCheckTimes::new(config.evaluate.self_check, &config.publish.state_directory)),
            on_event,
            schedule: PollSchedule::new(&config.sources, config.poll_interval),
            watcher,
            watched: seen,
            operations,
            known: Vec::new(),
            postponed: Postponed::default(),
            log: RefCell::default(),
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
        let is_operated = matches!(trigger, Trigger::Changed(at) if at.contains(&self.operations));
        let asked = match trigger {
            Trigger::RetryPostponed => self.sources_of_postponed(),
            // What a hold kept back is known only once a round met the hold.
            _ if is_operated => self.known.iter().map(|known| known.source.flake.clone()).collect(),
            other => self.schedule.sources_of(other, Instant::now()),
        };
        if let Trigger::WrongAnswers(sources) = trigger {
            // The records have the new answers, and the branch has the old ones.
            self.known.retain(|known| !sources.contains(&known.source.flake));
        }
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
            _ if is_operated => self.retry_postponed(&asked, &targets).await,
            // An operator's hold or release is a change in the repository of the branch, which may be the one of a source.
            Trigger::Changed(_) | Trigger::EventsLost if !self.postponed.0.is_empty() => {
                self.schedule.retry_postponed_at = Some(now);
            }
            Trigger::Start
            | Trigger::Changed(_)
            | Trigger::EventsLost
            | Trigger::Poll
            | Trigger::SignAnew
            | Trigger::WrongAnswers(_) => {}
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
        self.background.end();
        let on_event = |event: RoundEvent<'_>| match event {
            RoundEvent::SourceBroken(broken) => self.tell_failed(Finding::BrokenSource(broken)),
            RoundEvent::Evaluating { .. } | RoundEvent::Publishing => (self.on_event)(DaemonEvent::Progress(event)),
        };
        let outcome = self.runner.run(targets, &self.known, &on_event).await;
        let now = Instant::now();
        self.known.retain(|known| targets.iter().all(|target| target.source.flake != known.source.flake));
        match outcome {
            Ok(outcome) => {
                let news = self.log.get_mut().published(Finding::of_round(&outcome), &outcome.evaluations, now);
                (self.on_event)(DaemonEvent::RoundFinished(&outcome, &news));
                for broken in &outcome.broken_sources {
                    self.schedule.note_read(&broken.source, now, LastRead::Failed);
                }
                self.sign_anew_at = Some(outcome.report.sign_anew_at);
                self.postponed.0.extend(Postponed::of(&outcome.report).0);
                self.known.extend(outcome.evaluations);
            }
            Err(error) => {
                self.tell_failed(Finding::PublishFailed(&error));
                // The branch does not have these evaluations, so the next round has to do them again.
                for target in targets {
                    self.schedule.note_read(&target.source.flake, now, LastRead::Failed);
                }
                self.sign_anew_at = None;
                self.schedule.sign_anew_at = Some(now + self.config.poll_interval);
            }
        }
        self.schedule_retry(now);
    }

    /// The sources that have postponed deployments. A held deployment that no evaluation has may be of any source.
    fn sources_of_postponed(&self) -> BTreeSet<FlakeReference> {
        let names = &self.postponed.0;
        let is_homeless = |name: &Name| !self.known.iter().any(|known| known.gives(name));
        let takes_all = names.iter().any(is_homeless);
        let concerned = self.known.iter().filter(|known| takes_all || names.iter().any(|name| known.gives(name)));
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
                self.postponed = Postponed::of(&report);
                if report.commit.is_some() {
                    (self.on_event)(DaemonEvent::PostponedPublished(&report));
                }
                let findings = Finding::of_evaluations(&current).chain(Finding::of_report(&report));
                let news = self.log.get_mut().published(findings, &current, Instant::now());
                if !news.is_empty() {
                    (self.on_event)(DaemonEvent::News(&news));
                }
            }
            Err(error) => self.tell_failed(Finding::PublishFailed(&error)),
        }
        self.schedule_retry(Instant::now());
    }

    fn tell_failed(&self, finding: Finding<'_>) {
        let news = self.log.borrow_mut().failed(finding, Instant::now());
        if !news.is_empty() {
            (self.on_event)(DaemonEvent::News(&news));
        }
    }

    /// Says what is wrong with mirrors, and what is over.
    fn tell_of_mirrors(&self) {
        let mirrors = mirror_reports(self.config);
        let news = self.log.borrow_mut().pushed(&mirrors, wall_clock(), Instant::now());
        if !news.is_empty() {
            (self.on_event)(DaemonEvent::News(&news));
        }
    }

    fn schedule_retry(&mut self, now: Instant) {
        self.schedule.retry_postponed_at = (!self.postponed.0.is_empty()).then(|| now + self.config.poll_interval);
    }

    /// Waits for the next trigger, and works in the background meanwhile.
    async fn next_trigger(&mut self) -> Trigger {
        loop {
            let now = Instant::now();
            if let Some(at) = self.sign_anew_at {
                self.schedule.sign_anew_at = Some(now + until(at));
            }
            if let Some(trigger) = self.schedule.trigger_at(now) {
                return trigger;
            }
            let unlearnt = self.known.iter().filter(|known| known.work.has_unlearnt);
            let unlearnt = unlearnt.map(|known| known.source.flake.clone()).collect();
            self.background.begin(&self.runner, unlearnt, &self.self_check);
            let next_push = self.pushes.begin();
            self.tell_of_mirrors();
            let Self { schedule, watcher, watched, background, pushes, .. } = self;
            let wait = next_push.map_or(schedule.wait(now), |push| push.min(schedule.wait(now)));
            let change = async {
                match watcher {
                    Some(watcher) => watcher.next(&watched.repositories).await,
                    None => std::future::pending().await,
                }
            };
            let found = tokio::select! {
                trigger = change => return trigger,
                () = tokio::time::sleep(wait) => continue,
                pushed = pushes.done() => {
                    if let Some(pushed) = pushed {
                        (self.on_event)(DaemonEvent::PushedOn(&pushed));
                    }
                    continue;
                }
                found = background.done() => found,
            };
            for known in self.known.iter_mut().filter(|known| found.learnt.contains(&known.source.flake)) {
                known.work.has_unlearnt = false;
            }
            found.wrong.iter().for_each(|wrong| (self.on_event)(DaemonEvent::WrongAnswers(wrong)));
            if !found.wrong.is_empty() {
                return Trigger::WrongAnswers(found.wrong.into_iter().map(|wrong| wrong.source).collect());
            }
        }
    }
}

/// The time from now until `at`; nothing where that is over.
fn until(at: Timestamp) -> Duration {
    at.since(SystemTime::now().into())
}
