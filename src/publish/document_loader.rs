//! Loads the documents that an index lists: it verifies the signer of each, and looks in the history for the documents that
//! somebody altered on the branch.

use crate::branch::{BranchError, CommitId, OpenBranch, Snapshot, VerifiedIndex, find_document};
use crate::model::{BranchFile as _, Document, DocumentPath, Name, Revision, Sha256Digest, Specification};
use crate::trust::{DocumentError, TrustedRoot};

use std::collections::BTreeMap;

use super::branch_state::{BranchState, Existing, ExistingDocument};

/// The number of commits of the history in which claveld looks for an altered document: one an hour for a year.
const MAX_COMMITS: usize = 8_760;
/// The number of files that it looks at, because an attacker may have written the history.
const MAX_FILES: usize = 1_000_000;

/// Loads documents, and knows whose signatures count.
#[derive(Debug, Clone, Copy)]
pub(super) struct DocumentLoader<'a> {
    /// The newest root.
    pub(super) root: &'a TrustedRoot,
    /// The roots before it, newest first. They count only for an index that this claveld published last: then their
    /// publishers signed what claveld published, and no thief did.
    pub(super) previous_roots: &'a [&'a TrustedRoot],
}

/// The places where claveld looks for documents.
#[derive(Debug, Clone, Copy)]
pub(super) struct DocumentPlaces<'a> {
    /// The branch.
    pub(super) on: &'a OpenBranch,
    /// Its files.
    pub(super) snapshot: &'a Snapshot,
    /// The commit that claveld published last. The repository may still have it if somebody replaced the history.
    pub(super) published: Option<CommitId>,
}

impl DocumentLoader<'_> {
    /// Loads the documents that `index` lists, from the tip of the branch or else from its history. `digest` is that of the
    /// index's file.
    pub(super) fn load(
        &self,
        places: DocumentPlaces<'_>,
        index: VerifiedIndex,
        digest: Sha256Digest,
    ) -> Result<BranchState, BranchError> {
        let mut found = BranchState {
            fleet: index.index().fleet,
            deployments: self.existing(places.snapshot, &index)?,
            units: self.existing(places.snapshot, &index)?,
            agents: self.existing(places.snapshot, &index)?,
            holds: index.holds().map(|(name, hold)| (name.clone(), hold.clone())).collect(),
            ended_holds: BTreeMap::new(),
            index: None,
            is_of_an_older_root: false,
            foreign: Vec::new(),
        };
        self.restore(&mut found, places, &index);
        found.index = Some((index, digest));
        Ok(found)
    }

    fn existing<S: Specification>(&self, files: &Snapshot, index: &VerifiedIndex) -> Result<Existing<S>, BranchError> {
        let listed = index.names(S::FOLDER).into_iter().filter_map(|name| {
            let path = DocumentPath::new(S::FOLDER, name);
            Some((index.document(&path)?.revision, path))
        });
        let layout = index.layout();
        let read = |(revision, path): (Revision, DocumentPath)| {
            let bytes = files.read(&layout.document(&path), Document::<S>::MAX_BYTES)?;
            Ok((path.name().clone(), self.document(bytes.as_deref(), index, &path, revision)?))
        };
        listed.map(read).collect()
    }

    fn document<S: Specification>(
        &self,
        bytes: Option<&[u8]>,
        index: &VerifiedIndex,
        path: &DocumentPath,
        listed: Revision,
    ) -> Result<ExistingDocument<S>, BranchError> {
        let by = |root| index.verify::<S>(path, bytes, root);
        match by(self.root) {
            Ok(document) => Ok(ExistingDocument::Intact(document)),
            // Somebody without a publisher's key wrote to the branch.
            Err(DocumentError::Altered { .. } | DocumentError::Absent { .. }) => Ok(ExistingDocument::Altered(listed)),
            // The signer publishes no more.
            Err(DocumentError::Signed { .. }) => {
                Ok(match self.previous_roots.iter().find_map(|previous| by(previous).ok()) {
                    Some(document) => ExistingDocument::Outgoing(document, listed),
                    None => ExistingDocument::Unvouched(listed),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Finds altered documents in the history. The digest in the index identifies the right file, whoever wrote the history.
    /// Errors in the history are ignored.
    fn restore(&self, found: &mut BranchState, places: DocumentPlaces<'_>, index: &VerifiedIndex) {
        let BranchState { deployments, units, agents, .. } = found;
        let mut altered = (altered(deployments), altered(units), altered(agents));
        let mut files_left = MAX_FILES;
        let starts = [places.on.tip(), places.published].into_iter().flatten();
        let before = |start| places.on.back_from(start).take(MAX_COMMITS).map_while(Result::ok);
        for files in starts.flat_map(before) {
            let count = altered.0.len() + altered.1.len() + altered.2.len();
            if count == 0 || count > files_left {
                break;
            }
            files_left -= count;
            self.restore_from(&files, index, deployments, &mut altered.0);
            self.restore_from(&files, index, units, &mut altered.1);
            self.restore_from(&files, index, agents, &mut altered.2);
        }
    }

    /// Restores documents from the files of one commit, and removes them from `altered`.
    fn restore_from<S: Specification>(
        &self,
        files: &Snapshot,
        index: &VerifiedIndex,
        existing: &mut Existing<S>,
        altered: &mut Vec<(Name, Revision)>,
    ) {
        altered.retain(|(name, listed)| {
            let path = DocumentPath::new(S::FOLDER, name.clone());
            let found = find_document(files, &path).map_err(BranchError::from);
            match found.and_then(|bytes| self.document(bytes.as_deref(), index, &path, *listed)) {
                Ok(ExistingDocument::Intact(document) | ExistingDocument::Outgoing(document, _)) => {
                    existing.insert(name.clone(), ExistingDocument::Restored(document, *listed));
                    false
                }
                _ => true,
            }
        });
    }
}

fn altered<S: Specification>(existing: &Existing<S>) -> Vec<(Name, Revision)> {
    let altered = existing.iter().filter_map(|(name, document)| match document {
        ExistingDocument::Altered(listed) => Some((name.clone(), *listed)),
        _ => None,
    });
    altered.collect()
}
