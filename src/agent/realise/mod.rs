//! Getting what a deployment names from its caches, held to its pins.

pub(super) mod error;
pub(super) mod fetch;
pub(super) mod gc_roots;

use super::pin;
use super::pin::check::{Pins, Remains};
use crate::model::{Deployment, StorePath};
use crate::store::Store;
use crate::trust::Verified;
use error::RealiseError;
use fetch::fetch;
use gc_roots::GcRoots;

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
    store: &dyn Store,
    deployment: &Verified<Deployment>,
    pins: &Pins,
    roots: &GcRoots,
) -> Result<Realised, RealiseError> {
    let template = &deployment.specification.template;
    match pins.on(deployment)? {
        [] => fetch(store, template, &roots.kept).await?,
        pins => pin::fetch::realise(store, template, pins, roots).await?,
    }
    Ok(Realised(template.nar_id.clone()))
}

/// Whether what runs may be taken for `deployment`, which names its path. `None` where that path is gone.
pub(super) async fn adopt(
    store: &dyn Store,
    deployment: &Verified<Deployment>,
    pins: &Pins,
) -> Result<Option<()>, RealiseError> {
    match pins.on(deployment)? {
        [] => Ok(Some(())),
        pins => pin::fetch::is_here(store, &deployment.specification.template, pins, Remains::Runs).await,
    }
}
