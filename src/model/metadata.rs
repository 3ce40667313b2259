//! Metadata of a document: facts about it that are not part of its specification.
//!
//! `parsed_metadata` reads the keys that claveld writes.

use super::Map;
use super::text::{printable_line, validated_text};

validated_text! {
    /// A key of metadata: 1 to 64 of `A-Z a-z 0-9 . _ / -`.
    MetadataKey, what: "a metadata key", check: check_key, pattern: "^[A-Za-z0-9._/-]{1,64}$"
}

validated_text! {
    /// A value of metadata: at most 1024 bytes without control characters.
    MetadataValue, what: "a metadata value", check: check_value, pattern: r"^[^\u0000-\u001f\u007f-\u009f]{0,1024}$"
}

impl MetadataValue {
    /// A text from outside in one printable line of at most 200 characters.
    pub fn of_line(text: &str) -> Self {
        // With at most 4 bytes each, they fit.
        const MAX_CHARACTERS: usize = 200;
        Self(printable_line(text, MAX_CHARACTERS).into())
    }
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
pub(super) const MAX_ENTRIES: usize = 64;

/// At most 64 keys, each with a value.
pub type Metadata = Map<MetadataKey, MetadataValue, MAX_ENTRIES>;

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
        let line = MetadataValue::of_line(&"two\nlines 😀".repeat(100));
        assert_eq!(line.as_str().parse(), Ok(line.clone()));
        let longest = MetadataValue::of_line(&"😀".repeat(2000));
        assert_eq!(longest.as_str().parse(), Ok(longest.clone()));
    }
}
