//! Metadata of documents and templates with what claveld's own keys say. They are read when somebody asks for them first: most
//! documents of a large fleet are compared and written, and nobody asks.
//!
//! `provenance` and `pin` say how the keys are spelt.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize, Serializer};

use super::Invalid;
use super::metadata::Metadata;
use super::pin::{Pin, PinError};
use super::provenance::{Provenance, ProvenanceError, SharedProvenance};
use super::{Attribute, StorePath};

// Metadata, and what claveld's own keys in it say. In JSON it is the metadata alone.
macro_rules! parsed_metadata {
    ($(#[$doc:meta])* $type:ident, $parsed:ty, $error:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(from = "Metadata")]
        pub struct $type {
            entries: Metadata,
            /// What the keys say; empty until somebody asks. It follows from the entries.
            parsed: OnceLock<Box<Result<$parsed, $error>>>,
        }

        impl From<Metadata> for $type {
            fn from(entries: Metadata) -> Self {
                Self { entries, parsed: OnceLock::new() }
            }
        }

        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                self.entries == other.entries
            }
        }

        impl Eq for $type {}

        impl Deref for $type {
            type Target = Metadata;
            fn deref(&self) -> &Metadata {
                &self.entries
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

impl DocumentMetadata {
    /// The metadata that a flake gives, with `provenance`. It is an error if the flake set one of its keys or too many keys.
    pub fn with_provenance(metadata: Metadata, provenance: &Provenance) -> Result<Self, Invalid> {
        provenance.add_to(metadata).map(Self::from)
    }

    /// The same, for one of many documents of an evaluation.
    pub fn with_shared_provenance(
        metadata: Metadata,
        shared: &SharedProvenance,
        attribute: &Attribute,
        drv_path: Option<&StorePath>,
    ) -> Result<Self, Invalid> {
        shared.add_to(metadata, attribute, drv_path).map(Self::from)
    }

    /// The provenance that it states.
    pub fn provenance(&self) -> Result<&Provenance, &ProvenanceError> {
        (**self.parsed.get_or_init(|| Box::new(Provenance::read(&self.entries)))).as_ref()
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
        (**self.parsed.get_or_init(|| Box::new(Pin::read(&self.entries)))).as_ref().map(Option::as_ref)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_equal_whether_or_not_somebody_asked_what_it_says() {
        let mut entries = Metadata::default();
        entries.insert("attribute".parse().unwrap(), "nixosConfigurations.web-1".parse().unwrap()).unwrap();
        let (asked, other) = (DocumentMetadata::from(entries.clone()), DocumentMetadata::from(entries));
        assert_eq!(asked.provenance(), Err(&ProvenanceError::Missing("evaluatedAt")));
        assert_eq!(asked, other);
        assert_eq!(asked.clone().provenance(), asked.provenance());
        assert_ne!(asked, DocumentMetadata::default());
    }
}
