//! The difference of two systems in terms of packages, files and settings, and its lines for people.

use std::cmp::Ordering;
use std::fmt;

use serde::Serialize;

use super::error::CompareError;
use super::forecast::{Forecast, UnitAction};
use super::version::compare_versions;
use crate::model::describe_error;

/// The most names in one line. The line counts the others.
const NAMED: usize = 8;

/// The differences between two systems.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
pub struct SystemChange {
    /// The system's own version, where it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionChange>,
    /// The system's own settings that differ: attributes of its derivation, such as `kernelParams`.
    pub settings: Vec<String>,
    /// The packages whose versions differ: downgrades first, then upgrades, other changes, additions and removals.
    pub packages: Vec<PackageChange>,
    /// The packages that are built differently at the same version: `bash 5.2`.
    pub rebuilt: Vec<String>,
    /// The files, systemd units and scripts whose content differs.
    pub files: Vec<FileChange>,
    /// What the switch is likely to restart, and whether it takes a reboot. Only the machine knows.
    #[serde(skip_serializing_if = "Forecast::is_empty")]
    pub forecast: Forecast,
}

/// The version of a system before and after.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
pub struct VersionChange {
    /// The old version.
    pub from: String,
    /// The new version.
    pub to: String,
}

/// A package whose versions in a system changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
pub struct PackageChange {
    /// Its name.
    pub name: String,
    /// The kind of the change.
    pub change: PackageChangeKind,
    /// The old versions, oldest first; none where the package was added.
    pub from: Vec<String>,
    /// The new versions, oldest first; none where the package was removed.
    pub to: Vec<String>,
}

/// The kind of a package's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PackageChangeKind {
    /// Its newest version is older than before.
    Downgraded,
    /// Its newest version is newer than before.
    Upgraded,
    /// Its newest version is the same, and other versions of it came or went.
    Changed,
    /// It is new.
    Added,
    /// It was removed.
    Removed,
}

/// A file of a system that changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct FileChange {
    /// Its name in the store, without the hash: `etc-nginx.conf`, `unit-sshd.service`.
    pub name: String,
    /// The kind of the change.
    pub change: FileChangeKind,
}

/// The kind of a file's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileChangeKind {
    /// Its content differs.
    Changed,
    /// It is new.
    Added,
    /// It was removed.
    Removed,
}

impl PackageChange {
    /// The change of the package `name` from the versions `from` to the versions `to`.
    pub(super) fn new(name: &str, mut from: Vec<String>, mut to: Vec<String>) -> Self {
        for versions in [&mut from, &mut to] {
            versions.sort_by(|a, b| compare_versions(a, b).then_with(|| a.cmp(b)));
        }
        let change = match (from.last(), to.last()) {
            (None, _) => PackageChangeKind::Added,
            (_, None) => PackageChangeKind::Removed,
            (Some(from), Some(to)) => match compare_versions(from, to) {
                Ordering::Less => PackageChangeKind::Upgraded,
                Ordering::Equal => PackageChangeKind::Changed,
                Ordering::Greater => PackageChangeKind::Downgraded,
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
            PackageChangeKind::Upgraded | PackageChangeKind::Changed => write!(f, "{name} {from} → {to}"),
            PackageChangeKind::Downgraded => write!(f, "{name} {from} → {to} (older)"),
            PackageChangeKind::Added => write!(f, "{name} {to} added"),
            PackageChangeKind::Removed => write!(f, "{name} {from} removed"),
        }
    }
}

impl SystemChange {
    /// Whether nothing differs but packages that are rebuilt.
    pub fn is_rebuilt_only(&self) -> bool {
        !self.rebuilt.is_empty() && *self == Self { rebuilt: self.rebuilt.clone(), ..Self::default() }
    }

    /// The change in lines for people: at most `most` lines, but at least one about the packages and one of each other kind.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let version = self.version.as_ref().map(|VersionChange { from, to }| format!("system {from} → {to}"));
        let mut lines: Vec<String> = version.into_iter().collect();
        let others = self.other_lines();
        let room = most.saturating_sub(lines.len() + others.len()).max(1);
        // The line that counts the rest takes the place of one package.
        let named = if self.packages.len() > room { room - 1 } else { self.packages.len() };
        lines.extend(self.packages.iter().take(named).map(ToString::to_string));
        match self.packages.len() - named {
            0 => {}
            more if named == 0 => lines.push(format!("{more} packages")),
            more => lines.push(format!("… and {more} more packages")),
        }
        lines.extend(others);
        if lines.is_empty() {
            lines.push("nothing but how it is built".to_owned());
        }
        lines
    }

