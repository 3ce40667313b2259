//! Fetching a store path from its caches, and explaining why it cannot be fetched.

use std::path::Path;

use super::error::{NotInCache, RealiseError};
use crate::model::{NarTemplateSpecification, Substituter};
use crate::store::{CacheEntry, CacheKeys, Store, StoreError};

/// Fetches the store path of `template` and links it at `gc_root`.
pub(in crate::agent) async fn fetch(
    store: &dyn Store,
    template: &NarTemplateSpecification,
    gc_root: &Path,
) -> Result<(), RealiseError> {
    let error = match store.fetch(template, gc_root).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let mut answers = Vec::new();
    for cache in template.substituters.iter() {
        let found = store.look_up(cache, std::slice::from_ref(&template.nar_id)).await;
        answers.push((cache.clone(), found.map(|mut found| found.remove(&template.nar_id))));
    }
    // Nix gives up at the first cache with an error, and asks no other.
    for caches in choices_after_an_error(&answers) {
        let substituters = caches.try_into().map_err(RealiseError::Invalid)?;
        let narrowed = NarTemplateSpecification { substituters, ..template.clone() };
        if store.fetch(&narrowed, gc_root).await.is_ok() {
            return Ok(());
        }
    }
    // The store's program ended with an error, and the caches can tell why. Where a deadline or a limit ended the program, that is
    // the reason.
    Err(if error.is_refusal() { explain(template, answers, error) } else { error.into() })
}

/// What a cache answers about a path.
type Answer<E> = Result<Option<CacheEntry>, E>;

/// The caches to try, after a fetch from all of them failed: first those that answer, and then these without one of them, which may
/// have an error for something that the path needs.
fn choices_after_an_error<E>(answers: &[(Substituter, Answer<E>)]) -> Vec<Vec<Substituter>> {
    let answering = answers.iter().filter(|(_, found)| found.is_ok());
    if !answering.clone().any(|(_, found)| matches!(found, Ok(Some(_)))) {
        return Vec::new();
    }
    let all: Vec<Substituter> = answering.map(|(cache, _)| cache.clone()).collect();
    let without = |left_out: usize| {
        let kept = all.iter().enumerate().filter(|(place, _)| *place != left_out);
        kept.map(|(_, cache)| cache.clone()).collect::<Vec<_>>()
    };
    let mut choices = Vec::new();
    if all.len() < answers.len() {
        choices.push(all.clone());
    }
    if all.len() > 1 {
        choices.extend((0..all.len()).map(without));
    }
    choices
}

/// A better reason than `error`, by what the caches answer about the path.
fn explain(
    template: &NarTemplateSpecification,
    answers: Vec<(Substituter, Answer<StoreError>)>,
    error: StoreError,
) -> RealiseError {
    let path = &template.nar_id;
    let keys = &template.substituters_public_keys;
    let parsed_keys = CacheKeys::of(keys);
    let (mut untrusted, mut is_carried) = (None, false);
    for (cache, found) in answers {
        match found {
            Ok(None) => {}
            Ok(Some(entry)) if entry.is_signed_by(path, &parsed_keys) => {
                return RealiseError::refused(template, error);
            }
            Ok(Some(entry)) => {
                is_carried |= cache.is_loopback();
                untrusted = Some(RealiseError::untrusted(template, cache, &entry));
            }
            // Where a bundle has it, it is no news that the caches are out of reach.
            Err(_) if is_carried => {}
            // A cache that is out of reach may have it.
            Err(unreachable) => return unreachable.into(),
        }
    }
    untrusted.unwrap_or_else(|| match template.substituters.to_vec() {
        caches if caches.is_empty() => RealiseError::NoCache(path.clone()),
        caches => NotInCache { path: path.clone(), caches }.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caches_that_answer_are_tried_and_then_those_without_one_of_them() {
        let entry = || -> CacheEntry {
            let json =
                r#"{"narHash": "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "narSize": 1, "references": []}"#;
            serde_json::from_str(json).unwrap()
        };
        let cache = |name: &str| -> Substituter { format!("https://{name}").parse().unwrap() };
        let choices = |answers: &[(&str, char)]| {
            let answer = |(name, answer): &(&str, char)| {
                let found = match answer {
                    'y' => Ok(Some(entry())),
                    'n' => Ok(None),
                    _ => Err(()),
                };
                (cache(name), found)
            };
            let answers: Vec<_> = answers.iter().map(answer).collect();
            let names = |caches: Vec<Substituter>| caches.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            choices_after_an_error(&answers).into_iter().map(names).collect::<Vec<_>>()
        };
        assert_eq!(choices(&[("a", 'e'), ("b", 'y')]), ["https://b"]);
        assert_eq!(choices(&[("a", 'y'), ("b", 'y')]), ["https://b", "https://a"]);
        let three = ["https://b https://c", "https://c", "https://b"];
        assert_eq!(choices(&[("a", 'e'), ("b", 'y'), ("c", 'n')]), three);
        // Where no cache has it, there is nothing to try.
        assert_eq!(choices(&[("a", 'n'), ("b", 'e')]), [""; 0]);
        assert_eq!(choices(&[("a", 'y')]), [""; 0]);
    }
}
