//! The one place that runs programs.
//!
//! Every program runs in a process group of its own, under a deadline, without the terminal's standard input, with
//! bounded output, and its argv is logged once. What a program is asked to do, and why each flag is there, belongs to
//! the room that asks (`nix`, `store`, `git`, `agent`).

mod error;
mod group;
mod invocation;
mod memory;
mod nix;
mod processor;
mod run;

pub use error::ProcessError;
pub use invocation::Invocation;
pub use memory::machine_memory;
pub use run::Output;
