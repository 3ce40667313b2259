//! The service: the daemon with its triggers, rounds of evaluating and publishing, git's hooks, and the gate that checks a push
//! before git takes it in.
//!
//! `trigger` decides which sources a round is about, and `round` runs it. `daemon` waits for triggers and reports events;
//! printing them belongs to `cli`. `hook` understands git's hooks, `watch` watches local repositories, `gate` checks pushes.
//! `source_state` remembers since when a source cannot be read, and `isolation` says how evaluations are isolated.
//! `publish` decides what is written to the branch.

mod daemon;
mod gate;
mod hook;
mod isolation;
mod round;
mod setup;
mod source_state;
mod trigger;
mod watch;

pub use daemon::{Daemon, DaemonEvent, Postponed};
pub use gate::{Gate, GateError, IncomingPush, PushDecision, PushVerdict};
pub use hook::{HookError, PushedRef, PushedSource, pushed_refs, pushed_sources};
pub use isolation::{IsolationState, isolation_state};
pub use round::{Completeness, RoundEvent, RoundOutcome, RoundRunner, SourceFailure, Target};
pub use setup::publisher;
pub use source_state::{SourceState, SourceStates, SourceTrouble, TroubleKind};
pub use trigger::Trigger;
pub use watch::WatchError;
