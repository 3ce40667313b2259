//! The service: the daemon with its triggers, rounds of evaluating and publishing, git's hooks, and the gate that checks a push
//! before git takes it in.
//!
//! `trigger` decides which sources a round is about, and `round` runs it. `daemon` waits for triggers and reports events;
//! printing them belongs to `cli`. `hook` understands git's hooks, `watch` watches local repositories, `gate` checks pushes.
//! `publish` decides what is written to the branch.

mod daemon;
mod gate;
mod hook;
mod round;
mod setup;
mod trigger;
mod watch;

pub use daemon::{Daemon, DaemonEvent, Postponed};
pub use gate::{Gate, GateError, IncomingPush, PushDecision, PushVerdict};
pub use hook::{HookError, PushedRef, PushedSource, pushed_refs, pushed_sources};
pub use round::{Completeness, RoundEvent, RoundOutcome, RoundRunner, SourceFailure, Target};
pub use setup::publisher;
pub use trigger::Trigger;
pub use watch::WatchError;
