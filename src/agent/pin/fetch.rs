//! Fetching a pinned store path: it is compared with its pins before it becomes a GC root or is activated.
//!
//! The comparison itself belongs to `pin/check.rs`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::check::{
    CacheChoice, CacheFinding, Cleanup, DifferingPath, Mismatch, MismatchSite, NotAsPinned, PinnedBy, check_pins,
    choose_caches, closure_of, compare_cache, differing_paths,
};
use crate::agent::realise::error::RealiseError;
use crate::agent::realise::fetch::fetch;
use crate::agent::realise::gc_roots::{GcRoots, unlink};
use crate::model::{Closure, NarTemplateSpecification, StorePath, Substituter};
use crate::store::Store;

/// Whether the store has a pinned path. One with other content is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Presence {
    /// It has it as pinned.
    AsPinned,
    /// It does not have it.
    Absent,
}

/// Fetches the store path of `template` and compares it with `pins`, of which there is at least one.
pub(in crate::agent) async fn realise(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
    gc_roots: &GcRoots,
) -> Result<(), RealiseError> {
    let path = &template.nar_id;
    // A pass that was killed may have left this link.
    unlink(&gc_roots.unchecked)?;
    // The link is made before the comparison: a path that is collected between the two would be fetched again without one.
    if link(store, path, &gc_roots.unchecked).await? {
        return match check_store(store, template, pins, Cleanup::WasHere).await {
            Ok(Presence::AsPinned) => keep(store, path, gc_roots).await,
            Ok(Presence::Absent) => Err(RealiseError::Gone(path.clone())),
            Err(refused) => unlink(&gc_roots.unchecked).and(Err(refused)),
        };
    }
    let findings = ask_caches(store, template, pins).await?;
    let caches = match choose_caches(&findings) {
        CacheChoice::From(caches) => caches,
        CacheChoice::Nowhere => return Err(refuse_caches(path, &findings, pins)),
        CacheChoice::StoreDiffers(mismatch, differing) => {
            return Err(refuse_store(path, mismatch, differing, Cleanup::WasHere));
        }
    };
    let before = StoreListing::read(&store.files_of(path));
    let substituters = caches.try_into().map_err(RealiseError::Invalid)?;
    let narrowed = NarTemplateSpecification { substituters, ..template.clone() };
    match fetch(store, &narrowed, &gc_roots.unchecked).await {
        // Some cache has other content; that the remaining ones do not have the path is not the whole reason.
        Err(RealiseError::NotInCache(_)) if findings.iter().any(|(_, finding)| finding.is_other_content()) => {
            return Err(refuse_caches(path, &findings, pins));
        }
        fetched => fetched?,
    }
    match compare_store(store, path, pins).await? {
        StoreContent::AsPinned => keep(store, path, gc_roots).await,
        StoreContent::Absent => Err(RealiseError::Gone(path.clone())),
        StoreContent::Differs(mismatch, closure) => {
            unlink(&gc_roots.unchecked)?;
            let differing = compare_with_caches(store, template, &closure).await;
            let cleanup = before.delete_new(store, &closure, &differing).await;
            Err(refuse_store(path, mismatch, differing, cleanup))
        }
    }
}

