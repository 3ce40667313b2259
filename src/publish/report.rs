//! The report of a publication.

use serde::{Deserialize, Serialize};

use super::described::{DescribedChange, describe, group_documents};
use super::document_change::{DocumentChange, NameConflict};
use super::left_out::{KeptBack, LostDeployment, Unready};
use super::withdrawals::HeldWithdrawals;
use crate::changes::ChangeGroup;
use crate::model::{Folder, IndexVersion, Name, RootValidity, RootWarning, Timestamp};

/// The result of a publication.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishReport {
    /// The documents that changed.
    pub changes: Vec<DocumentChange>,
    /// The differences inside systems once more, each with all deployments that share it. The largest group comes first.
    pub groups: Vec<ChangeGroup>,
    /// The names that two sources claim.
    pub conflicts: Vec<NameConflict>,
    /// The deployments that are not published yet, because no cache has them.
    #[serde(flatten)]
    pub unready: Unready,
    /// The changes that operators' holds keep back.
    pub kept_back: Vec<KeptBack>,
    /// The deployments whose hold was for a time that is over. They follow their sources again.
    pub ended_holds: Vec<Name>,
    /// The deployments whose hold ended with the key or the epoch that had signed it. They follow their sources again.
    pub lost_holds: Vec<Name>,
    /// The files and folders that did not belong on the branch, so that agents refused it. The publication removed them.
    pub removed: Vec<String>,
    /// The deployments that stay as they are because the document that they have to stay at is lost.
    pub lost: Vec<LostDeployment>,
    /// The withdrawals that wait for an operator.
    pub withdrawals: Vec<HeldWithdrawals>,
    /// The deployments that operators hold.
    pub held: Vec<Name>,
    /// The times of the index after the publication.
    pub index: IndexTimes,
    /// Until when the root is valid.
    pub root: RootValidity,
    /// The root ends soon, or has ended.
    pub root_warning: Option<RootWarning>,
    /// The version of the index after the publication.
    pub version: IndexVersion,
    /// The time at which claveld signs the index again even if nothing changes.
    pub sign_anew_at: Timestamp,
    /// The commit that claveld made; none where there was nothing to write.
    pub commit: Option<String>,
    /// The commit at the tip of the branch after the publication.
    pub tip: Option<String>,
}

/// The times of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexTimes {
    /// When it was signed.
    pub issued: Timestamp,
    /// The time from which on it must not be taken for the newest.
    pub expires: Timestamp,
}

impl PublishReport {
    /// The report of two publications of one round, of which this is the first.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        let changes = [self.changes, later.changes].concat();
        Self {
            groups: group_documents(&changes),
            changes,
            conflicts: joined(self.conflicts, later.conflicts),
            unready: Unready {
                waiting: joined(self.unready.waiting, later.unready.waiting),
                unpublishable: joined(self.unready.unpublishable, later.unready.unpublishable),
            },
            kept_back: joined(self.kept_back, later.kept_back),
            ended_holds: joined(self.ended_holds, later.ended_holds),
            lost_holds: joined(self.lost_holds, later.lost_holds),
            removed: joined(self.removed, later.removed),
            lost: joined(self.lost, later.lost),
            withdrawals: joined(self.withdrawals, later.withdrawals),
            commit: later.commit.or(self.commit),
            ..later
        }
    }

    /// The changes of Deployments alone.
    pub fn deployments(&self) -> impl Iterator<Item = &DocumentChange> {
        self.changes.iter().filter(|change| change.path.folder() == Folder::Deployments)
    }

    /// The changes as people read them.
    pub fn described_changes(&self) -> Vec<DescribedChange<'_>> {
        describe(&self.changes, &self.groups)
    }
}

/// What is in one of two lists, once.
fn joined<T: PartialEq>(mut one: Vec<T>, other: Vec<T>) -> Vec<T> {
    for item in other {
        if !one.contains(&item) {
            one.push(item);
        }
    }
    one
}
