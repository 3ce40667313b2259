//! The one place that runs programs.
//!
//! Every program runs in a process group of its own that ends with it, under a deadline, without the terminal's standard input,
//! and with bounded output. Its argv is logged once. The arguments, and the reason for each flag, belong to the room that runs the
//! program (`nix`, `store`, `git`, `agent`).
//!
//! One kind of program outlives this process: one that is started detached (`detached`).

mod cage;
mod control_group;
mod detached;
mod error;
mod group;
mod invocation;
mod limits;
mod nix;
mod nix_report;
mod output_file;
mod processor;
mod run;
mod stderr;
mod usage;

pub use cage::{Cage, CageError, find_program};
pub use detached::{Detached, DetachedStreams, ProcessMark, successor, this_program};
pub use error::ProcessError;
pub use group::{OnLine, StderrLine};
pub use invocation::Invocation;
pub use limits::WriteAllowance;
pub use nix_report::TraceDetail;
pub use output_file::Follower;
pub use run::ProcessOutput;
pub use usage::machine_memory;
