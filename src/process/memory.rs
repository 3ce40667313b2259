//! Limits what a program and all programs below it use: memory, by a control group of its own where that is allowed and by a
//! watch; processes and written bytes, for a program in a cage, by the watch.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

/// The time between two measurements of a group's memory.
const MEASURE_EVERY: Duration = Duration::from_millis(50);
/// The memory that a process may map beyond its limit, in bytes. A process does not use all memory that it maps.
const MAPPED_BEYOND: u64 = 1 << 30;
/// The folder of Linux's control groups (cgroups(7), version 2).
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// All of this machine's memory in bytes; `None` if the system does not report it.
pub fn machine_memory() -> Option<u64> {
    system::machine_memory()
}

/// The memory limit of a process group, and the watch that enforces it.
#[derive(Debug)]
pub(super) struct MemoryLimit {
    /// The leader of the group, if the group has a limit.
    leader: Option<Pid>,
    /// The control group, in which the kernel ends processes that take too much.
    control_group: Option<ControlGroup>,
    limit: u64,
    peak: u64,
    /// The other limits, of a program in a cage.
    bounds: Option<CageBounds>,
}

/// What a program in a cage may use besides memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CageBounds {
    /// How many processes may run at once.
    pub(super) processes: u64,
    /// How many bytes they may write, to files and to the daemon of Nix.
    pub(super) written: u64,
}

/// The limit that a program exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    Memory,
    Processes(u64),
    Written(u64),
}

/// What a program and all programs below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    /// Resident memory, in bytes. Memory that two of them share counts twice.
    memory: u64,
    processes: u64,
    /// Bytes written, to files and to anything else. Those of processes that have ended are not known.
    written: u64,
}

impl MemoryLimit {
    /// Sets the limits of `leader` and of everything below it.
    pub(super) fn set(leader: Option<Pid>, limit: Option<u64>, bounds: Option<CageBounds>) -> Self {
        let (Some(leader), Some(limit)) = (leader, limit) else {
            let leader = leader.filter(|_| bounds.is_some());
            return Self { leader, control_group: None, limit: u64::MAX, peak: 0, bounds };
        };
        let control_group = system::own_control_group()
            .and_then(|own| parent_of(&own))
            .and_then(|parent| ControlGroup::create(&Path::new(CONTROL_GROUPS).join(parent), leader, limit));
        if control_group.is_none() {
            let mapped = Some(limit.saturating_add(MAPPED_BEYOND));
            // This is only a second line of defence; the watch is the first.
            let _ = prlimit(Some(leader), Resource::Data, Rlimit { current: mapped, maximum: mapped });
        }
        Self { leader: Some(leader), control_group, limit, peak: 0, bounds }
    }

