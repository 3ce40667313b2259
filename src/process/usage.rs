//! Measures what a process group uses, with everything below it, as Linux reports it in `/proc`.

use std::time::Duration;

use rustix::process::Pid;

#[cfg(target_os = "linux")]
use linux::Processes;
#[cfg(not(target_os = "linux"))]
use other::Processes;

/// The time between two looks at all processes of the machine. Between them, the children of the known processes are found: a look at
/// all costs some milliseconds, and more with each process that the machine has.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(1);
/// A write counts as at least this many bytes: a small file takes a block of the disk.
const SMALLEST_WRITE: u64 = 4 << 10;

/// What a program and all programs below it use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Resident memory, in bytes. Memory that two of them share counts twice.
    pub(super) memory: u64,
    pub(super) processes: u64,
    /// Bytes written, to files and to anything else. Those of processes that have ended are not known.
    pub(super) written: u64,
    /// The same, where a small write counts as no more than it is: programs wake their own threads by some.
    pub(super) exactly_written: u64,
}

/// A process group that is measured again and again.
#[derive(Debug)]
pub(super) struct MeasuredGroup(Processes);

impl MeasuredGroup {
    /// The group that `leader` leads.
    pub(super) fn of(leader: Pid) -> Self {
        Self(Processes::of(leader))
    }

    /// What the processes of the group use now, with all processes below them in whatever group.
    pub(super) fn measure(&mut self) -> Usage {
        self.0.measure()
    }
}

/// All of this machine's memory in bytes; `None` if the system does not report it.
pub fn machine_memory() -> Option<u64> {
    Processes::machine_memory()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Instant;

    use procfs::Current as _;
    use procfs::process::{Process, Stat};
    use rustix::process::Pid;

    use super::{LOOK_AT_ALL_EVERY, SMALLEST_WRITE, Usage};

    /// The processes of a group, and those below them.
    #[derive(Debug)]
    pub(super) struct Processes {
        leader: i32,
        known: BTreeSet<i32>,
        /// When all processes of the machine were looked at last.
        looked_at_all: Option<Instant>,
    }

    impl Processes {
        pub(super) fn machine_memory() -> Option<u64> {
            procfs::Meminfo::current().ok().map(|info| info.mem_total)
        }

        pub(super) fn of(leader: Pid) -> Self {
            Self { leader: leader.as_raw_nonzero().get(), known: BTreeSet::new(), looked_at_all: None }
        }

        pub(super) fn measure(&mut self) -> Usage {
            self.find();
            let mut usage = Usage::default();
            for process in self.known.iter().filter_map(|id| Process::new(*id).ok()) {
                // One that has ended meanwhile holds nothing.
                let Ok(Stat { rss, .. }) = process.stat() else { continue };
                usage.memory += rss * rustix::param::page_size() as u64;
                usage.processes += 1;
                if let Ok(io) = process.io() {
                    usage.exactly_written += io.wchar;
                    usage.written += io.wchar.max(io.syscw.saturating_mul(SMALLEST_WRITE));
                }
            }
            usage
        }

        /// Brings the known processes up to date.
        fn find(&mut self) {
            let is_recent = self.looked_at_all.is_some_and(|at| at.elapsed() < LOOK_AT_ALL_EVERY);
            if !is_recent || !self.add_children() {
                self.look_at_all();
            }
        }

        /// Adds what the known processes have started. Returns whether this kernel tells it (`CONFIG_PROC_CHILDREN`). A process whose
        /// parent has ended is found by the next look at all.
        fn add_children(&mut self) -> bool {
            let mut open: Vec<i32> = self.known.iter().copied().collect();
            while let Some(id) = open.pop() {
                let Ok(tasks) = Process::new(id).and_then(|process| process.tasks()) else { continue };
                for task in tasks.flatten() {
                    match task.children() {
                        Ok(children) => {
                            let children = children.into_iter().filter_map(|child| i32::try_from(child).ok());
                            open.extend(children.filter(|child| self.known.insert(*child)));
                        }
                        // The file is there as long as the thread.
                        Err(_) if task.stat().is_ok() => return false,
                        Err(_) => {}
                    }
                }
            }
            true
        }

        fn look_at_all(&mut self) {
            self.looked_at_all = Some(Instant::now());
            self.known.clear();
            let Ok(processes) = procfs::process::all_processes() else { return };
            let all: Vec<Stat> = processes.filter_map(|process| process.ok()?.stat().ok()).collect();
            let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
            for stat in &all {
                children.entry(stat.ppid).or_default().push(stat.pid);
            }
            let mut open: Vec<i32> = all.iter().filter(|stat| stat.pgrp == self.leader).map(|stat| stat.pid).collect();
            while let Some(id) = open.pop() {
                if self.known.insert(id) {
                    open.extend(children.get(&id).into_iter().flatten());
                }
            }
        }
    }
}

/// Other systems have no `/proc`, so there is no limit on memory there.
#[cfg(not(target_os = "linux"))]
mod other {
    use rustix::process::Pid;

    use super::Usage;

    #[derive(Debug)]
    pub(super) struct Processes;

    impl Processes {
        pub(super) fn machine_memory() -> Option<u64> {
            None
        }

        pub(super) fn of(_: Pid) -> Self {
            Self
        }

        pub(super) fn measure(&mut self) -> Usage {
            Usage::default()
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_memory_of_a_group_is_that_of_its_processes() {
        let usage = MeasuredGroup::of(rustix::process::getpgrp()).measure();
        assert!(usage.memory > 1 << 20 && usage.processes >= 1, "{usage:?}");
        assert!(usage.memory < machine_memory().unwrap());
        // No process leads a group of this number: it is above the largest that Linux gives (`pid_max`).
        assert_eq!(MeasuredGroup::of(Pid::from_raw(i32::MAX).unwrap()).measure(), Usage::default());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test needs a process that starts others when it is told to")]
    fn a_process_that_starts_between_two_looks_at_all_is_found() {
        let mut shell = Command::new("sh")
            .args(["-c", "read _; sleep 60 & a=$!; setsid sleep 60 & b=$!; echo started; read _; kill $a $b; wait"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let leader = Pid::from_child(&shell);
        let mut group = MeasuredGroup::of(leader);
        assert_eq!(group.measure().processes, 1);
        let mut input = shell.stdin.take().unwrap();
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "started\n");
        assert_eq!(group.measure().processes, 3);
        std::io::Write::write_all(&mut input, b"\n").unwrap();
        shell.wait().unwrap();
        assert_eq!(group.measure().processes, 0);
    }
}
