//! Getting what a deployment names from its caches, and saying well why it cannot be had.

use std::path::{Path, PathBuf};

use super::pin::{NotAsPinned, Pins, Remains};
use super::pinned::{self, Roots};
use crate::model::{Deployment, Invalid, NarTemplateSpecification, PinError, StorePath, Substituter};
use crate::nix::{Nix, NixError};
use crate::process::ProcessError;
use crate::trust::Verified;

/// Why a deployment's path is not here.
#[derive(Debug, thiserror::Error)]
pub enum RealiseError {
    /// No cache has it yet. That is no failure: whoever builds it is not done.
    #[error("{path} is not in any of its caches yet ({})", shown(caches))]
    NotYet {
        /// The path.
        path: StorePath,
        /// The caches that were asked.
        caches: Vec<Substituter>,
    },
    /// It is not here, and there is nowhere to fetch it from.
    #[error(
        "{0} is not on this machine, and its deployment names no cache to fetch it from; name `substituters` for it"
    )]
    NoCache(StorePath),
    /// A cache has it, and none of the deployment's keys signed it.
    #[error(
        "{path} is in {cache}, but not signed by any key that the deployment names ({}); it is signed by {}",
        shown(named), if signers.is_empty() { "nobody".to_owned() } else { signers.join(", ") }
    )]
    Untrusted {
        /// The path.
        path: StorePath,
        /// The cache that has it.
        cache: Substituter,
        /// The names of the deployment's keys.
        named: Vec<String>,
        /// The names of the keys that are said to have signed it.
        signers: Vec<String>,
    },
    /// What is in the caches or in the store is not what is pinned.
    #[error(transparent)]
    NotAsPinned(Box<NotAsPinned>),
    /// The pin makes no sense.
    #[error("refused the deployment: {0}; publish it again")]
    Pin(#[from] PinError),
    /// It was just fetched, and something deleted it.
    #[error("{0} was fetched, and is not in the store any more; the next pass tries again")]
    Gone(StorePath),
    /// A link that keeps what is fetched from the garbage collector could not be moved.
    #[error("cannot {act} {}: {source}", path.display())]
    Root {
        /// What was being done.
        act: &'static str,
        /// The link.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A number of caches that cannot be.
    #[error(transparent)]
    Invalid(Invalid),
    /// The caches could not be asked, or what they have could not be fetched.
    #[error(transparent)]
    Nix(#[from] NixError),
}

fn shown<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

/// A path that is here, in full and as it is pinned, because a verified deployment named it. Nothing else is ever activated.
#[derive(Debug, Clone)]
pub(super) struct Realised(StorePath);

impl Realised {
    /// What this unit ran until now, and so was realised before.
    pub(super) fn that_ran_before(path: StorePath) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &StorePath {
        &self.0
    }
}

/// Fetches what `deployment` names, holds it to the pins on its path, and links it where it stays.
pub(super) async fn realise(
    nix: &Nix,
    deployment: &Verified<Deployment>,
    pins: &Pins,
    roots: &Roots,
) -> Result<Realised, RealiseError> {
    let template = &deployment.specification.template;
    match pins.on(deployment)? {
        [] => fetch(nix, template, &roots.kept).await?,
        pins => pinned::realise(nix, template, pins, roots).await?,
    }
    Ok(Realised(template.nar_id.clone()))
}

/// Whether what runs may be taken for `deployment`, which names its path. `None` where that path is gone.
pub(super) async fn adopt(
    nix: &Nix,
    deployment: &Verified<Deployment>,
    pins: &Pins,
) -> Result<Option<()>, RealiseError> {
    match pins.on(deployment)? {
        [] => Ok(Some(())),
        pins => pinned::is_here(nix, &deployment.specification.template, pins, Remains::Runs).await,
    }
}

/// Fetches `template`'s path and links it at `root`.
pub(super) async fn fetch(nix: &Nix, template: &NarTemplateSpecification, root: &Path) -> Result<(), RealiseError> {
    match nix.realise(template, root).await {
        Ok(()) => Ok(()),
        // Nix said no: the caches tell why. Whatever ended Nix from outside is told as it is.
        Err(error @ NixError::Failed { source: ProcessError::Failed { .. }, .. }) => {
            Err(explained(nix, template, error).await)
        }
        Err(error) => Err(error.into()),
    }
}

async fn explained(nix: &Nix, template: &NarTemplateSpecification, error: NixError) -> RealiseError {
    let path = &template.nar_id;
    let keys = &template.substituters_public_keys;
    let mut untrusted = None;
    for cache in template.substituters.iter() {
        match nix.look_up(cache, path).await {
            Ok(None) => {}
            Ok(Some(entry)) if entry.is_signed_by(path, keys) => return error.into(),
            Ok(Some(entry)) => {
                untrusted = Some(RealiseError::Untrusted {
                    path: path.clone(),
                    cache: cache.clone(),
                    named: keys.iter().map(|key| key.id().to_string()).collect(),
                    signers: entry.signers().into_iter().map(ToOwned::to_owned).collect(),
                });
            }
            // A cache that cannot be asked may be the one that has it.
            Err(unreachable) => return unreachable.into(),
        }
    }
    untrusted.unwrap_or_else(|| match template.substituters.to_vec() {
        caches if caches.is_empty() => RealiseError::NoCache(path.clone()),
        caches => RealiseError::NotYet { path: path.clone(), caches },
    })
}
