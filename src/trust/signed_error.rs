//! The reasons why a file of the branch is not trusted.

use crate::model::json::JsonError;
use crate::model::{FleetId, Format};

/// The reason why a file is not a trusted document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// It does not parse as its kind.
    #[error("it is not a valid {kind}")]
    Malformed {
        /// The kind that it should be.
        kind: &'static str,
        /// The reason, and the place of the error.
        source: JsonError,
    },
    /// It is an index of the time before the first release, when there were no bins.
    #[error(
        "it is an index of Clavel's time before the first release, which this one does not read; begin a new epoch with `clavel root next --raise-epoch`, and let a claveld of today publish again"
    )]
    BeforeRelease,
    /// A newer Clavel wrote it, in a schema that this one does not know.
    #[error("it is a {kind} of the schema `{schema}`, which a newer Clavel writes; upgrade this program")]
    NewerSchema {
        /// The kind that it should be.
        kind: &'static str,
        /// The schema that it names.
        schema: String,
    },
    /// A newer Clavel wrote it, and says that a reader has to know one of its fields.
    #[error(
        "its field `{field}` is critical, and only a newer Clavel than this one knows that field of a {kind}; upgrade this program"
    )]
    UnknownCritical {
        /// Its kind.
        kind: &'static str,
        /// The path of the field.
        field: String,
    },
    /// It is a root that only a newer Clavel can follow.
    #[error("it needs the format {found}, and this Clavel knows the formats up to {known}; upgrade this program", known = Format::CURRENT)]
    NewerFormat {
        /// The format that it names.
        found: u64,
    },
    /// It belongs to another fleet.
    #[error("it belongs to the fleet {}, and this fleet is {}: a {kind} is valid in its own fleet alone",
        found.map_or_else(|| "that it does not name".to_owned(), |found| found.short() + "…"), expected.short() + "…")]
    OtherFleet {
        /// Its kind.
        kind: &'static str,
        /// The expected fleet.
        expected: FleetId,
        /// The fleet that it names.
        found: Option<FleetId>,
    },
    /// Too few trusted keys signed it.
    #[error(
        "{}, and {threshold} of {} {} to have signed it",
        if *valid == 0 { "no valid signature by a trusted key".to_owned() } else { format!("{valid} trusted keys signed it") },
        trusted.join(", "),
        if *threshold == 1 { "has" } else { "have" }
    )]
    NotEnoughSignatures {
        /// How many different trusted keys signed it.
        valid: usize,
        /// How many have to sign it.
        threshold: usize,
        /// The names of the trusted keys.
        trusted: Vec<String>,
    },
}

impl SignedError {
    /// Whether the file is one that a newer Clavel can read, by its own claim.
    pub fn is_of_a_newer_clavel(&self) -> bool {
        match self {
            Self::NewerSchema { .. } | Self::UnknownCritical { .. } | Self::NewerFormat { .. } => true,
            Self::BeforeRelease
            | Self::Malformed { .. }
            | Self::OtherFleet { .. }
            | Self::NotEnoughSignatures { .. } => false,
        }
    }
}
