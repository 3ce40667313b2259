//! What is pinned, and whether what was found is that. No I/O.
//!
//! The threat: a thief of a cache's key signs other content under the store path that a deployment names, or under one that
//! it needs. Nix believes the signature. The pin is in the deployment, which another key signed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::agent::verify::Order;
use crate::model::{Closure, ClosureDigest, Content, Deployment, Name, NarHash, Pin, PinError, StorePath, Substituter};
use crate::store::{CacheEntry, Entries};
use crate::trust::pin;

/// How many paths an error names.
const SHOWN: usize = 5;

/// What the deployments of a pass pin, by store path: one that names the path of another is held to the other's pin as
/// well.
#[derive(Debug, Default)]
pub(in crate::agent) struct Pins(BTreeMap<StorePath, Vec<PinnedBy>>);

/// A pin, and the deployment that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedBy {
    /// The deployment.
    pub deployment: Name,
    /// What it is pinned to.
    pub pin: Pin,
}

impl Pins {
    pub(in crate::agent) fn of(orders: &[Order]) -> Self {
        let mut all: BTreeMap<StorePath, Vec<PinnedBy>> = BTreeMap::new();
        for deployment in orders.iter().map(|order| &order.deployment) {
            // One that makes no sense is told where that deployment's turn comes.
            if let Ok(Some(pin)) = Pin::of(&deployment.specification.template.metadata) {
                let pins = all.entry(deployment.specification.template.nar_id.clone()).or_default();
                pins.push(PinnedBy { deployment: deployment.name.clone(), pin });
            }
        }
        Self(all)
    }

    /// What `deployment` is held to.
    pub(in crate::agent) fn on(&self, deployment: &Deployment) -> Result<&[PinnedBy], PinError> {
        let template = &deployment.specification.template;
        Pin::of(&template.metadata)?;
        Ok(self.0.get(&template.nar_id).map(Vec::as_slice).unwrap_or_default())
    }
}

/// What a cache said of a pinned path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Told {
    /// With what is in the store already, what it has is what is pinned.
    AsPinned,
    /// What it has is what is pinned, but for these paths, which are in the store already and otherwise.
    WrongHere(Mismatch, Vec<Difference>),
    /// It has the path as pinned, and not all that it needs; so the rest cannot be told.
    InPart,
    /// It has something else under the path.
    Otherwise(NarHash),
    /// It has the path as pinned, and something else below it. What can be told of that is what differs from the store.
    Below(ClosureDigest, Vec<Difference>),
    HasNot,
    OutOfReach(String),
    /// It is of a kind that is not asked.
    NotAsked,
}

/// Where to fetch a pinned path.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) enum Choice {
    /// From these.
    From(Vec<Substituter>),
    /// Nowhere, as long as something else is in the store.
    WrongHere(Mismatch, Vec<Difference>),
    /// Nowhere: who has it has other content.
    Nowhere,
}

/// Chooses among the caches, by what they said. One that has other content is never asked for it, and where one has all of
/// it as pinned, nobody else is.
pub(in crate::agent) fn choose(told: &[(Substituter, Told)]) -> Choice {
    let those = |is: &dyn Fn(&Told) -> bool| -> Vec<Substituter> {
        told.iter().filter(|(_, told)| is(told)).map(|(cache, _)| cache.clone()).collect()
    };
    let good = those(&|told| *told == Told::AsPinned);
    if !good.is_empty() {
        return Choice::From(good);
    }
    if let Some((mismatch, differences)) = told.iter().find_map(|(_, told)| match told {
        Told::WrongHere(mismatch, differences) => Some((mismatch.clone(), differences.clone())),
        _ => None,
    }) {
        return Choice::WrongHere(mismatch, differences);
    }
    let is_other = |told: &Told| matches!(told, Told::Otherwise(_) | Told::Below(..));
    let may_have = |told: &Told| matches!(told, Told::InPart | Told::NotAsked);
    if those(&is_other).is_empty() || !those(&may_have).is_empty() {
        Choice::From(those(&|told| !is_other(told)))
    } else {
        Choice::Nowhere
    }
}

