//! Comparing content with pins. No I/O.
//!
//! The threat: a thief of a cache's key signs other content under the store path that a deployment names, or under one that
//! it needs. Nix believes that signature. The pin stands in the deployment, which another key signed.
//!
//! Fetching, and deleting what was fetched wrongly, belong to `pin/fetch.rs`.

use std::collections::BTreeMap;
use std::fmt;

use crate::agent::verify::Order;
use crate::model::{Closure, ClosureDigest, Deployment, Name, NarHash, Pin, PinError, StorePath, Substituter};
use crate::store::CacheEntries;
use crate::trust::pin_of;

/// How many paths an error names.
const MAX_NAMED_PATHS: usize = 5;

/// The pins of all deployments of a pass, by store path. A deployment that names the path of another one is compared with
/// the other's pin as well.
#[derive(Debug, Default)]
pub(in crate::agent) struct Pins(BTreeMap<StorePath, Vec<PinnedBy>>);

/// A pin, and the deployment that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedBy {
    /// The deployment.
    pub deployment: Name,
    /// The pin.
    pub pin: Pin,
}

impl Pins {
    pub(in crate::agent) fn of(orders: &[Order]) -> Self {
        let mut all: BTreeMap<StorePath, Vec<PinnedBy>> = BTreeMap::new();
        for deployment in orders.iter().map(|order| &order.deployment) {
            // `on` returns the error of a pin that cannot be read.
            if let Ok(Some(&pin)) = deployment.specification.template.metadata.pin() {
                let pins = all.entry(deployment.specification.template.nar_id.clone()).or_default();
                pins.push(PinnedBy { deployment: deployment.name.clone(), pin });
            }
        }
        Self(all)
    }

    /// The pins on the store path of `deployment`.
    pub(in crate::agent) fn on(&self, deployment: &Deployment) -> Result<&[PinnedBy], PinError> {
        let template = &deployment.specification.template;
        template.metadata.pin().map_err(Clone::clone)?;
        Ok(self.0.get(&template.nar_id).map(Vec::as_slice).unwrap_or_default())
    }
}

/// The content of a cache under a pinned path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum CacheFinding {
    /// Together with what is in the store already, it has the pinned content.
    AsPinned,
    /// It has the pinned content, but the store has other content under some of the paths.
    StoreDiffers(Mismatch, Vec<DifferingPath>),
    /// It has the path as pinned, but not all that the path needs, so the rest cannot be compared.
    Incomplete,
    /// It has other content under the path.
    OtherContent(NarHash),
    /// It has the path as pinned, and other content among what the path needs.
    OtherClosure(ClosureDigest),
    /// It does not have the path.
    Absent,
    /// It could not be asked, with the error.
    Unreachable(String),
    /// It is of a kind that cannot be asked without fetching.
    NotAsked,
}

/// Which caches a pinned path is fetched from.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) enum CacheChoice {
    /// From these.
    From(Vec<Substituter>),
    /// From none, as long as the store has other content under some of the paths.
    StoreDiffers(Mismatch, Vec<DifferingPath>),
    /// From none: each cache that has the path has other content.
    Nowhere,
}

/// Chooses among the caches. A cache with other content is never chosen, and where one cache has all the pinned content, no
/// other one is.
pub(in crate::agent) fn choose_caches(findings: &[(Substituter, CacheFinding)]) -> CacheChoice {
    let caches = |is_chosen: &dyn Fn(&CacheFinding) -> bool| -> Vec<Substituter> {
        findings.iter().filter(|(_, finding)| is_chosen(finding)).map(|(cache, _)| cache.clone()).collect()
    };
    let good = caches(&|finding| *finding == CacheFinding::AsPinned);
    if !good.is_empty() {
        return CacheChoice::From(good);
    }
    if let Some((mismatch, differing)) = findings.iter().find_map(|(_, finding)| match finding {
        CacheFinding::StoreDiffers(mismatch, differing) => Some((mismatch.clone(), differing.clone())),
        _ => None,
    }) {
        return CacheChoice::StoreDiffers(mismatch, differing);
    }
    let may_have = |finding: &CacheFinding| matches!(finding, CacheFinding::Incomplete | CacheFinding::NotAsked);
    if caches(&CacheFinding::is_other_content).is_empty() || !caches(&may_have).is_empty() {
        CacheChoice::From(caches(&|finding| !finding.is_other_content()))
    } else {
        CacheChoice::Nowhere
    }
}

