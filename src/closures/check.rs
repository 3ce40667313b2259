//! Compares what is in the file with what it says, and with what its deployments need.

use std::collections::{BTreeMap, BTreeSet};

use super::narinfo::Narinfo;
use super::read::{ClosureBundle, ReadError};
use super::write::hash_with;
use crate::model::{Name, PublicKey, StorePath};

/// What a deployment needs of a bundle.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// Its name.
    pub deployment: Name,
    /// Its store path.
    pub nar_id: StorePath,
    /// The keys of its caches.
    pub keys: Vec<PublicKey>,
}

/// What is wrong with a bundle.
#[derive(Debug, Default)]
pub struct ClosureCheck {
    /// The members that cannot be read, or are damaged.
    pub damaged: Vec<ReadError>,
    /// What the deployments lack.
    pub lacking: Vec<String>,
}

impl ClosureBundle {
    /// Reads everything in it, and compares. `count` hears of each piece that was read, in bytes.
    pub fn check(&self, required: &[Requirement], count: &dyn Fn(usize)) -> ClosureCheck {
        let mut check = ClosureCheck::default();
        let mut entries = BTreeMap::new();
        for (place, carried) in self.manifest().paths.iter().enumerate() {
            match self.narinfo(place) {
                Ok(entry) => drop(entries.insert(&carried.path, entry)),
                Err(error) => check.damaged.push(error),
            }
        }
        for (name, span, hash) in self.all_nars() {
            match hash_with(&mut self.read(span), count) {
                Ok(found) if found == hash => {}
                Ok(_) => check.damaged.push(Self::other_content(&name)),
                Err(error) => check.damaged.push(Self::unreadable(&name, error)),
            }
        }
        let assumed = self.manifest().assumed.iter().collect();
        check.lacking = required.iter().flat_map(|required| lacks(required, &entries, &assumed)).collect();
        check
    }
}

/// What a deployment lacks, where `entries` are carried and its unit is taken to have the paths `assumed`.
fn lacks(
    required: &Requirement,
    entries: &BTreeMap<&StorePath, Narinfo>,
    assumed: &BTreeSet<&StorePath>,
) -> Vec<String> {
    let Requirement { deployment, nar_id, keys } = required;
    let (mut seen, mut open, mut lacking) = (BTreeSet::new(), vec![nar_id], Vec::new());
    while let Some(path) = open.pop() {
        if !seen.insert(path) {
            continue;
        }
        let member = format!("{}.narinfo", path.hash_part());
        match entries.get(path) {
            Some(entry) => {
                if !entry.is_accepted_with(keys) {
                    let signers = entry.signers().join(", ");
                    let by = if signers.is_empty() { "no key".to_owned() } else { signers };
                    lacking.push(format!(
                        "{member}: no key of `{deployment}` signed {path}, which is signed by {by}; sign it with one of its keys"
                    ));
                }
                open.extend(entry.references());
            }
            None if assumed.contains(path) => {}
            None => lacking
                .push(format!("{member}: `{deployment}` needs {path}, which is not in the bundle; make it again")),
        }
    }
    lacking
}
