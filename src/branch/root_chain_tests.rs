use std::collections::BTreeMap;

use super::*;
use crate::model::describe_error;
use crate::trust::SecretKey;
use crate::trust::fixture::{Fleet, first_root, key, root_after, signed};

type BranchFiles = BTreeMap<String, Vec<u8>>;

/// A chain of `length` roots by one key, and the files of a branch with all of them.
fn chain(length: usize) -> (Fleet, Vec<TrustedRoot>, BranchFiles) {
    let fleet = Fleet::new();
    let mut roots = vec![fleet.root.clone()];
    while let Some(last) = roots.last().filter(|_| roots.len() < length) {
        let next = signed(root_after(last, &[&fleet.key]), &[&fleet.key]);
        roots.push(last.next(&next).unwrap());
    }
    let mut files: BranchFiles =
        roots.iter().map(|root| (Layout::root(root.root().version), root.file().to_vec())).collect();
    files.insert(Layout::NEWEST_ROOT.to_owned(), roots[length - 1].file().to_vec());
    (fleet, roots, files)
}

fn refusal(files: &BranchFiles, trusted: &TrustedRoot) -> String {
    describe_error(&RootChain::walk(files, trusted).unwrap_err())
}

#[test]
fn the_chain_leads_from_any_root_and_from_the_digest_of_the_first() {
    let (fleet, roots, files) = chain(4);
    for trusted in 0..4 {
        let walked = RootChain::walk(&files, &roots[trusted]).unwrap();
        assert_eq!(walked.newest.root(), roots[3].root());
        assert_eq!(walked.before.len(), 3 - trusted);
    }
    let walked = RootChain::from_anchor(&files, &Anchor::Digest(fleet.id())).unwrap();
    assert_eq!(walked.newest.root().version.get(), 4);
    let other = RootChain::from_anchor(&files, &Anchor::Digest(Fleet::new().id())).unwrap_err();
    assert!(matches!(other, RootsError::Root { source: RootError::OtherFleet { .. }, .. }), "{other}");
}

#[test]
fn a_key_that_was_removed_signs_no_further_root() {
    let (fleet, roots, mut files) = chain(1);
    let new = key("new");
    let second = roots[0].next(&signed(root_after(&roots[0], &[&new]), &[&fleet.key, &new])).unwrap();
    files.insert(Layout::root(second.root().version), second.file().to_vec());
    let by = |keys: &[&SecretKey]| signed(root_after(&second, &[&fleet.key]), keys);
    let third = Layout::root(second.root().version.next().unwrap());
    for file in [by(&[&fleet.key]), by(&[&fleet.key, &key("stranger")])] {
        files.insert(third.clone(), file.clone());
        files.insert(Layout::NEWEST_ROOT.to_owned(), file);
        let refusal = refusal(&files, &roots[0]);
        assert!(
            refusal.contains("roots/3.json cannot be trusted: checked with the keys of the root before it"),
            "{refusal}"
        );
    }
}

#[test]
fn a_gap_a_rollback_and_a_fork_are_refused() {
    let (fleet, roots, files) = chain(3);
    let mut gap = files.clone();
    gap.remove("roots/2.json");
    assert!(refusal(&gap, &roots[0]).contains("of version 3, and lacks roots/2.json"), "{}", refusal(&gap, &roots[0]));
    let (_, _, mut old) = chain(1);
    old.insert(Layout::NEWEST_ROOT.to_owned(), roots[1].file().to_vec());
    assert!(refusal(&old, &roots[2]).contains("went back from version 3 to 2"));
    let mut fork = files.clone();
    let other = Root { expires: "2099-01-01T00:00:00Z".parse().unwrap(), ..roots[2].root().clone() };
    fork.insert(Layout::NEWEST_ROOT.to_owned(), signed(other.clone(), &[&fleet.key]));
    assert!(refusal(&fork, &roots[2]).contains("two roots of version 3"));
    assert!(refusal(&fork, &roots[0]).contains("two roots of version 3"));
    // A file that a stranger signed is no second root.
    fork.insert(Layout::NEWEST_ROOT.to_owned(), signed(other, &[&key("stranger")]));
    let by = |whom: &str| format!("root.json cannot be trusted: checked with the keys of the root {whom}");
    assert!(
        refusal(&fork, &roots[2]).contains(&by("of that version that is trusted")),
        "{}",
        refusal(&fork, &roots[2])
    );
    assert!(refusal(&fork, &roots[0]).contains(&by("before it")), "{}", refusal(&fork, &roots[0]));
    let mut swapped = files.clone();
    swapped.insert("roots/2.json".to_owned(), roots[2].file().to_vec());
    assert!(refusal(&swapped, &roots[0]).contains("it is version 3, where version 2 has to follow"));
    let mut repeated = files;
    repeated.insert("roots/3.json".to_owned(), roots[1].file().to_vec());
    assert!(refusal(&repeated, &roots[0]).contains("it is version 2, where version 3 has to follow"));
    assert!(refusal(&BranchFiles::new(), &roots[0]).contains("not a branch of Clavel"));
}

#[test]
fn a_root_before_the_newest_may_have_expired() {
    let fleet = Fleet::new();
    let expired = Root { expires: "2020-01-01T00:00:00Z".parse().unwrap(), ..root_after(&fleet.root, &[&fleet.key]) };
    let second = fleet.root.next(&signed(expired, &[&fleet.key])).unwrap();
    let third = second.next(&signed(root_after(&second, &[&fleet.key]), &[&fleet.key])).unwrap();
    let files = [("roots/2.json", &second), ("roots/3.json", &third), (Layout::NEWEST_ROOT, &third)];
    let files: BranchFiles = files.into_iter().map(|(path, root)| (path.to_owned(), root.file().to_vec())).collect();
    let walked = RootChain::walk(&files, &fleet.root).unwrap();
    assert!(!walked.newest.is_expired("2026-01-01T00:00:00Z".parse().unwrap()));
}

#[test]
fn a_first_root_of_another_key_is_of_another_fleet() {
    let (_, roots, mut files) = chain(1);
    let thief = key("claveld-1");
    let file = signed(first_root(&[&thief], 1), &[&thief]);
    files.insert(Layout::NEWEST_ROOT.to_owned(), file);
    assert!(refusal(&files, &roots[0]).contains("the branch is of the fleet"));
}

#[test]
fn the_newest_root_is_found_on_a_damaged_branch() {
    let (fleet, roots, mut files) = chain(3);
    files.remove(Layout::NEWEST_ROOT);
    files.insert("roots/4.json".to_owned(), b"{}".to_vec());
    for anchor in [Anchor::Root(Box::new(roots[0].clone())), Anchor::Digest(fleet.id())] {
        let newest = RootChain::newest_from(&files, &anchor).unwrap();
        assert_eq!(newest.root(), roots[2].root());
    }
    files.remove("roots/2.json");
    let newest = RootChain::newest_from(&files, &Anchor::Root(Box::new(roots[0].clone()))).unwrap();
    assert_eq!(newest.root(), roots[0].root());
    files.remove("roots/1.json");
    assert!(RootChain::newest_from(&files, &Anchor::Digest(fleet.id())).is_none());
}
