//! The service: the daemon with its triggers, rounds of evaluating and publishing, git's hooks, and the gate that checks a push
//! before git takes it in.
//!
//! `trigger` decides which sources a round is about, and `round` runs it. `daemon` waits for triggers and reports events;
//! printing them belongs to `cli`. `hook` understands git's hooks, `watch` watches local repositories, `gate` checks pushes.
//! `check` looks at the set-up. `findings` decides what of a round the log says, `metrics` makes the metrics of all rounds.
//! `source_state` remembers since when a source cannot be read, `isolation` says how evaluations are
//! isolated, and `key_holder` which process has the key.
//! `push_on` and `push_tasks` push the branch on to the mirrors, as `mirror_state` decides, and `mirror_states` remembers how they are.
//! `publish` decides what is written to the branch.

mod background;
mod check;
mod daemon;
mod findings;
mod gate;
mod hook;
mod isolation;
mod key_holder;
mod learn;
mod metrics;
mod mirror_state;
mod mirror_states;
mod push_on;
mod push_tasks;
mod round;
mod setup;
mod source_state;
mod static_mirror;
mod trigger;
mod watch;

pub use check::check;
pub use daemon::{Daemon, DaemonEvent};
pub use findings::{Finding, RoundNews};
pub use gate::{CheckedSource, Gate, GateError, IncomingPush, PushDecision, PushVerdict};
pub use hook::{HookError, PushedRef, PushedSource, pushed_refs, pushed_sources};
pub use isolation::{IsolationState, isolation_state};
pub use key_holder::KeyHolder;
pub use learn::{LearnError, learn, learning_time, start_learning};
pub use mirror_state::{FailedAttempt, MirrorReport, MirrorState, MirrorTrouble};
pub use push_on::{mirror_reports, push_on};
pub use round::{Completeness, RoundEvent, RoundOutcome, RoundRunner, SourceFailure, Target, WrongAnswers};
pub use setup::{operate, publisher};
pub use source_state::{BrokenSince, DocumentCounts, SourceState, SourceStates, SourceTrouble, TroubleKind};
pub use trigger::Trigger;
pub use watch::WatchError;
