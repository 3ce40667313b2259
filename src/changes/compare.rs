//! Two systems of one graph, compared. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::derivation::Node;
use super::graph::Graph;
use super::system::{FileChange, FileFate, PackageChange, SystemChange, VersionChange};
use super::text::{self, Key};
use crate::model::StorePath;

/// What tells one build of a package from another.
type Build<'a> = &'a [Key];
/// The packages of a system: by name and version, the builds.
type Packages<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<Build<'a>>>>;
/// The files of a system: by name, what stands in them.
type Files<'a> = BTreeMap<&'a str, BTreeSet<Content<'a>>>;

/// What stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Content<'a> {
    /// Nix writes it: its attributes.
    Written(&'a BTreeMap<String, String>),
    /// It came into the store as it is.
    Source(Key),
}

/// What a system is made of.
struct Inventory<'a> {
    packages: Packages<'a>,
    files: Files<'a>,
    /// What is mentioned by the files of a name.
    mentions: BTreeMap<&'a str, BTreeSet<Key>>,
    /// What everything in it makes.
    outputs: HashSet<Key>,
}

/// What differs between the systems at `old` and `new`, both of which `graph` has read.
pub(super) fn compare(graph: &Graph, old: &StorePath, new: &StorePath) -> SystemChange {
    let (before, after) = (inventory(graph, old), inventory(graph, new));
    let (packages, rebuilt) = packages(&before.packages, &after.packages);
    let mut files = come_and_gone(&before.files, &after.files);
    let told: HashSet<&str> = files.iter().map(|file| text::stem(&file.name)).collect();
    let changed = changed_files(&before, &after, &told);
    let roots = graph.node(old).zip(graph.node(new));
    let version = roots.and_then(|(old, new)| version(old, new));
    let settings = roots.map(|(old, new)| settings(old, new, &told)).unwrap_or_default();
    files.extend(changed);
    files.sort_by(|a, b| (a.change, &a.name).cmp(&(b.change, &b.name)));
    SystemChange { version, settings, packages, rebuilt, files }
}

fn inventory<'a>(graph: &'a Graph, root: &'a StorePath) -> Inventory<'a> {
    let (mut packages, mut files) = (Packages::new(), Files::new());
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
            files.entry(&node.name).or_default().insert(Content::Written(&inside.text));
            mentions.entry(&node.name).or_default().extend(&inside.mentions);
        }
        for (name, key) in &inside.sources {
            files.entry(name).or_default().insert(Content::Source(*key));
        }
    }
    Inventory { packages, files, mentions, outputs }
}

/// The packages whose versions differ, and those that are only built anew.
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
    // Stable: among their kind they stay in the order of their names.
    changes.sort_by_key(|change| change.change);
    (changes, rebuilt)
}

/// The files that are on one side alone.
fn come_and_gone(before: &Files<'_>, after: &Files<'_>) -> Vec<FileChange> {
    let alone = |one: &Files<'_>, other: &Files<'_>, change| -> Vec<FileChange> {
        let names = one.keys().filter(|name| !other.contains_key(*name));
        names.map(|name| FileChange { name: (*name).to_owned(), change }).collect()
    };
    let (mut gone, mut come) = (alone(before, after, FileFate::Removed), alone(after, before, FileFate::Added));
    // One whose name has a version in it, such as `initrd-linux-6.6.40`, did not come or go: it changed with its name.
    let stems = |files: &[FileChange]| {
        let mut count: HashMap<String, usize> = HashMap::new();
        for file in files {
            *count.entry(text::stem(&file.name).to_owned()).or_default() += 1;
        }
        count
    };
    let (of_gone, of_come) = (stems(&gone), stems(&come));
    let is_one = |count: &HashMap<String, usize>, stem: &str| count.get(stem) == Some(&1);
    let renamed = |file: &FileChange| {
        let stem = text::stem(&file.name);
        stem != file.name && is_one(&of_gone, stem) && is_one(&of_come, stem)
    };
    gone.retain(|file| !renamed(file));
    for file in come.iter_mut().filter(|file| renamed(file)) {
        file.change = FileFate::Changed;
    }
    gone.into_iter().chain(come).collect()
}

/// The files that both sides have, and that hold something else: more than that they mention one of `told`.
fn changed_files(before: &Inventory<'_>, after: &Inventory<'_>, told: &HashSet<&str>) -> Vec<FileChange> {
    let both = after.files.iter().filter_map(|(name, new)| Some((*name, before.files.get(name)?, new)));
    let changed = both.filter(|(name, old, new)| {
        let (gone, come) = (old.difference(new).collect::<Vec<_>>(), new.difference(old).collect::<Vec<_>>());
        match (&gone[..], &come[..]) {
            ([], []) => turned_away(name, before, after),
            ([Content::Written(old)], [Content::Written(new)]) => {
                differing(old, new, told).next().is_some() || turned_away(name, before, after)
            }
            _ => true,
        }
    });
    changed.map(|(name, ..)| FileChange { name: name.to_owned(), change: FileFate::Changed }).collect()
}

/// Whether the file mentions something no more that is there as before: of two versions that are both there, it turned from
/// one to the other, which its text without versions does not show.
fn turned_away(name: &str, before: &Inventory<'_>, after: &Inventory<'_>) -> bool {
    let none = BTreeSet::new();
    let (old, new) = (before.mentions.get(name).unwrap_or(&none), after.mentions.get(name).unwrap_or(&none));
    old.difference(new).any(|key| after.outputs.contains(key))
}

/// The settings of the system itself that differ.
fn settings(old: &Node, new: &Node, told: &HashSet<&str>) -> Vec<String> {
    let Some((old, new)) = old.inside.as_ref().zip(new.inside.as_ref()) else { return Vec::new() };
    differing(&old.text, &new.text, told).map(ToOwned::to_owned).collect()
}

/// The attributes that differ in a line that mentions none of the files that are told anyhow: that another unit was added
/// is no news of the folder that gathers them. What a file says itself is news, whatever it mentions.
fn differing<'a>(
    old: &'a BTreeMap<String, String>,
    new: &'a BTreeMap<String, String>,
    told: &HashSet<&str>,
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
        reordered || odd.any(|line| *name == "text" || !text::names(line).any(|name| told.contains(name)))
    })
}

/// The version of the system itself: what it says, else how its name ends.
fn version(old: &Node, new: &Node) -> Option<VersionChange> {
    let (from, to) = match (&old.version, &new.version) {
        (Some(from), Some(to)) => (from.clone(), to.clone()),
        _ => ends(&old.name, &new.name)?,
    };
    (from != to).then_some(VersionChange { from, to })
}

/// What two names end in, from the last dash of what they begin with alike: the machine's name may hold numbers too.
fn ends(old: &str, new: &str) -> Option<(String, String)> {
    let alike = old.char_indices().zip(new.chars()).find(|((_, a), b)| a != b).map_or(old.len(), |((at, _), _)| at);
    let dash = old.get(..alike)?.rfind('-')?;
    let end = |name: &str| {
        let end = name.get(dash + 1..).filter(|end| end.starts_with(|c: char| c.is_ascii_digit()));
        end.map(text::shown)
    };
    Some((end(old)?, end(new)?))
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
