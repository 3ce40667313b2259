//! The state that claveld builds a publication on: the newest root, the documents on the branch that it trusts, and the files
//! of an epoch that is over.

use std::collections::BTreeMap;

use super::branch_state::{BranchState, Existing, ExistingDocument};
use super::document_loader::{DocumentLoader, DocumentPlaces};
use super::note::{BranchIndex, PublishedIndex};
use super::settled::Scope;
use crate::branch::{
    Branch, BranchError, ForeignEntry, Layout, OpenBranch, RootChain, RootsError, Snapshot, VerifiedIndex,
};
use crate::model::{
    Bin, BinCount, BranchFile as _, BranchName, DocumentPath, Epoch, Index, Name, Sha256Digest, Specification,
    parse_rendering,
};
use crate::trust::{Anchor, Signed, SignedError, TrustedRoot, digest, parse_bin};

/// The most bytes of the README that are compared.
const MAX_README_BYTES: u64 = 4 << 20;

/// The most entries that claveld reads of one folder.
const MAX_ENTRIES: usize = 200_000;

/// The state of the branch that a publication is built on.
#[derive(Debug)]
pub(super) struct PublishBase {
    /// The newest root.
    pub(super) root: TrustedRoot,
    /// The roots of its epoch before it, the newest first.
    pub(super) older_roots: Vec<TrustedRoot>,
    /// Whether the branch is new, so that the publication has to add that root.
    pub(super) is_new: bool,
    /// The documents.
    pub(super) branch: BranchState,
    /// How many bins the index on the branch has.
    pub(super) bins: BinCount,
    /// The files and folders of an epoch that is over. The publication removes them.
    pub(super) stale_entries: Vec<String>,
    /// The deployments whose hold no present publisher vouches for.
    pub(super) lost_holds: Vec<Name>,
}

/// The reason why claveld cannot build on the branch.
#[derive(Debug, thiserror::Error)]
pub enum PublishBaseError {
    /// The chain of roots is not valid.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// There is no branch yet, and claveld knows only the digest of the first root.
    #[error(
        "there is no branch yet, and the `root` of the configuration is a digest; put the path of the file with the first root there"
    )]
    NoRoot,
    /// The branch is not valid.
    #[error(transparent)]
    Branch(#[from] BranchError),
}

impl PublishBase {
    /// The base on a branch that is not there yet.
    pub(super) fn new_branch(anchor: &Anchor) -> Result<Self, PublishBaseError> {
        let Anchor::Root(root) = anchor else { return Err(PublishBaseError::NoRoot) };
        Ok(Self { is_new: true, ..Self::on(root, BranchState::empty(root.fleet())) })
    }

    fn on(root: &TrustedRoot, branch: BranchState) -> Self {
        let bins = branch.index.as_ref().map_or(BinCount::ONE, |(index, _)| index.index().bins.count());
        Self {
            root: root.clone(),
            older_roots: Vec::new(),
            is_new: false,
            branch,
            bins,
            stale_entries: Vec::new(),
            lost_holds: Vec::new(),
        }
    }

    /// The base on the branch `name` with the files of `snapshot`. `last` is the index that this claveld published last.
    pub(super) fn read(
        on: &OpenBranch,
        snapshot: &Snapshot,
        anchor: &Anchor,
        name: &BranchName,
        last: Option<&PublishedIndex>,
        scope: &Scope,
    ) -> Result<Self, PublishBaseError> {
        let roots = RootChain::from_anchor(snapshot, anchor)?;
        let root = &roots.newest;
        let Some(file) = snapshot.read(Layout::INDEX, Index::MAX_BYTES).map_err(BranchError::from)? else {
            return Ok(Self::on(root, BranchState::empty(root.fleet())));
        };
        let epoch = root.root().epoch;
        let older: Vec<&TrustedRoot> = roots.before.iter().rev().filter(|root| root.root().epoch == epoch).collect();
        let found = digest(&file);
        let is_ours = last.is_some_and(|last| last.sha256 == found);
        let places = DocumentPlaces { on, snapshot, published: last.map(|last| last.commit) };
        let load = |previous_roots, index| -> Result<Self, BranchError> {
            let mut foreign = Branch::to_repair(snapshot, root, name).foreign_entries(&index)?;
            foreign.extend(forged_readme(on, snapshot, last.filter(|_| is_ours)));
            let branch = DocumentLoader { root, previous_roots }.load(places, index, found)?;
            let branch = BranchState { foreign, ..branch };
            let older_roots = older.iter().map(|root| (*root).clone()).collect();
            Ok(Self { older_roots, ..Self::on(root, branch) }.without_unvouched_holds())
        };
        let read = || {
            let branch = Branch::to_repair(snapshot, root, name);
            let Scope::Bins(bins, _) = scope else { return branch.whole_index() };
            let mut index = branch.index()?;
            bins.iter().try_for_each(|bin| branch.read_bin(&mut index, *bin))?;
            Ok(index)
        };
        let error = match read() {
            Ok(index) => return Ok(load(if is_ours { &older[..] } else { &[] }, index)?),
            Err(error) => error,
        };
        // Signatures of an epoch that is over count no more, so it does not matter who made them.
        if matches!(error, BranchError::OtherEpoch { .. } | BranchError::Index(_))
            && claims_an_epoch_before(epoch, &file)
        {
            let branch = BranchState::empty(root.fleet());
            let stale_entries = stale_entries(snapshot)?;
            let base = Self { stale_entries, ..Self::on(root, branch) };
            let Ok(claimed) = Signed::<Index>::parse(&file) else { return Ok(base) };
            let bins = claimed.unverified().bins.count();
            return Ok(Self { bins, lost_holds: claimed_holds(snapshot, bins), ..base });
        }
        if !may_be_of_an_older_root(&error) {
            return Err(error.into());
        }
        let by = |root: &&TrustedRoot| Branch::to_repair(snapshot, root, name).whole_index();
        let index = older.iter().map(by).find_map(Result::ok).ok_or(error)?;
        if is_ours {
            let mut base = load(&older, index)?;
            base.branch.is_of_an_older_root = true;
            return Ok(base);
        }
        let lost_holds = index.holds().map(|(name, _)| name.clone()).collect();
        Ok(Self { lost_holds, ..Self::on(root, revisions_only(index, found)) })
    }

