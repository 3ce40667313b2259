//! Metadata of a document: facts about it that are not part of its specification.
//!
//! The keys that claveld writes are parsed here, once, into the types of `provenance` and `pin`.

use std::hash::{Hash, Hasher};
use std::ops::Deref;

use serde::{Deserialize, Serialize, Serializer};

use super::text::validated_text;
use super::{Invalid, Map, Pin, PinError, Provenance, ProvenanceError};

validated_text! {
    /// A key of metadata: 1 to 64 of `A-Z a-z 0-9 . _ / -`.
    MetadataKey, what: "a metadata key", check: check_key, pattern: "^[A-Za-z0-9._/-]{1,64}$"
}

validated_text! {
    /// A value of metadata: at most 1024 bytes without control characters.
    MetadataValue, what: "a metadata value", check: check_value, pattern: r"^[^\u0000-\u001f\u007f-\u009f]{0,1024}$"
}

fn check_key(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > 64 {
        return Err("it has to be 1 to 64 characters long".to_owned());
    }
    match text.chars().find(|&c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-'))) {
        Some(c) => Err(format!("it contains {c:?}, and only A-Z a-z 0-9 . _ / - are allowed")),
        None => Ok(()),
    }
}

fn check_value(text: &str) -> Result<(), String> {
    if text.len() > 1024 {
        return Err("it may be at most 1024 bytes long".to_owned());
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("it contains the control character {c:?}")),
        None => Ok(()),
    }
}

/// The most keys of one document.
pub(super) const MOST: usize = 64;

/// At most 64 keys, each with a value.
pub type Metadata = Map<MetadataKey, MetadataValue, MOST>;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_duplicate_key_is_an_error() {
        let error = serde_json::from_str::<Metadata>(r#"{"a":"1","a":"2"}"#).unwrap_err().to_string();
        assert!(error.contains("there already"), "{error}");
    }

    #[test]
    fn too_many_keys_and_invalid_values_are_errors() {
        let many: BTreeMap<String, String> = (0..65).map(|n| (format!("k{n}"), String::new())).collect();
        assert!(serde_json::from_str::<Metadata>(&serde_json::to_string(&many).unwrap()).is_err());
        assert!("x".repeat(1025).parse::<MetadataValue>().is_err());
        assert!("two\nlines".parse::<MetadataValue>().is_err());
    }
}
