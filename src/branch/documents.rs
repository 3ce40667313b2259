//! Reads the index and the documents of a branch, and verifies them.

use super::layout::Layout;
use super::layout_check::LayoutError;
use crate::git::{Files, ReadError};
use crate::model::{
    BranchName, Document, DocumentPath, Epoch, Folder, Index, Name, Payload, Revision, Sha256Digest, Specification,
};
use crate::trust::{DocumentError, Signed, SignedError, TrustedRoot, Verified, verify_document};

/// The reason why a branch cannot be read or verified.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// It has no index, so Clavel did not make it.
    #[error("this is not a branch of Clavel: it has no {}", Layout::Flat.index())]
    NoIndex,
    /// The index cannot be verified.
    #[error("the index cannot be trusted: {0}")]
    Index(SignedError),
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

/// An index that was verified, with the digest of its content.
#[derive(Debug, Clone)]
pub struct VerifiedIndex {
    /// The index.
    pub index: Verified<Index>,
    /// The digest of the content without the signatures. Anybody can add a signature that does not count, and the index stays
    /// the same.
    pub content: Sha256Digest,
}

/// The branch at one commit, verified against one root.
#[derive(Debug)]
pub struct Branch<'a, F> {
    files: &'a F,
    root: &'a TrustedRoot,
    name: &'a BranchName,
}

impl VerifiedIndex {
    /// The names of all documents that it lists in one folder.
    pub fn names(&self, folder: Folder) -> Vec<Name> {
        let listed = self.index.documents.iter().map(|(path, _)| path);
        listed.filter(|path| path.folder() == folder).map(|path| path.name().clone()).collect()
    }

    /// The revision that it lists for a document.
    pub fn revision(&self, path: &DocumentPath) -> Option<Revision> {
        self.index.documents.get(path).map(|entry| entry.revision)
    }
}

impl<'a, F: Files> Branch<'a, F> {
    /// The branch `name` with these files.
    pub fn new(files: &'a F, root: &'a TrustedRoot, name: &'a BranchName) -> Self {
        Self { files, root, name }
    }

    pub(super) fn files(&self) -> &'a F {
        self.files
    }

    pub(super) fn root(&self) -> &'a TrustedRoot {
        self.root
    }

    /// Reads and verifies the index.
    pub fn index(&self) -> Result<VerifiedIndex, BranchError> {
        let bytes = self.files.read(Layout::Flat.index(), Index::LARGEST)?.ok_or(BranchError::NoIndex)?;
        let index = Signed::<Index>::verify_file_with_content(bytes, self.root.fleet(), self.root.publisher());
        let (index, content) = index.map_err(BranchError::Index)?;
        if index.branch != *self.name {
            return Err(BranchError::OtherBranch { branch: self.name.clone(), found: index.branch.clone() });
        }
        let epoch = self.root.root().epoch;
        if index.epoch != epoch {
            return Err(BranchError::OtherEpoch { epoch, found: index.epoch });
        }
        Ok(VerifiedIndex { index, content })
    }

    /// Reads and verifies one document, which has to be as `index` lists it.
    pub fn document<S: Specification>(
        &self,
        index: &VerifiedIndex,
        name: &Name,
    ) -> Result<Verified<Document<S>>, BranchError> {
        let path = DocumentPath::new(S::FOLDER, name.clone());
        let listed = index.index.documents.get(&path).is_some();
        let bytes = if listed { self.files.read(&Layout::Flat.document(&path), Document::<S>::LARGEST)? } else { None };
        Ok(verify_document(&path, bytes, &index.index, self.root)?)
    }
}
