//! Fetching what is pinned: before anything is linked where it stays, or activated, it is held to its pin.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::check::{Choice, Diagnosis, Difference, Elsewise, Mismatch, NotAsPinned, PinnedBy, Remains, Told};
use super::check::{check, choose, closure, diagnose, judge};
use crate::agent::realise::error::RealiseError;
use crate::agent::realise::fetch::fetch;
use crate::agent::realise::gc_roots::{GcRoots, unlink};
use crate::model::{Closure, NarTemplateSpecification, StorePath, Substituter};
use crate::store::Store;

/// What of a store was there before something was fetched; nothing is known where it could not be read.
struct Before(Option<BTreeSet<OsString>>);

/// Fetches `template`'s path and holds it to `pins`, of which there is one at least.
pub(in crate::agent) async fn realise(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
    roots: &GcRoots,
) -> Result<(), RealiseError> {
    let path = &template.nar_id;
    // A pass that was ended in the middle may have left it.
    unlink(&roots.unchecked)?;
    // It is looked at once it is held: what is collected in between would be fetched again, and not be looked at.
    if hold(store, path, &roots.unchecked).await? {
        return match is_here(store, template, pins, Remains::WasHere).await {
            Ok(Some(())) => keep(store, path, roots).await,
            Ok(None) => Err(RealiseError::Gone(path.clone())),
            Err(refused) => unlink(&roots.unchecked).and(Err(refused)),
        };
    }
    let told = asked(store, template, pins).await?;
    let caches = match choose(&told) {
        Choice::From(caches) => caches,
        Choice::Nowhere => return Err(in_caches(path, &told, pins)),
        Choice::WrongHere(mismatch, differences) => {
            return Err(refused(path, mismatch, differences, Remains::WasHere));
        }
    };
    let before = Before::read(&store.files_of(path));
    let left_out = told.iter().any(|(_, told)| matches!(told, Told::Otherwise(_) | Told::Below(..)));
    let substituters = caches.try_into().map_err(RealiseError::Invalid)?;
    let narrowed = NarTemplateSpecification { substituters, ..template.clone() };
    match fetch(store, &narrowed, &roots.unchecked).await {
        // That the others do not have it is not the whole reason where one has something else.
        Err(RealiseError::NotYet { .. }) if left_out => return Err(in_caches(path, &told, pins)),
        fetched => fetched?,
    }
    match here(store, path, pins).await? {
        Some(Ok(())) => keep(store, path, roots).await,
        None => Err(RealiseError::Gone(path.clone())),
        Some(Err((mismatch, closure))) => {
            unlink(&roots.unchecked)?;
            let Diagnosis { differences, suspects } = diagnosis(store, template, &closure, pins).await;
            let remains = before.clear(store, &suspects).await;
            Err(refused(path, mismatch, differences, remains))
        }
    }
}

