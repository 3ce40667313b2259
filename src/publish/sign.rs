//! The signed files of a plan: every document and the index, the table for people, and the files to remove.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::base::PublishBase;
use super::bins::{BinsError, next_bins};
use super::branch_state::ExistingDocument;
use super::plan::Plan;
use super::readme::{MAX_LISTED_DEPLOYMENTS, Rows, readme};
use super::settled::Scope;
use crate::branch::{Change as FileChange, ForeignEntry, Layout};
use crate::model::{
    BinCount, BinId, BranchName, Deployment, Document, DocumentPath, Index, IndexEntry, IndexSource, IndexVersion,
    Invalid, Kind, MAX_SOURCES, Name, Schema, Sha256Digest, Specification, Timestamp,
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
    /// The layout of the branch after the plan.
    pub(super) layout: Layout,
    /// The bins of the names that the plan changes.
    pub(super) bins: BTreeSet<BinId>,
    /// How many names all bins have together.
    pub(super) names: usize,
}

/// The reason why a plan cannot be signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    /// The bins of the index cannot be made.
    #[error(transparent)]
    Bins(#[from] BinsError),
    /// The index would exceed a limit.
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
        scope: &Scope,
        version: IndexVersion,
        sources: &[IndexSource],
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
        let entries = written.iter().map(|file| (file.path.clone(), file.entry)).collect();
        let bins = next_bins(plan, &base.branch, base.bins, scope, &entries)?;
        let (before, layout) = (Layout::of(base.bins), Layout::of(bins.digests.count()));
        let mut changes = first_files(base);
        changes.extend(base.stale_entries.iter().map(|path| FileChange::Remove { path: path.clone() }));
        let foreign = base.branch.foreign.iter().cloned();
        changes.extend(foreign.map(|ForeignEntry { folder, name }| FileChange::RemoveEntry { folder, name }));
        let withdrawn = plan.changes.iter().filter(|change| change.tombstone().is_some());
        changes.extend(withdrawn.map(|change| FileChange::Remove { path: before.document(&change.path) }));
        if before != layout {
            let rewritten = written.iter().map(|file| FileChange::Remove { path: before.document(&file.path) });
            changes.extend(rewritten);
            changes.extend(base.bins.bins().map(|bin| FileChange::Remove { path: Layout::bin(bin) }));
            let moved = bins.moved.iter().map(|(folder, name)| FileChange::Move {
                from: before.file(folder.as_str(), name),
                to: layout.file(folder.as_str(), name),
            });
            changes.extend(moved);
        }
        let documents = written.into_iter();
        changes.extend(documents.map(|file| FileChange::Put { path: layout.document(&file.path), bytes: file.bytes }));
        let index = Index {
            branch: self.branch.clone(),
            bins: bins.digests,
            epoch: base.root.root().epoch,
            expires: now.plus(self.validity),
            fleet: base.branch.fleet,
            folders: bins.folders.into_iter().collect::<Vec<_>>().try_into()?,
            issued: now,
            kind: Kind::THIS,
            previous: base.branch.index.as_ref().map(|(_, digest)| *digest),
            schema: Schema::V1,
            sources: sources.iter().take(MAX_SOURCES).cloned().collect::<Vec<_>>().try_into()?,
            version,
        };
        let index = self.signers.sign(index).await?.render();
        let digest = digest(&index);
        let rewritten_bins = bins.written.iter().map(|(bin, _)| *bin).collect();
        changes.extend(bins.written.into_iter().map(|(bin, bytes)| FileChange::Put { path: Layout::bin(bin), bytes }));
        changes.push(FileChange::Put { path: Layout::INDEX.to_owned(), bytes: index });
        let table = readme(&listed(plan, base), &plan.holds, sources);
        changes.push(FileChange::Put { path: Layout::README.to_owned(), bytes: table.into_bytes() });
        Ok(SignedFiles { changes, index: digest, layout, bins: rewritten_bins, names: bins.names })
    }

    async fn sign<S: Specification>(&self, document: &Document<S>) -> Result<SignedFile, SignerError> {
        let bytes = self.signers.sign(document.clone()).await?.render();
        let entry = IndexEntry { length: bytes.len() as u64, revision: document.revision, sha256: digest(&bytes) };
        Ok(SignedFile { path: DocumentPath::new(S::FOLDER, document.name.clone()), entry, bytes })
    }
}

/// The root's files, where the branch is new.
fn first_files(base: &PublishBase) -> Vec<FileChange> {
    if !base.is_new {
        return Vec::new();
    }
    let paths = [Layout::NEWEST_ROOT.to_owned(), Layout::root(base.root.root().version)];
    paths.map(|path| FileChange::Put { path, bytes: base.root.file().to_vec() }).into()
}

/// The deployments after the plan, by name.
fn listed<'a>(plan: &'a Plan, base: &'a PublishBase) -> Rows<'a> {
    let branch = &base.branch;
    let planned = plan.deployments.iter().map(|deployment| (&deployment.name, deployment));
    let of_deployments = plan.changes.iter().filter(|change| change.path.folder() == Deployment::FOLDER);
    let new = of_deployments.clone().filter(|change| change.from.is_none()).count();
    let withdrawn: BTreeSet<&Name> =
        of_deployments.filter(|change| change.to.is_none()).map(|change| change.path.name()).collect();
    let count = branch.deployments.len() + new - withdrawn.len();
    // With more than one bin, not all deployments have been read.
    if count > MAX_LISTED_DEPLOYMENTS || base.bins != BinCount::ONE {
        return Rows::Changed(planned.map(|(_, row)| row).collect());
    }
    let intact = branch.deployments.iter().filter_map(|(name, document)| match document {
        ExistingDocument::Intact(document) if !withdrawn.contains(name) => Some((name, &**document)),
        ExistingDocument::Intact(_)
        | ExistingDocument::Outgoing(..)
        | ExistingDocument::Restored(..)
        | ExistingDocument::Altered(_)
        | ExistingDocument::Unvouched(_) => None,
    });
    let mut all: BTreeMap<&Name, &'a Deployment> = intact.collect();
    all.extend(planned);
    Rows::All(all.into_values().collect())
}
