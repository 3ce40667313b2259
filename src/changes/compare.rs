//! Compares two systems whose derivations are in one graph. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::derivation::DerivationNode;
use super::graph::Graph;
use super::switch::forecast;
use super::system::{FileChange, FileChangeKind, PackageChange, SystemChange, VersionChange};
use super::text::{self, Key};
use crate::model::StorePath;

/// The outputs of a package. Another build has other outputs.
type Build<'a> = &'a [Key];
/// The packages of a system: builds by name and version.
type Packages<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<Build<'a>>>>;
/// The files of a system: contents by name.
type FilesByName<'a> = BTreeMap<&'a str, BTreeSet<FileContent<'a>>>;

/// The content of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum FileContent<'a> {
    /// Nix writes the file from these attributes.
    Written(&'a BTreeMap<String, String>),
    /// The file is a source, with this key.
    Source(Key),
}

/// The packages and files of a system.
struct Inventory<'a> {
    packages: Packages<'a>,
    files: FilesByName<'a>,
    /// The keys that the files of a name mention.
    mentions: BTreeMap<&'a str, BTreeSet<Key>>,
    /// The outputs of every derivation in it.
    outputs: HashSet<Key>,
}

/// The differences between the systems at `old` and `new`. `graph` has read both.
pub(super) fn compare(graph: &Graph, old: &StorePath, new: &StorePath) -> SystemChange {
    let (before, after) = (inventory(graph, old), inventory(graph, new));
    let (packages, rebuilt) = packages(&before.packages, &after.packages);
    let mut files = added_and_removed(&before.files, &after.files);
    let reported: HashSet<&str> = files.iter().map(|file| text::stem(&file.name)).collect();
    let changed = changed_files(&before, &after, &reported);
    let roots = graph.node(old).zip(graph.node(new));
    let version = roots.and_then(|(old, new)| version(old, new));
    let settings = roots.map(|(old, new)| settings(old, new, &reported)).unwrap_or_default();
    files.extend(changed);
    files.sort_by(|a, b| (a.change, &a.name).cmp(&(b.change, &b.name)));
    let forecast = forecast(graph, old, new);
    SystemChange { version, settings, packages, rebuilt, files, forecast }
}

fn inventory<'a>(graph: &'a Graph, root: &'a StorePath) -> Inventory<'a> {
    let (mut packages, mut files) = (Packages::new(), FilesByName::new());
    let (mut mentions, mut outputs) = (BTreeMap::<&str, BTreeSet<Key>>::new(), HashSet::new());
    for (path, node) in graph.below(root) {
        let is_root = path == root;
        outputs.extend(&node.outputs);
        if let Some(package) = node.package.as_ref().filter(|_| !is_root) {
            let versions = packages.entry(&package.name).or_default();
            versions.entry(&package.version).or_default().insert(&node.outputs);
            continue;
        }
        let Some(inside) = &node.inside else { continue };
        if !is_root {
            files.entry(&node.name).or_default().insert(FileContent::Written(&inside.text));
            mentions.entry(&node.name).or_default().extend(&inside.mentions);
        }
        for (name, key) in &inside.sources {
            files.entry(name).or_default().insert(FileContent::Source(*key));
        }
    }
    Inventory { packages, files, mentions, outputs }
}

/// The packages whose versions differ, and those that are only rebuilt.
fn packages(before: &Packages<'_>, after: &Packages<'_>) -> (Vec<PackageChange>, Vec<String>) {
    let (none, mut changes, mut rebuilt) = (BTreeMap::new(), Vec::new(), Vec::new());
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    for name in names {
        let (old, new) = (before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none));
        if old.keys().ne(new.keys()) {
            let versions = |of: &BTreeMap<&str, _>| of.keys().map(|version| (*version).to_owned()).collect();
            changes.push(PackageChange::new(name, versions(old), versions(new)));
        }
        let both = old.iter().filter_map(|(version, builds)| Some((version, builds, new.get(version)?)));
        rebuilt.extend(both.filter(|(_, old, new)| old != new).map(|(version, ..)| format!("{name} {version}")));
    }
    // The sort is stable: changes of one kind stay in the order of names.
    changes.sort_by_key(|change| change.change);
    (changes, rebuilt)
}

