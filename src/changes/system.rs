//! What a change of a system is, as people think of it: packages, files, and the system's own settings.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

use super::version::compare_versions;

/// How many files are named in one line, before the others are counted.
const NAMED: usize = 8;
/// How many lines a change has beside those of its packages: the system's version and settings, what was rebuilt, and
/// the files that differ, were added and were removed.
const OTHER_LINES: usize = 6;

/// What differs between two systems.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SystemChange {
    /// The system's own version, where it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionChange>,
    /// The system's own settings that differ: attributes of its derivation, such as `kernelParams`.
    pub settings: Vec<String>,
    /// The packages that differ by name or version, those whose version changed first.
    pub packages: Vec<PackageChange>,
    /// The packages that are built otherwise, and have the version they had: `bash 5.2`.
    pub rebuilt: Vec<String>,
    /// Files, systemd units and scripts that differ by what stands in them.
    pub files: Vec<FileChange>,
}

/// The version of a system before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionChange {
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

/// A package that a system has in other versions than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Direction,
    /// Its versions before, oldest first; none where it was not there.
    pub from: Vec<String>,
    /// Its versions after, oldest first; none where it is gone.
    pub to: Vec<String>,
}

/// What happened to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Its newest version is older than before.
    Downgraded,
    /// Its newest version is newer than before.
    Upgraded,
    /// Its newest version is the same, and there are others beside it, or not any more.
    Changed,
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
}

/// A file that a system has otherwise than before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FileChange {
    /// Its name in the store, without the hash: `etc-nginx.conf`, `unit-sshd.service`.
    pub name: String,
    /// What happened to it.
    pub change: FileFate,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFate {
    /// Something else stands in it.
    Changed,
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
}

impl PackageChange {
    /// The package `name`, which was there as `from` and is there as `to`.
    pub(super) fn new(name: &str, mut from: Vec<String>, mut to: Vec<String>) -> Self {
        for versions in [&mut from, &mut to] {
            versions.sort_by(|a, b| compare_versions(a, b).then_with(|| a.cmp(b)));
        }
        let change = match (from.last(), to.last()) {
            (None, _) => Direction::Added,
            (_, None) => Direction::Removed,
            (Some(from), Some(to)) => match compare_versions(from, to) {
                Ordering::Less => Direction::Upgraded,
                Ordering::Equal => Direction::Changed,
                Ordering::Greater => Direction::Downgraded,
            },
        };
        Self { name: name.to_owned(), change, from, to }
    }
}

impl fmt::Display for PackageChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, change, from, to } = self;
        let (from, to) = (from.join(", "), to.join(", "));
        match change {
            Direction::Upgraded | Direction::Changed => write!(f, "{name} {from} → {to}"),
            Direction::Downgraded => write!(f, "{name} {from} → {to} (older)"),
            Direction::Added => write!(f, "{name} {to} added"),
            Direction::Removed => write!(f, "{name} {from} removed"),
        }
    }
}

impl SystemChange {
    /// What changes in lines for people, at most `most` of them but never less than seven.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(VersionChange { from, to }) = &self.version {
            lines.push(format!("system {from} → {to}"));
        }
        let room = most.saturating_sub(OTHER_LINES).max(1);
        // A line that says how many more there are takes the place of one that says more than that.
        let told = if self.packages.len() > room { room - 1 } else { self.packages.len() };
        lines.extend(self.packages.iter().take(told).map(ToString::to_string));
        match self.packages.len() - told {
            0 => {}
            more if told == 0 => lines.push(format!("{more} packages")),
            more => lines.push(format!("… and {more} more packages")),
        }
        match &self.rebuilt[..] {
            [] => {}
            [one] => lines.push(format!("{one} rebuilt")),
            many => lines.push(format!("{} packages rebuilt", many.len())),
        }
        lines.extend(listed("settings", self.settings.iter().map(String::as_str)));
        lines.extend(listed("files", self.files_that(FileFate::Changed)));
        lines.extend(listed("files added", self.files_that(FileFate::Added)));
        lines.extend(listed("files removed", self.files_that(FileFate::Removed)));
        if lines.is_empty() {
            lines.push("nothing that has a name: only how it is built".to_owned());
        }
        lines
    }

    fn files_that(&self, fate: FileFate) -> impl Iterator<Item = &str> {
        self.files.iter().filter(move |file| file.change == fate).map(|file| file.name.as_str())
    }
}

impl fmt::Display for SystemChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(usize::MAX).join("\n"))
    }
}

/// A line with the first of `names`, and how many more there are; none where there are no names.
fn listed<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let told = if names.len() > NAMED { NAMED - 1 } else { names.len() };
    let more = names.len() - told;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{what}: {}{more}", names[..told].join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, from: &[&str], to: &[&str]) -> PackageChange {
        let owned = |versions: &[&str]| versions.iter().map(ToString::to_string).collect();
        PackageChange::new(name, owned(from), owned(to))
    }

    #[test]
    fn packages_are_told_with_their_direction() {
        let told = |from: &[&str], to: &[&str]| package("x", from, to).to_string();
        assert_eq!(told(&["1.9"], &["1.10"]), "x 1.9 → 1.10");
        assert_eq!(told(&["1.10"], &["1.9"]), "x 1.10 → 1.9 (older)");
        assert_eq!(told(&[], &["2"]), "x 2 added");
        assert_eq!(told(&["2"], &[]), "x 2 removed");
        assert_eq!(told(&["1"], &["2", "1"]), "x 1 → 1, 2");
        assert_eq!(told(&["1", "2"], &["2"]), "x 1, 2 → 2");
        assert_eq!(package("x", &["1", "2"], &["2"]).change, Direction::Changed);
    }

    #[test]
    fn a_large_change_has_few_lines_and_says_how_much_it_leaves_out() {
        let packages = (0..100).map(|n| package(&format!("p{n}"), &["1"], &["2"])).collect();
        let file = |n, change| FileChange { name: format!("f{n}"), change };
        let files = (0..30).map(|n| file(n, FileFate::Changed)).chain([file(30, FileFate::Added)]).collect();
        let rebuilt = vec!["bash 5.2".to_owned()];
        let change = SystemChange { packages, rebuilt, files, ..SystemChange::default() };
        let lines = change.lines(20);
        assert_eq!(lines.len(), 17);
        assert_eq!(
            lines[13..],
            [
                "… and 87 more packages",
                "bash 5.2 rebuilt",
                "files: f0, f1, f2, f3, f4, f5, f6 and 23 more",
                "files added: f30"
            ]
        );
        assert_eq!(change.lines(0)[0], "100 packages");
        assert_eq!(change.lines(usize::MAX).len(), 103);
        assert_eq!(SystemChange::default().to_string(), "nothing that has a name: only how it is built");
    }
}
