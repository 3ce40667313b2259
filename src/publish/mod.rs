//! What to write when an evaluation ends, writing it, and what starts an evaluation.
//!
//! `plan` decides, from the branch as it is and what was evaluated, which documents change: pure. `commit` signs the
//! plan and puts it on the branch, and decides again when somebody else was faster. Between the two, `inside` looks at
//! what changes in the systems themselves. `hook` and `watch` say when.

mod changes;
mod commit;
mod hook;
mod inside;
mod plan;
mod readme;
mod round;
mod watch;

pub use changes::{Change, Conflict, Report};
pub use commit::{PublishError, Publisher};
pub use hook::{HookError, PushedRef, pushed_refs, pushed_sources};
pub use round::{Announcement, Outcome, Round, SourceFailure, Target};
pub use watch::{Trigger, WatchError, Watcher};
