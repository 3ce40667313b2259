//! The chain of roots on a branch, from a trusted one to the newest.

use super::layout::Layout;
use crate::git::{Files, ReadError};
use crate::model::{BranchFile as _, FleetId, Root, RootVersion, Sha256Digest};
use crate::trust::{Anchor, RootError, Signed, SignedError, TrustedRoot, fleet_of};

/// The most roots that are followed at once. A fleet with a new root every day has as many in three years.
const MAX_FOLLOWED_ROOTS: usize = 1024;

/// The roots from one that was trusted before to the newest.
#[derive(Debug, Clone)]
pub struct RootChain {
    /// The newest root.
    pub newest: TrustedRoot,
    /// The roots before it, beginning with the one that was trusted before; none if that one is the newest.
    pub before: Vec<TrustedRoot>,
}

/// The reason why a branch leads to no trusted root.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The branch has no newest root.
    #[error("this is not a branch of Clavel: it has no {}", Layout::NEWEST_ROOT)]
    NoNewest,
    /// The branch lacks the first root, of which only the digest is known.
    #[error(
        "the branch has no {}, and only the digest of the first root of the fleet {fleet} is known; give the file of a root \
         in place of the digest",
        Layout::root(RootVersion::FIRST)
    )]
    NoFirst {
        /// The fleet.
        fleet: FleetId,
    },
    /// A root cannot be verified.
    #[error("{path} cannot be trusted")]
    Root {
        /// The path of the root on the branch.
        path: String,
        /// The reason.
        source: RootError,
    },
    /// The newest root cannot be parsed.
    #[error("{} cannot be trusted", Layout::NEWEST_ROOT)]
    Newest(#[source] SignedError),
    /// The branch is of another fleet.
    #[error("the branch is of the fleet {found}, not of {expected}; correct the URL or the root")]
    OtherFleet {
        /// The fleet that is expected.
        expected: FleetId,
        /// The fleet that the newest root names.
        found: FleetId,
    },
    /// The newest root is older than one that was trusted before.
    #[error(
        "the root went back from version {trusted} to {found}: most likely the repository is a mirror that lags behind; bring it up to date"
    )]
    Rollback {
        /// The newest version that was trusted.
        trusted: RootVersion,
        /// The version of the newest root on the branch.
        found: RootVersion,
    },
    /// A version between the one that was trusted and the newest is missing.
    #[error("the branch has {} of version {newest}, and lacks {}, which leads to it", Layout::NEWEST_ROOT, Layout::root(*missing))]
    Gap {
        /// The first version that is missing.
        missing: RootVersion,
        /// The newest version.
        newest: RootVersion,
    },
    /// There are two roots of one version.
    #[error("there are two roots of version {version}: {one} differs from {other}; both are signed")]
    Fork {
        /// The version.
        version: RootVersion,
        /// The path of one.
        one: String,
        /// The path of the other, or its description.
        other: String,
        /// The digest of the content of the one.
        found: Sha256Digest,
    },
    /// The chain is longer than is followed at once.
    #[error(
        "the branch has more than {MAX_FOLLOWED_ROOTS} roots after version {trusted}; give the file of a newer root"
    )]
    TooMany {
        /// The version that was trusted.
        trusted: RootVersion,
    },
    /// Git could not read it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl RootChain {
    /// Follows the chain from `anchor` to the newest root on the branch.
    pub fn from_anchor<F: Files>(files: &F, anchor: &Anchor) -> Result<Self, RootsError> {
        Self::walk(files, &trusted_at(files, anchor)?)
    }

    /// The newest root that `anchor` leads to, whatever else the branch has: the signatures of each root prove it. `None` if the
    /// first root is missing or is another.
    pub fn newest_from<F: Files>(files: &F, anchor: &Anchor) -> Option<TrustedRoot> {
        Some(follow(files, &trusted_at(files, anchor).ok()?).roots.newest)
    }

    /// Follows the chain from `trusted` to the newest root on the branch, one version after the other. It does not check whether
    /// the newest has expired; a root before it may have.
    pub fn walk<F: Files>(files: &F, trusted: &TrustedRoot) -> Result<Self, RootsError> {
        let newest_file = files.read(Layout::NEWEST_ROOT, Root::MAX_BYTES)?.ok_or(RootsError::NoNewest)?;
        let last = match Signed::<Root>::parse(&newest_file) {
            // Anybody can write that a newer Clavel is needed. If the root keys did, the chain says so.
            Err(error) if error.is_of_a_newer_clavel() => {
                return Err(follow(files, trusted).error.unwrap_or(RootsError::Newest(error)));
            }
            last => last.map_err(RootsError::Newest)?,
        };
        let (expected, found) = (trusted.fleet(), fleet_of(&last));
        if found != expected {
            return Err(RootsError::OtherFleet { expected, found });
        }
        let FollowedChain { roots: Self { newest, before }, error } = follow(files, trusted);
        if let Some(error) = error {
            return Err(error);
        }
        let (reached, found) = (newest.root().version, last.unverified().version);
        if found < reached {
            return Err(RootsError::Rollback { trusted: reached, found });
        }
        if found > reached {
            // A next version exists, because `found` is larger.
            let missing = reached.next().unwrap_or(found);
            return Err(RootsError::Gap { missing, newest: found });
        }
        if last.content_digest() != newest.content_digest() {
            // A file that is not signed is no second root, because anybody can write it.
            let signed =
                before.last().map_or_else(|| newest.same_version(&newest_file), |root| root.next(&newest_file));
            let found = signed
                .map_err(|source| RootsError::Root { path: Layout::NEWEST_ROOT.to_owned(), source })?
                .content_digest();
            let known =
                if before.is_empty() { "the one that was trusted before".to_owned() } else { Layout::root(reached) };
            return Err(RootsError::Fork {
                version: reached,
                one: Layout::NEWEST_ROOT.to_owned(),
                other: known,
                found,
            });
        }
        Ok(Self { newest, before })
    }
}

