//! What a plan makes of the branch's files: every document and the index signed, the table for people, and what goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::plan::{BranchState, ExistingDocument, Plan, tombstone};
use super::readme::readme;
use super::standing::Standing;
use crate::branch::{Change, INDEX_PATH, README_PATH, ROOT_PATH, root_path};
use crate::model::{
    BranchName, Deployment, Document, DocumentPath, Index, IndexEntry, IndexVersion, Invalid, Kind, Name, Schema,
    Sha256Digest, Specification, Timestamp,
};
use crate::signers::{SignerError, Signers};
use crate::trust::digest;

/// Who signs, and for which branch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pen<'a> {
    pub(super) signers: &'a Signers,
    pub(super) branch: &'a BranchName,
    /// How long an index is to be believed.
    pub(super) validity: Duration,
}

/// The files that a plan changes.
pub(super) struct Files {
    pub(super) changes: Vec<Change>,
    /// The SHA-256 of the new index.
    pub(super) index: Sha256Digest,
}

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilesError {
    /// More documents than the index holds, or the like.
    #[error(transparent)]
    Index(#[from] Invalid),
    /// They could not be signed.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

/// A document as a file of the branch.
struct SignedFile {
    path: DocumentPath,
    entry: IndexEntry,
    bytes: Vec<u8>,
}

impl Pen<'_> {
    /// Writes `plan` on top of `standing`, with an index of that version, at `now`.
    pub(super) async fn write(
        &self,
        plan: &Plan,
        standing: &Standing,
        version: IndexVersion,
        now: Timestamp,
    ) -> Result<Files, FilesError> {
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
        let index = self.signers.sign(self.index(plan, standing, version, now, &written)?).await?.render();
        let mut changes = first_files(standing);
        let kept: BTreeSet<String> = written.iter().map(|file| file.path.to_string()).collect();
        let relics = standing.relics.iter().filter(|path| !kept.contains(*path));
        changes.extend(relics.map(|path| Change::Remove { path: path.clone() }));
        changes.extend(written.into_iter().map(|file| Change::Put { path: file.path.to_string(), bytes: file.bytes }));
        let withdrawn = plan.changes.iter().filter(|change| tombstone(change).is_some());
        changes.extend(withdrawn.map(|change| Change::Remove { path: change.path.to_string() }));
        let digest = digest(&index);
        changes.push(Change::Put { path: INDEX_PATH.to_owned(), bytes: index });
        let table = readme(listed(plan, &standing.branch).into_iter(), &plan.holds);
        changes.push(Change::Put { path: README_PATH.to_owned(), bytes: table.into_bytes() });
        Ok(Files { changes, index: digest })
    }

    async fn sign<S: Specification>(&self, document: &Document<S>) -> Result<SignedFile, SignerError> {
        let bytes = self.signers.sign(document.clone()).await?.render();
        let entry = IndexEntry { length: bytes.len() as u64, revision: document.revision, sha256: digest(&bytes) };
        Ok(SignedFile { path: DocumentPath::new(S::FOLDER, document.name.clone()), entry, bytes })
    }

    fn index(
        &self,
        plan: &Plan,
        standing: &Standing,
        version: IndexVersion,
        now: Timestamp,
        written: &[SignedFile],
    ) -> Result<Index, Invalid> {
        let branch = &standing.branch;
        let (mut documents, mut tombstones) = (Vec::new(), Vec::new());
        // Looked up once for each of the branch's documents: a list would cost their product.
        let changed: BTreeSet<&DocumentPath> = plan.changes.iter().map(|change| &change.path).collect();
        if let Some((index, _)) = &branch.index {
            let kept = index.documents.iter().filter(|(path, _)| !changed.contains(path));
            documents.extend(kept.map(|(path, entry)| (path.clone(), *entry)));
            let kept = index.tombstones.iter().filter(|(path, _)| !changed.contains(path));
            tombstones.extend(kept.map(|(path, stone)| (path.clone(), *stone)));
        }
        documents.extend(written.iter().map(|file| (file.path.clone(), file.entry)));
        let buried = plan.changes.iter().filter_map(|change| Some((change.path.clone(), tombstone(change)?)));
        tombstones.extend(buried);
        let held: Vec<_> = plan.holds.iter().map(|(name, hold)| (name.clone(), hold.clone())).collect();
        Ok(Index {
            branch: self.branch.clone(),
            documents: documents.try_into()?,
            epoch: standing.root.root().epoch,
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

/// The root, on a branch that begins with it.
fn first_files(standing: &Standing) -> Vec<Change> {
    if !standing.is_new {
        return Vec::new();
    }
    let paths = [ROOT_PATH.to_owned(), root_path(standing.root.root().version)];
    paths.map(|path| Change::Put { path, bytes: standing.root.file().to_vec() }).into()
}

/// All deployments as they are after the plan, by name.
fn listed<'a>(plan: &'a Plan, branch: &'a BranchState) -> Vec<&'a Deployment> {
    let known = branch.deployments.iter().filter_map(|(name, document)| match document {
        ExistingDocument::Intact(document) => Some((name, &**document)),
        ExistingDocument::Outgoing(..)
        | ExistingDocument::Restored(..)
        | ExistingDocument::Altered(_)
        | ExistingDocument::Unvouched(_) => None,
    });
    let mut all: BTreeMap<&Name, &Deployment> = known.collect();
    for change in plan.changes.iter().filter(|change| change.path.folder() == Deployment::FOLDER && change.to.is_none())
    {
        all.remove(change.path.name());
    }
    all.extend(plan.deployments.iter().map(|document| (&document.name, document)));
    all.into_values().collect()
}
