//! Limits what a program and all programs below it use: memory and processes, by a control group of its own where that is allowed
//! and by a watch; written bytes and the space that is left on the disk, for a program in a cage, by the watch.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::control_group::ControlGroup;
use super::usage::{MeasuredGroup, Usage};

/// The time between two measurements of a group's memory.
const MEASURE_EVERY: Duration = Duration::from_millis(50);
/// The memory that a process may map beyond its limit, in bytes. A process does not use all memory that it maps.
const MAPPED_BEYOND: u64 = 1 << 30;
/// How many bytes have to stay free on the disk of the store. Other programs need some, and the store's own database.
const LEAST_FREE: u64 = 512 << 20;
/// A folder on that disk.
const STORE: &str = "/nix/store";
/// The most processes of a fetch: Nix, git and their helpers.
const MAX_FETCH_PROCESSES: u64 = 256;
/// The most bytes that a fetch may write: 16 GiB. A checkout of nixpkgs with its history writes some 8 GiB.
const MAX_FETCHED: u64 = 16 << 30;

/// The limits of a process group, and the watch that enforces them.
#[derive(Debug)]
pub(super) struct ResourceLimits {
    /// The leader of the group, if the group has a limit.
    leader: Option<Pid>,
    /// The control group, in which the kernel ends processes that take too much.
    control_group: Option<ControlGroup>,
    limit: u64,
    peak: u64,
    /// The bytes written at the last measurement.
    written: u64,
    /// The other limits, of a program in a cage.
    bounds: Option<CageBounds>,
    /// The progress that it has to make, and what it had written when it made some last.
    progress: Option<(Progress, Instant, u64)>,
}

/// What a program in a cage may use besides memory.
#[derive(Debug, Clone)]
pub(super) struct CageBounds {
    /// How many processes may run at once.
    pub(super) processes: u64,
    /// How many bytes they may write, to files and to the daemon of Nix.
    pub(super) written: u64,
    /// The bytes that this program may still write together with others.
    pub(super) shared: Option<WriteAllowance>,
    /// A folder on the disk that they write to, and the bytes that have to stay free there.
    pub(super) free: (PathBuf, u64),
}

/// How many bytes several programs may write together. A clone is the same allowance.
#[derive(Debug, Clone)]
pub struct WriteAllowance {
    used: Arc<AtomicU64>,
    limit: u64,
}

impl WriteAllowance {
    /// An allowance of `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { used: Arc::default(), limit }
    }

    /// The limit, if all of it is used.
    pub fn spent(&self) -> Option<u64> {
        (self.used.load(Ordering::Relaxed) > self.limit).then_some(self.limit)
    }

    fn take(&self, bytes: u64) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// How much a program has to write in some time, not to count as stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) within: Duration,
    /// In bytes.
    pub(super) least: u64,
}

/// The limit that a program exceeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Excess {
    Memory,
    Processes(u64),
    Written(u64),
    /// It wrote next to nothing for so long.
    Stalled(Duration),
    /// Less than so many bytes are free on the disk of this folder.
    DiskFull(PathBuf, u64),
}

impl ResourceLimits {
    /// Sets the limits of `leader` and of everything below it.
    pub(super) fn set(
        leader: Option<Pid>,
        limit: Option<u64>,
        bounds: Option<CageBounds>,
        progress: Option<Progress>,
    ) -> Self {
        let progress = progress.map(|progress| (progress, Instant::now(), 0));
        let (Some(leader), Some(limit)) = (leader, limit) else {
            let leader = leader.filter(|_| bounds.is_some() || progress.is_some());
            return Self { leader, control_group: None, limit: u64::MAX, peak: 0, written: 0, bounds, progress };
        };
        let processes = bounds.as_ref().map(|bounds| bounds.processes);
        let control_group = ControlGroup::beside_ours(leader, limit, processes);
        if control_group.is_none() {
            let mapped = Some(limit.saturating_add(MAPPED_BEYOND));
            // This is only a second line of defence; the watch is the first.
            let _ = prlimit(Some(leader), Resource::Data, Rlimit { current: mapped, maximum: mapped });
        }
        Self { leader: Some(leader), control_group, limit, peak: 0, written: 0, bounds, progress }
    }

    /// Returns when the program uses more than a limit. It also watches a group that has a control group, because processes
    /// that the leader started before it was moved there are not in it.
    pub(super) async fn watch(&mut self) -> Excess {
        let Some(leader) = self.leader else { return std::future::pending().await };
        let mut group = MeasuredGroup::of(leader);
        loop {
            // The wait comes first: measuring costs much beside a program that ends in a few milliseconds, and until then the limit of
            // the kernel holds.
            tokio::time::sleep(MEASURE_EVERY).await;
            let usage = group.measure();
            self.peak = self.peak.max(usage.memory);
            if self.peak > self.limit {
                return Excess::Memory;
            }
            if let Some((progress, since, before)) = &mut self.progress {
                if usage.exactly_written >= before.saturating_add(progress.least) {
                    (*since, *before) = (Instant::now(), usage.exactly_written);
                } else if since.elapsed() >= progress.within {
                    return Excess::Stalled(progress.within);
                }
            }
            let Some(bounds) = &self.bounds else { continue };
            if let Some(shared) = &bounds.shared {
                // The processes that ended since are not in the sum any more.
                shared.take(usage.written.saturating_sub(self.written));
                self.written = self.written.max(usage.written);
            }
            if let Some(excess) = bounds.exceeded_by(usage) {
                return excess;
            }
        }
    }

    /// The limit, if the group exceeded it.
    pub(super) fn exceeded(&self) -> Option<u64> {
        let by_kernel = self.control_group.as_ref().is_some_and(ControlGroup::has_kills);
        (by_kernel || self.peak > self.limit).then_some(self.limit)
    }

    /// The most memory that was measured, in bytes; zero if the group ended before the first measurement.
    pub(super) fn peak(&self) -> u64 {
        self.control_group.as_ref().map_or(0, ControlGroup::peak).max(self.peak)
    }
}

impl CageBounds {
    /// The bounds of a program that writes to the store: this many processes, and this many bytes.
    pub(super) fn new(processes: u64, written: u64) -> Self {
        Self { processes, written, shared: None, free: (PathBuf::from(STORE), LEAST_FREE) }
    }

    /// The bounds of a program that fetches.
    pub(super) fn of_a_fetch() -> Self {
        Self::new(MAX_FETCH_PROCESSES, MAX_FETCHED)
    }

    fn exceeded_by(&self, usage: Usage) -> Option<Excess> {
        if usage.processes > self.processes {
            return Some(Excess::Processes(self.processes));
        }
        if usage.written > self.written {
            return Some(Excess::Written(self.written));
        }
        if let Some(limit) = self.shared.as_ref().and_then(WriteAllowance::spent) {
            return Some(Excess::Written(limit));
        }
        let (folder, least) = &self.free;
        let about = rustix::fs::statvfs(folder).ok()?;
        (about.f_bavail.saturating_mul(about.f_frsize) < *least).then(|| Excess::DiskFull(folder.clone(), *least))
    }
}
