//! Reads the index, its bins and the documents of a branch, and verifies them.

use std::collections::BTreeMap;

use super::layout::Layout;
use super::layout_check::{ForeignEntry, LayoutError, check_bin, check_top, foreign_entries};
use crate::git::{Files, ReadError};
use crate::model::{
    Bin, BinCount, BinId, BranchFile as _, BranchName, Deployment, Document, DocumentPath, Epoch, Folder, Hold, Index,
    IndexEntry, Name, Specification, Tombstone,
};
use crate::trust::{BinError, DocumentError, Signed, SignedError, TrustedRoot, Verified, VerifiedBin, verify_document};

/// The reason why a branch cannot be read or verified.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// It has no index, so Clavel did not make it.
    #[error("this is not a branch of Clavel: it has no {}", Layout::INDEX)]
    NoIndex,
    /// The index cannot be verified.
    #[error("the index cannot be trusted")]
    Index(#[source] SignedError),
    /// The index is of another branch.
    #[error("the index is of the branch `{found}`, and this is `{branch}`: the repository shows one branch as another")]
    OtherBranch {
        /// The branch that was read.
        branch: BranchName,
        /// The branch that the index names.
        found: BranchName,
    },
    /// The index was signed in another epoch than that of the root.
    #[error(
        "the index was signed in epoch {found}, and the root is at epoch {epoch}: documents of another epoch do not count"
    )]
    OtherEpoch {
        /// The epoch of the root.
        epoch: Epoch,
        /// The epoch of the index.
        found: Epoch,
    },
    /// A bin of the index cannot be verified.
    #[error(transparent)]
    Bin(#[from] BinError),
    /// A document cannot be verified.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The commit does not have the layout of a branch of Clavel.
    #[error(transparent)]
    Layout(LayoutError),
    /// Git could not read it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl From<LayoutError> for BranchError {
    fn from(error: LayoutError) -> Self {
        match error {
            LayoutError::Read(error) => Self::Read(error),
            error => Self::Layout(error),
        }
    }
}

/// An index that was verified, and those of its bins that were read.
#[derive(Debug, Clone)]
pub struct VerifiedIndex {
    index: Verified<Index>,
    bins: BTreeMap<BinId, VerifiedBin>,
}

/// Whether a reader accepts what does not belong on a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strictness {
    /// It refuses a folder with an entry that does not belong there.
    Strict,
    /// It does not look.
    Lenient,
}

/// The branch at one commit, verified against one root.
#[derive(Debug)]
pub struct Branch<'a, F> {
    files: &'a F,
    root: &'a TrustedRoot,
    name: &'a BranchName,
    strictness: Strictness,
}

impl VerifiedIndex {
    /// The index.
    pub fn index(&self) -> &Verified<Index> {
        &self.index
    }

    /// The layout of the branch.
    pub fn layout(&self) -> Layout {
        Layout::of(self.index.bins.count())
    }

    /// The bins that were read, in their order.
    pub fn bins(&self) -> impl Iterator<Item = &VerifiedBin> {
        self.bins.values()
    }

    /// The names of the documents of one folder that the bins which were read list.
    pub fn names(&self, folder: Folder) -> Vec<Name> {
        let mut names: Vec<Name> =
            self.bins().flat_map(|bin| bin.documents_in(folder.as_str())).map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    }

    /// The entry of a document, if its bin was read.
    pub fn document(&self, path: &DocumentPath) -> Option<&IndexEntry> {
        self.bin_of(path.name())?.document(path)
    }

    /// The tombstone of a document, if its bin was read.
    pub fn tombstone(&self, path: &DocumentPath) -> Option<&Tombstone> {
        self.bin_of(path.name())?.tombstone(path)
    }

    /// The hold of a deployment, if its bin was read.
    pub fn hold(&self, deployment: &Name) -> Option<&Hold> {
        self.bin_of(deployment)?.held.get(deployment)
    }

    /// The holds of the bins that were read.
    pub fn holds(&self) -> impl Iterator<Item = (&Name, &Hold)> {
        self.bins().flat_map(|bin| bin.held.iter())
    }

    /// Verifies that `bytes` are the document at `path`, as its bin lists it. The bin has to have been read.
    pub fn verify<S: Specification>(
        &self,
        path: &DocumentPath,
        bytes: Option<&[u8]>,
        root: &TrustedRoot,
    ) -> Result<Verified<Document<S>>, DocumentError> {
        let Some(bin) = self.bin_of(path.name()) else { return Err(DocumentError::NotListed { path: path.clone() }) };
        verify_document(path, bytes, bin, root)
    }

