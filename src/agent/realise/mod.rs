//! Getting the store path of a deployment onto this machine, from the deployment's caches and as it is pinned.
//!
//! `fetch` explains why a path cannot be fetched, `space` whether there is room for it, `gc_roots` keeps it from the garbage collector, and `pin` compares it with
//! its pins. Activating it does not belong here.

pub(super) mod error;
pub(super) mod fetch;
pub(super) mod gc_roots;
mod space;

use super::carried::Carried;
use super::pin;
use super::pin::check::{Cleanup, Pins};
use crate::disk;
use crate::model::{Deployment, StorePath};
use crate::store::Store;
use crate::trust::Verified;
use error::RealiseError;
use fetch::fetch;
use gc_roots::GcRoots;
use space::check_space;

/// A store path that is on this machine, complete and as pinned, because a verified deployment names it. Nothing else is
/// ever activated.
#[derive(Debug, Clone)]
pub(super) struct Realised(StorePath);

impl Realised {
    /// A path of a recorded activation or rollback. The agent realises a path before it records either.
    pub(super) fn from_record(path: StorePath) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &StorePath {
        &self.0
    }
}

/// Fetches the store path of `deployment` from its caches and from what is `carried`, compares it with the pins on it, and links it as a GC root.
/// It is on the disk then.
pub(super) async fn realise(
    store: &dyn Store,
    deployment: &Verified<Deployment>,
    pins: &Pins,
    gc_roots: &GcRoots,
    carried: &Carried,
) -> Result<Realised, RealiseError> {
    let pins = pins.on(deployment)?;
    let template = carried.in_front_of(&deployment.specification.template);
    check_space(store, &template).await?;
    let fetched = match pins {
        [] => fetch(store, &template, &gc_roots.kept).await,
        pins => pin::fetch::realise(store, &template, pins, gc_roots).await,
    };
    fetched.map_err(|error| carried.explain(error))?;
    sync_store(store, &template.nar_id).await?;
    Ok(Realised(template.nar_id.clone()))
}

/// Brings what was fetched to the disk. Nix says that a path is there before that. The record that leads to the activation of the path is
/// synced, and after a power cut it would lead to empty files.
async fn sync_store(store: &dyn Store, path: &StorePath) -> Result<(), RealiseError> {
    let files = store.files_of(path);
    let folder = files.parent().unwrap_or(&files).to_owned();
    let syncing = folder.clone();
    let synced = tokio::task::spawn_blocking(move || disk::sync_file_system(&syncing)).await;
    let synced = synced.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    synced.map_err(|source| RealiseError::Unsynced { path: path.clone(), folder, source })
}

/// Whether a store path that runs can be taken for a deployment that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adoption {
    /// It is as pinned, or nothing pins it.
    AsPinned,
    /// It is not in the store any more.
    NotHere,
}

/// Compares the store path of `deployment`, which runs, with the pins on it.
pub(super) async fn adopt(
    store: &dyn Store,
    deployment: &Verified<Deployment>,
    pins: &Pins,
) -> Result<Adoption, RealiseError> {
    let presence = match pins.on(deployment)? {
        [] => return Ok(Adoption::AsPinned),
        pins => pin::fetch::check_store(store, &deployment.specification.template, pins, Cleanup::Runs).await?,
    };
    Ok(match presence {
        pin::fetch::Presence::AsPinned => Adoption::AsPinned,
        pin::fetch::Presence::Absent => Adoption::NotHere,
    })
}
