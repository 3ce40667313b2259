//! The order of store paths: each after those that it refers to. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::StorePath;

/// A path that cannot be put in order: it needs itself by way of others, or a path that is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot put {0} in an order: what it refers to is not all there, or refers back to it; run `nix-store --verify`"
)]
pub struct UnorderedPath(StorePath);

/// The paths in the order of their references, and otherwise sorted, so that the same paths have the same order each time.
pub fn in_order_of_references<'a>(
    references: &BTreeMap<&'a StorePath, &'a [StorePath]>,
) -> Result<Vec<&'a StorePath>, UnorderedPath> {
    let (mut ordered, mut done) = (Vec::new(), BTreeSet::new());
    for first in references.keys() {
        // What is open, each with the references that are still to be looked at. A closure may be too deep for recursion.
        let mut open = Vec::new();
        let mut is_open = BTreeSet::new();
        let mut next = Some(*first);
        loop {
            if let Some(path) = next.take()
                && !done.contains(path)
            {
                let (path, all) = references.get_key_value(path).ok_or_else(|| UnorderedPath(path.clone()))?;
                if !is_open.insert(*path) {
                    return Err(UnorderedPath((*path).clone()));
                }
                open.push((*path, all.iter()));
            }
            let Some((path, rest)) = open.last_mut() else { break };
            next = rest.find(|reference| *reference != *path);
            if next.is_none() {
                done.insert(*path);
                ordered.push(*path);
                open.pop();
            }
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(letter: char) -> StorePath {
        format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{letter}").parse().unwrap()
    }

    fn order(references: &[(char, &str)]) -> Result<String, UnorderedPath> {
        let all: BTreeMap<StorePath, Vec<StorePath>> =
            references.iter().map(|(of, to)| (path(*of), to.chars().map(path).collect())).collect();
        let borrowed = all.iter().map(|(path, to)| (path, to.as_slice())).collect();
        Ok(in_order_of_references(&borrowed)?.into_iter().map(StorePath::name).collect())
    }

    #[test]
    fn a_path_comes_after_all_that_it_refers_to() {
        assert_eq!(order(&[('a', "bc"), ('b', "d"), ('c', "db"), ('d', "d"), ('e', "")]), Ok("dbcae".to_owned()));
        assert_eq!(order(&[('a', "a")]), Ok("a".to_owned()));
        assert_eq!(order(&[('a', "b"), ('b', "a")]), Err(UnorderedPath(path('a'))));
        assert_eq!(order(&[('a', "b")]), Err(UnorderedPath(path('b'))));
    }
}
