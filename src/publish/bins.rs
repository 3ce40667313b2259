//! The bins of the next index. No I/O: the bins of the branch and the changes of a plan go in.
//!
//! A publication writes the bins of the names that it changes. When the fleet has outgrown its bins, it writes all of them anew,
//! and every document moves to the folder of its new bin.

use std::collections::{BTreeMap, BTreeSet};

use super::branch_state::BranchState;
use super::plan::Plan;
use super::settled::Scope;
use crate::branch::VerifiedIndex;
use crate::model::{
    Bin, BinCount, BinDigests, BinId, BranchFile as _, DocumentPath, FileDigest, Folder, FolderName, Hold, IndexEntry,
    Invalid, Kind, Map, Name, Schema, Tombstone, json,
};

/// The bins of the next index.
pub(super) struct NextBins {
    /// The digest of each of them.
    pub(super) digests: BinDigests,
    /// The files of those that differ from the branch.
    pub(super) written: Vec<(BinId, Vec<u8>)>,
    /// The folders of documents.
    pub(super) folders: BTreeSet<FolderName>,
    /// How many names they have together.
    pub(super) names: usize,
    /// The documents that stay as they are, and move because the number of bins changes: the folder and the name of each.
    pub(super) moved: Vec<(FolderName, Name)>,
}

/// The names of one bin while it is put together. The plan has all holds, so those of the branch are not taken over.
#[derive(Default, Clone)]
struct BinContent {
    documents: BTreeMap<FolderName, BTreeMap<Name, IndexEntry>>,
    held: BTreeMap<Name, Hold>,
    tombstones: BTreeMap<FolderName, BTreeMap<Name, Tombstone>>,
}

impl BinContent {
    fn add(&mut self, bin: &Bin) {
        for (folder, names) in &bin.documents {
            let entries = names.iter().map(|(name, entry)| (name.clone(), *entry));
            self.documents.entry(folder.clone()).or_default().extend(entries);
        }
        for (folder, names) in &bin.tombstones {
            let entries = names.iter().map(|(name, tombstone)| (name.clone(), *tombstone));
            self.tombstones.entry(folder.clone()).or_default().extend(entries);
        }
    }

    fn put(&mut self, path: &DocumentPath, entry: Option<IndexEntry>, tombstone: Option<Tombstone>) {
        let folder = FolderName::from(path.folder());
        replace(self.documents.entry(folder.clone()).or_default(), path.name(), entry);
        replace(self.tombstones.entry(folder).or_default(), path.name(), tombstone);
    }

    fn into_bin(self) -> Result<Bin, Invalid> {
        fn by_folder<T, const MAX: usize, const FOLDERS: usize>(
            all: BTreeMap<FolderName, BTreeMap<Name, T>>,
        ) -> Result<Map<FolderName, Map<Name, T, MAX>, FOLDERS>, Invalid> {
            let all = all.into_iter().filter(|(_, names)| !names.is_empty());
            let folders = all.map(|(folder, names)| Ok((folder, names.into_iter().collect::<Vec<_>>().try_into()?)));
            folders.collect::<Result<Vec<_>, Invalid>>()?.try_into()
        }
        Ok(Bin {
            documents: by_folder(self.documents)?,
            held: self.held.into_iter().collect::<Vec<_>>().try_into()?,
            kind: Kind::THIS,
            schema: Schema::V1,
            tombstones: by_folder(self.tombstones)?,
        })
    }
}

fn replace<T>(names: &mut BTreeMap<Name, T>, name: &Name, value: Option<T>) {
    match value {
        Some(value) => drop(names.insert(name.clone(), value)),
        None => drop(names.remove(name)),
    }
}

/// The reason why there are no next bins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BinsError {
    /// The number of bins changes, and not all of them were read.
    #[error("the number of bins changes, so all of them have to be read")]
    NeedsAll,
    /// They would exceed a limit.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// The number of names on the branch: all bins were read, or a round before counted them.
pub(super) fn names_on(branch: &BranchState, scope: &Scope) -> usize {
    match scope {
        Scope::Bins(_, names) => *names,
        Scope::All => branch.index.as_ref().map_or(0, |(index, _)| index.bins().map(|bin| bin.names().count()).sum()),
    }
}

/// The bins after `plan`, which writes the documents `written`. `before` is how many bins the branch has, and `scope` which of them
/// were read.
pub(super) fn next_bins(
    plan: &Plan,
    branch: &BranchState,
    before: BinCount,
    scope: &Scope,
    written: &BTreeMap<DocumentPath, IndexEntry>,
) -> Result<NextBins, BinsError> {
    let on_branch = names_on(branch, scope);
    let mut count = before.for_entries(on_branch + plan.changes.len());
    loop {
        if count != before && !scope.is_all() {
            return Err(BinsError::NeedsAll);
        }
        let next = Builder { plan, branch, written, count, on_branch }.build(before == count);
        match (next, count.next()) {
            (Ok(next), _) if next.written.iter().all(|(_, file)| file.len() as u64 <= Bin::MAX_BYTES) => {
                return Ok(next);
            }
            (Ok(_) | Err(_), Some(higher)) => count = higher,
            (Ok(_), None) => {
                let why = format!("a bin may have at most {} bytes, and an index 4096 bins", Bin::MAX_BYTES);
                let what = "an index that can be published";
                return Err(Invalid::new(what, &format!("{on_branch} documents"), why).into());
            }
            (Err(error), None) => return Err(error.into()),
        }
    }
}

