//! Verifies a document against its bin of the index, which lists the digest of its bytes.

use super::{Signed, SignedError, TrustedRoot, Verified, VerifiedBin};
use crate::model::{Document, DocumentPath, FileDigest, Revision, Sha256Digest, Specification};

/// The reason why a document of the branch is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The index does not list it.
    #[error("{path} is not in the index")]
    NotListed {
        /// The document.
        path: DocumentPath,
    },
    /// The index says that it was withdrawn.
    #[error("{path} was withdrawn after its revision {revision}")]
    Withdrawn {
        /// The document.
        path: DocumentPath,
        /// Its last revision.
        revision: Revision,
    },
    /// The index lists it, and the branch does not have it.
    #[error("{path} is in the index and not on the branch")]
    Absent {
        /// The document.
        path: DocumentPath,
    },
    /// Its bytes are not those that the index lists.
    #[error("{path} is not the file that the index lists (SHA-256 {}… in place of {}…): somebody altered it", found.short(), listed.short())]
    Altered {
        /// The document.
        path: DocumentPath,
        /// The digest that the index lists.
        listed: Sha256Digest,
        /// The digest of the file.
        found: Sha256Digest,
    },
    /// It does not parse, or too few trusted keys signed it.
    #[error("{path} cannot be trusted")]
    Signed {
        /// The document.
        path: DocumentPath,
        /// The reason.
        source: SignedError,
    },
    /// Its content names another document.
    #[error("{path} says that it is {found}")]
    OtherDocument {
        /// The document.
        path: DocumentPath,
        /// The name and the revision that it names.
        found: String,
    },
}

/// Verifies that `bytes` are the document at `path`: that its bin lists them, that enough publishers of `root` signed the
/// document, and that it has the name and the revision that the bin lists.
pub fn verify_document<S: Specification>(
    path: &DocumentPath,
    bytes: Option<&[u8]>,
    bin: &VerifiedBin,
    root: &TrustedRoot,
) -> Result<Verified<Document<S>>, DocumentError> {
    let (folder, name) = (path.folder(), path.name());
    let path = || path.clone();
    let Some(entry) = bin.document(&path()) else {
        return Err(match bin.tombstone(&path()) {
            Some(tombstone) => DocumentError::Withdrawn { path: path(), revision: tombstone.revision },
            None => DocumentError::NotListed { path: path() },
        });
    };
    let bytes = bytes.ok_or_else(|| DocumentError::Absent { path: path() })?;
    let found = FileDigest::of(bytes);
    if found != entry.file() {
        return Err(DocumentError::Altered { path: path(), listed: entry.sha256, found: found.sha256 });
    }
    let signed = |source| DocumentError::Signed { path: path(), source };
    let document = Signed::<Document<S>>::verify_file(bytes, root.fleet(), root.publisher()).map_err(signed)?;
    if folder != S::FOLDER || document.name != *name || document.revision != entry.revision {
        let found = format!("`{}` at revision {}, not revision {}", document.name, document.revision, entry.revision);
        return Err(DocumentError::OtherDocument { path: path(), found });
    }
    Ok(document)
}