impl CacheFinding {
    /// Whether the cache has other content than the pinned one.
    pub(in crate::agent) fn is_other_content(&self) -> bool {
        matches!(self, Self::OtherContent(_) | Self::OtherClosure(_))
    }
}

/// Compares a cache, which has the entries `there` of `path` and of all that it needs, with the pins. The entries `here` are
/// in the store, so they are not fetched.
pub(in crate::agent) fn compare_cache(
    path: &StorePath,
    cache: &Substituter,
    (there, here): (&CacheEntries, &CacheEntries),
    pins: &[PinnedBy],
) -> CacheFinding {
    let whole = closure_of(there);
    match (check_pins(path, &overlay(path, there, here), pins), check_pins(path, &whole, pins)) {
        (Ok(()), _) => CacheFinding::AsPinned,
        (Err(Some(mismatch)), Ok(())) => {
            CacheFinding::StoreDiffers(mismatch, differing_paths(&closure_of(here), cache, &whole))
        }
        (Err(_), Err(Some(Mismatch { pinned, found }))) if pinned.pin.nar_hash == found.nar_hash => {
            CacheFinding::OtherClosure(found.closure)
        }
        (Err(_), Err(Some(Mismatch { found, .. }))) => CacheFinding::OtherContent(found.nar_hash),
        (Err(_), Ok(()) | Err(None)) => CacheFinding::Absent,
    }
}

/// The content of all these paths.
pub(in crate::agent) fn closure_of(entries: &CacheEntries) -> Closure {
    entries.iter().map(|(path, entry)| (path.clone(), entry.content())).collect()
}

/// The closure that `path` has once it is fetched: an entry that is `here` is not fetched again.
fn overlay(path: &StorePath, there: &CacheEntries, here: &CacheEntries) -> Closure {
    let (mut closure, mut open) = (Closure::new(), vec![path]);
    while let Some(path) = open.pop() {
        if let Some(entry) = here.get(path).or_else(|| there.get(path))
            && closure.insert(path.clone(), entry.content()).is_none()
        {
            open.extend(entry.references());
        }
    }
    closure
}

/// A pin, and the other content that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The pin.
    pub pinned: PinnedBy,
    /// The pin that the found content would have.
    pub found: Pin,
}

/// Compares a closure with the pins on its path. The error is empty where the closure lacks the path itself.
pub(in crate::agent) fn check_pins(
    path: &StorePath,
    closure: &Closure,
    pins: &[PinnedBy],
) -> Result<(), Option<Mismatch>> {
    let found = pin_of(path, closure).ok_or(None)?;
    match pins.iter().find(|pinned| pinned.pin != found) {
        None => Ok(()),
        Some(pinned) => Err(Some(Mismatch { pinned: pinned.clone(), found })),
    }
}

/// A path that has one content in the store and another in a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferingPath {
    /// The path.
    pub path: StorePath,
    /// The content in the store.
    pub here: NarHash,
    /// The content in the cache.
    pub there: NarHash,
    /// The cache.
    pub cache: Substituter,
}

/// The paths that have one content in the store and another in `cache`.
pub(in crate::agent) fn differing_paths(here: &Closure, cache: &Substituter, there: &Closure) -> Vec<DifferingPath> {
    let differing = here.iter().filter_map(|(path, here)| Some((path, here, there.get(path).filter(|t| *t != here)?)));
    let differing = differing.map(|(path, here, there)| DifferingPath {
        path: path.clone(),
        here: here.nar_hash,
        there: there.nar_hash,
        cache: cache.clone(),
    });
    differing.collect()
}

/// Why a deployment is refused: the content under its path, or under one that it needs, is not the pinned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAsPinned {
    /// The path of the deployment.
    pub path: StorePath,
    /// The place of the other content.
    pub site: MismatchSite,
}

impl NotAsPinned {
    /// The same, with another name for some caches.
    pub(in crate::agent) fn renaming(
        self,
        text: impl Fn(&str) -> String,
        cache: impl Fn(Substituter) -> Substituter,
    ) -> Self {
        let site = match self.site {
            MismatchSite::Caches { pinned, findings } => {
                MismatchSite::Caches { pinned, findings: findings.iter().map(|finding| text(finding)).collect() }
            }
            MismatchSite::Store { mismatch, differing, cleanup } => {
                let renamed = |differing: DifferingPath| DifferingPath { cache: cache(differing.cache), ..differing };
                MismatchSite::Store { mismatch, differing: differing.into_iter().map(renamed).collect(), cleanup }
            }
        };
        Self { site, ..self }
    }
}

