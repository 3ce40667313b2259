//! What to write when an evaluation ends, writing it, and what starts an evaluation.
//!
//! `plan` decides, from the branch as it is and what was evaluated, which documents change: pure. `commit` signs the
//! plan and puts it on the branch, and decides again when somebody else was faster. Between the two, `inside` looks at
//! what changes in the systems themselves. Where deployments wait for their caches, `caches` asks these, and `ready`
//! decides what is held back: pure. `hook` and `watch` say when. `gate` judges a push before git takes it in, and
//! publishes nothing.

mod caches;
mod changes;
mod commit;
mod gate;
mod hook;
mod inside;
mod plan;
mod readme;
mod ready;
mod round;
mod signers;
mod ssh_agent;
mod standing;
mod watch;

pub use changes::{Change, Conflict, Report};
pub use commit::{PublishError, Publisher};
pub use gate::{Gate, GateError, Judgement, Push};
pub use hook::{HookError, PushedRef, PushedSource, pushed_refs, pushed_sources};
pub use ready::{Awaited, CacheState, Hopeless, Lack, Missing, Unready, Waiting};
pub use round::{Announcement, Outcome, Round, SourceFailure, Target};
pub use signers::SignerError;
pub use ssh_agent::AgentError;
pub use standing::StandingError;
pub use watch::{Trigger, WatchError, Watcher};
