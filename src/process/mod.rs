//! The one place that runs programs.
//!
//! Every program runs in a process group of its own that ends with it, under a deadline, without the terminal's standard input,
//! and with bounded output. Its argv is logged once. The arguments, and the reason for each flag, belong to the room that runs the
//! program (`nix`, `store`, `git`, `agent`).
//!
//! One kind of program outlives this process: one that is started detached (`detached`).

mod cage;
mod detached;
mod error;
mod group;
mod invocation;
mod memory;
mod nix;
mod nix_report;
mod output_file;
mod processor;
mod run;
mod stderr;

pub use cage::{Cage, CageError, find_program};
pub use detached::{Detached, DetachedStreams, ProcessMark, this_program};
pub use error::ProcessError;
pub use invocation::Invocation;
pub use memory::machine_memory;
pub use nix_report::TraceDetail;
pub use output_file::Follower;
pub use run::ProcessOutput;
