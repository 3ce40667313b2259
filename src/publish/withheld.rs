//! The documents that a publication leaves as they are. No I/O.

use std::collections::BTreeSet;

use crate::model::{DocumentPath, Folder, Name};

/// The documents that stay on the branch as they are, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Withheld {
    pub(super) deployments: BTreeSet<Name>,
    pub(super) units: BTreeSet<Name>,
    pub(super) agents: BTreeSet<Name>,
    /// Deployments of the opposite kind: they lack their pin, so claveld writes them even if their specification is the
    /// same.
    pub(super) unpinned: BTreeSet<Name>,
}

impl Withheld {
    /// Adds a document.
    pub(super) fn insert(&mut self, path: &DocumentPath) {
        let names = match path.folder() {
            Folder::Agents => &mut self.agents,
            Folder::Deployments => &mut self.deployments,
            Folder::Units => &mut self.units,
        };
        names.insert(path.name().clone());
    }

    /// The names of all of them, and of the deployments that lack their pin.
    pub(super) fn names(&self) -> impl Iterator<Item = &Name> {
        let Self { deployments, units, agents, unpinned } = self;
        deployments.iter().chain(units).chain(agents).chain(unpinned)
    }

    /// Whether every document may change.
    pub(super) fn is_empty(&self) -> bool {
        let Self { deployments, units, agents, unpinned: _ } = self;
        deployments.is_empty() && units.is_empty() && agents.is_empty()
    }
}
