//! The changes of a publication as people read them: what several deployments share once, then each document. Pure; it is for
//! the commit message and for the terminal alike.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::document_change::DocumentChange;
use crate::changes::{ChangeGroup, SystemDiff, group_changes};
use crate::model::{Folder, Name, few};

/// The most lines about the differences of one group or deployment.
const LINES_OF_ONE: usize = 20;
/// The most lines about the differences of all groups and deployments together, roughly: nobody reads a longer commit message.
const LINES_OF_ALL: usize = 400;
/// The most documents of one kind that have a line each, if there is nothing else to tell about them.
const DOCUMENTS_OF_ONE: usize = 8;
/// The most groups in which packages are only rebuilt.
const REBUILT_GROUPS: usize = 3;

/// One part of the description of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DescribedChange<'a> {
    /// The differences that several deployments share.
    Shared {
        /// The deployments.
        title: String,
        /// The differences.
        lines: Vec<String>,
    },
    /// A document.
    Document {
        /// Its change.
        change: &'a DocumentChange,
        /// The differences that no other deployment has.
        lines: Vec<String>,
    },
    /// A line about several documents.
    Line(String),
}

/// The groups of deployments that change alike.
pub(super) fn group_documents(changes: &[DocumentChange]) -> Vec<ChangeGroup> {
    let systems = changes.iter().filter_map(|change| Some((change.path.name(), change.system.as_ref()?)));
    group_changes(&systems.collect::<Vec<_>>())
}

/// Describes the changes, whose groups are `groups`: the differences that several deployments share, largest group first, then the
/// documents, each with the differences of its own. Many documents of one kind without such differences have one line together.
pub(super) fn describe<'a>(changes: &'a [DocumentChange], groups: &[ChangeGroup]) -> Vec<DescribedChange<'a>> {
    let compared = changes.iter().filter(|change| change.system.is_some()).count();
    let Differences { shared, own, untold } = describe_groups(groups, compared);
    let mut described: Vec<DescribedChange<'a>> = shared;
    let lines_of = |change: &DocumentChange| {
        let is_deployment = change.path.folder() == Folder::Deployments;
        own.get(change.path.name()).filter(|_| is_deployment).cloned().unwrap_or_default()
    };
    let mut alike: BTreeMap<(Folder, DocumentKind), Vec<&DocumentChange>> = BTreeMap::new();
    for change in changes.iter().filter(|change| lines_of(change).is_empty()) {
        alike.entry((change.path.folder(), DocumentKind::of(change))).or_default().push(change);
    }
    alike.retain(|_, documents| documents.len() > DOCUMENTS_OF_ONE);
    described.extend(alike.iter().map(|((folder, kind), documents)| {
        let names = documents.iter().map(|change| match change.to {
            Some(to) => format!("{} {to}", change.path.name()),
            None => change.path.name().to_string(),
        });
        let (folder, count, kind) = (folder.as_str(), documents.len(), kind.as_str());
        DescribedChange::Line(format!("{folder}: {count} {kind} ({})", few(names)))
    }));
    described.extend(changes.iter().filter_map(|change| {
        let lines = lines_of(change);
        let together = lines.is_empty() && alike.contains_key(&(change.path.folder(), DocumentKind::of(change)));
        (!together).then_some(DescribedChange::Document { change, lines })
    }));
    if untold > 0 {
        described
            .push(DescribedChange::Line(format!("`clavel diff NAME` shows what else differs on {untold} of them")));
    }
    described
}

/// The differences inside systems.
struct Differences<'a> {
    /// Those that several deployments share.
    shared: Vec<DescribedChange<'static>>,
    /// The lines about the differences that one deployment alone has.
    own: HashMap<&'a Name, Vec<String>>,
    /// The number of deployments of which something is left out.
    untold: usize,
}

fn describe_groups(groups: &[ChangeGroup], compared: usize) -> Differences<'_> {
    let is_small = |group: &&ChangeGroup| group.deployments.len() < compared && rebuilt_only(group).is_some();
    let small = groups.iter().filter(is_small).count();
    let is_told = |group: &&ChangeGroup| small <= REBUILT_GROUPS || !is_small(group);
    let (mut shared, mut own, mut total) = (Vec::new(), HashMap::new(), 0);
    let mut untold: BTreeSet<&Name> = BTreeSet::new();
    for group in groups.iter().filter(is_told) {
        let lines = group.system.lines(LINES_OF_ONE);
        if total + lines.len() > LINES_OF_ALL {
            untold.extend(&group.deployments);
            continue;
        }
        total += lines.len() + 1;
        match &group.deployments[..] {
            [name] => _ = own.insert(name, lines),
            _ => shared.push(DescribedChange::Shared { title: group.title(compared), lines }),
        }
    }
    let left: Vec<&ChangeGroup> = groups.iter().filter(|group| !is_told(group)).collect();
    if !left.is_empty() {
        let packages: BTreeSet<&String> = left.iter().copied().filter_map(rebuilt_only).flatten().collect();
        let on: BTreeSet<&Name> = left.iter().flat_map(|group| &group.deployments).collect();
        let line = format!("{} packages rebuilt on {} of them", packages.len(), on.len());
        shared.push(DescribedChange::Line(line));
    }
    Differences { shared, own, untold: untold.len() }
}