/// The root that `anchor` trusts: the anchor itself, or the first root on the branch, if only its digest is known.
fn trusted_at<F: Files>(files: &F, anchor: &Anchor) -> Result<TrustedRoot, RootsError> {
    match anchor {
        Anchor::Root(root) => Ok(TrustedRoot::clone(root)),
        Anchor::Digest(fleet) => {
            let path = Layout::root(RootVersion::FIRST);
            let file = files.read(&path, Root::MAX_BYTES)?.ok_or(RootsError::NoFirst { fleet: *fleet })?;
            TrustedRoot::first(&file, *fleet).map_err(|source| RootsError::Root { path, source })
        }
    }
}

/// The chain as far as it can be verified, and the error at which it ends, if the next root exists.
struct FollowedChain {
    roots: RootChain,
    error: Option<RootsError>,
}

/// Follows the chain from `trusted`, as far as each root has the signatures that it needs.
fn follow<F: Files>(files: &F, trusted: &TrustedRoot) -> FollowedChain {
    let (mut newest, mut before) = (trusted.clone(), Vec::new());
    let next_root = |newest: &TrustedRoot, followed: usize| -> Result<Option<TrustedRoot>, RootsError> {
        let Some(version) = newest.root().version.next() else { return Ok(None) };
        let path = Layout::root(version);
        let Some(file) = files.read(&path, Root::MAX_BYTES)? else { return Ok(None) };
        if followed == MAX_FOLLOWED_ROOTS {
            return Err(RootsError::TooMany { trusted: trusted.root().version });
        }
        newest.next(&file).map(Some).map_err(|source| RootsError::Root { path, source })
    };
    let error = loop {
        match next_root(&newest, before.len()) {
            Ok(Some(next)) => before.push(std::mem::replace(&mut newest, next)),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    FollowedChain { roots: RootChain { newest, before }, error }
}

#[cfg(test)]
#[path = "root_chain_tests.rs"]
mod tests;
