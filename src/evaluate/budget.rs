//! The processes and the memory that all evaluations together may use.

use std::num::NonZeroUsize;

use crate::process::machine_memory;

/// The memory that is used where the machine does not say how much it has.
const UNKNOWN_MACHINE: u64 = 4 << 30;

/// The limits for all evaluating processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How many processes run at once; at least one.
    pub processes: usize,
    /// The memory of all of them together, in bytes.
    pub memory: u64,
}

impl Budget {
    /// The given limits. Where one is not given, it follows from this machine: as many processes as it has processors,
    /// and three quarters of its memory.
    pub fn of_this_machine(processes: Option<NonZeroUsize>, memory: Option<u64>) -> Self {
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let most = || machine_memory().map_or(UNKNOWN_MACHINE, |all| all / 4 * 3);
        Self { processes: processes.map_or_else(processors, NonZeroUsize::get), memory: memory.unwrap_or_else(most) }
    }

    /// The part of each of so many that use it at once.
    #[must_use]
    pub fn divided_by(self, parts: usize) -> Self {
        let parts = parts.max(1);
        Self { processes: (self.processes / parts).max(1), memory: self.memory / parts as u64 }
    }

    /// The memory of a process that runs beside others, in bytes.
    pub(super) fn share(self) -> u64 {
        self.memory / self.processes.max(1) as u64
    }
}
