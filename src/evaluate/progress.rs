//! The steps of an evaluation, as it reports them while it runs.

use std::time::Duration;

use super::outputs::Item;
use crate::model::SourceRevision;

/// A step of an evaluation that begins or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nix is asked which content the source has.
    Locking,
    /// The plan is made: it is known which attributes exist, and which of them have to be evaluated.
    Planned {
        /// The revision of the source, where it has one.
        revision: Option<SourceRevision>,
        /// How many attributes will be evaluated.
        changed: usize,
        /// How many attributes there are.
        of: usize,
    },
    /// The evaluation of an attribute began.
    Started {
        /// The attribute.
        attribute: Item,
        /// How long it took the last time.
        before: Option<Duration>,
    },
    /// The evaluation of an attribute ended, successfully or not.
    Done {
        /// The attribute.
        attribute: Item,
        /// How long its process ran. Several attributes may share one.
        time: Duration,
        /// How many attributes are done.
        done: usize,
        /// How many attributes will be evaluated.
        of: usize,
    },
    /// Clavel learns what the answers depend on. Nothing waits for it.
    Learning {
        /// How many answers were learnt about.
        done: usize,
        /// How many answers will be learnt about.
        of: usize,
    },
}
