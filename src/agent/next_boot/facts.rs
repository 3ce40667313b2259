//! Reads what a system says about itself, and what this machine has booted. Every file is bounded; one that cannot be read says nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::reasons::SystemFacts;
use crate::disk;
use crate::model::StorePath;

/// The most bytes of a file of a system.
const MAX_BYTES: u64 = 256 << 10;
/// The most links on the way to a file, as Linux has it (`path_resolution(7)`).
const MAX_LINKS: usize = 40;

/// What this machine has booted and runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::agent) struct MachineFacts {
    /// The kernel's name for the time since the last boot.
    pub(in crate::agent) boot: Option<String>,
    /// The system that was booted.
    pub(in crate::agent) booted: Option<StorePath>,
    /// The system that runs: the booted one, or the one that it was switched to since.
    pub(in crate::agent) current: Option<StorePath>,
}

impl MachineFacts {
    /// What the machine is now.
    pub(in crate::agent) fn read() -> Self {
        let system = |link: &str| std::fs::read_link(link).ok()?.to_str()?.parse().ok();
        Self {
            boot: disk::read_text(Path::new("/proc/sys/kernel/random/boot_id"), MAX_BYTES)
                .ok()
                .map(|boot| boot.trim().to_owned()),
            booted: system("/run/booted-system"),
            current: system("/run/current-system"),
        }
    }
}

/// Reads the facts about the system `path` in the store whose folder `nix/store` is below `root`.
pub(in crate::agent) fn read(root: &Path, path: &StorePath) -> SystemFacts {
    let toplevel = path.to_string();
    let resolved = |file: &str| resolve(root, &Path::new(&toplevel).join(file));
    let text = |file: &str| disk::read_text(&root.join(resolved(file)?.strip_prefix("/").ok()?), MAX_BYTES).ok();
    let inhibitors: Option<BTreeMap<String, String>> =
        text("switch-inhibitors").and_then(|text| serde_json::from_str(&text).ok());
    SystemFacts {
        inhibitors: inhibitors.unwrap_or_default(),
        dbus: resolved("etc/systemd/system/dbus.service").and_then(|unit| Some(unit.file_stem()?.to_str()?.to_owned())),
        systemd: resolved("systemd").and_then(|package| major_version(package.to_str()?)),
        init: text("init-interface-version").map(|init| init.trim().to_owned()),
        store_mounts: text("etc/fstab").map(|fstab| store_mounts(&fstab)),
    }
}

/// The major version in the store path of systemd, such as 257 in `/nix/store/…-systemd-257.3`.
fn major_version(package: &str) -> Option<u32> {
    let version = package.rsplit_once("-systemd-").map(|(_, version)| version)?;
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The lines of an `fstab` that mount the Nix store or the folder above it, without their white space.
fn store_mounts(fstab: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    let of_store = fstab.lines().map(words).filter(|words| {
        let is_comment = words.first().is_some_and(|word| word.starts_with('#'));
        !is_comment && words.get(1).is_some_and(|at| ["/nix", "/nix/store"].contains(&at.as_str()))
    });
    of_store.map(|words| words.join(" ")).collect()
}

/// Follows the links on the way to `path`, where `/` is the folder `root`. Returns the path below it; `None` where nothing is there.
fn resolve(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut resolved = PathBuf::from("/");
    let names = |path: &Path| -> Vec<OsString> {
        path.components()
            .filter(|component| !matches!(component, Component::RootDir | Component::CurDir))
            .map(|component| component.as_os_str().to_owned())
            .collect()
    };
    let mut rest: Vec<OsString> = names(path).into_iter().rev().collect();
    let mut links = 0;
    while let Some(name) = rest.pop() {
        if name == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(&name);
        let here = root.join(next.strip_prefix("/").ok()?);
        let Ok(to) = std::fs::read_link(&here) else {
            std::fs::symlink_metadata(&here).ok()?;
            resolved = next;
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        if to.is_absolute() {
            resolved = PathBuf::from("/");
        }
        rest.extend(names(&to).into_iter().rev());
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const TOPLEVEL: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-nixos-system";

    /// A store with a system that has the shape of NixOS's.
    fn store() -> (tempfile::TempDir, StorePath) {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
        let write = |path: &str, text: &str| {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        };
        write(&format!("{TOPLEVEL}/init-interface-version"), "systemd 2\n");
        write("/nix/store/units/dbus-broker.service", "");
        write("/nix/store/inhibitors", r#"{"dbus-implementation":"broker"}"#);
        write("/nix/store/etc/etc/fstab", "# /nix/store\n/dev/a  / ext4\n/dev/b /nix/store  ext4 ro\n");
        write("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcrz-systemd-257.3/x", "");
        std::fs::create_dir_all(at("/nix/store/etc/etc/systemd")).unwrap();
        for (to, from) in [
            ("/nix/store/etc/etc", format!("{TOPLEVEL}/etc")),
            ("../../../units", "/nix/store/etc/etc/systemd/system".to_owned()),
            ("dbus-broker.service", "/nix/store/units/dbus.service".to_owned()),
            ("/nix/store/inhibitors", format!("{TOPLEVEL}/switch-inhibitors")),
            ("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcrz-systemd-257.3", format!("{TOPLEVEL}/systemd")),
        ] {
            symlink(to, at(&from)).unwrap();
        }
        (dir, TOPLEVEL.parse().unwrap())
    }

    #[test]
    fn the_facts_of_a_system_are_read_in_whatever_store_it_is() {
        let (dir, path) = store();
        let expected = SystemFacts {
            inhibitors: [("dbus-implementation".to_owned(), "broker".to_owned())].into(),
            dbus: Some("dbus-broker".to_owned()),
            systemd: Some(257),
            init: Some("systemd 2".to_owned()),
            store_mounts: Some(vec!["/dev/b /nix/store ext4 ro".to_owned()]),
        };
        assert_eq!(read(dir.path(), &path), expected);
    }

    #[test]
    fn what_is_missing_broken_or_too_long_says_nothing() {
        let (dir, path) = store();
        let at = |path: &str| dir.path().join(path.trim_start_matches('/'));
        std::fs::write(at("/nix/store/inhibitors"), "/nix/store/x\n/nix/store/y").unwrap();
        std::fs::remove_file(at("/nix/store/units/dbus-broker.service")).unwrap();
        std::fs::remove_file(at(&format!("{TOPLEVEL}/systemd"))).unwrap();
        symlink("systemd", at(&format!("{TOPLEVEL}/systemd"))).unwrap();
        std::fs::write(at(&format!("{TOPLEVEL}/init-interface-version")), "x".repeat(1 << 20)).unwrap();
        std::fs::remove_file(at("/nix/store/etc/etc/fstab")).unwrap();
        assert_eq!(read(dir.path(), &path), SystemFacts::default());
    }
}
