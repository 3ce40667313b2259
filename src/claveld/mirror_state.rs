//! How a mirror is that claveld pushes the branch on to: what it has, since when it is behind, and when the next attempt is. No I/O.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::git::{CommitId, MAX_RETRY_AFTER};
use crate::model::{Timestamp, excerpt};

/// The time after the first failed attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest time between two attempts.
const MAX_WAIT: Duration = Duration::from_mins(30);
/// How long a mirror may be behind before that is trouble, where no attempt failed: another process may be at work.
const PATIENCE: Duration = Duration::from_mins(10);
/// The most bytes of an error.
const MAX_ERROR_BYTES: usize = 4 << 10;

/// How a mirror was at the last attempt to push to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "status", rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum MirrorState {
    /// It has the newest commit.
    Level {
        /// The commit.
        pushed: CommitId,
        /// When it was pushed.
        at: Timestamp,
    },
    /// It does not have the newest commit yet.
    Behind {
        /// The last commit that was pushed; none before the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pushed: Option<CommitId>,
        /// When it began.
        since: Timestamp,
        /// The last attempt, which failed; none before the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        failed: Option<FailedAttempt>,
    },
    /// Its branch is not an older state of ours. Claveld never replaces it.
    Rewritten {
        /// The last commit that was pushed; none before the first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pushed: Option<CommitId>,
        /// When that was found.
        since: Timestamp,
        /// The last attempt, which found it.
        failed: FailedAttempt,
    },
}

/// An attempt to push that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailedAttempt {
    /// The commit that was pushed.
    pub commit: CommitId,
    /// The error.
    pub error: String,
    /// How many attempts failed in this way, one after the other.
    pub attempts: u32,
    /// When the next attempt is, unless there is a new commit before.
    pub next: Timestamp,
    /// Until when the mirror's server asked to be left alone. No commit is pushed before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// The result of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PushResult {
    /// The mirror has the commit.
    Pushed,
    /// The branch of the mirror is not an older state of ours.
    Rewritten(String),
    /// The mirror cannot be reached, or does not take the commit.
    Failed {
        /// The error.
        error: String,
        /// For how long its server wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl PushResult {
    /// A failure of which the server said nothing more.
    pub(super) fn failed(error: String) -> Self {
        Self::Failed { error, retry_after: None }
    }
}

/// What is wrong with a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorTrouble {
    /// It is behind, and claveld goes on trying.
    Behind,
    /// Somebody has to repair its branch.
    Rewritten,
}

impl MirrorState {
    /// The state from when the branch is at `tip`.
    pub(super) fn aimed_at(before: Option<Self>, tip: CommitId, now: Timestamp) -> Self {
        match before {
            None => Self::Behind { pushed: None, since: now, failed: None },
            Some(Self::Level { pushed, .. }) if pushed != tip => {
                Self::Behind { pushed: Some(pushed), since: now, failed: None }
            }
            Some(same) => same,
        }
    }

    /// When `tip` is to be pushed; none where the mirror has it. A commit that was not tried yet is pushed at once.
    pub(super) fn due(&self, tip: CommitId, now: Timestamp) -> Option<Timestamp> {
        let failed = match self {
            Self::Level { pushed, .. } => return (*pushed != tip).then_some(now),
            Self::Behind { failed, .. } => failed.as_ref(),
            Self::Rewritten { failed, .. } => Some(failed),
        };
        // A clock that was put back must not put the attempt off.
        let told = failed.and_then(|failed| failed.not_before).filter(|until| *until <= now.plus(MAX_RETRY_AFTER));
        let next = match failed {
            Some(failed) if failed.commit == tip && failed.next <= now.plus(MAX_WAIT) => failed.next,
            Some(_) | None => now,
        };
        Some(told.map_or(next, |told| told.max(next)))
    }

