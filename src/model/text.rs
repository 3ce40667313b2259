//! Validated text: makes a string a type with a rule, which `FromStr` and `Deserialize` check alike.
//!
//! It is also the one place that makes text from outside fit to be shown: no character of it may control a terminal, hide, or
//! change the order in which people read the others.

use std::fmt;
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
        const MAX_CHARACTERS: usize = 160;
        // A value that is refused may be a URL with a password.
        let text = crate::redact::without_users(text);
        let mut shown = printable_line(&text, MAX_CHARACTERS);
        if text.chars().nth(MAX_CHARACTERS).is_some() {
            shown.push('…');
        }
        Self { what, text: shown, why: why.into() }
    }
}

/// Text from outside for people, in one line of at most `most` characters. The replacement character stands for each one that is
/// not fit to be shown.
pub fn printable_line(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// Text from outside for people, as [`printable_line`] gives it, but with its line breaks and tabs, and whole.
pub fn printable_lines(text: &str) -> String {
    let fits = |c| is_printable(c) || matches!(c, '\n' | '\t');
    text.chars().map(|c| if fits(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The most names that [`few`] gives in full.
pub const FEW: usize = 4;

/// Names in one line: all of them where they are few, else the first ones and the number of the others.
pub fn few(names: impl ExactSizeIterator<Item = impl fmt::Display>) -> String {
    let (count, names) = (names.len(), names.map(|name| name.to_string()));
    if count <= FEW {
        return names.collect::<Vec<_>>().join(", ");
    }
    let first: Vec<String> = names.take(FEW - 1).collect();
    format!("{} and {} more", first.join(", "), count - first.len())
}

/// The first line of an error that says something, made fit to be shown to anyone who may see the error: in at most 200
/// characters, and without users and passwords in URLs. A line that ends in a colon takes the next one with it.
pub fn headline(error: &str) -> String {
    const MAX_CHARACTERS: usize = 200;
    let error = crate::redact::without_users(error);
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut text = lines.next().unwrap_or_default().to_owned();
    if text.ends_with(':')
        && let Some(next) = lines.next()
    {
        text = format!("{text} {next}");
    }
    printable_line(&text, MAX_CHARACTERS)
}

/// Text from outside for people, as [`printable_lines`] gives it, in at most `most` bytes. A longer text loses its middle: an error
/// begins with what failed, and ends with the last words of the program.
pub fn excerpt(text: &str, most: usize) -> String {
    const GAP: &str = "\n[…]\n";
    let text = printable_lines(text);
    if text.len() <= most {
        return text;
    }
    let kept = most.saturating_sub(GAP.len());
    let start = text.floor_char_boundary(kept / 4);
    let end = text.ceil_char_boundary(text.len() - (kept - kept / 4));
    format!("{}{GAP}{}", &text[..start], &text[end..])
}

/// Text from outside for people, as [`printable_lines`] gives it, in at most `most` bytes, and without users and passwords in URLs. A
/// longer text loses its end.
pub fn beginning(text: &str, most: usize) -> String {
    const GAP: &str = "\n[…]";
    let mut text = printable_lines(&crate::redact::without_users(text));
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most.saturating_sub(GAP.len())));
        text.push_str(GAP);
    }
    text
}

/// Whether the character may be shown as it is: it is no control character, no line separator, none of those that change the
/// direction of the text, and none that a font draws as nothing (Unicode's property `Default_Ignorable_Code_Point`).
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
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

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }
    }
    deserializer.deserialize_str(Text(expected, PhantomData))
}

/// Defines a type that holds a string which `check`, a `fn(&str) -> Result<(), String>`, accepts. `what` names the type in
/// errors, with its article, and `pattern` is for the JSON schema. All clones share one text: a fleet has each name dozens of times.
macro_rules! validated_text {
    ($(#[$doc:meta])* $type:ident, what: $what:literal, check: $check:expr, pattern: $pattern:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(std::sync::Arc<str>);

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
                Ok(Self(text.into()))
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
pub(crate) fn check_printable_ascii(text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("it has to be 1 to {most} characters long"));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(c) => Err(format!("it contains {c:?}, and only printable ASCII without white space is allowed")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_headline_is_one_line_without_passwords() {
        for (error, expected) in [
            ("error: no version\n  at /nix/store/x-source/a.nix", "error: no version"),
            ("error:\n  Failed assertions:\n  - no disk\n", "error: Failed assertions:"),
            ("Failed assertions:\n\n- no disk", "Failed assertions: - no disk"),
            ("error: cannot reach https://me:secret@host/x", "error: cannot reach https://host/x"),
            ("a\u{1b}[31mb", "a\u{fffd}[31mb"),
            ("", ""),
        ] {
            assert_eq!(headline(error), expected);
        }
        assert_eq!(headline(&"é".repeat(500)).chars().count(), 200);
    }

    #[test]
    fn a_character_that_steers_hides_or_reorders_is_replaced() {
        let harmful = "\u{0}\u{1b}\u{7f}\u{9b}\u{ad}\u{34f}\u{61c}\u{180e}\u{200b}\u{200d}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\
                       \u{2060}\u{2066}\u{2069}\u{feff}\u{fe0f}\u{e0001}\u{e0041}\u{e007f}";
        let replaced = "\u{fffd}".repeat(harmful.chars().count());
        assert_eq!(printable_line(harmful, 100), replaced);
        assert_eq!(printable_lines(harmful), replaced);
        assert_eq!(Invalid::new("x", harmful, "").text, replaced);
        let harmless = "web-1 é ü 漢字 😀 עברית ─▶";
        assert_eq!(printable_line(harmless, 100), harmless);
    }

    #[test]
    fn a_line_has_no_line_breaks_and_is_cut_and_lines_keep_theirs() {
        assert_eq!(printable_line("a\n\u{1b}[2J", 100), "a\u{fffd}\u{fffd}[2J");
        assert_eq!(printable_line(&"é".repeat(1000), 96).chars().count(), 96);
        assert_eq!(
            printable_lines("unknown field `\u{1b}[2J`\n\tat \u{9b}31m\r"),
            "unknown field `\u{fffd}[2J`\n\tat \u{fffd}31m\u{fffd}"
        );
    }

    #[test]
    fn an_excerpt_has_the_beginning_and_the_end() {
        assert_eq!(excerpt("short\n", 6), "short\n");
        let long = format!("begin{}end", "é".repeat(1000));
        for most in 8..600 {
            let cut = excerpt(&long, most);
            assert!(cut.len() <= most && cut.contains("[…]"), "{most}: {cut}");
        }
        let cut = excerpt(&long, 100);
        assert!(cut.starts_with("begin") && cut.ends_with("end"), "{cut}");
        assert!(excerpt(&"\u{0}".repeat(1000), 100).len() <= 100);
    }

    #[test]
    fn a_beginning_has_no_end_where_it_is_long() {
        assert_eq!(beginning("from https://me:secret@host/x\n\tto\u{1b}", 100), "from https://host/x\n\tto\u{fffd}");
        for most in 10..60 {
            let cut = beginning(&"é".repeat(1000), most);
            assert!(cut.len() <= most && cut.starts_with('é') && cut.ends_with("[…]"), "{most}: {cut}");
        }
    }
}
