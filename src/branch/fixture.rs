//! Indexes with their bins, for tests.

use std::collections::BTreeMap;

use super::layout::Layout;
use crate::model::{
    Bin, BinCount, BinDigests, BinId, DocumentPath, Epoch, FileDigest, Folder, FolderName, Hold, Index, IndexEntry,
    IndexVersion, Kind, List, Map, Name, Schema, Timestamp, Tombstone, json,
};
use crate::trust::Signed;
use crate::trust::fixture::Fleet;

/// What an index lists.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) count: BinCount,
    pub(crate) documents: BTreeMap<DocumentPath, IndexEntry>,
    pub(crate) tombstones: BTreeMap<DocumentPath, Tombstone>,
    pub(crate) held: BTreeMap<Name, Hold>,
}

impl Listing {
    /// An index with so many bins, and nothing in them.
    pub(crate) fn empty(count: BinCount) -> Self {
        Self { count, documents: BTreeMap::new(), tombstones: BTreeMap::new(), held: BTreeMap::new() }
    }

    /// The files of the bins.
    pub(crate) fn bins(&self) -> BTreeMap<BinId, Vec<u8>> {
        self.count.bins().map(|bin| (bin, json::render(&self.bin(bin)))).collect()
    }

    /// One of the bins.
    pub(crate) fn bin(&self, bin: BinId) -> Bin {
        let mut content = Bin::empty();
        content.documents = self.by_folder(bin, &self.documents);
        content.tombstones = self.by_folder(bin, &self.tombstones);
        for (name, hold) in self.held.iter().filter(|(name, _)| self.count.bin_of(name) == bin) {
            content.held.insert(name.clone(), hold.clone()).unwrap();
        }
        content
    }

    fn by_folder<T: Clone, const MAX: usize, const FOLDERS: usize>(
        &self,
        bin: BinId,
        all: &BTreeMap<DocumentPath, T>,
    ) -> Map<FolderName, Map<Name, T, MAX>, FOLDERS> {
        let mut folders = Map::default();
        for folder in Folder::ALL {
            let here = all.iter().filter(|(path, _)| path.folder() == folder && self.count.bin_of(path.name()) == bin);
            let names: Vec<(Name, T)> = here.map(|(path, value)| (path.name().clone(), value.clone())).collect();
            if !names.is_empty() {
                folders.insert(folder.into(), names.try_into().unwrap()).unwrap();
            }
        }
        folders
    }
}

/// An index of `fleet` with the bins of `listing`, issued `now` and valid for an hour.
pub(crate) fn index(fleet: &Fleet, listing: &Listing, now: Timestamp, version: IndexVersion) -> Index {
    let bins = listing.bins();
    Index {
        bins: BinDigests::of(listing.count, |bin| FileDigest::of(&bins[&bin])),
        branch: "deployments".parse().unwrap(),
        epoch: Epoch::FIRST,
        expires: now.plus(std::time::Duration::from_hours(1)),
        fleet: fleet.id(),
        folders: Folder::ALL.map(FolderName::from).to_vec().try_into().unwrap_or_else(|_| List::default()),
        issued: now,
        kind: Kind::THIS,
        previous: None,
        schema: Schema::V1,
        sources: List::default(),
        version,
    }
}

/// The files of `index` and of the bins of `listing`.
pub(crate) fn index_files(fleet: &Fleet, listing: &Listing, index: Index) -> BTreeMap<String, Vec<u8>> {
    let bins = listing.bins().into_iter().map(|(bin, file)| (Layout::bin(bin), file));
    bins.chain([(Layout::INDEX.to_owned(), Signed::sign(index, &fleet.key).render())]).collect()
}
