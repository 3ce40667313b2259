//! Control groups of Linux (cgroups(7), version 2), in which the kernel limits memory and processes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The folder of the control groups.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The parent of the control group `own`, as a path below [`CONTROL_GROUPS`]; `None` if that is the root. A group that has
/// processes cannot limit the memory of groups below it, so new groups are created beside the one of this process (systemd's
/// `DelegateSubgroup=`).
fn parent_of(own: &str) -> Option<PathBuf> {
    let own = own.strip_prefix('/')?;
    Path::new(own).parent().filter(|parent| !parent.as_os_str().is_empty()).map(Path::to_owned)
}

/// A control group for one process group. It is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Creates a control group beside our own and moves `leader` there; `None` if that is not allowed.
    pub(super) fn beside_ours(leader: Pid, limit: u64, processes: Option<u64>) -> Option<Self> {
        let parent = own().and_then(|own| parent_of(&own))?;
        Self::create(&Path::new(CONTROL_GROUPS).join(parent), leader, limit, processes)
    }

    /// Creates a control group below `parent` and moves `leader` there; `None` if that is not allowed.
    /// Memory is limited always; processes where the kernel's controller for them is there too.
    fn create(parent: &Path, leader: Pid, limit: u64, processes: Option<u64>) -> Option<Self> {
        let controllers = fs::read_to_string(parent.join("cgroup.controllers")).ok()?;
        let has = |wanted: &str| controllers.split_whitespace().any(|controller| controller == wanted);
        if !has("memory") {
            return None;
        }
        fs::write(parent.join("cgroup.subtree_control"), "+memory").ok()?;
        let processes =
            processes.filter(|_| has("pids") && fs::write(parent.join("cgroup.subtree_control"), "+pids").is_ok());
        let group = Self(parent.join(format!("limited-{leader}")));
        fs::create_dir(&group.0).ok()?;
        // From here on, an early return drops `group`, which removes it again.
        fs::write(group.0.join("memory.max"), limit.to_string()).ok()?;
        fs::write(group.0.join("memory.swap.max"), "0").ok()?;
        fs::write(group.0.join("memory.oom.group"), "1").ok()?;
        if let Some(processes) = processes {
            fs::write(group.0.join("pids.max"), processes.to_string()).ok()?;
        }
        fs::write(group.0.join("cgroup.procs"), leader.to_string()).ok()?;
        Some(group)
    }

    /// Whether the kernel ended a process of the group because of the limit.
    pub(super) fn has_kills(&self) -> bool {
        let events = fs::read_to_string(self.0.join("memory.events")).unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        kills.is_some_and(|count| count.trim() != "0")
    }

    /// The most memory that the group held, in bytes.
    pub(super) fn peak(&self) -> u64 {
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

/// The path of this process's own control group.
#[cfg(target_os = "linux")]
fn own() -> Option<String> {
    let groups = procfs::process::Process::myself().ok()?.cgroups().ok()?;
    groups.into_iter().find(|group| group.hierarchy == 0).map(|group| group.pathname)
}

/// Other systems have none.
#[cfg(not(target_os = "linux"))]
fn own() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(ControlGroup::create(dir.path(), leader, 1, None).is_none());
        fs::write(dir.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(ControlGroup::create(dir.path(), leader, 1, None).is_none());
        fs::write(dir.path().join("cgroup.controllers"), "cpu io memory\n").unwrap();
        let group = ControlGroup::create(dir.path(), leader, 4096, Some(8)).unwrap();
        assert!(!group.0.join("pids.max").exists());
        fs::remove_dir_all(&group.0).unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
        let group = ControlGroup::create(dir.path(), leader, 4096, Some(8)).unwrap();
        assert_eq!(fs::read_to_string(group.0.join("pids.max")).unwrap(), "8");
        let read = |name: &str| fs::read_to_string(group.0.join(name)).unwrap();
        assert_eq!((read("memory.max").as_str(), read("cgroup.procs").as_str()), ("4096", "77"));
        assert!(!group.has_kills());
        fs::write(group.0.join("memory.events"), "low 0\noom 1\noom_kill 1\n").unwrap();
        fs::write(group.0.join("memory.peak"), "4095\n").unwrap();
        assert!(group.has_kills());
        assert_eq!(group.peak(), 4095);
    }
}
