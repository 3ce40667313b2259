//! What the caches said, put together: whether they have a deployment's path, or all that it needs as well. No I/O.
//!
//! A path counts as there by the first of a deployment's caches, in their order, that has it signed by one of the
//! deployment's keys. So a closure may lie in several caches, as it does where what comes from Nixpkgs stays in the cache of
//! Nixpkgs; an agent's Nix puts it together in the same way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::Serialize;

use crate::model::{Closure, Deployment, NarTemplateSpecification, PublicKey, StorePath, Substituter};
use crate::store::CacheEntry;

/// What one cache said of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It has it.
    Has(CacheEntry),
    /// It does not have it.
    HasNot,
    /// It could not be asked.
    OutOfReach(String),
}

/// What the caches said.
pub(super) type Answers = BTreeMap<(Substituter, StorePath), Said>;

/// What has to be in a cache before a deployment is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Its path: a path is put there after what it needs.
    Path,
    /// All of its closure, since all of it is pinned.
    Closure,
}

/// A cache that does not make a deployment ready, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CacheState {
    /// The cache.
    pub cache: Substituter,
    /// Why.
    pub state: Lack,
}

/// Why a cache does not make a deployment ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Lack {
    /// It does not have the path.
    NotThere,
    /// It has the path, and none of the deployment's keys signed it.
    SignedByOthers(Vec<String>),
    /// It could not be asked, for this reason.
    OutOfReach(String),
    /// It is of a kind that is not asked.
    NotAsked,
}

/// What the caches said of one path.
#[derive(Debug)]
enum Sought<'a> {
    There(&'a CacheEntry),
    /// This cache is to be asked next.
    Open(&'a Substituter),
    Lacking,
}

/// Whom to ask and whom to believe: what two deployments have in common that look for a path in the same way.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Terms<'a> {
    caches: &'a [Substituter],
    keys: &'a [PublicKey],
}

impl<'a> Terms<'a> {
    fn of(template: &'a NarTemplateSpecification) -> Self {
        Self { caches: &template.substituters, keys: &template.substituters_public_keys }
    }

    fn seek(&self, path: &StorePath, answers: &'a Answers) -> Sought<'a> {
        for cache in self.caches.iter().filter(|cache| cache.is_of_files()) {
            match answers.get(&(cache.clone(), path.clone())) {
                None => return Sought::Open(cache),
                Some(Said::Has(entry)) if entry.is_signed_by(path, self.keys) => return Sought::There(entry),
                Some(Said::Has(_) | Said::HasNot | Said::OutOfReach(_)) => {}
            }
        }
        Sought::Lacking
    }
}

/// What the caches said of all paths that some deployments need. Each is looked at once, whoever needs it.
#[derive(Debug)]
pub(super) struct Survey<'a> {
    answers: &'a Answers,
    need: Need,
    sought: BTreeMap<Terms<'a>, BTreeMap<&'a StorePath, Sought<'a>>>,
}

/// What the caches have of one deployment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// What is needed of it is there.
    There(Closure),
    /// This path is not, for these reasons.
    Lacks { path: StorePath, caches: Vec<CacheState> },
}

impl<'a> Survey<'a> {
    pub(super) fn of(deployments: &'a [Deployment], need: Need, answers: &'a Answers) -> Self {
        let mut sought: BTreeMap<Terms<'a>, BTreeMap<&'a StorePath, Sought<'a>>> = BTreeMap::new();
        for template in deployments.iter().map(|deployment| &deployment.specification.template) {
            let terms = Terms::of(template);
            let mut open = VecDeque::from([&template.nar_id]);
            let of_these = sought.entry(Terms::of(template)).or_default();
            while let Some(path) = open.pop_front() {
                if of_these.contains_key(path) {
                    continue;
                }
                let found = terms.seek(path, answers);
                if let (Sought::There(entry), Need::Closure) = (&found, need) {
                    open.extend(entry.references());
                }
                of_these.insert(path, found);
            }
        }
        Self { answers, need, sought }
    }

    /// What to ask of which cache next: of each path that was not found yet, the first of its caches that nobody asked.
    pub(super) fn questions(&self) -> BTreeMap<Substituter, BTreeSet<StorePath>> {
        let mut questions: BTreeMap<Substituter, BTreeSet<StorePath>> = BTreeMap::new();
        for (path, sought) in self.sought.values().flatten() {
            if let Sought::Open(cache) = sought {
                questions.entry((*cache).clone()).or_default().insert((*path).clone());
            }
        }
        questions
    }

    /// What the caches have of `template`, which is that of one of the deployments.
    pub(super) fn supply(&self, template: &NarTemplateSpecification) -> Supply {
        let of_these = self.sought.get(&Terms::of(template));
        let (mut closure, mut open) = (Closure::new(), VecDeque::from([&template.nar_id]));
        while let Some(path) = open.pop_front() {
            if closure.contains_key(path) {
                continue;
            }
            let Some(Sought::There(entry)) = of_these.and_then(|sought| sought.get(path)) else {
                return Supply::Lacks { path: path.clone(), caches: self.states(template, path) };
            };
            closure.insert(path.clone(), entry.content());
            if self.need == Need::Closure {
                open.extend(entry.references());
            }
        }
        Supply::There(closure)
    }

    /// Why none of the caches of `template` gives `path`.
    fn states(&self, template: &NarTemplateSpecification, path: &StorePath) -> Vec<CacheState> {
        let lack = |cache: &Substituter| match self.answers.get(&(cache.clone(), path.clone())) {
            Some(Said::Has(entry)) => {
                Lack::SignedByOthers(entry.signers().into_iter().map(ToOwned::to_owned).collect())
            }
            Some(Said::HasNot) => Lack::NotThere,
            Some(Said::OutOfReach(why)) => Lack::OutOfReach(why.clone()),
            None => Lack::NotAsked,
        };
        let state = |cache: &Substituter| CacheState { cache: cache.clone(), state: lack(cache) };
        template.substituters.iter().map(state).collect()
    }
}

impl fmt::Display for CacheState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.cache)?;
        match &self.state {
            Lack::NotThere => write!(f, "not there yet")?,
            Lack::SignedByOthers(signers) if signers.is_empty() => write!(f, "there, but signed by nobody")?,
            Lack::SignedByOthers(signers) => {
                write!(f, "there, but signed by none of its keys; it is signed by {}", signers.join(", "))?;
            }
            Lack::OutOfReach(why) => write!(f, "cannot be asked: {why}")?,
            Lack::NotAsked => write!(f, "not asked")?,
        }
        write!(f, ")")
    }
}