    /// Returns when the program uses more than a limit. It also watches a group that has a control group, because processes
    /// that the leader started before it was moved there are not in it.
    pub(super) async fn watch(&mut self) -> Excess {
        let Some(leader) = self.leader else { return std::future::pending().await };
        loop {
            // The wait comes first: measuring all processes of a machine costs much beside a program that ends in a few
            // milliseconds, and until then the limit of the kernel holds.
            tokio::time::sleep(MEASURE_EVERY).await;
            let usage = system::usage_below(leader);
            self.peak = self.peak.max(usage.memory);
            if self.peak > self.limit {
                return Excess::Memory;
            }
            match self.bounds {
                Some(bounds) if usage.processes > bounds.processes => return Excess::Processes(bounds.processes),
                Some(bounds) if usage.written > bounds.written => return Excess::Written(bounds.written),
                Some(_) | None => {}
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

/// The memory of the machine and its processes, as Linux reports it in `/proc`.
#[cfg(target_os = "linux")]
mod system {
    use std::collections::{BTreeMap, BTreeSet};

    use procfs::Current as _;
    use rustix::process::Pid;

    pub(super) fn machine_memory() -> Option<u64> {
        procfs::Meminfo::current().ok().map(|info| info.mem_total)
    }

    /// What the processes of the group that `top` leads use, with all processes below them in whatever group.
    pub(super) fn usage_below(top: Pid) -> super::Usage {
        let mut usage = super::Usage::default();
        let Ok(processes) = procfs::process::all_processes() else { return usage };
        // A process that has ended meanwhile has no `stat`, and holds nothing.
        let all: Vec<_> =
            processes.filter_map(|process| process.ok().and_then(|p| Some((p.stat().ok()?, p)))).collect();
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (stat, _) in &all {
            children.entry(stat.ppid).or_default().push(stat.pid);
        }
        let top = top.as_raw_nonzero().get();
        let mut open: Vec<i32> = all.iter().filter(|(stat, _)| stat.pgrp == top).map(|(stat, _)| stat.pid).collect();
        let mut below = BTreeSet::new();
        while let Some(id) = open.pop() {
            if below.insert(id) {
                open.extend(children.get(&id).into_iter().flatten());
            }
        }
        for (stat, process) in all.iter().filter(|(stat, _)| below.contains(&stat.pid)) {
            usage.memory += stat.rss * rustix::param::page_size() as u64;
            usage.processes += 1;
            usage.written += process.io().map_or(0, |io| io.wchar);
        }
        usage
    }

    /// The path of this process's own control group (version 2).
    pub(super) fn own_control_group() -> Option<String> {
        let groups = procfs::process::Process::myself().ok()?.cgroups().ok()?;
        groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname)
    }
}

/// Other systems have no `/proc`, so there is no limit on memory there.
#[cfg(not(target_os = "linux"))]
mod system {
    use rustix::process::Pid;

    pub(super) fn machine_memory() -> Option<u64> {
        None
    }

    pub(super) fn usage_below(_: Pid) -> super::Usage {
        super::Usage::default()
    }

    pub(super) fn own_control_group() -> Option<String> {
        None
    }
}

/// The parent of the control group `own`, as a path below [`CONTROL_GROUPS`]; `None` if that is the root. A group that has
/// processes cannot limit the memory of groups below it, so new groups are created beside the one of this process (systemd's
/// `DelegateSubgroup=`).
fn parent_of(own: &str) -> Option<PathBuf> {
    let own = own.strip_prefix('/')?;
    Path::new(own).parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned)
}

/// A control group for one process group. It is removed when this value is dropped.
#[derive(Debug)]
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Creates a control group below `parent` and moves `leader` there; `None` if that is not allowed.
    fn create(parent: &Path, leader: Pid, limit: u64) -> Option<Self> {
        let controllers = fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
        if !controllers.split_whitespace().any(|controller| controller == "memory") {
            return None;
        }
        fs::write(parent.join("cgroup.subtree_control"), "+memory").ok()?;
        let group = Self(parent.join(format!("limited-{leader}")));
        fs::create_dir(&group.0).ok()?;
        // From here on, an early return drops `group`, which removes it again.
        fs::write(group.0.join("memory.max"), limit.to_string()).ok()?;
        fs::write(group.0.join("memory.swap.max"), "0").ok()?;
        fs::write(group.0.join("memory.oom.group"), "1").ok()?;
        fs::write(group.0.join("cgroup.procs"), leader.to_string()).ok()?;
        Some(group)
    }

    /// Whether the kernel ended a process of the group because of the limit.
    fn has_kills(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|count| count.trim() != "0")
    }

    fn peak(&self) -> u64 {
        let peak = fs::read_to_string(self.0.join("memory.peak")).unwrap_or_default();
        peak.trim().parse().unwrap_or_default()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // The group is empty by now. If it is not, it stays behind, and uses no memory itself.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_of_a_group_is_that_of_its_processes() {
        let own = rustix::process::getpgrp();
        let usage = system::usage_below(own);
        assert!(usage.memory > 1 << 20 && usage.processes >= 1, "{usage:?}");
        assert!(usage.memory < system::machine_memory().unwrap());
        // No process leads a group of this number: it is above the largest that Linux gives (`pid_max`).
        assert_eq!(system::usage_below(Pid::from_raw(i32::MAX).unwrap()), Usage::default());
    }

    #[test]
    fn a_group_is_created_beside_our_own_and_never_at_the_root() {
        assert_eq!(parent_of("/system.slice/claveld.service/claveld"), Some("system.slice/claveld.service".into()));
        assert_eq!(parent_of("/"), None);
        assert_eq!(parent_of("/init.scope"), None);
        assert_eq!(parent_of("x"), None);
    }

    #[test]
    fn a_control_group_is_created_only_if_its_memory_can_be_limited() {
        // A plain folder with the files that the kernel shows.
        let dir = tempfile::tempdir().unwrap();
        let leader = Pid::from_raw(77).unwrap();
        assert!(ControlGroup::create(dir.path(), leader, 1).is_none());
        fs::write(dir.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(ControlGroup::create(dir.path(), leader, 1).is_none());
        fs::write(dir.path().join("cgroup.controllers"), "cpu io memory\n").unwrap();
        let group = ControlGroup::create(dir.path(), leader, 4096).unwrap();
        let read = |name: &str| fs::read_to_string(group.0.join(name)).unwrap();
        assert_eq!((read("memory.max").as_str(), read("cgroup.procs").as_str()), ("4096", "77"));
        assert!(!group.has_kills());
        fs::write(group.0.join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
        fs::write(group.0.join("memory.peak"), "4095\n").unwrap();
        assert!(group.has_kills());
        assert_eq!(group.peak(), 4095);
    }
}