/// The files that only one of the systems has.
fn added_and_removed(before: &FilesByName<'_>, after: &FilesByName<'_>) -> Vec<FileChange> {
    let alone = |one: &FilesByName<'_>, other: &FilesByName<'_>, change| -> Vec<FileChange> {
        let names = one.keys().filter(|name| !other.contains_key(*name));
        names.map(|name| FileChange { name: (*name).to_owned(), change }).collect()
    };
    let (mut removed, mut added) =
        (alone(before, after, FileChangeKind::Removed), alone(after, before, FileChangeKind::Added));
    // A file with a version in its name, such as `initrd-linux-6.6.40`, was not added or removed: it changed.
    let stems = |files: &[FileChange]| {
        let mut count: HashMap<String, usize> = HashMap::new();
        for file in files {
            *count.entry(text::stem(&file.name).to_owned()).or_default() += 1;
        }
        count
    };
    let (of_removed, of_added) = (stems(&removed), stems(&added));
    let is_one = |count: &HashMap<String, usize>, stem: &str| count.get(stem) == Some(&1);
    let renamed = |file: &FileChange| {
        let stem = text::stem(&file.name);
        stem != file.name && is_one(&of_removed, stem) && is_one(&of_added, stem)
    };
    removed.retain(|file| !renamed(file));
    for file in added.iter_mut().filter(|file| renamed(file)) {
        file.change = FileChangeKind::Changed;
    }
    removed.into_iter().chain(added).collect()
}

/// The files that both systems have and whose content differs. That a file mentions one of `reported` is no difference.
fn changed_files(before: &Inventory<'_>, after: &Inventory<'_>, reported: &HashSet<&str>) -> Vec<FileChange> {
    let both = after.files.iter().filter_map(|(name, new)| Some((*name, before.files.get(name)?, new)));
    let changed = both.filter(|(name, old, new)| {
        let (removed, added) = (old.difference(new).collect::<Vec<_>>(), new.difference(old).collect::<Vec<_>>());
        match (&removed[..], &added[..]) {
            ([], []) => mentions_other_version(name, before, after),
            ([FileContent::Written(old)], [FileContent::Written(new)]) => {
                differing(old, new, reported).next().is_some() || mentions_other_version(name, before, after)
            }
            _ => true,
        }
    });
    changed.map(|(name, ..)| FileChange { name: name.to_owned(), change: FileChangeKind::Changed }).collect()
}

/// Whether the file no longer mentions something that the system still has. The system has two versions of it, and the file
/// uses the other one now; its text without versions does not show that.
fn mentions_other_version(name: &str, before: &Inventory<'_>, after: &Inventory<'_>) -> bool {
    let none = BTreeSet::new();
    let (old, new) = (before.mentions.get(name).unwrap_or(&none), after.mentions.get(name).unwrap_or(&none));
    old.difference(new).any(|key| after.outputs.contains(key))
}

/// The changed settings of the system itself.
fn settings(old: &DerivationNode, new: &DerivationNode, reported: &HashSet<&str>) -> Vec<String> {
    let Some((old, new)) = old.inside.as_ref().zip(new.inside.as_ref()) else { return Vec::new() };
    differing(&old.text, &new.text, reported).map(ToOwned::to_owned).collect()
}

/// The attributes that differ in a line that mentions none of the `reported` files. A folder that gathers units is not
/// changed by a unit that is reported as added. The `text` of a file counts in any case.
fn differing<'a>(
    old: &'a BTreeMap<String, String>,
    new: &'a BTreeMap<String, String>,
    reported: &HashSet<&str>,
) -> impl Iterator<Item = &'a str> {
    let names: BTreeSet<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
    let value = |of: &'a BTreeMap<String, String>, name: &str| of.get(name).map_or("", String::as_str);
    names.into_iter().filter(move |name| {
        let (old, new) = (value(old, name), value(new, name));
        let mut lines: HashMap<&str, i64> = HashMap::new();
        if old != new {
            old.lines().for_each(|line| *lines.entry(line).or_default() -= 1);
            new.lines().for_each(|line| *lines.entry(line).or_default() += 1);
        }
        let mut odd = lines.iter().filter(|(_, count)| **count != 0).map(|(line, _)| line).peekable();
        let reordered = old != new && odd.peek().is_none();
        reordered || odd.any(|line| *name == "text" || !text::names(line).any(|name| reported.contains(name)))
    })
}

/// The change of the system's own version: from its attributes, else from the end of its name.
fn version(old: &DerivationNode, new: &DerivationNode) -> Option<VersionChange> {
    let (from, to) = match (&old.version, &new.version) {
        (Some(from), Some(to)) => (from.clone(), to.clone()),
        _ => differing_ends(&old.name, &new.name)?,
    };
    (from != to).then_some(VersionChange { from, to })
}

/// The ends of two names after the last dash of their common beginning. The name of the machine may have numbers too.
fn differing_ends(old: &str, new: &str) -> Option<(String, String)> {
    let alike = old.char_indices().zip(new.chars()).find(|((_, a), b)| a != b).map_or(old.len(), |((at, _), _)| at);
    let dash = old.get(..alike)?.rfind('-')?;
    let end = |name: &str| {
        let end = name.get(dash + 1..).filter(|end| end.starts_with(|c: char| c.is_ascii_digit()));
        end.map(text::printable)
    };
    Some((end(old)?, end(new)?))
}
