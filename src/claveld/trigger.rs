//! The reasons for a round, and the sources that each of them is about. No I/O and no clock of its own.
//!
//! A round reads only the sources that its trigger is about: a change in a local repository concerns the sources in that
//! repository, and a poll concerns the sources whose time has come.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::model::{FlakeReference, Source};

/// A watched source is still read now and then, in case an event was lost: once in so many poll intervals.
const INTERVALS_OF_A_WATCHED_SOURCE: u32 = 10;

/// The reason for a round of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// The daemon starts: it evaluates every source.
    Start,
    /// Files changed in these local repositories.
    Changed(BTreeSet<PathBuf>),
    /// The watcher lost events: any local repository may have changed.
    EventsLost,
    /// The poll interval of some source is over.
    Poll,
    /// The index is old enough to be signed again.
    SignAnew,
    /// Deployments wait for a cache or are held, and it is time to look whether that has changed.
    RetryPostponed,
    /// The self-check found that recorded answers about these sources were wrong.
    WrongAnswers(BTreeSet<FlakeReference>),
}

/// How the daemon notices that a source changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Detection {
    /// The system reports each change of this local repository.
    Watched(PathBuf),
    /// The system reports changes of this local repository, but not all that concern the source: its work tree counts too.
    PartlyWatched(PathBuf),
    /// The daemon has to read the source to notice a change.
    Polled,
}

/// The result of the last round about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastRead {
    /// Its content is known and published.
    Good,
    /// It could not be evaluated, or the publication failed. It has to be tried again.
    Failed,
}

#[derive(Debug)]
struct SourceState {
    detection: Detection,
    /// When it was read last, and the result; none before the first time.
    read: Option<(Instant, LastRead)>,
}

/// The times at which something is due.
#[derive(Debug)]
pub(super) struct PollSchedule {
    poll_interval: Duration,
    sources: BTreeMap<FlakeReference, SourceState>,
    /// When the index has to be signed again; none before the first publication, or after a failed one.
    pub(super) sign_anew_at: Option<Instant>,
    /// When the postponed deployments have to be looked at; none where no deployment is postponed.
    pub(super) retry_postponed_at: Option<Instant>,
}

impl PollSchedule {
    /// A schedule for `sources`, none of which was read yet.
    pub(super) fn new(sources: &[Source], poll_interval: Duration) -> Self {
        let state = |source: &Source| (source.flake.clone(), SourceState { detection: Detection::Polled, read: None });
        let sources = sources.iter().map(state).collect();
        Self { poll_interval, sources, sign_anew_at: None, retry_postponed_at: None }
    }

    /// Notes how changes of a source are noticed.
    pub(super) fn set_detection(&mut self, source: &FlakeReference, detection: Detection) {
        if let Some(state) = self.sources.get_mut(source) {
            state.detection = detection;
        }
    }

    /// Notes that a source was read.
    pub(super) fn note_read(&mut self, source: &FlakeReference, at: Instant, read: LastRead) {
        if let Some(state) = self.sources.get_mut(source) {
            state.read = Some((at, read));
        }
    }

    /// The sources that `trigger` is about, at `now`.
    pub(super) fn sources_of(&self, trigger: &Trigger, now: Instant) -> BTreeSet<FlakeReference> {
        let concerns = |(flake, state): (&FlakeReference, &SourceState)| {
            let is_concerned = match trigger {
                Trigger::Start => true,
                Trigger::Changed(repositories) => state.repository().is_some_and(|at| repositories.contains(at)),
                Trigger::EventsLost => state.repository().is_some(),
                Trigger::Poll => self.is_due(state, now),
                Trigger::WrongAnswers(sources) => sources.contains(flake),
                // The daemon itself knows which sources have postponed deployments.
                Trigger::SignAnew | Trigger::RetryPostponed => false,
            };
            is_concerned.then(|| flake.clone())
        };
        self.sources.iter().filter_map(concerns).collect()
    }

    /// The trigger whose time has come at `now`; none where nothing is due.
    pub(super) fn trigger_at(&self, now: Instant) -> Option<Trigger> {
        let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_over(self.sign_anew_at) {
            Some(Trigger::SignAnew)
        } else if is_over(self.retry_postponed_at) {
            Some(Trigger::RetryPostponed)
        } else if self.sources.values().any(|state| self.is_due(state, now)) {
            Some(Trigger::Poll)
        } else {
            None
        }
    }

