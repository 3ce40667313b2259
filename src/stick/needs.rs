//! Which store paths a bundle may leave out. No I/O.

use std::collections::BTreeSet;

use crate::model::StorePath;

/// The paths that every machine which needs them has. Each machine comes with what it needs and what it has; a path that no machine
/// needs stays in the bundle.
pub fn left_out<'a>(
    machines: impl Iterator<Item = (BTreeSet<&'a StorePath>, BTreeSet<&'a StorePath>)>,
) -> BTreeSet<StorePath> {
    let (mut had, mut lacked) = (BTreeSet::new(), BTreeSet::new());
    for (needs, has) in machines {
        for path in needs {
            if has.contains(path) {
                had.insert(path)
            } else {
                lacked.insert(path)
            };
        }
    }
    had.difference(&lacked).map(|path| (*path).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_left_out_if_each_machine_that_needs_it_has_it() {
        let all: Vec<StorePath> = "abcd"
            .chars()
            .map(|name| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap())
            .collect();
        let of = |names: &str| all.iter().filter(|path| names.contains(path.name())).collect::<BTreeSet<_>>();
        let names = |machines: &[(&str, &str)]| {
            let machines = machines.iter().map(|(needs, has)| (of(needs), of(has)));
            left_out(machines).iter().map(StorePath::name).collect::<String>()
        };
        assert_eq!(names(&[("ab", "ab"), ("bc", "c")]), "ac");
        // What a machine has and does not need tells nothing about one that needs it.
        assert_eq!(names(&[("a", "abcd"), ("b", "")]), "a");
        assert_eq!(names(&[("ab", ""), ("ab", "ab")]), "");
        assert_eq!(names(&[]), "");
    }
}
