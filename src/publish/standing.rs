//! The branch as claveld finds it: its roots, and what of it may be gone on from.

use std::collections::BTreeMap;

use super::note::{Published, Shown};
use super::plan::{BranchState, Existing, ExistingDocument};
use crate::model::{BranchName, DocumentPath, Epoch, Folder, Index, Name, Payload as _, Specification};
use crate::repository::{
    Branch, BranchError, Files, INDEX_PATH, ReadError, Roots, RootsError, Snapshot, VerifiedIndex,
};
use crate::trust::{Anchor, ListedError, Signed, SignedError, TrustedRoot};

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

    /// The branch `name` as `snapshot` has it, for a claveld that knows what it published `last`.
    pub(super) fn read(
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
        let of = |root| Branch::new(snapshot, root, name);
        let epoch = root.root().epoch;
        let older: Vec<Branch<'_, Snapshot>> =
            roots.before.iter().rev().filter(|root| root.root().epoch == epoch).map(of).collect();
        let is_ours = |index: &VerifiedIndex| last.is_some_and(|last| last.sha256 == index.digest);
        match of(root).index() {
            Ok(index) => {
                let elders = if is_ours(&index) { &older[..] } else { &[] };
                Ok(Self::on(root, documents(&of(root), elders, index)?))
            }
            Err(error) if !may_be_of_an_older_root(&error) => Err(error.into()),
            // An epoch that is over: whatever was signed in it counts no more, and so it does not matter by whom.
            Err(_) if claimed_epoch(&file).is_some_and(|claimed| claimed < epoch) => {
                Ok(Self { relics: relics(snapshot)?, ..Self::on(root, BranchState::empty(root.fleet())) })
            }
            Err(error) => {
                let index = older.iter().map(Branch::index).find_map(Result::ok).ok_or(error)?;
                if is_ours(&index) {
                    let branch = documents(&of(root), &older, index)?;
                    return Ok(Self::on(root, BranchState { is_of_an_older_root: true, ..branch }));
                }
                let lost_holds = index.index.held.iter().map(|(name, _)| name.clone()).collect();
                Ok(Self { lost_holds, ..Self::on(root, numbers(index)) })
            }
        }
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

/// The epoch that an index says it is of, whoever signed it.
fn claimed_epoch(file: &[u8]) -> Option<Epoch> {
    Signed::<Index>::parse(file).ok().map(|signed| signed.unverified().epoch)
}

/// The documents of an index that is gone on from, where `elders` are the same branch by older roots. These have a say in an
/// index alone that claveld itself published last: then what their publishers signed is what it published, and is no
/// thief's.
fn documents<F: Files>(
    branch: &Branch<'_, F>,
    elders: &[Branch<'_, F>],
    index: VerifiedIndex,
) -> Result<BranchState, BranchError> {
    Ok(BranchState {
        fleet: index.index.fleet,
        deployments: existing(branch, elders, &index)?,
        units: existing(branch, elders, &index)?,
        agents: existing(branch, elders, &index)?,
        holds: index.index.held.iter().map(|(name, hold)| (name.clone(), hold.clone())).collect(),
        index: Some((index.index, index.digest)),
        is_of_an_older_root: false,
    })
}

fn existing<S: Specification, F: Files>(
    branch: &Branch<'_, F>,
    elders: &[Branch<'_, F>],
    index: &VerifiedIndex,
) -> Result<Existing<S>, BranchError> {
    let mut documents = Existing::new();
    for name in index.names(S::FOLDER) {
        let Some(revision) = index.revision(&DocumentPath::new(S::FOLDER, name.clone())) else { continue };
        let document = match branch.document::<S>(index, &name) {
            Ok(document) => ExistingDocument::Intact(document),
            // Somebody without the key wrote to the branch, or a key that signed is no publisher's any more. What they
            // left is published anew.
            Err(BranchError::Document(
                ListedError::Altered { .. } | ListedError::Absent { .. } | ListedError::Signed { .. },
            )) => match elders.iter().find_map(|elder| elder.document::<S>(index, &name).ok()) {
                Some(document) => ExistingDocument::Outgoing(document, revision),
                None => ExistingDocument::Altered(revision),
            },
            Err(error) => return Err(error),
        };
        documents.insert(name, document);
    }
    Ok(documents)
}

/// Of an index that an older root's publisher signed, and not this claveld last, only the numbers: whoever took a key out may
/// have had a reason. Each document is signed anew once its source gives it again, and under another revision.
fn numbers(index: VerifiedIndex) -> BranchState {
    fn listed<S: Specification>(index: &VerifiedIndex) -> Existing<S> {
        let names = index.names(S::FOLDER).into_iter();
        let listed = names.filter_map(|name| {
            let revision = index.revision(&DocumentPath::new(S::FOLDER, name.clone()))?;
            Some((name, ExistingDocument::Altered(revision)))
        });
        listed.collect()
    }
    BranchState {
        fleet: index.index.fleet,
        deployments: listed(&index),
        units: listed(&index),
        agents: listed(&index),
        holds: BTreeMap::new(),
        index: Some((index.index, index.digest)),
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
