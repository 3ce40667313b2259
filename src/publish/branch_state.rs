//! The branch as values: the documents that it has, and how far claveld trusts each of them. No I/O.
//!
//! `base` and `document_loader` read a branch into these types; `plan`, `operate` and `withhold` decide by them.

use std::collections::{BTreeMap, BTreeSet};

use crate::branch::{ForeignEntry, VerifiedIndex};
use crate::model::{
    AgentSpecification, DeploymentSpecification, Document, DocumentPath, FleetId, Hold, Name, Revision, Sha256Digest,
    Specification, Timestamp, UnitSpecification,
};
use crate::trust::Verified;

/// The documents of one kind on the branch.
pub(super) type Existing<S> = BTreeMap<Name, ExistingDocument<S>>;

/// A document on the branch, by what claveld found in its place.
#[derive(Debug, Clone)]
pub(super) enum ExistingDocument<S: Specification> {
    /// The file is the one that the index lists.
    Intact(Verified<Document<S>>),
    /// The file is the one that the index lists, and this claveld signed it with a key that publishes no more. It gets the
    /// revision after the listed one.
    Outgoing(Verified<Document<S>>, Revision),
    /// The file is missing or another one, and the history has the one that the index lists under this revision.
    Restored(Verified<Document<S>>, Revision),
    /// The file is missing or another one, and the history does not have the one that the index lists under this revision.
    Altered(Revision),
    /// The signer publishes no more, and claveld cannot know that the content is its own: only the revision counts.
    Unvouched(Revision),
}

/// The branch as it is.
#[derive(Debug)]
pub(super) struct BranchState {
    /// The fleet of the branch.
    pub(super) fleet: FleetId,
    /// The index with all of its bins, and the SHA-256 of its file; none on a branch without an index.
    pub(super) index: Option<(VerifiedIndex, Sha256Digest)>,
    pub(super) deployments: Existing<DeploymentSpecification>,
    pub(super) units: Existing<UnitSpecification>,
    pub(super) agents: Existing<AgentSpecification>,
    /// The deployments that an operator holds.
    pub(super) holds: BTreeMap<Name, Hold>,
    /// The holds whose time is over. The publication takes them out of the index.
    pub(super) ended_holds: BTreeMap<Name, Hold>,
    /// Whether the publishers of an older root signed the index, so that those of the newest root have to sign it again.
    pub(super) is_of_an_older_root: bool,
    /// The paths of entries that do not belong on the branch, so that agents refuse it. The publication removes them.
    pub(super) foreign: Vec<ForeignEntry>,
}

impl BranchState {
    /// A branch with nothing on it.
    pub(super) fn empty(fleet: FleetId) -> Self {
        let (deployments, units, agents) = (Existing::new(), Existing::new(), Existing::new());
        Self {
            fleet,
            index: None,
            deployments,
            units,
            agents,
            holds: BTreeMap::new(),
            ended_holds: BTreeMap::new(),
            is_of_an_older_root: false,
            foreign: Vec::new(),
        }
    }

    /// Ends the holds whose time is over at `now`.
    pub(super) fn end_holds(&mut self, now: Timestamp) {
        let is_over = |_: &Name, hold: &mut Hold| hold.until.is_some_and(|until| until <= now);
        self.ended_holds.extend(self.holds.extract_if(.., is_over));
    }

    /// The names of documents that claveld does not trust as they are, apart from those of `changed`.
    pub(super) fn unsettled(&self, changed: &BTreeSet<&DocumentPath>) -> Vec<&Name> {
        fn of<'a, S: Specification>(
            existing: &'a Existing<S>,
            changed: &BTreeSet<&DocumentPath>,
        ) -> impl Iterator<Item = &'a Name> {
            let is_good = |document: &ExistingDocument<S>| matches!(document, ExistingDocument::Intact(_));
            let names = existing.iter().filter(move |(_, document)| !is_good(document)).map(|(name, _)| name);
            names.filter(|name| !changed.contains(&DocumentPath::new(S::FOLDER, (*name).clone())))
        }
        of(&self.deployments, changed).chain(of(&self.units, changed)).chain(of(&self.agents, changed)).collect()
    }

    /// The last revision of a document that was withdrawn.
    pub(super) fn last_of_withdrawn(&self, path: &DocumentPath) -> Option<Revision> {
        let (index, _) = self.index.as_ref()?;
        index.tombstone(path).map(|tombstone| tombstone.revision)
    }
}

impl<S: Specification> ExistingDocument<S> {
    /// The revision that the index lists.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Intact(document) => document.revision,
            Self::Outgoing(_, revision)
            | Self::Restored(_, revision)
            | Self::Altered(revision)
            | Self::Unvouched(revision) => *revision,
        }
    }

    /// The document, where its content is known.
    pub(super) fn known(&self) -> Option<&Verified<Document<S>>> {
        match self {
            Self::Intact(document) | Self::Outgoing(document, _) | Self::Restored(document, _) => Some(document),
            Self::Altered(_) | Self::Unvouched(_) => None,
        }
    }

    /// Whether claveld does not trust the file that stands there, whoever signed it.
    pub(super) fn is_damaged(&self) -> bool {
        match self {
            Self::Restored(..) | Self::Altered(_) | Self::Unvouched(_) => true,
            Self::Intact(_) | Self::Outgoing(..) => false,
        }
    }
}
