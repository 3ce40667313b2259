//! Getting what a deployment names from its caches, and saying well why it cannot be had.

use std::path::Path;

use crate::model::{Deployment, NarTemplateSpecification, StorePath, Substituter};
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
    /// The caches could not be asked, or what they have could not be fetched.
    #[error(transparent)]
    Nix(#[from] NixError),
}

fn shown<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() { "it names none".to_owned() } else { items.join(", ") }
}

/// A path that is here, in full, because a verified deployment named it. Nothing else is ever activated.
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

/// Fetches what `deployment` names and links it at `root`.
pub(super) async fn realise(
    nix: &Nix,
    deployment: &Verified<Deployment>,
    root: &Path,
) -> Result<Realised, RealiseError> {
    let template = &deployment.specification.template;
    match nix.realise(template, root).await {
        Ok(()) => Ok(Realised(template.nar_id.clone())),
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
    untrusted.unwrap_or_else(|| RealiseError::NotYet { path: path.clone(), caches: template.substituters.to_vec() })
}
