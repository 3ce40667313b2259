//! Metadata of documents and templates with what claveld's own keys say, which is read once, where a document is parsed.
//!
//! `provenance` and `pin` say how the keys are spelt.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde::{Deserialize, Serialize, Serializer};

use super::Invalid;
use super::metadata::Metadata;
use super::pin::{Pin, PinError};
use super::provenance::{Provenance, ProvenanceError};

// Metadata, and what claveld's own keys in it say. In JSON it is the metadata alone.
macro_rules! parsed_metadata {
    ($(#[$doc:meta])* $type:ident, $parsed:ty, $error:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(from = "Metadata")]
        pub struct $type {
            entries: Metadata,
            parsed: Result<$parsed, $error>,
        }

        impl Deref for $type {
            type Target = Metadata;
            fn deref(&self) -> &Metadata {
                &self.entries
            }
        }

        impl Default for $type {
            fn default() -> Self {
                Metadata::default().into()
            }
        }

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.entries.hash(state);
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.entries.serialize(serializer)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                Metadata::inline_schema()
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                Metadata::schema_name()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                Metadata::json_schema(generator)
            }
        }
    };
}

parsed_metadata! {
    /// The metadata of a document, and the provenance that it states.
    DocumentMetadata, Provenance, ProvenanceError
}

parsed_metadata! {
    /// The metadata of a template, and the pin that it states.
    TemplateMetadata, Option<Pin>, PinError
}

impl From<Metadata> for DocumentMetadata {
    fn from(entries: Metadata) -> Self {
        let parsed = Provenance::read(&entries);
        Self { entries, parsed }
    }
}

impl From<Metadata> for TemplateMetadata {
    fn from(entries: Metadata) -> Self {
        let parsed = Pin::read(&entries);
        Self { entries, parsed }
    }
}

impl DocumentMetadata {
    /// The metadata that a flake gives, with `provenance`. It is an error if the flake set one of its keys or too many keys.
    pub fn with_provenance(metadata: Metadata, provenance: &Provenance) -> Result<Self, Invalid> {
        provenance.add_to(metadata).map(Self::from)
    }

    /// The provenance that it states.
    pub fn provenance(&self) -> Result<&Provenance, &ProvenanceError> {
        self.parsed.as_ref()
    }
}

impl TemplateMetadata {
    /// The metadata that a flake gives a template. It is an error if the flake set one of the pin's keys, or left no room for them.
    pub fn without_pin(metadata: Metadata) -> Result<Self, Invalid> {
        Pin::refuse_in(&metadata)?;
        Ok(metadata.into())
    }

    /// Itself with `pin`. It is an error if it has one already.
    pub fn with_pin(&self, pin: &Pin) -> Result<Self, Invalid> {
        pin.add_to(self.entries.clone()).map(Self::from)
    }

    /// The pin that it states, where it states one.
    pub fn pin(&self) -> Result<Option<&Pin>, &PinError> {
        self.parsed.as_ref().map(Option::as_ref)
    }
}