    /// The lines after those of the packages.
    fn other_lines(&self) -> Vec<String> {
        let mut lines = match &self.rebuilt[..] {
            [] => Vec::new(),
            [one] => vec![format!("{one} rebuilt")],
            many => vec![format!("{} packages rebuilt", many.len())],
        };
        lines.extend(named_line("settings:", self.settings.iter().map(String::as_str)));
        lines.extend(named_line("files:", self.files_of(FileChangeKind::Changed)));
        lines.extend(named_line("files added:", self.files_of(FileChangeKind::Added)));
        lines.extend(named_line("files removed:", self.files_of(FileChangeKind::Removed)));
        if !self.forecast.reboot.is_empty() {
            let parts: Vec<String> = self.forecast.reboot.iter().map(ToString::to_string).collect();
            lines.push(format!("forecast: reboot for {}", parts.join(", ")));
        }
        lines.extend(named_line("forecast: restart of", self.forecast.names(UnitAction::Restart)));
        lines.extend(named_line("forecast: reload of", self.forecast.names(UnitAction::Reload)));
        lines
    }

    fn files_of(&self, kind: FileChangeKind) -> impl Iterator<Item = &str> {
        self.files.iter().filter(move |file| file.change == kind).map(|file| file.name.as_str())
    }
}

/// The result of comparing two systems, as it is shown to people and printed as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum SystemDiff {
    /// The systems were compared.
    Change(SystemChange),
    /// The systems could not be compared.
    Unknown {
        /// The message of the [`CompareError`].
        unknown: String,
    },
}

impl SystemDiff {
    /// The result in lines for people. See [`SystemChange::lines`].
    pub fn lines(&self, most: usize) -> Vec<String> {
        match self {
            Self::Change(change) => change.lines(most),
            Self::Unknown { unknown } => vec![format!("the changes inside are not known: {unknown}")],
        }
    }
}

impl From<Result<SystemChange, CompareError>> for SystemDiff {
    fn from(result: Result<SystemChange, CompareError>) -> Self {
        match result {
            Ok(change) => Self::Change(change),
            Err(error) => Self::Unknown { unknown: describe_error(&error) },
        }
    }
}

impl fmt::Display for SystemChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines(usize::MAX).join("\n"))
    }
}

/// A line with the first of `names` and the number of the others; none where there are no names.
fn named_line<'a>(title: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<&str> = names.collect();
    let count = if names.len() > NAMED { NAMED - 1 } else { names.len() };
    let more = names.len() - count;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| format!("{title} {}{more}", names[..count].join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, from: &[&str], to: &[&str]) -> PackageChange {
        let owned = |versions: &[&str]| versions.iter().map(ToString::to_string).collect();
        PackageChange::new(name, owned(from), owned(to))
    }

    #[test]
    fn a_package_is_shown_with_its_versions() {
        let line = |from: &[&str], to: &[&str]| package("x", from, to).to_string();
        assert_eq!(line(&["1.9"], &["1.10"]), "x 1.9 → 1.10");
        assert_eq!(line(&["1.10"], &["1.9"]), "x 1.10 → 1.9 (older)");
        assert_eq!(line(&[], &["2"]), "x 2 added");
        assert_eq!(line(&["2"], &[]), "x 2 removed");
        assert_eq!(line(&["1"], &["2", "1"]), "x 1 → 1, 2");
        assert_eq!(line(&["1", "2"], &["2"]), "x 1, 2 → 2");
        assert_eq!(package("x", &["1", "2"], &["2"]).change, PackageChangeKind::Changed);
    }

    #[test]
    fn a_large_change_has_few_lines_and_counts_the_rest() {
        let packages = (0..100).map(|n| package(&format!("p{n}"), &["1"], &["2"])).collect();
        let file = |n, change| FileChange { name: format!("f{n}"), change };
        let files =
            (0..30).map(|n| file(n, FileChangeKind::Changed)).chain([file(30, FileChangeKind::Added)]).collect();
        let rebuilt = vec!["bash 5.2".to_owned()];
        let change = SystemChange { packages, rebuilt, files, ..SystemChange::default() };
        let lines = change.lines(20);
        assert_eq!(lines.len(), 20);
        assert_eq!(
            lines[16..],
            [
                "… and 84 more packages",
                "bash 5.2 rebuilt",
                "files: f0, f1, f2, f3, f4, f5, f6 and 23 more",
                "files added: f30"
            ]
        );
        assert_eq!(change.lines(0)[0], "100 packages");
        assert_eq!(change.lines(usize::MAX).len(), 103);
        assert_eq!(SystemChange::default().to_string(), "nothing but how it is built");
    }
}