struct Builder<'a> {
    plan: &'a Plan,
    branch: &'a BranchState,
    written: &'a BTreeMap<DocumentPath, IndexEntry>,
    count: BinCount,
    /// How many names there are on the branch.
    on_branch: usize,
}

impl Builder<'_> {
    fn build(&self, keeps_count: bool) -> Result<NextBins, Invalid> {
        let known = self.index();
        let touched: BTreeSet<BinId> = if keeps_count && known.is_some() {
            self.changed_names().map(|name| self.count.bin_of(name)).collect()
        } else {
            self.count.bins().collect()
        };
        let mut contents: BTreeMap<BinId, BinContent> =
            touched.into_iter().map(|bin| (bin, BinContent::default())).collect();
        let changed: BTreeSet<(&str, &Name)> =
            self.plan.changes.iter().map(|change| (change.path.folder().as_str(), change.path.name())).collect();
        let mut moved = Vec::new();
        for bin in known.into_iter().flat_map(VerifiedIndex::bins) {
            if keeps_count {
                contents.entry(bin.id()).and_modify(|content| content.add(bin));
            } else {
                moved.extend(self.spread(bin, &changed, &mut contents));
            }
        }
        for change in &self.plan.changes {
            let content = contents.entry(self.count.bin_of(change.path.name())).or_default();
            content.put(&change.path, self.written.get(&change.path).copied(), change.tombstone());
        }
        for (name, hold) in &self.plan.holds {
            if let Some(content) = contents.get_mut(&self.count.bin_of(name)) {
                content.held.insert(name.clone(), hold.clone());
            }
        }
        let (mut written, mut names) =
            (Vec::with_capacity(contents.len()), if keeps_count { self.on_branch } else { 0 });
        for (bin, content) in contents {
            let content = content.into_bin()?;
            let before = known.filter(|_| keeps_count).and_then(|index| index.bins().find(|known| known.id() == bin));
            names = (names + content.names().count()).saturating_sub(before.map_or(0, |bin| bin.names().count()));
            written.push((bin, json::render(&content)));
        }
        let new: BTreeMap<BinId, FileDigest> = written.iter().map(|(bin, file)| (*bin, FileDigest::of(file))).collect();
        let kept = |bin| known.and_then(|index| index.index().bins.get(bin)).copied();
        // Every bin was written, or the branch has it.
        let digests = BinDigests::of(self.count, |bin| {
            new.get(&bin).copied().or_else(|| kept(bin)).unwrap_or_else(|| FileDigest::of(&[]))
        });
        let before = known.into_iter().flat_map(|index| index.index().folders.iter().cloned());
        let folders = Folder::ALL.into_iter().map(FolderName::from).chain(before).collect();
        Ok(NextBins { digests, written, folders, names, moved })
    }

    /// The index on the branch.
    fn index(&self) -> Option<&VerifiedIndex> {
        self.branch.index.as_ref().map(|(index, _)| index)
    }

    /// Spreads a bin of another count over those of this one. Returns the documents in it that stay as they are.
    fn spread(
        &self,
        bin: &Bin,
        changed: &BTreeSet<(&str, &Name)>,
        contents: &mut BTreeMap<BinId, BinContent>,
    ) -> Vec<(FolderName, Name)> {
        let mut moved = Vec::new();
        for (folder, names) in &bin.documents {
            for (name, entry) in names {
                if !changed.contains(&(folder.as_str(), name)) {
                    moved.push((folder.clone(), name.clone()));
                }
                let content = contents.entry(self.count.bin_of(name)).or_default();
                content.documents.entry(folder.clone()).or_default().insert(name.clone(), *entry);
            }
        }
        for (folder, names) in &bin.tombstones {
            for (name, tombstone) in names {
                let content = contents.entry(self.count.bin_of(name)).or_default();
                content.tombstones.entry(folder.clone()).or_default().insert(name.clone(), *tombstone);
            }
        }
        moved
    }

    /// The names whose entries or holds differ from those on the branch.
    fn changed_names(&self) -> impl Iterator<Item = &Name> {
        let index = self.index();
        let held = index.into_iter().flat_map(VerifiedIndex::holds);
        let released = held.map(|(name, _)| name).filter(|name| !self.plan.holds.contains_key(*name));
        let is_on_branch = move |name: &Name, hold: &Hold| index.and_then(|index| index.hold(name)) == Some(hold);
        let new = self.plan.holds.iter().filter(move |(name, hold)| !is_on_branch(name, hold)).map(|(name, _)| name);
        self.plan.changes.iter().map(|change| change.path.name()).chain(released).chain(new)
    }
}
