//! Validated text: makes a string a type with a rule, which `FromStr` and `Deserialize` check alike.

use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Deserializer, Visitor};

/// The reason why a text breaks the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct Invalid {
    /// The expected thing, with its article: "a name", "a store path".
    pub what: &'static str,
    /// The text, cut short where it is long.
    pub text: String,
    /// The rule that it breaks.
    pub why: String,
}

impl Invalid {
    /// The error that `text` is not `what`, because of `why`.
    pub fn new(what: &'static str, text: &str, why: impl Into<String>) -> Self {
        const MOST_CHARACTERS: usize = 160;
        // A value that is refused may be a URL with a password.
        let text = crate::redact::without_users(text);
        let text = match text.char_indices().nth(MOST_CHARACTERS) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        };
        // The error is read at a terminal, which no character of the text may control.
        let text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        Self { what, text, why: why.into() }
    }
}

/// Gives a type that has `FromStr` and `Display` the same text and the same rule in documents: it serialises as its text, and
/// deserialises through `FromStr`.
macro_rules! as_text {
    ($type:ty, pattern: $pattern:expr, about: $about:expr) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        $crate::model::text::from_text!($type, pattern: $pattern, about: $about);
    };
}

/// The part of [`as_text`] that deserialises.
macro_rules! from_text {
    ($type:ty, pattern: $pattern:expr, about: $about:expr) => {
        impl TryFrom<String> for $type {
            type Error = $crate::model::Invalid;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::model::text::deserialize(deserializer, concat!("text that is a ", stringify!($type)))
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

/// Deserialises a text through `FromStr`, without a copy of the text.
pub(crate) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err = Invalid>>(
    deserializer: D,
    expected: &'static str,
) -> Result<T, D::Error> {
    struct Text<T>(&'static str, PhantomData<T>);
    impl<T: FromStr<Err = Invalid>> Visitor<'_> for Text<T> {
        type Value = T;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, PhantomData))
}

/// Defines a type that holds a string which `check`, a `fn(&str) -> Result<(), String>`, accepts. `what` names the type in
/// errors, with its article, and `pattern` is for the JSON schema.
macro_rules! validated_text {
    ($(#[$doc:meta])* $type:ident, what: $what:literal, check: $check:expr, pattern: $pattern:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(String);

        impl $type {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::model::Invalid;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(text).map_err(|why| $crate::model::Invalid::new($what, text, why))?;
                Ok(Self(text.to_owned()))
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        $crate::model::text::from_text!($type, pattern: $pattern, about: concat!("Text that is ", $what));
    };
}

pub(crate) use {as_text, from_text, validated_text};

/// The rule "1 to `most` characters of printable ASCII without white space".
pub(crate) fn printable(text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("it has to be 1 to {most} characters long"));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(c) => Err(format!("it contains {c:?}, and only printable ASCII without white space is allowed")),
        None => Ok(()),
    }
}
