//! The caches' answers, put together: whether the caches have a deployment's path, or its whole closure. No I/O.
//!
//! A path counts as available from the first of a deployment's caches, in their order, that has it signed by one of the
//! deployment's keys. A closure may therefore lie in several caches, for example where the paths of Nixpkgs stay in the cache
//! of Nixpkgs. An agent's Nix puts the closure together in the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::Serialize;

use crate::model::{Closure, Deployment, NarTemplateSpecification, PublicKey, StorePath, Substituter};
use crate::store::{CacheEntry, CacheKeys};

/// The answer of one cache about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CacheAnswer {
    /// The cache has the path.
    Has(CacheEntry),
    /// The cache does not have the path.
    HasNot,
    /// The cache did not answer, for this reason.
    OutOfReach(String),
}

/// The answers of the caches, by cache and path.
pub(super) type CacheAnswers = BTreeMap<(Substituter, StorePath), CacheAnswer>;

/// The store paths that have to be in a cache before claveld publishes a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheScope {
    /// The deployment's own path: a path arrives in a cache after all paths that it needs.
    Path,
    /// The whole closure, because the pin covers all of it.
    Closure,
}

/// A cache that does not provide a path, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct CacheState {
    /// The cache.
    pub cache: Substituter,
    /// The reason.
    pub state: CacheProblem,
}

/// The reason why a cache does not provide a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CacheProblem {
    /// The cache does not have the path.
    NotThere,
    /// The cache has the path, and none of the deployment's keys signed it. These keys did.
    SignedByOthers(Vec<String>),
    /// The cache did not answer, for this reason.
    OutOfReach(String),
    /// Claveld does not ask caches of this kind.
    NotAsked,
}

/// The result of looking for one path in the answers.
#[derive(Debug)]
enum Lookup<'a> {
    Found(&'a CacheEntry),
    /// Claveld has to ask this cache next.
    Ask(&'a Substituter),
    Missing,
}

/// The caches and the keys of a deployment. Deployments with the same ones look for a path in the same way.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct CacheTrust<'a> {
    caches: &'a [Substituter],
    keys: &'a [PublicKey],
}

impl<'a> CacheTrust<'a> {
    fn of(template: &'a NarTemplateSpecification) -> Self {
        Self { caches: &template.substituters, keys: &template.substituters_public_keys }
    }

    fn look_for(&self, path: &StorePath, keys: &CacheKeys, answers: &'a CacheAnswers) -> Lookup<'a> {
        for cache in self.caches.iter().filter(|cache| cache.serves_files()) {
            match answers.get(&(cache.clone(), path.clone())) {
                None => return Lookup::Ask(cache),
                Some(CacheAnswer::Has(entry)) if entry.is_signed_by(path, keys) => return Lookup::Found(entry),
                Some(CacheAnswer::Has(_) | CacheAnswer::HasNot | CacheAnswer::OutOfReach(_)) => {}
            }
        }
        Lookup::Missing
    }
}

/// The lookups of all paths that some deployments need. Each path is looked up once, even if several deployments need it.
#[derive(Debug)]
pub(super) struct CacheSurvey<'a> {
    answers: &'a CacheAnswers,
    scope: CacheScope,
    lookups: BTreeMap<CacheTrust<'a>, BTreeMap<&'a StorePath, Lookup<'a>>>,
}

/// Whether the caches have all that one deployment needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Availability {
    /// They have it: this closure.
    Complete(Closure),
    /// They do not have this path, for these reasons.
    Incomplete { path: StorePath, caches: Vec<CacheState> },
}

impl<'a> CacheSurvey<'a> {
    pub(super) fn of(deployments: &'a [Deployment], scope: CacheScope, answers: &'a CacheAnswers) -> Self {
        let mut lookups: BTreeMap<CacheTrust<'a>, BTreeMap<&'a StorePath, Lookup<'a>>> = BTreeMap::new();
        for template in deployments.iter().map(|deployment| &deployment.specification.template) {
            let trust = CacheTrust::of(template);
            let keys = CacheKeys::of(trust.keys);
            let mut open = VecDeque::from([&template.nar_id]);
            let of_these = lookups.entry(CacheTrust::of(template)).or_default();
            while let Some(path) = open.pop_front() {
                if of_these.contains_key(path) {
                    continue;
                }
                let found = trust.look_for(path, &keys, answers);
                if let (Lookup::Found(entry), CacheScope::Closure) = (&found, scope) {
                    open.extend(entry.references());
                }
                of_these.insert(path, found);
            }
        }
        Self { answers, scope, lookups }
    }

    /// The questions to ask next: for each path that was not found yet, the first of its caches that was not asked.
    pub(super) fn questions(&self) -> BTreeMap<Substituter, BTreeSet<StorePath>> {
        let mut questions: BTreeMap<Substituter, BTreeSet<StorePath>> = BTreeMap::new();
        for (path, lookup) in self.lookups.values().flatten() {
            if let Lookup::Ask(cache) = lookup {
                questions.entry((*cache).clone()).or_default().insert((*path).clone());
            }
        }
        questions
    }

    /// Whether the caches have all that `template` needs. It has to be the template of one of the surveyed deployments.
    pub(super) fn availability(&self, template: &NarTemplateSpecification) -> Availability {
        let of_these = self.lookups.get(&CacheTrust::of(template));
        let (mut closure, mut open) = (Closure::new(), VecDeque::from([&template.nar_id]));
        while let Some(path) = open.pop_front() {
            if closure.contains_key(path) {
                continue;
            }
            let Some(Lookup::Found(entry)) = of_these.and_then(|lookups| lookups.get(path)) else {
                return Availability::Incomplete { path: path.clone(), caches: self.states(template, path) };
            };
            closure.insert(path.clone(), entry.content());
            if self.scope == CacheScope::Closure {
                open.extend(entry.references());
            }
        }
        Availability::Complete(closure)
    }

    /// The reasons why none of the caches of `template` provides `path`.
    fn states(&self, template: &NarTemplateSpecification, path: &StorePath) -> Vec<CacheState> {
        let problem = |cache: &Substituter| match self.answers.get(&(cache.clone(), path.clone())) {
            Some(CacheAnswer::Has(entry)) => {
                CacheProblem::SignedByOthers(entry.signers().into_iter().map(ToOwned::to_owned).collect())
            }
            Some(CacheAnswer::HasNot) => CacheProblem::NotThere,
            Some(CacheAnswer::OutOfReach(why)) => CacheProblem::OutOfReach(why.clone()),
            None => CacheProblem::NotAsked,
        };
        let state = |cache: &Substituter| CacheState { cache: cache.clone(), state: problem(cache) };
        template.substituters.iter().map(state).collect()
    }
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.cache)?;
        match &self.state {
            CacheProblem::NotThere => write!(f, "not there yet")?,
            CacheProblem::SignedByOthers(signers) if signers.is_empty() => write!(f, "there, but signed by nobody")?,
            CacheProblem::SignedByOthers(signers) => {
                write!(f, "there, but signed by none of its keys; it is signed by {}", signers.join(", "))?;
            }
            CacheProblem::OutOfReach(why) => write!(f, "cannot be asked: {why}")?,
            CacheProblem::NotAsked => write!(f, "not asked")?,
        }
        write!(f, ")")
    }
}
