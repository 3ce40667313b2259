//! The chain of roots on a branch, from a trusted one to the newest.

use super::layout::Layout;
use crate::git::{Files, ReadError};
use crate::model::{FleetId, Payload as _, Root, RootVersion, Sha256Digest};
use crate::trust::{Anchor, RootError, Signed, SignedError, TrustedRoot, fleet_of};

/// The most roots that are walked at once. A fleet that rotates every day comes to as many in three years.
const MOST: usize = 1024;

/// The roots from one that was believed to the newest.
#[derive(Debug, Clone)]
pub struct RootChain {
    /// The newest.
    pub newest: TrustedRoot,
    /// Those before it, from the one that was believed on; none where that is the newest.
    pub before: Vec<TrustedRoot>,
}

/// The reason why a branch leads to no trusted root.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The branch has no root at all.
    #[error("this is not a branch of Clavel: it has no {}", Layout::Flat.newest_root())]
    NotClavels,
    /// It does not have the first root, whose digest alone is known.
    #[error("the branch has no {}, and of the fleet {fleet} only the digest is known", Layout::Flat.root(RootVersion::FIRST))]
    NoFirst {
        /// The fleet.
        fleet: FleetId,
    },
    /// A root is not to be believed.
    #[error("{path} is not to be believed: {source}")]
    Root {
        /// Where it is.
        path: String,
        /// Why.
        source: RootError,
    },
    /// The newest root cannot be understood.
    #[error("{} is not to be believed: {why}", Layout::Flat.newest_root(), why = .0)]
    Newest(SignedError),
    /// It is the branch of another fleet.
    #[error("the branch is of the fleet {found}, and {expected} was asked for")]
    OtherFleet {
        /// The fleet that was asked for.
        expected: FleetId,
        /// The fleet that it says it is of.
        found: FleetId,
    },
    /// The branch is at an older root than one that was believed before.
    #[error("the root went back from version {held} to {found}: somebody shows an old branch")]
    Rollback {
        /// The newest that was believed.
        held: RootVersion,
        /// What the branch has.
        found: RootVersion,
    },
    /// A version between the one that was believed and the newest is not there.
    #[error("the branch has {} of version {newest}, and lacks {}, which leads to it", Layout::Flat.newest_root(), Layout::Flat.root(*missing))]
    Gap {
        /// The first that is missing.
        missing: RootVersion,
        /// The version of the newest.
        newest: RootVersion,
    },
    /// There are two roots of one version.
    #[error("there are two roots of version {version}: {one} says another thing than {other}")]
    Fork {
        /// The version.
        version: RootVersion,
        /// Where one is.
        one: String,
        /// Where the other is.
        other: String,
        /// The digest of what the one says.
        found: Sha256Digest,
    },
    /// There are more than are walked at once.
    #[error("the branch has more than {MOST} roots after version {held}; give a newer root by hand")]
    TooMany {
        /// The version that was believed.
        held: RootVersion,
    },
    /// Git could not read it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl RootChain {
    /// Walks from `anchor` to the newest root on the branch.
    pub fn from_anchor<F: Files>(files: &F, anchor: &Anchor) -> Result<Self, RootsError> {
        match anchor {
            Anchor::Root(root) => Self::walk(files, root),
            Anchor::Digest(fleet) => {
                let path = Layout::Flat.root(RootVersion::FIRST);
                let file = files.read(&path, Root::LARGEST)?.ok_or(RootsError::NoFirst { fleet: *fleet })?;
                let first = TrustedRoot::first(&file, *fleet).map_err(|source| RootsError::Root { path, source })?;
                Self::walk(files, &first)
            }
        }
    }

    /// The newest root that `anchor` leads to, whatever else the branch shows: each proves itself. None where the first is
    /// not there.
    pub fn newest_from<F: Files>(files: &F, anchor: &Anchor) -> Option<TrustedRoot> {
        let held = match anchor {
            Anchor::Root(root) => TrustedRoot::clone(root),
            Anchor::Digest(fleet) => {
                let file = files.read(&Layout::Flat.root(RootVersion::FIRST), Root::LARGEST).ok().flatten()?;
                TrustedRoot::first(&file, *fleet).ok()?
            }
        };
        Some(climb(files, &held).roots.newest)
    }

    /// Walks from `held` to the newest root on the branch, one version after the other. Whether the newest has expired
    /// is another question; one before it may have.
    pub fn walk<F: Files>(files: &F, held: &TrustedRoot) -> Result<Self, RootsError> {
        let newest_file = files.read(Layout::Flat.newest_root(), Root::LARGEST)?.ok_or(RootsError::NotClavels)?;
        let shown = Signed::<Root>::parse(&newest_file).map_err(RootsError::Newest)?;
        let (expected, found) = (held.fleet(), fleet_of(shown.unverified()));
        if found != expected {
            return Err(RootsError::OtherFleet { expected, found });
        }
        let Climbed { roots: Self { newest, before }, stopped } = climb(files, held);
        if let Some(error) = stopped {
            return Err(error);
        }
        let (reached, found) = (newest.root().version, shown.unverified().version);
        if found < reached {
            return Err(RootsError::Rollback { held: reached, found });
        }
        if found > reached {
            // There is a next one: `found` is larger.
            let missing = reached.next().unwrap_or(found);
            return Err(RootsError::Gap { missing, newest: found });
        }
        if shown.unverified() != newest.root() {
            // What nobody signed is no second root: anybody can write it.
            let signed = before.last().map_or_else(|| newest.again(&newest_file), |last| last.next(&newest_file));
            let found = signed
                .map_err(|source| RootsError::Root { path: Layout::Flat.newest_root().to_owned(), source })?
                .content();
            let known =
                if before.is_empty() { "the one that is believed".to_owned() } else { Layout::Flat.root(reached) };
            return Err(RootsError::Fork {
                version: reached,
                one: Layout::Flat.newest_root().to_owned(),
                other: known,
                found,
            });
        }
        Ok(Self { newest, before })
    }
}

/// How far it goes up, and why no further where the next one is there and not believed.
struct Climbed {
    roots: RootChain,
    stopped: Option<RootsError>,
}

/// From `held` to the next root and on, as far as each is signed as it has to be.
fn climb<F: Files>(files: &F, held: &TrustedRoot) -> Climbed {
    let (mut newest, mut before) = (held.clone(), Vec::new());
    let step = |newest: &TrustedRoot, walked: usize| -> Result<Option<TrustedRoot>, RootsError> {
        let Some(version) = newest.root().version.next() else { return Ok(None) };
        let path = Layout::Flat.root(version);
        let Some(file) = files.read(&path, Root::LARGEST)? else { return Ok(None) };
        if walked == MOST {
            return Err(RootsError::TooMany { held: held.root().version });
        }
        newest.next(&file).map(Some).map_err(|source| RootsError::Root { path, source })
    };
    let stopped = loop {
        match step(&newest, before.len()) {
            Ok(Some(next)) => before.push(std::mem::replace(&mut newest, next)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    Climbed { roots: RootChain { newest, before }, stopped }
}

#[cfg(test)]
#[path = "root_chain_tests.rs"]
mod tests;
