//! The branch as claveld finds it: its roots, and what of it may be gone on from.

use std::collections::BTreeMap;

use super::note::{Published, Shown};
use super::plan::{BranchState, Existing, ExistingDocument};
use crate::branch::{
    Branch, BranchError, INDEX_PATH, OpenBranch, ReadError, Roots, RootsError, Snapshot, VerifiedIndex,
};
use crate::model::{BranchName, DocumentPath, Epoch, Folder, Index, Name, Payload as _, Sha256Digest, Specification};
use crate::trust::{Anchor, Signed, SignedError, TrustedRoot, digest};

mod documents;

use documents::{Places, Vouchers};

/// The most entries of one folder that are read.
const MOST: usize = 200_000;

/// What claveld goes on from.
#[derive(Debug)]
pub(super) struct Standing {
    /// The newest root.
    pub(super) root: TrustedRoot,
    /// Whether the branch has to be given that root first.
    pub(super) is_new: bool,
    /// The documents.
    pub(super) branch: BranchState,
    /// Files of an epoch that is over; they go.
    pub(super) relics: Vec<String>,
    /// Holds that nobody who publishes vouches for.
    pub(super) lost_holds: Vec<Name>,
}

/// Why there is nothing to go on from.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// The roots lead nowhere.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// There is no branch yet, and no root to begin it with.
    #[error(
        "there is no branch yet, and the configuration's `root` is a digest; name the file with the first root there"
    )]
    NoRoot,
    /// What is on the branch is not believed.
    #[error(transparent)]
    Branch(#[from] BranchError),
}

impl From<ReadError> for StandingError {
    fn from(error: ReadError) -> Self {
        Self::Branch(error.into())
    }
}

impl Standing {
    /// A branch that is not there yet.
    pub(super) fn nothing(anchor: &Anchor) -> Result<Self, StandingError> {
        let Anchor::Root(root) = anchor else { return Err(StandingError::NoRoot) };
        Ok(Self { is_new: true, ..Self::on(root, BranchState::empty(root.fleet())) })
    }

    fn on(root: &TrustedRoot, branch: BranchState) -> Self {
        Self { root: root.clone(), is_new: false, branch, relics: Vec::new(), lost_holds: Vec::new() }
    }

    /// The branch `name` with the files of `snapshot`, for a claveld that knows what it published `last`.
    pub(super) fn read(
        on: &OpenBranch,
        snapshot: &Snapshot,
        anchor: &Anchor,
        name: &BranchName,
        last: Option<&Published>,
    ) -> Result<Self, StandingError> {
        let roots = Roots::from_anchor(snapshot, anchor)?;
        let root = &roots.newest;
        let Some(file) = snapshot.read(INDEX_PATH, Index::LARGEST)? else {
            return Ok(Self::on(root, BranchState::empty(root.fleet())));
        };
        let epoch = root.root().epoch;
        let older: Vec<&TrustedRoot> = roots.before.iter().rev().filter(|root| root.root().epoch == epoch).collect();
        let shown = digest(&file);
        let is_ours = last.is_some_and(|last| last.sha256 == shown);
        let places = Places { on, snapshot, published: last.map(|last| last.commit) };
        let go_on = |elders, index| -> Result<Self, BranchError> {
            let branch = Vouchers { branch: name, root, elders }.documents(places, index, shown)?;
            Ok(Self::on(root, branch).without_unvouched_holds())
        };
        match Branch::new(snapshot, root, name).index() {
            Ok(index) => {
                let elders = if is_ours { &older[..] } else { &[] };
                Ok(go_on(elders, index)?)
            }
            Err(error) if !may_be_of_an_older_root(&error) => Err(error.into()),
            Err(error) => {
                // An epoch that is over: whatever was signed in it counts no more, and so it does not matter by whom.
                if let Some(lost_holds) = held_in_an_epoch_before(epoch, &file) {
                    let branch = BranchState::empty(root.fleet());
                    return Ok(Self { relics: relics(snapshot)?, lost_holds, ..Self::on(root, branch) });
                }
                let of = |root: &&TrustedRoot| Branch::new(snapshot, root, name).index();
                let index = older.iter().map(of).find_map(Result::ok).ok_or(error)?;
                if is_ours {
                    let mut standing = go_on(&older, index)?;
                    standing.branch.is_of_an_older_root = true;
                    return Ok(standing);
                }
                let lost_holds = index.index.held.iter().map(|(name, _)| name.clone()).collect();
                Ok(Self { lost_holds, ..Self::on(root, numbers(index, shown)) })
            }
        }
    }

    /// A hold at what nobody vouches for holds nothing: who takes a key out may have a reason.
    fn without_unvouched_holds(mut self) -> Self {
        let BranchState { holds, deployments, .. } = &mut self.branch;
        let is_lost = |name: &Name| matches!(deployments.get(name), Some(ExistingDocument::Unvouched(_)));
        let lost = holds.extract_if(.., |name, _| is_lost(name)).map(|(name, _)| name);
        self.lost_holds.extend(lost);
        self
    }

    /// What of it is compared with what was published last.
    pub(super) fn shown(&self) -> Shown {
        let index = self.branch.index.as_ref().map(|(index, digest)| (index.version, *digest));
        Shown { fleet: self.branch.fleet, epoch: self.root.root().epoch, index }
    }
}

fn may_be_of_an_older_root(error: &BranchError) -> bool {
    matches!(error, BranchError::OtherEpoch { .. } | BranchError::Index(SignedError::NotEnoughSignatures { .. }))
}

/// The deployments that are held by an index which says that it is of an epoch before `epoch`, whoever signed it.
fn held_in_an_epoch_before(epoch: Epoch, file: &[u8]) -> Option<Vec<Name>> {
    let claimed = Signed::<Index>::parse(file).ok()?;
    let claimed = Some(claimed.unverified()).filter(|index| index.epoch < epoch)?;
    Some(claimed.held.iter().map(|(name, _)| name.clone()).collect())
}

/// Of an index that an older root's publisher signed, and not this claveld last, only the numbers: whoever took a key out may
/// have had a reason. Each document is signed anew once its source gives it again, and under another revision.
fn numbers(index: VerifiedIndex, shown: Sha256Digest) -> BranchState {
    fn listed<S: Specification>(index: &VerifiedIndex) -> Existing<S> {
        let names = index.names(S::FOLDER).into_iter();
        let listed = names.filter_map(|name| {
            let revision = index.revision(&DocumentPath::new(S::FOLDER, name.clone()))?;
            Some((name, ExistingDocument::Unvouched(revision)))
        });
        listed.collect()
    }
    BranchState {
        fleet: index.index.fleet,
        deployments: listed(&index),
        units: listed(&index),
        agents: listed(&index),
        holds: BTreeMap::new(),
        index: Some((index.index, shown)),
        is_of_an_older_root: true,
    }
}

/// The documents that an epoch which is over left behind.
fn relics(snapshot: &Snapshot) -> Result<Vec<String>, ReadError> {
    let mut relics = Vec::new();
    for folder in Folder::ALL {
        let entries = snapshot.list(folder.as_str(), MOST)?;
        relics.extend(entries.into_iter().map(|entry| format!("{}/{}", folder.as_str(), entry.name)));
    }
    Ok(relics)
}
