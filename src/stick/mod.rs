//! The statuses that agents leave beside bundles: where they are, how they are written and read, and how far one counts.
//!
//! `folder` has the files, `seen` what the maker of bundles remembers of each machine, and which status counts; `needs` says, without
//! I/O, what a bundle may leave out. The document is `model::AgentStatus`, and `trust` verifies its signature.
//!
//! A stick is in anybody's hands. A status decides what the next bundle leaves out and what people see, and nothing else: no machine
//! ever accepts anything because of it.

mod folder;
mod needs;
mod seen;

pub use folder::{FOLDER, MAX_STATUSES, StatusFile, leave, read_all, read_own};
pub use needs::left_out;
pub use seen::{Finding, Rejection, SeenError, SeenMachine, SeenMachines, judge};