    fn bin_of(&self, name: &Name) -> Option<&VerifiedBin> {
        self.bins.get(&self.index.bins.count().bin_of(name))
    }
}

impl<'a, F: Files> Branch<'a, F> {
    /// The branch `name` with these files. A folder with an entry that does not belong there is refused.
    pub fn new(files: &'a F, root: &'a TrustedRoot, name: &'a BranchName) -> Self {
        Self { files, root, name, strictness: Strictness::Strict }
    }

    /// The same, for the publisher, who repairs the branch: it ignores entries that do not belong there.
    pub fn to_repair(files: &'a F, root: &'a TrustedRoot, name: &'a BranchName) -> Self {
        Self { files, root, name, strictness: Strictness::Lenient }
    }

    pub(super) fn files(&self) -> &'a F {
        self.files
    }

    pub(super) fn root(&self) -> &'a TrustedRoot {
        self.root
    }

    /// Reads and verifies the index. Its bins are read as they are needed.
    pub fn index(&self) -> Result<VerifiedIndex, BranchError> {
        let bytes = self.files.read(Layout::INDEX, Index::MAX_BYTES)?.ok_or(BranchError::NoIndex)?;
        let index = Signed::<Index>::verify_file(&bytes, self.root.fleet(), self.root.publisher());
        let index = index.map_err(BranchError::Index)?;
        if index.branch != *self.name {
            return Err(BranchError::OtherBranch { branch: self.name.clone(), found: index.branch.clone() });
        }
        let epoch = self.root.root().epoch;
        if index.epoch != epoch {
            return Err(BranchError::OtherEpoch { epoch, found: index.epoch });
        }
        if self.strictness == Strictness::Strict {
            check_top(self.files, &index)?;
        }
        Ok(VerifiedIndex { index, bins: BTreeMap::new() })
    }

    /// Reads and verifies the index with all of its bins.
    pub fn whole_index(&self) -> Result<VerifiedIndex, BranchError> {
        let mut index = self.index()?;
        for bin in index.index.bins.count().bins() {
            self.read_bin(&mut index, bin)?;
        }
        Ok(index)
    }

    /// Reads and verifies a bin of the index, unless it was read before.
    pub fn read_bin(&self, index: &mut VerifiedIndex, bin: BinId) -> Result<(), BranchError> {
        if !index.bins.contains_key(&bin) {
            let bytes = self.files.read(&Layout::bin(bin), Bin::MAX_BYTES)?;
            let verified = VerifiedBin::verify(bin, bytes.as_deref(), &index.index)?;
            if self.strictness == Strictness::Strict {
                check_bin(self.files, &index.index, &verified)?;
            }
            index.bins.insert(bin, verified);
        }
        Ok(())
    }

    /// The entries that do not belong on the branch: at the top, and beside the documents and approvals of the bins that were read.
    pub fn foreign_entries(&self, index: &VerifiedIndex) -> Result<Vec<ForeignEntry>, BranchError> {
        Ok(foreign_entries(self.files, self.root, &index.index, index.bins())?)
    }

    /// Reads and verifies one document, which has to be as its bin of `index` lists it.
    pub fn document<S: Specification>(
        &self,
        index: &mut VerifiedIndex,
        name: &Name,
    ) -> Result<Verified<Document<S>>, BranchError> {
        let path = DocumentPath::new(S::FOLDER, name.clone());
        let bytes = self.read_listed(index, &path)?;
        Ok(index.verify(&path, bytes.as_deref(), self.root)?)
    }

    /// Reads the file of a document, if its bin of `index` lists it. Nothing of it is verified yet.
    pub(super) fn read_listed(
        &self,
        index: &mut VerifiedIndex,
        path: &DocumentPath,
    ) -> Result<Option<Vec<u8>>, BranchError> {
        let bin = index.index.bins.count().bin_of(path.name());
        self.read_bin(index, bin)?;
        if index.document(path).is_none() {
            return Ok(None);
        }
        // All kinds of documents have the same limit.
        Ok(self.files.read(&index.layout().document(path), Deployment::MAX_BYTES)?)
    }
}

/// The file of a document, in whichever layout these files have it; `None` where it is not there. Nothing is verified: whoever
/// wrote the files may have put it there.
pub fn find_document<F: Files>(files: &F, path: &DocumentPath) -> Result<Option<Vec<u8>>, ReadError> {
    for layout in BinCount::every().map(Layout::of) {
        match files.read(&layout.document(path), Deployment::MAX_BYTES) {
            // The path holds something that can be no document.
            Ok(None) | Err(ReadError::TooLarge { .. } | ReadError::Unexpected { .. }) => {}
            found => return found,
        }
    }
    Ok(None)
}
