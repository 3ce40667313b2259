//! The signed files of a plan: every document and the index, the table for people, and the files to remove.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::base::PublishBase;
use super::branch_state::{BranchState, ExistingDocument};
use super::document_change::DocumentChange;
use super::plan::Plan;
use super::readme::{Row, readme};
use crate::branch::{Change as FileChange, Layout};
use crate::model::{
    BranchName, Deployment, Document, DocumentPath, Index, IndexEntry, IndexVersion, Invalid, Kind, Name, Schema,
    Sha256Digest, Specification, Timestamp,
};
use crate::signers::{SignerError, Signers};
use crate::trust::digest;

/// Signs documents and indexes for one branch.
#[derive(Debug, Clone, Copy)]
pub(super) struct BranchSigner<'a> {
    pub(super) signers: &'a Signers,
    pub(super) branch: &'a BranchName,
    /// The time that an index is valid.
    pub(super) validity: Duration,
}

/// The files that a plan changes.
pub(super) struct SignedFiles {
    pub(super) changes: Vec<FileChange>,
    /// The SHA-256 of the new index.
    pub(super) index: Sha256Digest,
}

/// The reason why a plan cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    /// The index would exceed a limit, for example on the number of documents.
    #[error(transparent)]
    Index(#[from] Invalid),
    /// A signer did not sign.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// A document as a file of the branch.
struct SignedFile {
    path: DocumentPath,
    entry: IndexEntry,
    bytes: Vec<u8>,
}

impl BranchSigner<'_> {
    /// Signs `plan` on top of `base`, with an index of this version, at `now`.
    pub(super) async fn sign_plan(
        &self,
        plan: &Plan,
        base: &PublishBase,
        version: IndexVersion,
        now: Timestamp,
    ) -> Result<SignedFiles, SignError> {
        let mut written = Vec::new();
        for document in &plan.deployments {
            written.push(self.sign(document).await?);
        }
        for document in &plan.units {
            written.push(self.sign(document).await?);
        }
        for document in &plan.agents {
            written.push(self.sign(document).await?);
        }
        let index = self.signers.sign(self.index(plan, base, version, now, &written)?).await?.render();
        let mut changes = first_files(base);
        let kept: BTreeSet<String> = written.iter().map(|file| file.path.to_string()).collect();
        let stale = base.stale_files.iter().filter(|path| !kept.contains(*path));
        changes.extend(stale.map(|path| FileChange::Remove { path: path.clone() }));
        changes
            .extend(written.into_iter().map(|file| FileChange::Put { path: file.path.to_string(), bytes: file.bytes }));
        let withdrawn = plan.changes.iter().filter(|change| change.tombstone().is_some());
        changes.extend(withdrawn.map(|change| FileChange::Remove { path: change.path.to_string() }));
        let digest = digest(&index);
        changes.push(FileChange::Put { path: Layout::Flat.index().to_owned(), bytes: index });
        let table = readme(listed(plan, &base.branch).into_iter(), &plan.holds);
        changes.push(FileChange::Put { path: Layout::Flat.readme().to_owned(), bytes: table.into_bytes() });
        Ok(SignedFiles { changes, index: digest })
    }

    async fn sign<S: Specification>(&self, document: &Document<S>) -> Result<SignedFile, SignerError> {
        let bytes = self.signers.sign(document.clone()).await?.render();
        let entry = IndexEntry { length: bytes.len() as u64, revision: document.revision, sha256: digest(&bytes) };
        Ok(SignedFile { path: DocumentPath::new(S::FOLDER, document.name.clone()), entry, bytes })
    }

    fn index(
        &self,
        plan: &Plan,
        base: &PublishBase,
        version: IndexVersion,
        now: Timestamp,
        written: &[SignedFile],
    ) -> Result<Index, Invalid> {
        let branch = &base.branch;
        let (mut documents, mut tombstones) = (Vec::new(), Vec::new());
        // A set, because each document of the branch is looked up in it.
        let changed: BTreeSet<&DocumentPath> = plan.changes.iter().map(|change| &change.path).collect();
        if let Some((index, _)) = &branch.index {
            let kept = index.documents.iter().filter(|(path, _)| !changed.contains(path));
            documents.extend(kept.map(|(path, entry)| (path.clone(), *entry)));
            let kept = index.tombstones.iter().filter(|(path, _)| !changed.contains(path));
            tombstones.extend(kept.map(|(path, tombstone)| (path.clone(), *tombstone)));
        }
        documents.extend(written.iter().map(|file| (file.path.clone(), file.entry)));
        let withdrawn = plan.changes.iter().filter_map(|change| Some((change.path.clone(), change.tombstone()?)));
        tombstones.extend(withdrawn);
        let held: Vec<_> = plan.holds.iter().map(|(name, hold)| (name.clone(), hold.clone())).collect();
        Ok(Index {
            branch: self.branch.clone(),
            documents: documents.try_into()?,
            epoch: base.root.root().epoch,
            expires: now.plus(self.validity),
            fleet: branch.fleet,
            held: held.try_into()?,
            issued: now,
            kind: Kind::THIS,
            previous: branch.index.as_ref().map(|(_, digest)| *digest),
            schema: Schema::V1,
            tombstones: tombstones.try_into()?,
            version,
        })
    }
}

/// The root's files, where the branch is new.
fn first_files(base: &PublishBase) -> Vec<FileChange> {
    if !base.is_new {
        return Vec::new();
    }
    let paths = [Layout::Flat.newest_root().to_owned(), Layout::Flat.root(base.root.root().version)];
    paths.map(|path| FileChange::Put { path, bytes: base.root.file().to_vec() }).into()
}

/// All deployments after the plan, by name.
fn listed<'a>(plan: &'a Plan, branch: &'a BranchState) -> Vec<Row<'a>> {
    let intact = branch.deployments.iter().filter_map(|(name, document)| match document {
        ExistingDocument::Intact(document) => Some((name, (&**document, document.provenance()))),
        ExistingDocument::Outgoing(..)
        | ExistingDocument::Restored(..)
        | ExistingDocument::Altered(_)
        | ExistingDocument::Unvouched(_) => None,
    });
    let mut all: BTreeMap<&Name, Row<'a>> = intact.collect();
    let of_deployments = |change: &&DocumentChange| change.path.folder() == Deployment::FOLDER && change.to.is_none();
    for change in plan.changes.iter().filter(of_deployments) {
        all.remove(change.path.name());
    }
    let planned = plan.deployments.iter();
    all.extend(planned.map(|planned| (&planned.document.name, (&planned.document, planned.provenance.as_ref()))));
    all.into_values().collect()
}
