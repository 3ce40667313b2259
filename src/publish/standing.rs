//! The branch as claveld finds it: its roots, and what of it may be gone on from.

use super::plan::{BranchState, Existing, ExistingDocument};
use crate::model::{BranchName, DocumentPath, Epoch, Folder, Index, Payload as _, Specification};
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
        Ok(Self { root: (**root).clone(), is_new: true, branch: BranchState::empty(root.fleet()), relics: Vec::new() })
    }

    /// The branch `name` as `snapshot` has it.
    pub(super) fn read(snapshot: &Snapshot, anchor: &Anchor, name: &BranchName) -> Result<Self, StandingError> {
        let roots = Roots::from_anchor(snapshot, anchor)?;
        let fleet = roots.newest.fleet();
        let standing = |branch, relics| Self { root: roots.newest.clone(), is_new: false, branch, relics };
        let Some(file) = snapshot.read(INDEX_PATH, Index::LARGEST)? else {
            return Ok(standing(BranchState::empty(fleet), Vec::new()));
        };
        let of = |root| Branch::new(snapshot, root, name);
        let epoch = roots.newest.root().epoch;
        match of(&roots.newest).index() {
            Ok(index) => Ok(standing(documents(&of(&roots.newest), index)?, Vec::new())),
            Err(error) if !may_be_of_an_older_root(&error) => Err(error.into()),
            // An epoch that is over: whatever was signed in it counts no more, and so it does not matter by whom.
            Err(_) if claimed_epoch(&file).is_some_and(|claimed| claimed < epoch) => {
                Ok(standing(BranchState::empty(fleet), relics(snapshot)?))
            }
            Err(error) => {
                let older = roots.before.iter().rev().filter(|root| root.root().epoch == epoch);
                let index = older.map(|root| of(root).index()).find_map(Result::ok).ok_or(error)?;
                Ok(standing(numbers(index), Vec::new()))
            }
        }
    }
}

fn may_be_of_an_older_root(error: &BranchError) -> bool {
    matches!(error, BranchError::OtherEpoch { .. } | BranchError::Index(SignedError::NotEnoughSignatures { .. }))
}

/// The epoch that an index says it is of, whoever signed it.
fn claimed_epoch(file: &[u8]) -> Option<Epoch> {
    Signed::<Index>::parse(file).ok().map(|signed| signed.unverified().epoch)
}

fn documents<F: Files>(branch: &Branch<'_, F>, index: VerifiedIndex) -> Result<BranchState, BranchError> {
    Ok(BranchState {
        fleet: index.index.fleet,
        deployments: existing(branch, &index)?,
        units: existing(branch, &index)?,
        agents: existing(branch, &index)?,
        index: Some((index.index, index.digest)),
        is_of_an_older_root: false,
    })
}

fn existing<S: Specification, F: Files>(
    branch: &Branch<'_, F>,
    index: &VerifiedIndex,
) -> Result<Existing<S>, BranchError> {
    let mut documents = Existing::new();
    for name in index.names(S::FOLDER) {
        let document = match branch.document::<S>(index, &name) {
            Ok(document) => ExistingDocument::Intact(document),
            // Somebody without the key wrote to the branch, or a key that signed is no publisher's any more. What they
            // left is published anew.
            Err(BranchError::Document(
                ListedError::Altered { .. } | ListedError::Absent { .. } | ListedError::Signed { .. },
            )) => match index.revision(&DocumentPath::new(S::FOLDER, name.clone())) {
                Some(revision) => ExistingDocument::Altered(revision),
                None => continue,
            },
            Err(error) => return Err(error),
        };
        documents.insert(name, document);
    }
    Ok(documents)
}

/// Of an index that an older root's publisher signed, only the numbers: whoever took a key out may have had a reason.
/// Each document is signed anew once its source gives it again, and under another revision.
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
