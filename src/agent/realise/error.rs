//! Why the store path of a deployment cannot be realised.

use std::path::PathBuf;

use bytesize::ByteSize;

use crate::agent::pin::check::NotAsPinned;
use crate::model::{Invalid, NarTemplateSpecification, PinError, StorePath, Substituter};
use crate::process::ProcessError;
use crate::store::{CacheEntry, StoreError};

/// No cache of a deployment has its store path yet.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not in any of its caches yet ({})", comma_separated(caches))]
pub struct NotInCache {
    /// The path.
    pub path: StorePath,
    /// The caches that were asked.
    pub caches: Vec<Substituter>,
}

/// Why the store path of a deployment is not on this machine.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// No cache has it yet. This is no failure: its build may not be finished.
    #[error(transparent)]
    NotInCache(#[from] NotInCache),
    /// It is not here, and the deployment names no cache.
    #[error(
        "cannot fetch {0}: it is not on this machine, and its deployment names no cache to fetch it from; name `substituters` \
         for it"
    )]
    NoCache(StorePath),
    /// A cache has it, and none of the deployment's keys signed it.
    #[error(
        "cannot fetch {path}: it is in {cache}, but not signed by any key that the deployment names ({}); it is signed by {}; \
         sign it with one of these keys, or name the cache's key in `substituters-public-keys`",
        comma_separated(named), if signers.is_empty() { "no key".to_owned() } else { signers.join(", ") }
    )]
    Untrusted {
        /// The path.
        path: StorePath,
        /// The cache that has it.
        cache: Substituter,
        /// The names of the deployment's keys.
        named: Vec<String>,
        /// The names of the keys in its signatures.
        signers: Vec<String>,
    },
    /// The disk has too little room for it.
    #[error(
        "cannot fetch {path}: it needs {} more with all that it needs, and the disk of {} has {} free; free some, for example with \
         `nix-collect-garbage`",
        ByteSize(*needed), folder.display(), ByteSize(*free)
    )]
    NoRoom {
        /// The path.
        path: StorePath,
        /// The bytes of everything that is not here.
        needed: u64,
        /// The bytes that are free.
        free: u64,
        /// A folder on the disk of the store.
        folder: PathBuf,
    },
    /// Nix's daemon reads no cache and counts no key that this user names.
    #[error(
        "cannot fetch {path}: a cache has it, and Nix's daemon lets this user name neither caches nor keys; run the agent as the \
         superuser, or add its user to `trusted-users` in the daemon's nix.conf and restart the daemon"
    )]
    UntrustedUser {
        /// The path.
        path: StorePath,
        /// The failure of Nix.
        source: ProcessError,
    },
    /// The content in the caches or in the store is not the pinned one.
    #[error(transparent)]
    NotAsPinned(Box<NotAsPinned>),
    /// The pin cannot be read.
    #[error("refused the deployment (publish it again)")]
    Pin(#[from] PinError),
    /// Something deleted it right after it was fetched.
    #[error("cannot use {0}: it was fetched, and is not in the store any more; the next pass tries again")]
    Gone(StorePath),
    /// A GC root could not be made or removed.
    #[error("cannot {act} {}", path.display())]
    Root {
        /// The action.
        act: &'static str,
        /// The link.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// It was fetched, and may be gone after a power cut.
    #[error(
        "cannot activate {path}: the disk of {} cannot be synced, so a power cut could empty its files; look at the kernel's messages \
         about that disk",
        folder.display()
    )]
    Unsynced {
        /// The path.
        path: StorePath,
        /// A folder on the disk of the store.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A bundle with closures is not readable, or damaged, and without what it should have, the path cannot be realised.
    #[error("the closures of a bundle cannot be used ({problems}), and without them")]
    Carried {
        /// For each bundle, what is wrong.
        problems: String,
        /// Why the path cannot be realised without them.
        source: Box<RealiseError>,
    },
    /// More caches than a deployment can have.
    #[error(transparent)]
    Invalid(Invalid),
    /// The store failed: it could not ask the caches, or could not fetch from them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RealiseError {
    /// The same error, with another name for some caches: for each URL, the URL that people know.
    pub(in crate::agent) fn renaming(self, names: &[(String, String)]) -> Self {
        let text = |text: &str| names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
        // A path that is no URL of a cache keeps the other name.
        let cache = |cache: Substituter| text(cache.as_str()).parse().unwrap_or(cache);
        match self {
            Self::NotInCache(NotInCache { path, caches }) => {
                NotInCache { path, caches: caches.into_iter().map(cache).collect() }.into()
            }
            Self::Untrusted { path, cache: found, named, signers } => {
                Self::Untrusted { path, cache: cache(found), named, signers }
            }
            Self::NotAsPinned(refused) => Self::NotAsPinned(Box::new(refused.renaming(text, cache))),
            Self::UntrustedUser { path, source: ProcessError::Failed { command, code, stderr } } => {
                Self::UntrustedUser { path, source: ProcessError::Failed { command, code, stderr: text(&stderr) } }
            }
            Self::Store(StoreError::Failed { act, source: ProcessError::Failed { command, code, stderr } }) => {
                let source = ProcessError::Failed { command, code, stderr: text(&stderr) };
                StoreError::Failed { act: text(&act), source }.into()
            }
            other => other,
        }
    }

    /// Nix could not fetch the path of `template`, though a cache has it with a good signature.
    pub(in crate::agent) fn refused(template: &NarTemplateSpecification, error: StoreError) -> Self {
        // The daemon says so about caches, and in later versions about every restricted setting.
        let is_untrusted =
            |stderr: &str| stderr.contains("ignoring untrusted substituter") || stderr.contains("not a trusted user");
        match error {
            StoreError::Failed { source, .. } if is_untrusted(source.stderr()) => {
                Self::UntrustedUser { path: template.nar_id.clone(), source }
            }
            error => error.into(),
        }
    }

    /// `cache` has `entry` for the path of `template`, and none of its keys signed that.
    pub(in crate::agent) fn untrusted(
        template: &NarTemplateSpecification,
        cache: Substituter,
        entry: &CacheEntry,
    ) -> Self {
        Self::Untrusted {
            path: template.nar_id.clone(),
            cache,
            named: template.substituters_public_keys.iter().map(|key| key.id().to_string()).collect(),
            signers: entry.signers().into_iter().map(ToOwned::to_owned).collect(),
        }
    }
}

/// The items in a sentence.
pub(in crate::agent) fn comma_separated<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