    /// The time until something is due. It is never longer than the poll interval, because a machine may sleep meanwhile.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let sources = self.sources.values().map(|state| self.due_at(state).unwrap_or(now));
        let times = sources.chain(self.sign_anew_at).chain(self.retry_postponed_at);
        times.map(|at| at.saturating_duration_since(now)).min().unwrap_or(self.poll_interval).min(self.poll_interval)
    }

    fn is_due(&self, state: &SourceState, now: Instant) -> bool {
        self.due_at(state).is_none_or(|at| at <= now)
    }

    /// When a source has to be read even without an event; none where it was never read.
    fn due_at(&self, state: &SourceState) -> Option<Instant> {
        let (at, read) = state.read?;
        let intervals = match (&state.detection, read) {
            (Detection::Watched(_), LastRead::Good) => INTERVALS_OF_A_WATCHED_SOURCE,
            (Detection::PartlyWatched(_) | Detection::Polled, _) | (Detection::Watched(_), LastRead::Failed) => 1,
        };
        Some(at + self.poll_interval * intervals)
    }
}

impl SourceState {
    fn repository(&self) -> Option<&PathBuf> {
        match &self.detection {
            Detection::Watched(repository) | Detection::PartlyWatched(repository) => Some(repository),
            Detection::Polled => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_mins(1);

    fn flake(name: &str) -> FlakeReference {
        format!("git+https://git.example.org/{name}").parse().unwrap()
    }

    /// `watched` in the repository `/srv/a`, `tree` in the work tree at `/srv/b`, `remote` elsewhere; all read at `now`.
    fn schedule(now: Instant) -> PollSchedule {
        let sources = ["watched", "tree", "remote"].map(|name| Source::bare(flake(name)));
        let mut schedule = PollSchedule::new(&sources, POLL);
        schedule.set_detection(&flake("watched"), Detection::Watched("/srv/a".into()));
        schedule.set_detection(&flake("tree"), Detection::PartlyWatched("/srv/b".into()));
        for source in &sources {
            schedule.note_read(&source.flake, now, LastRead::Good);
        }
        schedule
    }

    fn sources_of(schedule: &PollSchedule, trigger: &Trigger, now: Instant) -> Vec<String> {
        let names = schedule.sources_of(trigger, now).into_iter();
        names.map(|flake| flake.as_str().rsplit('/').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_change_concerns_the_sources_in_that_repository_alone() {
        let now = Instant::now();
        let schedule = schedule(now);
        assert_eq!(sources_of(&schedule, &Trigger::Changed(["/srv/a".into()].into()), now), ["watched"]);
        assert_eq!(sources_of(&schedule, &Trigger::EventsLost, now), ["tree", "watched"]);
        assert_eq!(sources_of(&schedule, &Trigger::SignAnew, now), [""; 0]);
        assert_eq!(sources_of(&schedule, &Trigger::Start, now).len(), 3);
    }

    #[test]
    fn a_poll_concerns_the_sources_that_are_due() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        assert_eq!((schedule.trigger_at(now), schedule.wait(now)), (None, POLL));
        let later = now + POLL;
        assert_eq!(schedule.trigger_at(later), Some(Trigger::Poll));
        assert_eq!(sources_of(&schedule, &Trigger::Poll, later), ["remote", "tree"]);
        // A watched source is read as a safeguard against lost events, and where the last round about it failed.
        assert_eq!(sources_of(&schedule, &Trigger::Poll, now + 10 * POLL).len(), 3);
        schedule.note_read(&flake("watched"), now, LastRead::Failed);
        assert_eq!(sources_of(&schedule, &Trigger::Poll, later).len(), 3);
    }

    #[test]
    fn an_index_is_signed_again_and_postponed_deployments_are_retried_in_time() {
        let now = Instant::now();
        let mut schedule = schedule(now);
        schedule.sign_anew_at = Some(now + POLL / 2);
        schedule.retry_postponed_at = Some(now + POLL / 4);
        assert_eq!(schedule.wait(now), POLL / 4);
        assert_eq!(schedule.trigger_at(now + POLL / 4), Some(Trigger::RetryPostponed));
        assert_eq!(schedule.trigger_at(now + POLL / 2), Some(Trigger::SignAnew));
    }
}
