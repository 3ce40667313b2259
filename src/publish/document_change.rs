//! A change of one document on the branch, and two sources that both claim one document.

use std::fmt;

use serde::Serialize;

use crate::changes::SystemDiff;
use crate::model::{DocumentPath, Revision, Tombstone};

/// One document that a publication changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct DocumentChange {
    /// The document's path on the branch.
    pub path: DocumentPath,
    /// The revision before; none for a new document.
    pub from: Option<Revision>,
    /// The revision after; none for a withdrawn document.
    pub to: Option<Revision>,
    /// Whether claveld repaired the document: somebody had altered it, or its signer is no longer a publisher.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub repaired: bool,
    /// The differences between the old and the new system; none for a new deployment, or where the system is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemDiff>,
}

impl DocumentChange {
    /// The tombstone that the index gets for the document; none where the document is not withdrawn.
    pub(super) fn tombstone(&self) -> Option<Tombstone> {
        match (self.from, self.to) {
            (Some(revision), None) => Some(Tombstone { revision }),
            _ => None,
        }
    }
}

impl fmt::Display for DocumentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from, self.to) {
            (None, Some(to)) => write!(f, "new, revision {to}")?,
            (Some(from), Some(to)) => write!(f, "revision {from} → {to}")?,
            (Some(from), None) => write!(f, "withdrawn after revision {from}")?,
            (None, None) => write!(f, "nothing")?,
        }
        if self.repaired { write!(f, " (repaired: the file there was altered or not trusted)") } else { Ok(()) }
    }
}

/// A name that several sources claim. The one that published it first goes on with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
pub struct NameConflict {
    /// The document.
    pub path: DocumentPath,
    /// The source that published it first; none where nobody has published it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The sources that claim it.
    pub sources: Vec<String>,
}

impl fmt::Display for NameConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, owner, sources } = self;
        write!(f, "{path} is claimed by {}", sources.join(" and by "))?;
        match owner {
            Some(owner) => write!(f, "; {owner} published it first and goes on with it: rename the other one"),
            None => write!(f, "; nobody has published it yet: rename one of them, or give each source its `names`"),
        }
    }
}