/// The place where content other than the pinned one was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MismatchSite {
    /// The caches.
    Caches {
        /// The pin.
        pinned: PinnedBy,
        /// For each cache, what it has.
        findings: Vec<String>,
    },
    /// The store.
    Store {
        /// The pin, and the content that was found.
        mismatch: Mismatch,
        /// The paths that have another content in a cache.
        differing: Vec<DifferingPath>,
        /// The action that was taken.
        cleanup: Cleanup,
    },
}

/// The action on content in the store that is not as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleanup {
    /// It was fetched just now, and is deleted.
    Deleted,
    /// Nothing: it was in the store before.
    WasHere,
    /// Nothing: it runs.
    Runs,
    /// It was fetched just now, and could not be deleted, with the error.
    Failed(String),
}

impl fmt::Display for CacheFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsPinned | Self::StoreDiffers(..) => f.write_str("has the pinned content"),
            Self::Incomplete => f.write_str("has the path, but not all that it needs"),
            Self::OtherContent(hash) => write!(f, "has {hash}"),
            Self::OtherClosure(closure) => {
                write!(f, "has the path with other content among what it needs, closure {closure}")
            }
            Self::Absent => f.write_str("does not have it"),
            Self::Unreachable(error) => write!(f, "cannot be asked: {error}"),
            Self::NotAsked => f.write_str("cannot be asked without fetching"),
        }
    }
}

impl fmt::Display for DifferingPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, here, there, cache } = self;
        write!(f, "{path} is {here} in this machine's store, and {there} in {cache}")
    }
}

impl fmt::Display for NotAsPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.site {
            MismatchSite::Caches { pinned: PinnedBy { deployment, pin }, findings } => write!(
                f,
                "refused {path}: `{deployment}` pins it to {} with the closure {}, and no cache has that ({}); put the pinned \
                 content back, or publish another revision; either somebody else signs with the cache's key, or the path was \
                 built again with another result",
                pin.nar_hash,
                pin.closure,
                findings.join("; ")
            ),
            MismatchSite::Store { mismatch, differing, cleanup } => {
                write!(f, "refused {path}: {mismatch}")?;
                for differing in differing.iter().take(MAX_NAMED_PATHS) {
                    write!(f, "; {differing}")?;
                }
                if let Some(more) = differing.len().checked_sub(MAX_NAMED_PATHS).filter(|more| *more > 0) {
                    write!(f, "; and {more} more")?;
                }
                let first = differing.first().map_or(path, |differing| &differing.path);
                write!(f, "; {}", cleanup.describe(first))
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pinned: PinnedBy { deployment, pin }, found } = self;
        if pin.nar_hash == found.nar_hash {
            let (pinned, found) = (pin.closure, found.closure);
            write!(f, "a path that it needs is not as `{deployment}` pins it (closure {pinned}, found {found})")
        } else {
            write!(f, "`{deployment}` pins it to {}, and it is {}", pin.nar_hash, found.nar_hash)
        }
    }
}

impl Cleanup {
    /// Describes the action and the operator's next step, where `path` is to be deleted.
    fn describe(&self, path: &StorePath) -> String {
        let delete = format!("delete it with `nix-store --delete {path}`");
        match self {
            Self::Deleted => {
                "what was fetched is deleted, and is fetched again once a cache has the pinned content; somebody \
                 else may sign with the key of the cache"
                    .to_owned()
            }
            Self::WasHere => format!(
                "it was in this machine's store before: {delete} (`nix-store --query --roots {path}` says what keeps it), \
                 and the next pass fetches the pinned content"
            ),
            Self::Runs => format!(
                "it runs now, and was there before the pin: find out why it differs; publish a revision with another path, or \
                 switch to another system and {delete}"
            ),
            Self::Failed(error) => format!(
                "it was just fetched and could not be deleted ({error}): {delete}, and the next pass fetches the pinned \
                 content"
            ),
        }
    }
}

impl std::error::Error for NotAsPinned {}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
