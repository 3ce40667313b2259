//! What differs between two closures, by the names of their store paths alone. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::system::PackageChange;
use super::version::split_numbered;
use crate::model::StorePath;

/// What differs between two closures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClosureChange {
    /// The packages whose versions differ.
    pub packages: Vec<PackageChange>,
    /// How many store paths come that have the same name as one that goes.
    pub rebuilt: usize,
}

/// Compares two closures. A path without a version in its name is a file of a system, and counts as rebuilt at most.
pub fn compare_closures<'a>(
    old: impl Iterator<Item = &'a StorePath>,
    new: impl Iterator<Item = &'a StorePath>,
) -> ClosureChange {
    let (old, new): (BTreeSet<&StorePath>, BTreeSet<&StorePath>) = (old.collect(), new.collect());
    let (before, after) = (packages(&old), packages(&new));
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).copied().collect();
    let none = BTreeSet::new();
    let change = |name: &str| {
        let (from, to) = (before.get(name).unwrap_or(&none), after.get(name).unwrap_or(&none));
        let owned = |versions: &BTreeSet<&str>| versions.iter().map(ToString::to_string).collect();
        (from != to).then(|| PackageChange::new(name, owned(from), owned(to)))
    };
    let gone: BTreeSet<&str> = old.difference(&new).map(|path| path.name()).collect();
    let rebuilt = new.difference(&old).filter(|path| gone.contains(path.name())).count();
    ClosureChange { packages: names.into_iter().filter_map(change).collect(), rebuilt }
}

/// The versions of each package.
fn packages<'a>(paths: &BTreeSet<&'a StorePath>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut packages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in
        paths.iter().map(|path| split_numbered(path.name())).filter(|(_, version)| !version.is_empty())
    {
        packages.entry(name).or_default().insert(version);
    }
    packages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_and_rebuilt_paths_are_told_apart() {
        let path = |hash: char, name: &str| -> StorePath {
            format!("/nix/store/{}-{name}", hash.to_string().repeat(32)).parse().unwrap()
        };
        let old = [path('a', "nginx-1.24.0"), path('a', "etc"), path('a', "zlib-1.3"), path('a', "less-608")];
        let new = [path('b', "nginx-1.26.1"), path('b', "etc"), path('b', "zlib-1.3"), path('b', "htop-3.3")];
        let change = compare_closures(old.iter(), new.iter());
        let lines: Vec<String> = change.packages.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["htop 3.3 added", "less 608 removed", "nginx 1.24.0 → 1.26.1"]);
        assert_eq!(change.rebuilt, 2);
        assert_eq!(compare_closures(new.iter(), new.iter()), ClosureChange::default());
    }
}
