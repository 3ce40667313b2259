//! The sources of Deployments.
//!
//! Reading the configuration that names them belongs to `config`, and fetching them to `nix`.

use super::{FlakeReference, List, Name, NarHash, Pattern, PublicKey, SourceRevision, Substituter};

/// A Nix flake that claveld watches, and the defaults for its Deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The flake, as its owner wrote it. It is the identity of the source.
    pub flake: FlakeReference,
    /// The caches of the Deployments that name none themselves.
    pub substituters: List<Substituter, 32>,
    /// The keys of the Deployments that name none themselves.
    pub substituters_public_keys: List<PublicKey, 32>,
    /// Patterns of the names of the selected deployments. An empty list selects all.
    pub include: Vec<Pattern>,
    /// Patterns of the names that are excluded from the selection.
    pub exclude: Vec<Pattern>,
    /// Patterns of the names that the source may publish, compared without regard to case. An empty list allows all.
    pub names: Vec<Pattern>,
}

impl Source {
    /// A source without defaults or patterns.
    pub fn bare(flake: FlakeReference) -> Self {
        let (substituters, substituters_public_keys) = (List::default(), List::default());
        Self {
            flake,
            substituters,
            substituters_public_keys,
            include: Vec::new(),
            exclude: Vec::new(),
            names: Vec::new(),
        }
    }

    /// Whether the source may publish documents of that name.
    pub fn may_publish(&self, name: &Name) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| pattern.matches_folded(name))
    }

    /// Whether every deployment of the flake is selected.
    pub fn selects_all(&self) -> bool {
        self.include.is_empty() && self.exclude.is_empty()
    }
}

/// A source whose content is fixed.
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
