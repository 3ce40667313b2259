//! Keeps a program, and all programs that it starts, on one processor.
//!
//! A tracer and the program that it traces wake each other at every stop, and never run at the same time. On two processors,
//! each stop has to wake an idle processor. Measured on a host, watching took longer than the evaluation itself; on one
//! processor it takes a tenth of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The number of programs that were put on each processor.
static TAKEN: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A processor for one program. It is free again when this value is dropped.
#[derive(Debug)]
pub(super) struct Processor(usize);

impl Processor {
    /// The processor that this process may use and that has the fewest programs; `None` if the system does not report any.
    pub(super) fn take() -> Option<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = allowed().into_iter().min_by_key(|number| taken.get(number).copied().unwrap_or_default())?;
        *taken.entry(number).or_default() += 1;
        Some(Self(number))
    }

    /// Runs `spawn` on this processor. `spawn` has to start the program from this thread, because a program inherits the
    /// processor of the thread that starts it.
    pub(super) fn spawn_on<T>(&self, spawn: impl FnOnce() -> T) -> T {
        let Some(before) = confine(self.0) else { return spawn() };
        let spawned = spawn();
        before.restore();
        spawned
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.0) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(target_os = "linux")]
use linux::{allowed, confine};
#[cfg(not(target_os = "linux"))]
use other::{allowed, confine};

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The processors that a thread could use before it was confined.
    pub(super) struct Unconfined(CpuSet);

    /// The processors that this thread may use.
    pub(super) fn allowed() -> Vec<usize> {
        let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
        (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
    }

    /// Confines this thread to one processor.
    pub(super) fn confine(number: usize) -> Option<Unconfined> {
        let before = sched_getaffinity(None).ok()?;
        let mut one = CpuSet::new();
        one.set(number);
        sched_setaffinity(None, &one).ok()?;
        Some(Unconfined(before))
    }

    impl Unconfined {
        pub(super) fn restore(self) {
            if let Err(error) = sched_setaffinity(None, &self.0) {
                tracing::warn!(%error, "cannot let this thread use all processors again");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// It has no value, because no thread is confined here.
    pub(super) enum Unconfined {}

    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn confine(_: usize) -> Option<Unconfined> {
        None
    }

    impl Unconfined {
        pub(super) fn restore(self) {
            match self {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_started_program_stays_on_the_processor_and_this_thread_does_not() {
        let before = allowed();
        let processor = Processor::take().unwrap();
        let inside = processor.spawn_on(allowed);
        assert_eq!(inside, [processor.0]);
        assert_eq!(allowed(), before);
    }
}