/// What to make of a cache that says `there` of `path` and of all that it needs, where what is `here` is not fetched.
pub(in crate::agent) fn judge(
    path: &StorePath,
    cache: &Substituter,
    (there, here): (&Entries, &Entries),
    pins: &[PinnedBy],
) -> Told {
    let whole = closure(there);
    let mixed = overlaid(path, there, here);
    let differences = || {
        let differing = here.iter().filter(|(path, entry)| whole.get(*path).is_some_and(|c| *c != entry.content()));
        let hash = |content: Option<&Content>| content.map(|content| content.nar_hash);
        let difference = |(path, entry): (&StorePath, &CacheEntry)| Difference {
            path: path.clone(),
            here: Some(entry.content().nar_hash),
            there: hash(whole.get(path)),
            cache: cache.clone(),
        };
        differing.map(difference).collect()
    };
    match (check(path, &mixed, pins), check(path, &whole, pins)) {
        (Ok(()), _) => Told::AsPinned,
        (Err(Some(mismatch)), Ok(())) => Told::WrongHere(mismatch, differences()),
        (Err(_), Err(Some(Mismatch { pinned, found }))) if pinned.pin.nar_hash == found.nar_hash => {
            Told::Below(found.closure, differences())
        }
        (Err(_), Err(Some(Mismatch { found, .. }))) => Told::Otherwise(found.nar_hash),
        (Err(_), Ok(()) | Err(None)) => Told::HasNot,
    }
}

/// What there is of all these paths.
pub(in crate::agent) fn closure(entries: &Entries) -> Closure {
    entries.iter().map(|(path, entry)| (path.clone(), entry.content())).collect()
}

/// The closure of `path` once it is fetched: what is `here` already is not fetched again.
fn overlaid(path: &StorePath, there: &Entries, here: &Entries) -> Closure {
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

/// What was found where something else is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What is pinned, and by whom.
    pub pinned: PinnedBy,
    /// What was found.
    pub found: Pin,
}

/// Holds a closure to the pins on its path. One that lacks the path itself is none.
pub(in crate::agent) fn check(path: &StorePath, closure: &Closure, pins: &[PinnedBy]) -> Result<(), Option<Mismatch>> {
    let found = pin(path, closure).ok_or(None)?;
    match pins.iter().find(|pinned| pinned.pin != found) {
        None => Ok(()),
        Some(pinned) => Err(Some(Mismatch { pinned: pinned.clone(), found })),
    }
}

/// One path that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The path.
    pub path: StorePath,
    /// What is in the store under it.
    pub here: Option<NarHash>,
    /// What is in the cache under it.
    pub there: Option<NarHash>,
    /// The cache.
    pub cache: Substituter,
}

/// What can be told of a closure in the store that is not as pinned, by what the caches say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Diagnosis {
    /// What differs: from a cache that has all of it as pinned, or, where there is none, from any.
    pub(in crate::agent) differences: Vec<Difference>,
    /// The paths in the store that are not as pinned, or may not be.
    pub(in crate::agent) suspects: BTreeSet<StorePath>,
}

/// Compares what is `here` with what the caches have of it.
pub(in crate::agent) fn diagnose(
    path: &StorePath,
    here: &Closure,
    told: &[(Substituter, Closure)],
    pins: &[PinnedBy],
) -> Diagnosis {
    let hash = |content: Option<&Content>| content.map(|content| content.nar_hash);
    let difference = |path: &StorePath, cache: &Substituter, there: &Closure| Difference {
        path: path.clone(),
        here: hash(here.get(path)),
        there: hash(there.get(path)),
        cache: cache.clone(),
    };
    if let Some((cache, pinned)) = told.iter().find(|(_, closure)| check(path, closure, pins).is_ok()) {
        let all: BTreeSet<&StorePath> = here.keys().chain(pinned.keys()).collect();
        let differing = all.into_iter().filter(|path| here.get(*path) != pinned.get(*path));
        let differences: Vec<Difference> = differing.map(|path| difference(path, cache, pinned)).collect();
        let suspects = differences.iter().filter(|d| d.here.is_some()).map(|d| d.path.clone()).collect();
        return Diagnosis { differences, suspects };
    }
    let mut differences = Vec::new();
    for (cache, there) in told {
        let differs = |path: &&StorePath| there.get(*path).is_some_and(|content| here.get(*path) != Some(content));
        differences.extend(here.keys().filter(differs).map(|path| difference(path, cache, there)));
    }
    let is_pinned = |hash: NarHash| pins.iter().all(|pinned| pinned.pin.nar_hash == hash);
    // What the pin says of the path itself is certain; of the others it only says that one of them is wrong.
    let suspects = if here.get(path).is_some_and(|content| !is_pinned(content.nar_hash)) {
        [path.clone()].into()
    } else if differences.is_empty() {
        here.keys().cloned().collect()
    } else {
        differences.iter().map(|difference| difference.path.clone()).collect()
    };
    Diagnosis { differences, suspects }
}

