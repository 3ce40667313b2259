//! One processor for a program and all that it starts.
//!
//! A tracer and what it traces wake each other at every stop, and never run at the same time. On two processors each of
//! these wake-ups goes through an idle one: measured, the watching of a host took longer than its evaluation; on one
//! processor it is a tenth of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// How many programs stay on each processor, of those that do.
static TAKEN: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// A processor that a program stays on. It is given back when this goes.
#[derive(Debug)]
pub(super) struct Processor(usize);

impl Processor {
    /// One of those that this process may use and that the fewest stay on; none where this system does not tell.
    pub(super) fn take() -> Option<Self> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let number = allowed().into_iter().min_by_key(|number| taken.get(number).copied().unwrap_or_default())?;
        *taken.entry(number).or_default() += 1;
        Some(Self(number))
    }

    /// Runs `spawn`, which has to start the program from this thread: whoever is started inherits the processor.
    pub(super) fn keep<T>(&self, spawn: impl FnOnce() -> T) -> T {
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

    /// The processors that a thread might use before.
    pub(super) struct Before(CpuSet);

    pub(super) fn allowed() -> Vec<usize> {
        let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
        (0..CpuSet::MAX_CPU).filter(|number| set.is_set(*number)).collect()
    }

    /// Confines this thread to one processor.
    pub(super) fn confine(number: usize) -> Option<Before> {
        let before = sched_getaffinity(None).ok()?;
        let mut one = CpuSet::new();
        one.set(number);
        sched_setaffinity(None, &one).ok()?;
        Some(Before(before))
    }

    impl Before {
        pub(super) fn restore(self) {
            if let Err(error) = sched_setaffinity(None, &self.0) {
                tracing::warn!(%error, "this thread stays on one processor");
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod other {
    /// Nothing: here no thread is confined.
    pub(super) enum Before {}

    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn confine(_: usize) -> Option<Before> {
        None
    }

    impl Before {
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
    fn what_is_started_stays_there_and_this_thread_does_not() {
        let before = allowed();
        let processor = Processor::take().unwrap();
        let inside = processor.keep(allowed);
        assert_eq!(inside, [processor.0]);
        assert_eq!(allowed(), before);
    }
}
