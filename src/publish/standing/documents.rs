//! The documents of an index that is gone on from: who vouches for each, and what the history has of one that a stranger
//! altered.

use crate::branch::{Branch, BranchError, CommitId, OpenBranch, Snapshot, VerifiedIndex};
use crate::model::{BranchName, DocumentPath, Name, Revision, Sha256Digest, Specification};
use crate::trust::{ListedError, TrustedRoot};

use super::super::plan::{BranchState, Existing, ExistingDocument};

/// How far back what was altered is looked for: a commit an hour for a year.
const MOST_COMMITS: usize = 8_760;
/// How many files are looked at for that, whoever wrote the history.
const MOST_FILES: usize = 1_000_000;

/// Who vouches for documents.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vouchers<'a> {
    pub(super) branch: &'a BranchName,
    /// The newest root.
    pub(super) root: &'a TrustedRoot,
    /// Those before it, newest first. These have a say in an index alone that claveld itself published last: then what
    /// their publishers signed is what it published, and is no thief's.
    pub(super) elders: &'a [&'a TrustedRoot],
}

/// Where documents are looked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// The branch.
    pub(super) on: &'a OpenBranch,
    /// Its files.
    pub(super) snapshot: &'a Snapshot,
    /// What claveld published last. The repository may have it still, where somebody gave the branch another history.
    pub(super) published: Option<CommitId>,
}

impl Vouchers<'_> {
    /// The documents that `index` lists, whose file has the digest `shown`, from the tip of the branch or else from before it.
    pub(super) fn documents(
        &self,
        places: Places<'_>,
        index: VerifiedIndex,
        shown: Sha256Digest,
    ) -> Result<BranchState, BranchError> {
        let mut found = BranchState {
            fleet: index.index.fleet,
            deployments: self.existing(places.snapshot, &index)?,
            units: self.existing(places.snapshot, &index)?,
            agents: self.existing(places.snapshot, &index)?,
            holds: index.index.held.iter().map(|(name, hold)| (name.clone(), hold.clone())).collect(),
            index: None,
            is_of_an_older_root: false,
        };
        self.restore(&mut found, places, &index);
        found.index = Some((index.index, shown));
        Ok(found)
    }

    fn existing<S: Specification>(&self, files: &Snapshot, index: &VerifiedIndex) -> Result<Existing<S>, BranchError> {
        let listed = index.names(S::FOLDER).into_iter().filter_map(|name| {
            let revision = index.revision(&DocumentPath::new(S::FOLDER, name.clone()))?;
            Some((name, revision))
        });
        listed.map(|(name, revision)| Ok((name.clone(), self.document(files, index, &name, revision)?))).collect()
    }

    fn document<S: Specification>(
        &self,
        files: &Snapshot,
        index: &VerifiedIndex,
        name: &Name,
        listed: Revision,
    ) -> Result<ExistingDocument<S>, BranchError> {
        let by = |root| Branch::new(files, root, self.branch).document::<S>(index, name);
        match by(self.root) {
            Ok(document) => Ok(ExistingDocument::Intact(document)),
            // Somebody without the key wrote to the branch.
            Err(BranchError::Document(ListedError::Altered { .. } | ListedError::Absent { .. })) => {
                Ok(ExistingDocument::Altered(listed))
            }
            // A key that signed is no publisher's any more.
            Err(BranchError::Document(ListedError::Signed { .. })) => {
                Ok(match self.elders.iter().find_map(|elder| by(elder).ok()) {
                    Some(document) => ExistingDocument::Outgoing(document, listed),
                    None => ExistingDocument::Unvouched(listed),
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Of what was altered, what the index lists: its digest says which file of the history that is, whoever wrote the
    /// history. What is wrong with the history is in nobody's way.
    fn restore(&self, found: &mut BranchState, places: Places<'_>, index: &VerifiedIndex) {
        let BranchState { deployments, units, agents, .. } = found;
        let mut altered = (altered(deployments), altered(units), altered(agents));
        let mut files_left = MOST_FILES;
        let starts = [places.on.tip(), places.published].into_iter().flatten();
        let before = |start| places.on.back_from(start).take(MOST_COMMITS).map_while(Result::ok);
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

    /// Takes what is found out of `altered`.
    fn restore_from<S: Specification>(
        &self,
        files: &Snapshot,
        index: &VerifiedIndex,
        existing: &mut Existing<S>,
        altered: &mut Vec<(Name, Revision)>,
    ) {
        altered.retain(|(name, listed)| match self.document(files, index, name, *listed) {
            Ok(ExistingDocument::Intact(document) | ExistingDocument::Outgoing(document, _)) => {
                existing.insert(name.clone(), ExistingDocument::Restored(document, *listed));
                false
            }
            _ => true,
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