/// Why a deployment is refused: what is under its path, or below, is not what is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAsPinned {
    /// The path.
    pub path: StorePath,
    /// Where something else was found.
    pub found: Elsewise,
}

/// Where something else than what is pinned was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Elsewise {
    /// In the caches.
    InCaches {
        /// What is pinned, and by whom.
        pinned: PinnedBy,
        /// What each cache said.
        caches: Vec<String>,
    },
    /// In the store.
    Here {
        /// What was found.
        mismatch: Mismatch,
        /// What differs.
        differences: Vec<Difference>,
        /// What became of it.
        remains: Remains,
    },
}

/// What became of content that is not as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remains {
    /// It was fetched just now, and is deleted.
    Deleted,
    /// It was in the store before.
    WasHere,
    /// It runs.
    Runs,
    /// It was fetched just now, and could not be deleted.
    Stays(String),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsPinned | Self::WrongHere(..) => f.write_str("has what is pinned"),
            Self::InPart => f.write_str("has it, and not all that it needs"),
            Self::Otherwise(hash) => write!(f, "has {hash}"),
            Self::Below(closure, differences) => {
                write!(f, "has it with something else among what it needs, closure {closure}")?;
                differences.iter().take(SHOWN).try_for_each(|difference| write!(f, ", {difference}"))
            }
            Self::HasNot => f.write_str("does not have it"),
            Self::OutOfReach(why) => write!(f, "cannot be asked: {why}"),
            Self::NotAsked => f.write_str("is of a kind that is not asked"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, here, there, cache } = self;
        match (here, there) {
            (Some(here), Some(there)) => write!(f, "{path} is {here} here, and {there} in {cache}"),
            (Some(here), None) => write!(f, "{path} is here ({here}), and does not belong to it in {cache}"),
            (None, Some(there)) => write!(f, "{path} does not belong to it here, and does ({there}) in {cache}"),
            (None, None) => write!(f, "{path}"),
        }
    }
}

impl fmt::Display for NotAsPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match &self.found {
            Elsewise::InCaches { pinned: PinnedBy { deployment, pin }, caches } => write!(
                f,
                "refused {path}: `{deployment}` pins it to {} with the closure {}, and no cache has that ({}). What runs goes on. \
                 Either somebody else signs with that cache's key, or the path was built again and came out \
                 otherwise: put the pinned content back, or publish another revision",
                pin.nar_hash,
                pin.closure,
                caches.join("; ")
            ),
            Elsewise::Here {
                mismatch: Mismatch { pinned: PinnedBy { deployment, pin }, found },
                differences,
                remains,
            } => {
                write!(f, "refused {path}: ")?;
                if pin.nar_hash == found.nar_hash {
                    let (pinned, found) = (pin.closure, found.closure);
                    write!(
                        f,
                        "something that it needs is not what `{deployment}` pins (closure {pinned}, found {found})"
                    )?;
                } else {
                    write!(f, "`{deployment}` pins it to {}, and it is {}", pin.nar_hash, found.nar_hash)?;
                }
                let told: Vec<String> = differences.iter().take(SHOWN).map(ToString::to_string).collect();
                match (told.is_empty(), differences.len().saturating_sub(SHOWN)) {
                    (true, _) => write!(f, "; no cache says otherwise, so it cannot be told which path differs")?,
                    (false, 0) => write!(f, ": {}", told.join("; "))?,
                    (false, more) => write!(f, ": {}; and {more} more", told.join("; "))?,
                }
                write!(f, ". What runs goes on. ")?;
                let first = differences.iter().find(|d| d.here.is_some()).map_or(path, |d| &d.path);
                match remains {
                    Remains::Deleted => write!(
                        f,
                        "What was fetched is deleted, and fetched again when a cache has what is pinned; somebody else may \
                         sign with the key of the cache that it came from"
                    ),
                    Remains::WasHere => write!(
                        f,
                        "It was in this machine's store before, built here or fetched from elsewhere: delete it with \
                         `nix-store --delete {first}` (`nix-store --query --roots {first}` says what keeps it), and the \
                         next pass fetches what is pinned"
                    ),
                    Remains::Runs => write!(
                        f,
                        "It is what runs now, put there before it was pinned: look into why it differs; a revision with \
                         another path replaces it, and so does going back and deleting it with `nix-store --delete {first}`"
                    ),
                    Remains::Stays(why) => write!(
                        f,
                        "It was just fetched and could not be deleted ({why}): do so with `nix-store --delete {first}`, and \
                         the next pass fetches what is pinned"
                    ),
                }
            }
        }
    }
}

impl std::error::Error for NotAsPinned {}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