/// Links the path, if it is in the store. Nothing is fetched.
async fn link(store: &dyn Store, path: &StorePath, link: &Path) -> Result<bool, RealiseError> {
    let is_there = async || store.closures_here(std::slice::from_ref(path)).await.map(|found| !found.is_empty());
    if !is_there().await? {
        return Ok(false);
    }
    match store.keep(path, link).await {
        Ok(()) => Ok(true),
        // A garbage collection was faster.
        Err(_) if !is_there().await? => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a path that is as pinned a GC root.
async fn keep(store: &dyn Store, path: &StorePath, gc_roots: &GcRoots) -> Result<(), RealiseError> {
    store.keep(path, &gc_roots.kept).await?;
    unlink(&gc_roots.unchecked)
}

/// Compares what the store has under the path with the pins. `cleanup` says in the error why other content is there.
pub(in crate::agent) async fn check_store(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
    cleanup: Cleanup,
) -> Result<Presence, RealiseError> {
    match compare_store(store, &template.nar_id, pins).await? {
        StoreContent::Absent => Ok(Presence::Absent),
        StoreContent::AsPinned => Ok(Presence::AsPinned),
        StoreContent::Differs(mismatch, closure) => {
            let differing = compare_with_caches(store, template, &closure).await;
            Err(refuse_store(&template.nar_id, mismatch, differing, cleanup))
        }
    }
}

/// The content of the store under a pinned path.
enum StoreContent {
    AsPinned,
    Differs(Mismatch, Closure),
    Absent,
}

async fn compare_store(store: &dyn Store, path: &StorePath, pins: &[PinnedBy]) -> Result<StoreContent, RealiseError> {
    let entries = store.closures_here(std::slice::from_ref(path)).await?;
    if entries.is_empty() {
        return Ok(StoreContent::Absent);
    }
    let closure = closure_of(&entries);
    match check_pins(path, &closure, pins) {
        Ok(()) => Ok(StoreContent::AsPinned),
        Err(Some(mismatch)) => Ok(StoreContent::Differs(mismatch, closure)),
        Err(None) => Err(RealiseError::Gone(path.clone())),
    }
}

/// Asks each cache for the path and for all that it needs.
async fn ask_caches(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
) -> Result<Vec<(Substituter, CacheFinding)>, RealiseError> {
    let mut findings = Vec::new();
    for cache in template.substituters.iter() {
        let is_asked = cache.serves_files();
        let finding =
            if is_asked { ask_cache(store, cache, &template.nar_id, pins).await? } else { CacheFinding::NotAsked };
        findings.push((cache.clone(), finding));
    }
    Ok(findings)
}

async fn ask_cache(
    store: &dyn Store,
    cache: &Substituter,
    path: &StorePath,
    pins: &[PinnedBy],
) -> Result<CacheFinding, RealiseError> {
    let found = store.look_up(cache, std::slice::from_ref(path)).await;
    let found = match found.map(|mut found| found.remove(path)) {
        Ok(Some(entry)) => entry.content().nar_hash,
        Ok(None) => return Ok(CacheFinding::Absent),
        Err(error) => return Ok(CacheFinding::Unreachable(error.message())),
    };
    if pins.iter().any(|pinned| pinned.pin.nar_hash != found) {
        return Ok(CacheFinding::OtherContent(found));
    }
    let Ok(there) = store.look_up_closure(cache, std::slice::from_ref(path)).await else {
        return Ok(CacheFinding::Incomplete);
    };
    let here = store.closures_here(&there.keys().cloned().collect::<Vec<_>>()).await?;
    Ok(compare_cache(path, cache, (&there, &here), pins))
}

/// The paths of `here`, which is in the store, that have other content in a cache.
async fn compare_with_caches(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    here: &Closure,
) -> Vec<DifferingPath> {
    let paths: Vec<StorePath> = here.keys().cloned().collect();
    let mut differing = Vec::new();
    for cache in template.substituters.iter().filter(|cache| cache.serves_files()) {
        // A cache that is out of reach tells nothing; the mismatch is known without it.
        if let Ok(entries) = store.look_up(cache, &paths).await {
            differing.extend(differing_paths(here, cache, &closure_of(&entries)));
        }
    }
    differing
}

fn refuse_store(path: &StorePath, mismatch: Mismatch, differing: Vec<DifferingPath>, cleanup: Cleanup) -> RealiseError {
    let site = MismatchSite::Store { mismatch, differing, cleanup };
    RealiseError::NotAsPinned(Box::new(NotAsPinned { path: path.clone(), site }))
}

fn refuse_caches(path: &StorePath, findings: &[(Substituter, CacheFinding)], pins: &[PinnedBy]) -> RealiseError {
    let Some(pinned) = pins.first().cloned() else { return RealiseError::Gone(path.clone()) };
    let findings = findings.iter().map(|(cache, finding)| format!("{cache} {finding}")).collect();
    let site = MismatchSite::Caches { pinned, findings };
    RealiseError::NotAsPinned(Box::new(NotAsPinned { path: path.clone(), site }))
}

/// The names in a store's folder before something is fetched; `None` where the folder could not be read.
struct StoreListing(Option<BTreeSet<OsString>>);

impl StoreListing {
    /// Reads the folder that `files` is in.
    fn read(files: &Path) -> Self {
        let names = files.parent().map(|store| match std::fs::read_dir(store) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            // The store is new.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        });
        Self(names.and_then(Result::ok))
    }

    /// Deletes the paths of `closure` that came since, because one of them is not as pinned. Where a differing path was there
    /// before, only the operator can delete that one.
    async fn delete_new(&self, store: &dyn Store, closure: &Closure, differing: &[DifferingPath]) -> Cleanup {
        let Some(before) = &self.0 else { return Cleanup::WasHere };
        let was_here = |path: &StorePath| store.files_of(path).file_name().is_some_and(|name| before.contains(name));
        let new: Vec<StorePath> = closure.keys().filter(|path| !was_here(path)).cloned().collect();
        if new.is_empty() {
            return Cleanup::WasHere;
        }
        match store.delete(&new).await {
            Ok(()) if differing.iter().any(|differing| was_here(&differing.path)) => Cleanup::WasHere,
            Ok(()) => Cleanup::Deleted,
            Err(error) => Cleanup::Failed(error.message()),
        }
    }
}
