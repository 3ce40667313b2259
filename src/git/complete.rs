//! Checks that a fetched commit is complete: every tree and file can be read.
//!
//! A fetch can succeed without that. A pack may lack objects that its commits name, or hold one that inflates into more
//! memory than there is, and git notices only when the object is read. So the process that fetched reads everything once,
//! within its own limits.

use std::collections::HashSet;

use gix::ObjectId;
use gix::objs::Kind;

use super::address::CommitId;
use super::objects::{Mode, ObjectReader, ReadError};
use super::repository::Repository;

/// The largest file that is read: 64 MiB, ten times the index of 10,000 units.
const LARGEST_FILE: u64 = 64 << 20;
/// The most commits that are searched for an earlier tip of the branch: one an hour for a year. A hostile branch may have
/// millions, and the search costs the caller's time and memory.
const MOST_LOOKED_AT: usize = 8760;

/// How much of the history has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// The commit alone.
    None,
    /// Every commit back to the first, or to where a shallow repository says that it ends.
    Commits,
}

/// Checks that every tree and blob of `tip` is there and can be read, and as much of its history as is asked for. What `known`, an
/// earlier tip that was checked already, holds too is not looked at again.
pub(super) fn check(
    repository: &gix::Repository,
    tip: CommitId,
    known: Option<CommitId>,
    history: History,
) -> Result<(), ReadError> {
    let mut seen = HashSet::new();
    if let Some(known) = known {
        let reader = ObjectReader { repository, commit: known };
        if let Err(error) = walk(&reader, &mut seen, Visit::TreesOnly) {
            // What was checked once is broken now: nothing of it is taken for granted.
            tracing::warn!(%error, "the last fetched commit cannot be read any more");
            seen.clear();
        }
    }
    walk(&ObjectReader { repository, commit: tip }, &mut seen, Visit::Everything)?;
    match history {
        History::None => Ok(()),
        History::Commits => leads_to(repository, tip, known, usize::MAX).map(drop),
    }
}

/// What a walk looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Trees are read; what they name is taken as seen.
    TreesOnly,
    /// Trees and files are read.
    Everything,
}

fn walk(reader: &ObjectReader<'_>, seen: &mut HashSet<ObjectId>, visit: Visit) -> Result<(), ReadError> {
    let mut folders = vec![(String::new(), reader.root()?)];
    while let Some((path, tree)) = folders.pop() {
        // Each tree once, so that no nest of a few trees unfolds into endless paths.
        if !seen.insert(tree) {
            continue;
        }
        for (name, mode, id) in reader.entries(if path.is_empty() { "/" } else { &path }, tree)? {
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            match mode {
                Mode::Folder => folders.push((below, id)),
                // The commit of another repository is never here.
                Mode::Submodule => {}
                Mode::File | Mode::Executable | Mode::Symlink | Mode::Other(_) => {
                    if seen.insert(id) && visit == Visit::Everything {
                        reader.object(&below, id, Kind::Blob, LARGEST_FILE)?;
                    }
                }
            }
        }
    }
    Ok(())
}

impl Repository {
    /// Whether `tip` was made without `before`, which was at the branch's tip once: its history was rewritten. Where that
    /// cannot be told, since `before` is not here or there are more commits than are looked at, it is not called so.
    pub fn is_without(&self, tip: CommitId, before: CommitId) -> bool {
        let Ok(local) = self.apart() else { return false };
        let is_here = |commit: CommitId| ObjectReader { repository: &local, commit }.parents().is_ok();
        if !is_here(before) {
            return false;
        }
        matches!(leads_to(&local, tip, Some(before), MOST_LOOKED_AT), Ok(Some(false)))
    }
}

/// Checks that the commits before `tip` are here, back to `known`, to the first, or to where a shallow repository says that
/// it ends. Whether `known` is among them; `None` where there are more than `most`.
fn leads_to(
    repository: &gix::Repository,
    tip: CommitId,
    known: Option<CommitId>,
    most: usize,
) -> Result<Option<bool>, ReadError> {
    let boundary = repository.shallow_commits().ok().flatten();
    let ends: HashSet<ObjectId> = boundary.iter().flat_map(|commits| commits.iter().copied()).collect();
    let known = known.map(CommitId::object);
    let (mut seen, mut meets_known) = (HashSet::new(), false);
    let mut commits = vec![tip.object()];
    while let Some(id) = commits.pop() {
        if Some(id) == known {
            meets_known = true;
            continue;
        }
        if !seen.insert(id) {
            continue;
        }
        if seen.len() > most {
            return Ok(None);
        }
        let parents = ObjectReader { repository, commit: id.into() }.parents()?;
        if !ends.contains(&id) {
            commits.extend(parents);
        }
    }
    Ok(Some(meets_known))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, Bench};
    use super::*;

    #[test]
    fn a_branch_that_was_made_anew_is_without_what_was_before() {
        let bench = Bench::new();
        let repository = bench.repository("r.git");
        let first = fixture::put(&repository, None, &[("a.json", "1")]);
        let second = fixture::put(&repository, Some(first), &[("a.json", "2")]);
        let third = fixture::put(&repository, Some(second), &[("a.json", "3")]);
        assert!(!repository.is_without(third, first) && !repository.is_without(first, first));
        fixture::git(&bench.path().join("r.git"), &["update-ref", "-d", "refs/heads/deployments"]);
        let anew = fixture::put(&repository, None, &[("a.json", "3")]);
        assert!(repository.is_without(anew, third) && repository.is_without(first, second));
        // Nobody knows what was before a commit that is not here.
        let gone: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
        assert!(!repository.is_without(anew, gone));
        let local = repository.apart().unwrap();
        assert_eq!(leads_to(&local, third, Some(first), 2).unwrap(), Some(true));
        assert_eq!(leads_to(&local, third, Some(first), 1).unwrap(), None);
    }
}
