//! The service: which sources a push or a poll is about, a round of evaluating and publishing, and the gate that judges a
//! push before git takes it in.

mod gate;
mod hook;
mod round;
mod setup;
mod watch;

pub use gate::{Gate, GateError, Judgement, Push};
pub use hook::{HookError, PushedRef, PushedSource, pushed_refs, pushed_sources};
pub use round::{Announcement, Outcome, Round, SourceFailure, Target};
pub use setup::publisher;
pub use watch::{WatchError, Watcher};
