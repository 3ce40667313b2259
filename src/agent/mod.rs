//! The journey of a Deployment on its unit: fetch, verify, decide, realise, activate, record.
//!
//! `verify`, `freshness`, `mirrors`, `decide` and `method` are pure: the files of a branch, what is remembered and the time go in,
//! orders or a refusal come out. `fetch`, `realise`, `activate` and `state` are the deeds. `pass` is one journey, and the only
//! place that knows the order.
//!
//! What the agent remembers as trusted moves only when every check of a pass holds; until then it keeps what it runs.

mod account;
mod activate;
mod decide;
mod evidence;
mod fetch;
mod freshness;
mod method;
mod mirrors;
mod pass;
mod pin;
mod realise;
mod state;
mod verify;

pub use account::AccountError;
pub use activate::ActivateError;
pub use decide::{Decision, HoldReason, Retry};
pub use fetch::{BranchFetchError, ChildError, FETCH_COMMAND, answer};
pub use freshness::{ClockTrouble, Clocks, Stale, Up};
pub use mirrors::{MirrorReport, NoneBelieved, Standing};
pub use pass::{Event, Failure, Pass, PassError, Settled};
pub use pin::check::{Difference, Elsewise, Mismatch, NotAsPinned, PinnedBy, Remains};
pub use realise::error::RealiseError;
pub use state::{Applied, FailedActivation, LastPass, State, StateDirectory, StateError, Step};
pub use verify::{Order, Refusal, Verdict};
