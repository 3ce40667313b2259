//! The documents that a publication leaves as they are, and why: a deployment that waits for a cache, a deployment that no
//! cache can ever provide, a change that a hold keeps back, a deployment whose document is lost.
//!
//! These are the types that claveld reports. `withhold` decides which documents they are about.

use std::fmt;

use serde::Serialize;

use super::document_change::DocumentChange;
use super::survey::CacheState;
use crate::model::{Hold, Name, Revision, StorePath};

/// The deployments that are not published yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unready {
    /// The deployments that claveld publishes as soon as a cache has them.
    pub waiting: Vec<Waiting>,
    /// The deployments that no cache can ever make ready.
    pub unpublishable: Vec<Unpublishable>,
}

/// A deployment that waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct Waiting {
    /// The deployment.
    pub name: Name,
    /// The thing that it waits for.
    #[serde(flatten)]
    pub awaited: Awaited,
}

/// The thing that a deployment waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Awaited {
    /// A store path that no cache has yet.
    Cache {
        /// The store path.
        path: StorePath,
        /// The deployment's own store path, where it waits for another one.
        #[serde(skip_serializing_if = "Option::is_none")]
        needed_by: Option<StorePath>,
        /// The answer of each of its caches.
        caches: Vec<CacheState>,
    },
    /// The other deployments to the same unit: the unit's document changes, and fits all of them or none.
    Unit {
        /// The unit.
        unit: Name,
    },
}

/// A deployment that would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Unpublishable {
    /// The deployment.
    pub name: Name,
    /// The setting that it lacks.
    pub missing: MissingSetting,
}

/// A setting without which no cache can make a deployment ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MissingSetting {
    /// A cache.
    Cache,
    /// A public key of its caches.
    Key,
    /// A cache that claveld can ask.
    CacheToAsk,
}

/// The changes that a hold keeps back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct KeptBack {
    /// The deployment that is held.
    pub name: Name,
    /// The hold: at which revision, since when, and why.
    #[serde(flatten)]
    pub hold: Hold,
    /// The changes that its source asks for: of the deployment itself, of its unit, and of the agents that name it.
    pub changes: Vec<DocumentChange>,
}

/// A deployment that claveld leaves alone because its document is lost: somebody altered the file, and no copy of the one
/// that the index lists is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct LostDeployment {
    /// The deployment.
    pub name: Name,
    /// The revision that the index lists.
    pub revision: Revision,
    /// The reason why claveld does not simply publish what the source gives now.
    pub protection: Protection,
}

/// The reason why claveld does not replace a lost document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// An operator holds the deployment.
    Hold,
    /// The deployment may have been pinned, and the caches may have other content by now.
    Pin,
}

/// Describes a hold: `held at revision 3 since 2026-01-01T00:00:00Z (it does not boot)`.
pub fn describe_hold(hold: &Hold) -> String {
    let Hold { revision, since, until, why } = hold;
    let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
    let why = if why.as_str().is_empty() { String::new() } else { format!(" ({why})") };
    format!("held at revision {revision} since {since}{until}{why}")
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.awaited {
            Awaited::Cache { path, needed_by, caches } => {
                let caches: Vec<String> = caches.iter().map(ToString::to_string).collect();
                let needed_by = needed_by.as_ref().map(|needs| format!(", which {needs} needs,")).unwrap_or_default();
                write!(f, "{}: waits for {path}{needed_by} in {}", self.name, caches.join(", or in "))
            }
            Awaited::Unit { unit } => {
                write!(f, "{}: waits for the other deployments to {unit}, which changes with them", self.name)
            }
        }
    }
}

impl fmt::Display for Unpublishable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = match self.missing {
            MissingSetting::Cache => "it names no cache",
            MissingSetting::Key => "it names no key of its caches",
            MissingSetting::CacheToAsk => "none of its caches is asked: only https://, http:// and file:// are",
        };
        write!(f, "{} is not published, and with `publish.wait-for-cache` never will be: {missing}", self.name)
    }
}

impl fmt::Display for KeptBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, hold, changes } = self;
        let describe = |change: &DocumentChange| {
            let kind = match (change.from, change.to) {
                (Some(_), Some(_)) => "changed",
                (None, _) => "new",
                (Some(_), None) => "gone",
            };
            format!("{} ({kind})", change.path)
        };
        let changes: Vec<String> = changes.iter().map(describe).collect();
        let changes = changes.join(", ");
        let hold = describe_hold(hold);
        write!(f, "{name}: {hold}; kept back: {changes}; `clavel release {name}` lets it follow its source")
    }
}

impl fmt::Display for LostDeployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, revision, protection } = self;
        let (reason, effect) = match protection {
            Protection::Hold => ("it is held there", "lets it follow its source"),
            Protection::Pin => {
                ("its pin is lost with it", "has it pinned anew, by the content that its caches have now")
            }
        };
        write!(
            f,
            "{name}: revision {revision} is neither on the branch nor in its history any more, and {reason}: claveld \
             publishes nothing in its place. Put deployments/{name}.json back, from a mirror or an agent's copy; if there \
             is no copy, `clavel release {name}` {effect}"
        )
    }
}