    /// Ends the holds at documents that no publisher vouches for: their signer may have lost its key to a thief.
    fn without_unvouched_holds(mut self) -> Self {
        let BranchState { holds, deployments, .. } = &mut self.branch;
        let is_lost = |name: &Name| matches!(deployments.get(name), Some(ExistingDocument::Unvouched(_)));
        let lost = holds.extract_if(.., |name, _| is_lost(name)).map(|(name, _)| name);
        self.lost_holds.extend(lost);
        self
    }

    /// The index of the branch, for the comparison with the index that was published last.
    pub(super) fn branch_index(&self) -> BranchIndex {
        let index = self.branch.index.as_ref().map(|(index, digest)| (index.index().version, *digest));
        BranchIndex { fleet: self.branch.fleet, epoch: self.root.root().epoch, index }
    }
}

fn may_be_of_an_older_root(error: &BranchError) -> bool {
    matches!(error, BranchError::OtherEpoch { .. } | BranchError::Index(SignedError::NotEnoughSignatures { .. }))
}

/// Whether a file claims to be the index of an epoch before `epoch`, whoever signed it and whatever else is in it.
fn claims_an_epoch_before(epoch: Epoch, file: &[u8]) -> bool {
    let claimed = parse_rendering(file, Index::MAX_BYTES).ok();
    let claimed = claimed.as_ref().and_then(|file| file.get("signed")?.get("epoch")?.as_u64());
    claimed.is_some_and(|claimed| claimed < epoch.get())
}

/// The held deployments that bins claim, for the report that nobody holds them any longer.
fn claimed_holds(snapshot: &Snapshot, count: BinCount) -> Vec<Name> {
    let files = count.bins().map(|bin| snapshot.read(&Layout::bin(bin), Bin::MAX_BYTES));
    let bins = files.filter_map(|file| parse_bin(&file.ok()??).ok());
    bins.flat_map(|bin| bin.held.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()).collect()
}

/// The README, where it is not the one that this claveld published with the index that it published last. Nobody signs it.
fn forged_readme(on: &OpenBranch, snapshot: &Snapshot, last: Option<&PublishedIndex>) -> Option<ForeignEntry> {
    let published = on.repository().snapshot(last?.commit).ok()?;
    let own = published.read(Layout::README, MAX_README_BYTES).ok()?;
    let found = snapshot.read(Layout::README, MAX_README_BYTES).ok();
    let entry = || ForeignEntry { folder: String::new(), name: Layout::README.as_bytes().to_vec() };
    (found != Some(own)).then(entry)
}

/// The branch of an index that a publisher of an older root signed, and that is not the one this claveld published last. A
/// thief may have signed it with the removed key, so only the revisions count: claveld signs each document again, under the
/// next revision, once its source gives it.
fn revisions_only(index: VerifiedIndex, found: Sha256Digest) -> BranchState {
    fn listed<S: Specification>(index: &VerifiedIndex) -> Existing<S> {
        let names = index.names(S::FOLDER).into_iter();
        let listed = names.filter_map(|name| {
            let revision = index.document(&DocumentPath::new(S::FOLDER, name.clone()))?.revision;
            Some((name, ExistingDocument::Unvouched(revision)))
        });
        listed.collect()
    }
    BranchState {
        fleet: index.index().fleet,
        deployments: listed(&index),
        units: listed(&index),
        agents: listed(&index),
        holds: BTreeMap::new(),
        ended_holds: BTreeMap::new(),
        index: Some((index, found)),
        is_of_an_older_root: true,
        foreign: Vec::new(),
    }
}

/// The entries at the top that are left from an epoch that is over: all but the roots and the approvals, which others write too.
fn stale_entries(snapshot: &Snapshot) -> Result<Vec<String>, BranchError> {
    let entries = snapshot.list("", MAX_ENTRIES)?.into_iter().map(|entry| entry.name);
    Ok(entries.filter(|name| !["approvals", "root.json", "roots"].contains(&name.as_str())).collect())
}