    /// The state after `tip` was pushed with this result.
    pub(super) fn after(self, tip: CommitId, result: PushResult, now: Timestamp) -> Self {
        let (pushed, failed_before) = (self.pushed(), self.failed().map_or(0, |failed| failed.attempts));
        let failure = |error: String, retry_after: Option<Duration>, attempts: u32| {
            let wait = FIRST_WAIT.saturating_mul(1 << attempts.min(16)).min(MAX_WAIT);
            let error = excerpt(&error, MAX_ERROR_BYTES);
            // The time now is cut to a whole second.
            let not_before = retry_after.map(|told| now.plus((told + Duration::from_secs(1)).min(MAX_RETRY_AFTER)));
            let next = not_before.map_or(now.plus(wait), |told| told.max(now.plus(wait)));
            FailedAttempt { commit: tip, error, attempts: attempts.saturating_add(1), next, not_before }
        };
        match (result, self) {
            (PushResult::Pushed, _) => Self::Level { pushed: tip, at: now },
            // Whether somebody repaired its branch is not known while it is out of reach.
            (PushResult::Rewritten(error), Self::Rewritten { since, .. }) => {
                Self::Rewritten { pushed, since, failed: failure(error, None, failed_before) }
            }
            (PushResult::Failed { error, retry_after }, Self::Rewritten { since, .. }) => {
                Self::Rewritten { pushed, since, failed: failure(error, retry_after, failed_before) }
            }
            (PushResult::Rewritten(error), Self::Level { .. } | Self::Behind { .. }) => {
                Self::Rewritten { pushed, since: now, failed: failure(error, None, 0) }
            }
            (PushResult::Failed { error, retry_after }, Self::Behind { since, .. }) => {
                Self::Behind { pushed, since, failed: Some(failure(error, retry_after, failed_before)) }
            }
            (PushResult::Failed { error, retry_after }, Self::Level { .. }) => {
                Self::Behind { pushed, since: now, failed: Some(failure(error, retry_after, 0)) }
            }
        }
    }

    /// The last commit that was pushed; none before the first.
    pub fn pushed(&self) -> Option<CommitId> {
        match self {
            Self::Level { pushed, .. } => Some(*pushed),
            Self::Behind { pushed, .. } | Self::Rewritten { pushed, .. } => *pushed,
        }
    }

    /// The last attempt, where it failed.
    pub fn failed(&self) -> Option<&FailedAttempt> {
        match self {
            Self::Level { .. } => None,
            Self::Behind { failed, .. } => failed.as_ref(),
            Self::Rewritten { failed, .. } => Some(failed),
        }
    }

    /// Since when the mirror does not have the newest commit; none where it has.
    pub fn behind_since(&self) -> Option<Timestamp> {
        match self {
            Self::Level { .. } => None,
            Self::Behind { since, .. } | Self::Rewritten { since, .. } => Some(*since),
        }
    }

    /// What is wrong; none where nothing is, or a push is under way.
    pub fn trouble(&self, now: Timestamp) -> Option<MirrorTrouble> {
        match self {
            Self::Level { .. } => None,
            Self::Behind { failed: None, since, .. } if now.since(*since) < PATIENCE => None,
            Self::Behind { .. } => Some(MirrorTrouble::Behind),
            Self::Rewritten { .. } => Some(MirrorTrouble::Rewritten),
        }
    }
}

/// A mirror, and how it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct MirrorReport {
    /// Its address.
    pub mirror: String,
    /// How it is.
    #[serde(flatten)]
    pub state: MirrorState,
}

