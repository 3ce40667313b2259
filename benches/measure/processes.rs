//! Measures processes by what Linux says of them below /proc.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::time::Duration;

/// The most memory that a process ever held, in KiB; none where it ended. `process` is its number, or `self`.
pub(crate) fn peak_memory(process: &str) -> Option<u64> {
    memory(process, "VmHWM:")
}

/// The memory that a process holds now, in KiB: all of it, and without what its program file has on the disk anyway.
pub(crate) fn resident_memory(process: &str) -> Option<(u64, u64)> {
    Some((memory(process, "VmRSS:")?, memory(process, "RssAnon:")?))
}

/// The figure of this name in `/proc/PID/status`, in KiB.
fn memory(process: &str, name: &str) -> Option<u64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let figure = status.lines().find_map(|line| line.strip_prefix(name))?;
    figure.trim().strip_suffix(" kB")?.parse().ok()
}

/// The processor time of a process without its children, by the nanosecond.
pub(crate) fn own_time(process: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        let figures = read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        figures.split(' ').next()?.parse::<u64>().ok()
    };
    Some(Duration::from_nanos(threads.filter_map(of_thread).sum()))
}

/// The processor time of a process and all below it, as they were seen last. The kernel adds the time of a process to that of its parent only
/// if the parent waits for it. An evaluator that is ended in its cage has none that does.
#[derive(Default)]
pub(crate) struct ProcessorTime(BTreeMap<u32, u64>);

impl ProcessorTime {
    /// Looks at the process and all below it. What a process used since the last look before its end is not counted.
    pub(crate) fn look(&mut self, process: u32) {
        let Some(ticks) = ticks(process) else { return };
        self.0.insert(process, ticks);
        for child in children(process) {
            self.look(child);
        }
    }

    /// The time of all together.
    pub(crate) fn total(&self) -> Duration {
        Duration::from_millis(self.0.values().sum::<u64>() * 1000 / rustix::param::clock_ticks_per_second())
    }
}

/// The processor time of a process without its children.
fn ticks(process: u32) -> Option<u64> {
    let stat = read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program, in parentheses, may have spaces.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<u64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Some(fields.iter().sum())
}

fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let of_thread =
        |thread: std::io::Result<std::fs::DirEntry>| read_to_string(thread.ok()?.path().join("children")).ok();
    let all: Vec<String> = threads.filter_map(of_thread).collect();
    all.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}
