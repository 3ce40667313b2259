//! Where Deployments come from.

use super::{FlakeReference, List, NarHash, PublicKey, SourceRevision, Substituter};

/// A reference to a Nix flake that Claveld watches, and what its Deployments get where they say nothing themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The flake, as its owner wrote it; also what tells this source from another.
    pub flake: FlakeReference,
    /// The caches of Deployments that name none.
    pub substituters: List<Substituter, 32>,
    /// The keys of Deployments that name none.
    pub substituters_public_keys: List<PublicKey, 32>,
}

impl Source {
    /// A source that has nothing to add to its flake.
    pub fn bare(flake: FlakeReference) -> Self {
        Self { flake, substituters: List::default(), substituters_public_keys: List::default() }
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
