//! A source as an index describes it. Nobody decides by it: it says to people how far the documents can be trusted to be the newest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FlakeReference, List, MetadataValue, SourceRevision, Timestamp};

/// The most broken parts of one source that an index names.
pub const MAX_BROKEN_PARTS: usize = 24;

/// A source as it was when an index was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IndexSource {
    /// The parts of it that gave no document when it was read last; at most 24 of them, the first ones in the order of their attributes.
    #[serde(default, skip_serializing_if = "List::is_empty")]
    pub broken: List<BrokenPart, MAX_BROKEN_PARTS>,
    /// How many more parts of it were broken; absent where there are none.
    #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "super::number::integer")]
    pub more_broken: u64,
    /// The revision that was read last; absent where it has none, or was never read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<SourceRevision>,
    /// The source.
    pub source: FlakeReference,
    /// Since when claveld cannot read it; absent where it was read at the last round about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread_since: Option<Timestamp>,
}

/// A part of a source that gave no document, so that the documents that it touches stayed as they were.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokenPart {
    /// The attribute of the flake.
    pub attribute: MetadataValue,
    /// The first line of the error.
    pub error: MetadataValue,
    /// The first round that found it broken.
    pub since: Timestamp,
}

impl IndexSource {
    /// Whether the same parts are broken, as far as an index says it.
    pub fn has_same_broken_parts(&self, other: &Self) -> bool {
        let attributes = |source: &'_ Self| source.broken.iter().map(|part| part.attribute.clone()).collect::<Vec<_>>();
        self.more_broken == other.more_broken && attributes(self) == attributes(other)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
