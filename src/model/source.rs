//! Where Deployments come from.

use super::{FlakeReference, List, NarHash, Pattern, PublicKey, SourceRevision, Substituter};

/// A reference to a Nix flake that Claveld watches, and what its Deployments get where they say nothing themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The flake, as its owner wrote it; also what tells this source from another.
    pub flake: FlakeReference,
    /// The caches of Deployments that name none.
    pub substituters: List<Substituter, 32>,
    /// The keys of Deployments that name none.
    pub substituters_public_keys: List<PublicKey, 32>,
    /// The deployments that are taken, by their names; all of them where this is empty.
    pub include: Vec<Pattern>,
    /// Those of them that are not.
    pub exclude: Vec<Pattern>,
}

impl Source {
    /// A source that has nothing to add to its flake.
    pub fn bare(flake: FlakeReference) -> Self {
        let (substituters, substituters_public_keys) = (List::default(), List::default());
        Self { flake, substituters, substituters_public_keys, include: Vec::new(), exclude: Vec::new() }
    }

    /// Whether everything that the flake has is taken.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A source at one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedSource {
    /// The flake, as its owner wrote it.
    pub flake: FlakeReference,
    /// The reference that names this content and no other.
    pub locked: FlakeReference,
    /// The hash of the content.
    pub hash: NarHash,
    /// The revision in its version control; none for a plain folder or a dirty work tree.
    pub revision: Option<SourceRevision>,
}
