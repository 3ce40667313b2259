//! Fetching a store path from its caches, and explaining why it cannot be fetched.

use std::path::Path;

use super::error::{NotInCache, RealiseError};
use crate::model::NarTemplateSpecification;
use crate::store::{CacheKeys, Store, StoreError};

/// Fetches the store path of `template` and links it at `gc_root`.
pub(in crate::agent) async fn fetch(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    gc_root: &Path,
) -> Result<(), RealiseError> {
    match store.fetch(template, gc_root).await {
        Ok(()) => Ok(()),
        // The store's program ended with an error, and the caches can tell why. Where a deadline or a limit ended the
        // program, that is the reason.
        Err(error) if error.is_refusal() => Err(explain(store, template, error).await),
        Err(error) => Err(error.into()),
    }
}

/// Asks each cache for the path, to find a better reason than `error`.
async fn explain(store: &dyn Store, template: &NarTemplateSpecification, error: StoreError) -> RealiseError {
    let path = &template.nar_id;
    let keys = &template.substituters_public_keys;
    let parsed_keys = CacheKeys::of(keys);
    let mut untrusted = None;
    for cache in template.substituters.iter() {
        let found = store.look_up(cache, std::slice::from_ref(path)).await;
        match found.map(|mut found| found.remove(path)) {
            Ok(None) => {}
            Ok(Some(entry)) if entry.is_signed_by(path, &parsed_keys) => return error.into(),
            Ok(Some(entry)) => {
                untrusted = Some(RealiseError::Untrusted {
                    path: path.clone(),
                    cache: cache.clone(),
                    named: keys.iter().map(|key| key.id().to_string()).collect(),
                    signers: entry.signers().into_iter().map(ToOwned::to_owned).collect(),
                });
            }
            // A cache that is out of reach may have it.
            Err(unreachable) => return unreachable.into(),
        }
    }
    untrusted.unwrap_or_else(|| match template.substituters.to_vec() {
        caches if caches.is_empty() => RealiseError::NoCache(path.clone()),
        caches => NotInCache { path: path.clone(), caches }.into(),
    })
}
