//! Checks that a fetched commit is complete: every tree and file can be read.
//!
//! A fetch can succeed although its commit is incomplete. A pack may lack objects that its commits name, or contain an
//! object that inflates into more memory than the machine has, and git notices only when it reads the object. So the process
//! that fetched reads everything once, within its own limits.

use std::collections::{HashMap, HashSet};

use gix::ObjectId;
use gix::objs::Kind;

use super::address::CommitId;
use super::objects::{Mode, ObjectReader, ReadError};
use super::repository::Repository;

/// The largest file that is read: 64 MiB, ten times the index of 10,000 units.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The most commits that are searched for an earlier tip of the branch: one an hour for a year. A hostile branch may have
/// millions, and the search costs the caller's time and memory.
const MAX_SEARCHED_COMMITS: usize = 8760;

/// How much of the history is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckedHistory {
    /// The newest commit alone.
    TipOnly,
    /// Every commit back to the first, or to the commits where a shallow repository ends.
    AllCommits,
}

/// Checks that every tree and blob of `tip` exists and can be read, and as much of its history as `history` says. `known` is
/// an earlier tip that was checked already; what it has under the same path is not read again, so the check costs what changed.
pub(super) fn check(
    repository: &gix::Repository,
    tip: CommitId,
    known: Option<CommitId>,
    history: CheckedHistory,
) -> Result<(), ReadError> {
    let reader = ObjectReader { repository, commit: tip };
    let before = known.map(|commit| ObjectReader { repository, commit });
    let known_root = before.as_ref().and_then(|before| before.root().ok());
    walk(&reader, before.as_ref(), known_root)?;
    match history {
        CheckedHistory::TipOnly => Ok(()),
        CheckedHistory::AllCommits => search_history(repository, tip, known, usize::MAX).map(drop),
    }
}

/// Reads the objects of the reader's commit that `before` does not have under the same path. `known` is the root tree of
/// `before`.
fn walk(
    reader: &ObjectReader<'_>,
    before: Option<&ObjectReader<'_>>,
    known: Option<ObjectId>,
) -> Result<(), ReadError> {
    let mut seen = HashSet::new();
    let mut folders = vec![(String::new(), reader.root()?, known)];
    while let Some((path, tree, known)) = folders.pop() {
        // Each tree is read once, so that a few trees that contain each other many times do not make endless paths.
        if known == Some(tree) || !seen.insert(tree) {
            continue;
        }
        let shown = if path.is_empty() { "/" } else { &path };
        // A tree that was complete once and is broken now counts as unknown, so everything below the new one is read.
        let known = known.zip(before).and_then(|(known, before)| before.entries(shown, known).ok()).unwrap_or_default();
        let known: HashMap<_, _> = known.into_iter().map(|(name, _, id)| (name, id)).collect();
        for (name, mode, id) in reader.entries(shown, tree)? {
            let known = known.get(&name).copied();
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            match mode {
                Mode::Folder => folders.push((below, id, known)),
                // It names a commit of another repository, which is never here.
                Mode::Submodule => {}
                Mode::File | Mode::Executable | Mode::Symlink | Mode::Other(_) => {
                    if known != Some(id) && seen.insert(id) {
                        reader.object(&below, id, Kind::Blob, MAX_FILE_BYTES)?;
                    }
                }
            }
        }
    }
    Ok(())
}

impl Repository {
    /// Whether the history of the branch was rewritten: `before` was its tip once, and is not in the history of `tip`. The
    /// answer is no where it is unknown, because `before` is not here or the history is too long to search.
    pub fn was_rewritten(&self, tip: CommitId, before: CommitId) -> bool {
        let Ok(local) = self.separate_handle() else { return false };
        let is_here = |commit: CommitId| ObjectReader { repository: &local, commit }.parents().is_ok();
        if !is_here(before) {
            return false;
        }
        matches!(search_history(&local, tip, Some(before), MAX_SEARCHED_COMMITS), Ok(Some(false)))
    }
}

/// Checks that the commits before `tip` are here, back to `known`, to the first, or to the commits where a shallow repository
/// ends. Returns whether `known` is among them; `None` if there are more than `most`.
fn search_history(
    repository: &gix::Repository,
    tip: CommitId,
    known: Option<CommitId>,
    most: usize,
) -> Result<Option<bool>, ReadError> {
    let boundary = repository.shallow_commits().ok().flatten();
    let ends: HashSet<ObjectId> = boundary.iter().flat_map(|commits| commits.iter().copied()).collect();
    let known = known.map(CommitId::object);
    let (mut seen, mut found_known) = (HashSet::new(), false);
    let mut commits = vec![tip.object()];
    while let Some(id) = commits.pop() {
        if Some(id) == known {
            found_known = true;
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
    Ok(Some(found_known))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{self, TestFolder};
    use super::*;

    #[test]
    fn a_rewritten_branch_is_recognised() {
        let dir = TestFolder::new();
        let repository = dir.repository("r.git");
        let first = fixture::put(&repository, None, &[("a.json", "1")]);
        let second = fixture::put(&repository, Some(first), &[("a.json", "2")]);
        let third = fixture::put(&repository, Some(second), &[("a.json", "3")]);
        assert!(!repository.was_rewritten(third, first) && !repository.was_rewritten(first, first));
        fixture::git(&dir.path().join("r.git"), &["update-ref", "-d", "refs/heads/deployments"]);
        let anew = fixture::put(&repository, None, &[("a.json", "3")]);
        assert!(repository.was_rewritten(anew, third) && repository.was_rewritten(first, second));
        // The history before a commit that is not here is unknown.
        let gone: CommitId = "0123456789012345678901234567890123456789".parse().unwrap();
        assert!(!repository.was_rewritten(anew, gone));
        let local = repository.separate_handle().unwrap();
        assert_eq!(search_history(&local, third, Some(first), 2).unwrap(), Some(true));
        assert_eq!(search_history(&local, third, Some(first), 1).unwrap(), None);
    }
}