/// Links the path, if it is in the store. Nothing is fetched.
async fn hold(store: &dyn Store, path: &StorePath, link: &Path) -> Result<bool, RealiseError> {
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

/// Links what was found to be as pinned where it stays.
async fn keep(store: &dyn Store, path: &StorePath, roots: &GcRoots) -> Result<(), RealiseError> {
    store.keep(path, &roots.kept).await?;
    unlink(&roots.unchecked)
}

/// Whether what is in the store under the path is what is pinned; `None` where nothing is. If not, `remains` says why it is
/// there.
pub(in crate::agent) async fn is_here(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
    remains: Remains,
) -> Result<Option<()>, RealiseError> {
    match here(store, &template.nar_id, pins).await? {
        None => Ok(None),
        Some(Ok(())) => Ok(Some(())),
        Some(Err((mismatch, closure))) => {
            let Diagnosis { differences, .. } = diagnosis(store, template, &closure, pins).await;
            Err(refused(&template.nar_id, mismatch, differences, remains))
        }
    }
}

type Judged = Result<(), (Mismatch, Closure)>;

async fn here(store: &dyn Store, path: &StorePath, pins: &[PinnedBy]) -> Result<Option<Judged>, RealiseError> {
    let entries = store.closures_here(std::slice::from_ref(path)).await?;
    if entries.is_empty() {
        return Ok(None);
    }
    let closure = closure(&entries);
    match check(path, &closure, pins) {
        Ok(()) => Ok(Some(Ok(()))),
        Err(Some(mismatch)) => Ok(Some(Err((mismatch, closure)))),
        Err(None) => Err(RealiseError::Gone(path.clone())),
    }
}

/// What each cache has of the path, and of all that it needs.
async fn asked(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    pins: &[PinnedBy],
) -> Result<Vec<(Substituter, Told)>, RealiseError> {
    let path = &template.nar_id;
    let mut told = Vec::new();
    for cache in template.substituters.iter() {
        let said = if cache.is_of_files() { ask(store, cache, path, pins).await? } else { Told::NotAsked };
        told.push((cache.clone(), said));
    }
    Ok(told)
}

async fn ask(
    store: &dyn Store,
    cache: &Substituter,
    path: &StorePath,
    pins: &[PinnedBy],
) -> Result<Told, RealiseError> {
    let found = store.look_up(cache, std::slice::from_ref(path)).await;
    let found = match found.map(|mut found| found.remove(path)) {
        Ok(Some(entry)) => entry.content().nar_hash,
        Ok(None) => return Ok(Told::HasNot),
        Err(error) => return Ok(Told::OutOfReach(error.message())),
    };
    if pins.iter().any(|pinned| pinned.pin.nar_hash != found) {
        return Ok(Told::Otherwise(found));
    }
    let Ok(there) = store.look_up_closure(cache, std::slice::from_ref(path)).await else { return Ok(Told::InPart) };
    let here = store.closures_here(&there.keys().cloned().collect::<Vec<_>>()).await?;
    Ok(judge(path, cache, (&there, &here), pins))
}

/// What can be told by what the caches have of what is here.
async fn diagnosis(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    here: &Closure,
    pins: &[PinnedBy],
) -> Diagnosis {
    let path = &template.nar_id;
    let paths: Vec<StorePath> = here.keys().cloned().collect();
    let mut told = Vec::new();
    for cache in template.substituters.iter().filter(|cache| cache.is_of_files()) {
        let whole = store.look_up_closure(cache, std::slice::from_ref(path)).await;
        // One that does not have all of it may have some.
        let found = if whole.is_ok() { whole } else { store.look_up(cache, &paths).await };
        told.extend(found.ok().map(|entries| (cache.clone(), closure(&entries))));
    }
    diagnose(path, here, &told, pins)
}

fn refused(path: &StorePath, mismatch: Mismatch, differences: Vec<Difference>, remains: Remains) -> RealiseError {
    let found = Elsewise::Here { mismatch, differences, remains };
    RealiseError::NotAsPinned(Box::new(NotAsPinned { path: path.clone(), found }))
}

fn in_caches(path: &StorePath, told: &[(Substituter, Told)], pins: &[PinnedBy]) -> RealiseError {
    let Some(pinned) = pins.first().cloned() else { return RealiseError::Gone(path.clone()) };
    let caches = told.iter().map(|(cache, told)| format!("{cache} {told}")).collect();
    let found = Elsewise::InCaches { pinned, caches };
    RealiseError::NotAsPinned(Box::new(NotAsPinned { path: path.clone(), found }))
}

impl Before {
    /// What is in the store that has `files`.
    fn read(files: &Path) -> Self {
        let names = files.parent().map(|store| match std::fs::read_dir(store) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
            // Nothing was ever put into this store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        });
        Self(names.and_then(Result::ok))
    }

    /// Deletes what of `suspects` came since, where all that is wrong may be among that.
    async fn clear(&self, store: &dyn Store, suspects: &BTreeSet<StorePath>) -> Remains {
        let Some(before) = &self.0 else { return Remains::WasHere };
        let was_here = |path: &&StorePath| store.files_of(path).file_name().is_some_and(|name| before.contains(name));
        let (old, new): (Vec<&StorePath>, Vec<&StorePath>) = suspects.iter().partition(was_here);
        if new.is_empty() {
            return Remains::WasHere;
        }
        let new: Vec<StorePath> = new.into_iter().cloned().collect();
        match store.delete(&new).await {
            // What came stays nowhere, but what it was put together with is as wrong as before.
            Ok(()) if !old.is_empty() => Remains::WasHere,
            Ok(()) => Remains::Deleted,
            Err(error) => Remains::Stays(error.message()),
        }
    }
}