impl fmt::Display for MirrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirror, state } = self;
        match state {
            MirrorState::Level { pushed, .. } => {
                write!(f, "mirror {mirror} is level, at {}", &pushed.to_string()[..10])
            }
            MirrorState::Behind { since, failed: None, .. } => write!(f, "mirror {mirror} is behind since {since}"),
            MirrorState::Behind { since, failed: Some(failed), .. } => {
                let FailedAttempt { error, next, .. } = failed;
                write!(f, "mirror {mirror} is behind since {since}; the next attempt is at {next}: {error}")
            }
            MirrorState::Rewritten { since, failed, .. } => {
                write!(
                    f,
                    "mirror {mirror} has another history since {since}, and claveld leaves it alone: {}",
                    failed.error
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_000_000 + seconds).unwrap()
    }

    fn failed(state: MirrorState, tip: char, now: u64) -> MirrorState {
        state.after(commit(tip), PushResult::failed("down".to_owned()), at(now))
    }

    #[test]
    fn a_mirror_that_is_down_is_tried_again_ever_more_seldom_and_catches_up_at_once() {
        let state = MirrorState::aimed_at(None, commit('a'), at(0));
        assert_eq!((state.due(commit('a'), at(0)), state.trouble(at(0))), (Some(at(0)), None));
        assert_eq!(state.trouble(at(600)), Some(MirrorTrouble::Behind));
        let (mut state, mut now, mut waits) = (state, 0, Vec::new());
        for _ in 0..12 {
            state = failed(state, 'a', now);
            let next = state.due(commit('a'), at(now)).unwrap();
            waits.push(next.since(at(now)).as_secs());
            now += waits.last().unwrap();
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]);
        assert_eq!((state.behind_since(), state.trouble(at(now))), (Some(at(0)), Some(MirrorTrouble::Behind)));
        // A new commit is tried at once, and one push brings it.
        let state = MirrorState::aimed_at(Some(failed(state, 'a', now)), commit('c'), at(now + 1));
        assert_eq!(state.due(commit('c'), at(now + 1)), Some(at(now + 1)));
        assert_eq!(state.behind_since(), Some(at(0)));
        let state = state.after(commit('c'), PushResult::Pushed, at(now + 2));
        assert_eq!(state, MirrorState::Level { pushed: commit('c'), at: at(now + 2) });
        assert_eq!((state.due(commit('c'), at(now + 3)), state.trouble(at(now + 3))), (None, None));
        // The next failure begins anew.
        let state = MirrorState::aimed_at(Some(state), commit('d'), at(now + 9));
        assert_eq!((state.behind_since(), state.pushed()), (Some(at(now + 9)), Some(commit('c'))));
        assert_eq!(failed(state, 'd', now + 9).due(commit('d'), at(now + 9)), Some(at(now + 14)));
    }

    #[test]
    fn a_rewritten_mirror_stays_so_until_a_push_succeeds() {
        let level = MirrorState::Level { pushed: commit('a'), at: at(0) };
        let rewritten =
            |state: MirrorState, tip, now| state.after(commit(tip), PushResult::Rewritten("other".to_owned()), at(now));
        let state = rewritten(MirrorState::aimed_at(Some(level), commit('b'), at(1)), 'b', 2);
        assert_eq!((state.trouble(at(2)), state.behind_since()), (Some(MirrorTrouble::Rewritten), Some(at(2))));
        let state = failed(rewritten(state, 'b', 7), 'b', 17);
        assert_eq!((state.trouble(at(17)), state.behind_since()), (Some(MirrorTrouble::Rewritten), Some(at(2))));
        assert_eq!((state.failed().unwrap().attempts, state.pushed()), (3, Some(commit('a'))));
        let state = state.after(commit('b'), PushResult::Pushed, at(40));
        assert_eq!(state.trouble(at(40)), None);
    }

    #[test]
    fn a_server_that_asks_for_it_is_left_alone_with_every_commit() {
        let told = |seconds| PushResult::Failed {
            error: "HTTP status 429".to_owned(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        let state = MirrorState::aimed_at(None, commit('a'), at(0)).after(commit('a'), told(100), at(0));
        assert_eq!(state.failed().unwrap().next, at(101));
        for tip in ['a', 'b'] {
            assert_eq!(state.due(commit(tip), at(1)), Some(at(101)), "{tip}");
        }
        // The time between attempts counts where it is longer.
        let state = (0..9).fold(state, |state, round| state.after(commit('a'), told(1), at(round)));
        assert_eq!(state.due(commit('a'), at(9)).unwrap(), state.failed().unwrap().next);
        assert!(state.failed().unwrap().next > at(1000));
        // No server keeps a mirror behind for days, and no clock either.
        let state = state.after(commit('a'), told(1_000_000), at(10));
        assert_eq!(state.due(commit('b'), at(10)), Some(at(10).plus(MAX_RETRY_AFTER)));
        assert_eq!(state.due(commit('b'), at(9)), Some(at(9)));
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_put_an_attempt_off() {
        let state = failed(MirrorState::aimed_at(None, commit('a'), at(90_000)), 'a', 90_000);
        assert_eq!(state.due(commit('a'), at(90_001)), Some(at(90_005)));
        assert_eq!(state.due(commit('a'), at(0)), Some(at(0)));
    }

    #[test]
    fn a_state_is_read_as_it_was_written() {
        let behind = failed(MirrorState::aimed_at(None, commit('a'), at(0)), 'a', 3);
        let level = behind.clone().after(commit('a'), PushResult::Pushed, at(9));
        let rewritten = behind.clone().after(commit('a'), PushResult::Rewritten("x".repeat(9000)), at(9));
        assert!(rewritten.failed().unwrap().error.len() <= MAX_ERROR_BYTES + 100);
        for (state, status) in [(behind, "behind"), (level, "level"), (rewritten, "rewritten")] {
            let json = serde_json::to_value(&state).unwrap();
            assert_eq!(json["status"], status);
            assert_eq!(serde_json::from_value::<MirrorState>(json).unwrap(), state);
        }
    }
}
