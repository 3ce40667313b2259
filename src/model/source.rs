//! The sources that Deployments come from.
//!
//! Reading the configuration that names them belongs to `config`; fetching them belongs to `nix`.

use super::{FlakeReference, List, NarHash, Pattern, PublicKey, SourceRevision, Substituter};

/// A Nix flake that claveld watches, and the defaults for its Deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The flake, as its owner wrote it. It is the identity of the source.
    pub flake: FlakeReference,
    /// The caches of Deployments that name none themselves.
    pub substituters: List<Substituter, 32>,
    /// The keys of Deployments that name none themselves.
    pub substituters_public_keys: List<PublicKey, 32>,
    /// The deployments that are selected, by their names; all of them where this is empty.
    pub include: Vec<Pattern>,
    /// The deployments that are left out of those.
    pub exclude: Vec<Pattern>,
}

impl Source {
    /// A source without any defaults or patterns.
    pub fn bare(flake: FlakeReference) -> Self {
        let (substituters, substituters_public_keys) = (List::default(), List::default());
        Self { flake, substituters, substituters_public_keys, include: Vec::new(), exclude: Vec::new() }
    }

    /// Whether every deployment of the flake is selected.
    pub fn takes_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A source at one content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedSource {
    /// The flake, as its owner wrote it.
    pub flake: FlakeReference,
    /// The reference that always means this content.
    pub locked: FlakeReference,
    /// The hash of the content.
    pub hash: NarHash,
    /// The revision in the version control; none for a plain folder or a dirty work tree.
    pub revision: Option<SourceRevision>,
}
