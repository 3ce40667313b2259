//! Groups of deployments that change alike. A line of a change that several deployments share is told once, of all of them. Pure.

use std::collections::HashMap;

use serde::Serialize;

use super::forecast::{RebootPart, UnitForecast};
use super::system::{FileChange, PackageChange, SystemChange, SystemDiff, VersionChange};
use crate::model::{FEW, Name, few};

/// The differences that some deployments share, and no other deployment has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ChangeGroup {
    /// The deployments, in the order of their names.
    pub deployments: Vec<Name>,
    /// The differences that exactly these deployments have.
    pub system: SystemDiff,
}

impl ChangeGroup {
    /// Names the deployments in one line, where `compared` is the number of deployments that were grouped.
    pub fn title(&self, compared: usize) -> String {
        match self.deployments.len() {
            count if count == compared && count > FEW => format!("all {count}"),
            _ => few(self.deployments.iter()),
        }
    }
}

/// One line of a change: the smallest thing that two deployments can share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Line<'a> {
    Version(&'a VersionChange),
    Setting(&'a str),
    Package(&'a PackageChange),
    Rebuilt(&'a str),
    File(&'a FileChange),
    Reboot(RebootPart),
    Unit(&'a UnitForecast),
    /// The system differs in nothing but how it is built.
    Nothing,
    Unknown(&'a str),
}

/// Groups deployments by the lines that they share. Each line is in one group: that of all deployments that have it. The largest
/// group comes first, so what all share comes before what some share, and single deployments come last.
pub fn group_changes(changes: &[(&Name, &SystemDiff)]) -> Vec<ChangeGroup> {
    let kinds = alike(changes);
    let mut kinds_by_line: HashMap<Line<'_>, Vec<usize>> = HashMap::new();
    let mut lines = Vec::new();
    for (kind, (diff, _)) in kinds.iter().enumerate() {
        for line in lines_of(diff) {
            let with = kinds_by_line.entry(line).or_default();
            if with.is_empty() {
                lines.push(line);
            }
            if with.last() != Some(&kind) {
                with.push(kind);
            }
        }
    }
    let mut lines_by_kinds: HashMap<&[usize], Vec<Line<'_>>> = HashMap::new();
    for line in lines {
        lines_by_kinds.entry(&kinds_by_line[&line]).or_default().push(line);
    }
    let group = |(of, lines): (&[usize], Vec<Line<'_>>)| {
        let mut deployments: Vec<Name> =
            of.iter().flat_map(|kind| &kinds[*kind].1).map(|name| (*name).clone()).collect();
        deployments.sort();
        deployments.dedup();
        ChangeGroup { deployments, system: diff_of(&lines) }
    };
    let mut groups: Vec<ChangeGroup> = lines_by_kinds.into_iter().map(group).collect();
    groups
        .sort_by(|a, b| b.deployments.len().cmp(&a.deployments.len()).then_with(|| a.deployments.cmp(&b.deployments)));
    groups
}

/// The different changes, each with the deployments that change exactly so.
fn alike<'a>(changes: &[(&'a Name, &'a SystemDiff)]) -> Vec<(&'a SystemDiff, Vec<&'a Name>)> {
    let (mut kinds, mut known) = (Vec::<(_, Vec<_>)>::new(), HashMap::new());
    for (name, diff) in changes {
        let kind = *known.entry(*diff).or_insert(kinds.len());
        match kinds.get_mut(kind) {
            Some((_, names)) => names.push(*name),
            None => kinds.push((*diff, vec![*name])),
        }
    }
    kinds
}

fn lines_of(diff: &SystemDiff) -> Vec<Line<'_>> {
    let SystemChange { version, settings, packages, rebuilt, files, forecast } = match diff {
        SystemDiff::Change(change) => change,
        SystemDiff::Unknown { unknown } => return vec![Line::Unknown(unknown)],
    };
    let mut lines: Vec<Line<'_>> = version.iter().map(Line::Version).collect();
    lines.extend(settings.iter().map(|setting| Line::Setting(setting)));
    lines.extend(packages.iter().map(Line::Package));
    lines.extend(rebuilt.iter().map(|package| Line::Rebuilt(package)));
    lines.extend(files.iter().map(Line::File));
    lines.extend(forecast.reboot.iter().copied().map(Line::Reboot));
    lines.extend(forecast.units.iter().map(Line::Unit));
    if lines.is_empty() {
        lines.push(Line::Nothing);
    }
    lines
}

/// The difference that consists of these lines, in the order of any other difference.
fn diff_of(lines: &[Line<'_>]) -> SystemDiff {
    let mut change = SystemChange::default();
    for line in lines {
        match line {
            Line::Version(version) => change.version = Some((*version).clone()),
            Line::Setting(setting) => change.settings.push((*setting).to_owned()),
            Line::Package(package) => change.packages.push((*package).clone()),
            Line::Rebuilt(package) => change.rebuilt.push((*package).to_owned()),
            Line::File(file) => change.files.push((*file).clone()),
            Line::Reboot(part) => change.forecast.reboot.push(*part),
            Line::Unit(unit) => change.forecast.units.push((*unit).clone()),
            Line::Nothing => {}
            // A deployment with this line has no other one, so no group has this line and another one.
            Line::Unknown(unknown) => return SystemDiff::Unknown { unknown: (*unknown).to_owned() },
        }
    }
    change.settings.sort();
    change.packages.sort_by(|a, b| (a.change, &a.name).cmp(&(b.change, &b.name)));
    change.rebuilt.sort();
    change.files.sort_by(|a, b| (a.change, &a.name).cmp(&(b.change, &b.name)));
    change.forecast.reboot.sort();
    change.forecast.units.sort();
    SystemDiff::Change(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::FileChangeKind;

    /// A change of these packages, each from version 1 to 2, and of these files.
    fn change(packages: &[&str], files: &[&str]) -> SystemDiff {
        let package = |name: &&str| PackageChange::new(name, vec!["1".to_owned()], vec!["2".to_owned()]);
        let file = |name: &&str| FileChange { name: (*name).to_owned(), change: FileChangeKind::Changed };
        SystemDiff::Change(SystemChange {
            packages: packages.iter().map(package).collect(),
            files: files.iter().map(file).collect(),
            ..SystemChange::default()
        })
    }

    /// The groups as text: the names and the lines of each.
    fn told(changes: &[(&str, SystemDiff)]) -> Vec<(String, Vec<String>)> {
        let names: Vec<Name> = changes.iter().map(|(name, _)| name.parse().unwrap()).collect();
        let changes: Vec<_> = names.iter().zip(changes).map(|(name, (_, diff))| (name, diff)).collect();
        let text = |group: &ChangeGroup| {
            let names: Vec<&str> = group.deployments.iter().map(Name::as_str).collect();
            (names.join(" "), group.system.lines(usize::MAX))
        };
        group_changes(&changes).iter().map(text).collect()
    }

    fn group(names: &str, lines: &[&str]) -> (String, Vec<String>) {
        (names.to_owned(), lines.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_all_share_comes_first_then_groups_then_single_deployments() {
        let changes = [
            ("db-1", change(&["linux", "postgresql"], &[])),
            ("web-2", change(&["linux", "nginx"], &["motd"])),
            ("web-1", change(&["linux", "nginx"], &[])),
            ("web-3", change(&["linux", "nginx"], &[])),
        ];
        let expected = [
            group("db-1 web-1 web-2 web-3", &["linux 1 → 2"]),
            group("web-1 web-2 web-3", &["nginx 1 → 2"]),
            group("db-1", &["postgresql 1 → 2"]),
            group("web-2", &["files: motd"]),
        ];
        assert_eq!(told(&changes), expected);
    }

    #[test]
    fn a_deployment_that_shares_nothing_takes_nothing_from_the_others() {
        let unknown = SystemDiff::Unknown { unknown: "no".to_owned() };
        let changes = [
            ("a", change(&["linux"], &[])),
            ("b", change(&["linux"], &[])),
            ("c", SystemDiff::Change(SystemChange::default())),
            ("d", unknown.clone()),
            ("e", unknown),
        ];
        let expected = [
            group("a b", &["linux 1 → 2"]),
            group("d e", &["the changes inside are not known: no"]),
            group("c", &["nothing but how it is built"]),
        ];
        assert_eq!(told(&changes), expected);
    }

    #[test]
    fn a_package_that_goes_to_another_version_is_another_line() {
        let SystemDiff::Change(mut other) = change(&["linux"], &["motd"]) else { unreachable!() };
        other.packages[0].to = vec!["3".to_owned()];
        let changes = [("a", change(&["linux"], &["motd"])), ("b", SystemDiff::Change(other))];
        let expected = [group("a b", &["files: motd"]), group("a", &["linux 1 → 2"]), group("b", &["linux 1 → 3"])];
        assert_eq!(told(&changes), expected);
        assert_eq!(told(&changes[..1]), [group("a", &["linux 1 → 2", "files: motd"])]);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn a_large_group_keeps_the_order_of_a_difference() {
        let packages = ["z", "b", "a"];
        let changes = [("a", change(&packages, &["y", "x"])), ("b", change(&packages, &["y", "x"]))];
        assert_eq!(told(&changes), [group("a b", &["a 1 → 2", "b 1 → 2", "z 1 → 2", "files: x, y"])]);
    }
}
