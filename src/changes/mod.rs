//! What a publication changes inside the systems it is about, before anything of it is built: the derivations of the old
//! and the new system are compared, and told as packages, files and settings.
//!
//! A system is followed from its own derivation through the pieces it is made of (what gathers files, units and scripts)
//! to the packages in it, and no further: what a package is built with is not what a machine runs. An input counts where
//! its path stands in the text of what uses it, outside of what only says how that is built.
//!
//! No I/O: the derivations' files are read by whoever asks, through a function of theirs.

mod compare;
mod derivation;
mod graph;
mod specification;
mod system;
mod text;
mod version;

use std::fmt::Display;

use serde::Serialize;

use self::graph::Graph;
use crate::model::StorePath;

pub use specification::{FactChange, every, facts};
pub use system::{Direction, FileChange, FileFate, PackageChange, SystemChange, VersionChange};
pub use version::compare_versions;

/// Why it cannot be told what changes inside a system. It is never a reason not to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    /// The system was named by its store path, so nothing says what it is made from.
    #[error("{which} names a store path and no derivation")]
    NoDerivation {
        /// Which of the two.
        which: Which,
    },
    /// The derivation that is named is that of something else.
    #[error("{which} names a derivation that does not make its store path")]
    OtherDerivation {
        /// Which of the two.
        which: Which,
    },
    /// What the branch said of it was altered by somebody.
    #[error("what was there before is not to be believed")]
    Altered,
    /// A derivation is not there, or is not what Clavel knows.
    #[error("{path} cannot be read ({why})")]
    Unreadable {
        /// The derivation.
        path: StorePath,
        /// What stood in the way.
        why: String,
    },
    /// It is larger than what is looked at.
    #[error("it is larger than Clavel looks at in one round")]
    TooMuch,
}

/// One of the two systems that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one before.
    Old,
    /// The one after.
    New,
}

impl Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Old => "the old one",
            Self::New => "the new one",
        })
    }
}

/// What is told of a changed system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Told {
    /// What differs.
    Change(SystemChange),
    /// Nothing can be told.
    Unknown {
        /// Why.
        unknown: String,
    },
}

impl Told {
    /// It in lines for people, at most `most` of them but never less than seven.
    pub fn lines(&self, most: usize) -> Vec<String> {
        match self {
            Self::Change(change) => change.lines(most),
            Self::Unknown { unknown } => vec![format!("what changes inside cannot be told: {unknown}")],
        }
    }
}

impl From<Result<SystemChange, Untold>> for Told {
    fn from(result: Result<SystemChange, Untold>) -> Self {
        match result {
            Ok(change) => Self::Change(change),
            Err(untold) => Self::Unknown { unknown: untold.to_string() },
        }
    }
}

/// A system as a deployment names it.
#[derive(Debug, Clone, Copy)]
pub struct System<'a> {
    /// What is deployed.
    pub path: &'a StorePath,
    /// What is said to make it.
    pub derivation: Option<&'a StorePath>,
}

/// Compares systems, and keeps what it read for the next one.
#[derive(Debug)]
pub struct Comparer<R> {
    graph: Graph,
    read: R,
}

impl<R, E: Display> Comparer<R>
where
    R: Fn(&StorePath) -> Result<Vec<u8>, E>,
{
    /// One that gets the file of a derivation by `read`.
    pub fn new(read: R) -> Self {
        Self { graph: Graph::default(), read }
    }

    /// What differs between two systems. A flake may name one path and the derivation of another: what such a derivation
    /// says is nothing of the system.
    pub fn compare_systems(&mut self, old: System<'_>, new: System<'_>) -> Result<SystemChange, Untold> {
        let change = self.compare(old.derivation, new.derivation)?;
        for (System { path, derivation }, which) in [(old, Which::Old), (new, Which::New)] {
            let made = derivation.and_then(|derivation| self.graph.node(derivation)).map(|node| &node.outputs);
            let is_made =
                text::key(&path.as_nix().to_basename()).zip(made).is_some_and(|(key, made)| made.contains(&key));
            if !is_made {
                return Err(Untold::OtherDerivation { which });
            }
        }
        Ok(change)
    }

    /// What differs between what the derivations `old` and `new` make.
    pub fn compare(&mut self, old: Option<&StorePath>, new: Option<&StorePath>) -> Result<SystemChange, Untold> {
        let old = old.ok_or(Untold::NoDerivation { which: Which::Old })?;
        let new = new.ok_or(Untold::NoDerivation { which: Which::New })?;
        self.graph.load(new, &self.read)?;
        self.graph.load(old, &self.read)?;
        Ok(compare::compare(&self.graph, old, new))
    }
}