/// The packages of a group that has nothing but rebuilt packages. There may be as many such groups as hosts.
fn rebuilt_only(group: &ChangeGroup) -> Option<&[String]> {
    match &group.system {
        SystemDiff::Change(change) => change.is_rebuilt_only().then_some(&change.rebuilt[..]),
        SystemDiff::Unknown { .. } => None,
    }
}

/// The kind of a document's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DocumentKind {
    New,
    Changed,
    Repaired,
    Withdrawn,
}

impl DocumentKind {
    fn of(change: &DocumentChange) -> Self {
        match (change.from, change.to) {
            _ if change.repaired => Self::Repaired,
            (_, None) => Self::Withdrawn,
            (None, Some(_)) => Self::New,
            (Some(_), Some(_)) => Self::Changed,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Changed => "changed",
            Self::Repaired => "repaired, because the files there were altered or not trusted",
            Self::Withdrawn => "withdrawn",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::changed_deployment;
    use super::*;
    use crate::changes::SystemChange;

    fn change(name: &str, files: &[&str], rebuilt: &[&str]) -> DocumentChange {
        let rebuilt = rebuilt.iter().map(ToString::to_string).collect();
        changed_deployment(name, files.iter().copied(), SystemChange { rebuilt, ..SystemChange::default() })
    }

    fn lines(changes: &[DocumentChange]) -> Vec<String> {
        let text = |described: DescribedChange<'_>| match described {
            DescribedChange::Shared { title, lines } => format!("{title}: {}", lines.join("; ")),
            DescribedChange::Document { change, lines } => format!("{}: {}", change.path.name(), lines.join("; ")),
            DescribedChange::Line(line) => line,
        };
        describe(changes, &group_documents(changes)).into_iter().map(text).collect()
    }

    #[test]
    fn a_hundred_hosts_that_change_alike_are_two_lines() {
        let changes: Vec<DocumentChange> = (0..100).map(|n| change(&format!("web-{n:02}"), &["motd"], &[])).collect();
        let expected = ["all 100: files: motd", "deployments: 100 changed (web-00 2, web-01 2, web-02 2 and 97 more)"];
        assert_eq!(lines(&changes), expected);
    }

    #[test]
    fn the_differences_of_one_host_stand_at_its_document() {
        let unit = DocumentChange { path: "units/b.json".parse().unwrap(), system: None, ..change("b", &[], &[]) };
        let changes = [change("a", &["motd"], &[]), change("b", &["motd", "hosts"], &[]), unit];
        assert_eq!(lines(&changes), ["a, b: files: motd", "a: ", "b: files: hosts", "b: "]);
        assert_eq!(lines(&changes[1..]), ["b: files: hosts, motd", "b: "]);
    }

    #[test]
    fn rebuilt_packages_alone_make_few_groups() {
        let changes: Vec<DocumentChange> =
            (0..6).map(|n| change(&format!("h{n}"), &[], &["bash 5", &format!("p{n} 1")])).collect();
        let told = lines(&changes);
        assert_eq!(told[..2], ["all 6: bash 5 rebuilt", "6 packages rebuilt on 6 of them"]);
        assert_eq!(told.len(), 8);
        assert_eq!(lines(&changes[..2]), ["h0, h1: bash 5 rebuilt", "h0: p0 1 rebuilt", "h1: p1 1 rebuilt"]);
    }

    #[test]
    fn ten_thousand_hosts_with_differences_of_their_own_are_bounded() {
        let changes: Vec<DocumentChange> =
            (0..10_000).map(|n| change(&format!("h{n}"), &["motd", &format!("f{n}")], &[])).collect();
        let told = lines(&changes);
        assert_eq!(told[0], "all 10000: files: motd");
        assert_eq!(told.len(), 202, "{told:?}");
        assert!(told[1].starts_with("deployments: 9801 changed ("), "{}", told[1]);
        assert_eq!(told[201], "`clavel diff NAME` shows what else differs on 9801 of them");
    }
}
