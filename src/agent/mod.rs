//! The agent: it fetches the branch, verifies it, and brings each deployment to its unit.
//!
//! `check` looks at the set-up. `pass` is one journey, and the only place that knows the order of its steps; `daemon` runs one pass after another.
//! `verify`, `freshness`, `mirrors`, `decide`, `lifecycle`, `hooks` (what a hook of the configuration is told), `occupancy`, `unused`, `news` (of the daemon's log), `metrics` and `method` decide without I/O. `fetch` (of all mirrors; `mirror_fetch` of one, `bundles` of those on a stick, `watch` for such a stick), `carried` and `loopback` (the closures in bundles, and the server that Nix reads them from), `leave_status` (the status that goes back on a stick), `fork_evidence` (both
//! contents of a fork), `pin` (content and its digest), `realise`, `activate`, `activating` (the activation, in a process of its own), `next_boot` (activations that wait for a boot; only its `facts` does I/O), `probation` (whether a revision stays; its `trial` decides without I/O), `account` (users of this machine), `service_manager` (what systemd is told, and what it runs), `way_back` (the timer that goes back without the agent), `state` (with `retries`, which operators ask for) and `reserve` (room for records on a full disk) do the I/O and
//! decide nothing, but for `pin/check.rs`, which decides without I/O.
//!
//! The agent trusts something new only when every check of a pass holds; until then it keeps what it runs. Publishing,
//! evaluating and printing do not belong here.

mod account;
mod activate;
mod activating;
mod bundles;
mod carried;
mod check;
mod daemon;
mod decide;
mod fetch;
mod fork_evidence;
mod freshness;
mod hooks;
mod leave_status;
mod lifecycle;
mod loopback;
mod method;
mod metrics;
mod mirror_fetch;
mod mirrors;
mod news;
mod next_boot;
mod occupancy;
mod pass;
mod pin;
mod probation;
mod realise;
mod reserve;
mod retries;
mod service_manager;
mod state;
mod unused;
mod verify;
mod watch;
mod way_back;

pub use account::AccountError;
pub use activate::ActivateError;
pub use activating::{ACTIVATE_COMMAND, BECOME_COMMAND, CarryOutError, IN_UNIT, become_program, carry_out};
pub use check::check;
pub use daemon::{AgentEvent, DaemonEnd, run};
pub use decide::{Decision, SkipReason};
pub use fetch::BranchFetchError;
pub use freshness::{ClockTrouble, Clocks, Stale, Uptime};
pub use hooks::HookWarning;
pub use lifecycle::{
    ActivationFailure, BackAgain, Candidate, FailedRollout, Lifecycle, NextBoot, Proof, Rollback, RollbackFailure,
    RollbackResult, Rollout, RunningDeployment, TransitionError, UnitReference, WayBack,
};
pub use mirrors::{MirrorReport, MirrorStatus, NoneBelieved};
pub use pass::outcome::{
    DeploymentFailure, DeploymentOutcome, DeploymentReport, Event, PassError, PassReport, WaitReason,
};
pub use pass::plan::{PlannedAction, PlannedDeployment, PlannedRevision, plan};
pub use pass::{ActivationUnderWay, Pass};
pub use pin::check::{Cleanup, DifferingPath, Mismatch, MismatchSite, NotAsPinned, PinnedBy};
pub use probation::files::{CheckReport, CheckStanding, ProbationReport};
pub use realise::error::{NotInCache, RealiseError};
pub use retries::Held;
pub use state::{CompletedAs, Completion, LastPass, LeftStatus, RecordedOutcome, State, StateDirectory, StateError};
pub use unused::UnusedUnit;
pub use verify::{Absence, Order, Refusal, Requester, Time, Trusted, Unfit, Verdict, verify};
pub use way_back::arming::WayBackError;
