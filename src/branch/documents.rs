//! Reads the index and the documents of a branch, and verifies them.

use super::layout::Layout;
use super::layout_check::LayoutError;
use crate::git::{Files, ReadError};
use crate::model::{
    BranchName, Document, DocumentPath, Epoch, Folder, Index, Name, Payload, Revision, Sha256Digest, Specification,
};
use crate::trust::{DocumentError, Signed, SignedError, TrustedRoot, Verified, verify_document};

/// The reason why a branch cannot be read or is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// It has no index, so Clavel did not make it.
    #[error("this is not a branch of Clavel: it has no {}", Layout::Flat.index())]
    NotClavels,
    /// The index is not to be believed.
    #[error("the index is not to be believed: {0}")]
    Index(SignedError),
    /// The index is of another branch.
    #[error("the index is of the branch `{found}`, and this is `{branch}`: somebody passes one branch off as another")]
    OtherBranch {
        /// The branch that was asked for.
        branch: BranchName,
        /// The branch that it is of.
        found: BranchName,
    },
    /// The index was signed under another epoch than the root's.
    #[error(
        "the index was signed in epoch {found}, and the root is at epoch {epoch}: what was signed in another epoch counts \
         no more"
    )]
    OtherEpoch {
        /// The root's.
        epoch: Epoch,
        /// The index's.
        found: Epoch,
    },
    /// A document is not to be believed.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It holds something that does not belong there.
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

/// An index that was verified, with the digest of what it says.
#[derive(Debug, Clone)]
pub struct VerifiedIndex {
    /// What it says.
    pub index: Verified<Index>,
    /// The digest of what it says, whoever signed it: a signature more, which takes no key, makes no other index.
    pub content: Sha256Digest,
}

/// The branch at one commit, read by somebody who believes one root.
#[derive(Debug)]
pub struct Branch<'a, F> {
    files: &'a F,
    root: &'a TrustedRoot,
    name: &'a BranchName,
}

impl VerifiedIndex {
    /// The names of all documents in one folder.
    pub fn names(&self, folder: Folder) -> Vec<Name> {
        let listed = self.index.documents.iter().map(|(path, _)| path);
        listed.filter(|path| path.folder() == folder).map(|path| path.name().clone()).collect()
    }

    /// The revision that is listed for a document.
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

    /// Its index.
    pub fn index(&self) -> Result<VerifiedIndex, BranchError> {
        let bytes = self.files.read(Layout::Flat.index(), Index::LARGEST)?.ok_or(BranchError::NotClavels)?;
        let index = Signed::<Index>::believe_with_content(bytes, self.root.fleet(), self.root.publisher());
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

    /// One of its documents, as `index` lists it.
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
