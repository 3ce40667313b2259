//! Parses and writes JSON.
//!
//! Two kinds of text are parsed here. [`parse`] is for Clavel's own files, each of which one version of Clavel wrote: an unknown
//! field, a duplicate key, a number that is not an integer, a byte-order mark, trailing data and too many bytes are errors that
//! name the place. The types check most of this themselves (`deny_unknown_fields`, [`super::Map`], integer fields).
//! [`super::parse_rendering`] is for the files of a branch, which a newer Clavel may have written.

use std::io::{self, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The reason why bytes do not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There are too many bytes.
    #[error("it is {length} bytes long, and at most {limit} are allowed")]
    TooLong {
        /// How many there are.
        length: u64,
        /// How many there may be.
        limit: u64,
    },
    /// The first bytes are a byte-order mark.
    #[error("it begins with a byte-order mark, which JSON must not have (RFC 8259, section 8.1)")]
    ByteOrderMark,
    /// It is a file of Clavel's own state, and a newer Clavel wrote it.
    #[error(
        "a newer Clavel wrote it: it is of version {found}, and this one knows the versions up to {newest}; upgrade this program"
    )]
    Newer {
        /// Its version.
        found: u64,
        /// The newest version that this Clavel knows.
        newest: u64,
    },
    /// It is valid JSON, and not written in the one form that its value has.
    #[error(
        "it is not written in the one form that its content has (sorted keys, an indent of two spaces, a final newline): \
         somebody edited it"
    )]
    OtherRendering,
    /// The content is not valid.
    #[error("{}{why}", if place.is_empty() { String::new() } else { format!("at `{place}`: ") })]
    Content {
        /// The path of fields to the error; empty for the whole text.
        place: String,
        /// The reason, with line and column.
        why: String,
    },
}

/// Parses one `T` of at most `limit` bytes, strictly.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], limit: u64) -> Result<T, JsonError> {
    let length = bytes.len() as u64;
    if length > limit {
        return Err(JsonError::TooLong { length, limit });
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::ByteOrderMark);
    }
    serde_json::from_slice(bytes).map_err(|error| locate_error::<T>(bytes, &error))
}

/// The `version` of a file of Clavel's own state. A file without one is of version 0, which nobody released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateVersion<const NEWEST: u64>;

impl<const NEWEST: u64> schemars::JsonSchema for StateVersion<NEWEST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StateVersion".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        u64::json_schema(generator)
    }
}

impl<const NEWEST: u64> Serialize for StateVersion<NEWEST> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(NEWEST)
    }
}

impl<'de, const NEWEST: u64> Deserialize<'de> for StateVersion<NEWEST> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|_| Self)
    }
}

/// Parses a file of Clavel's own state strictly. Its version is read first: what a newer Clavel wrote is an error that says so,
/// whatever else is in it, and a `T` has to read every version from 0 to `newest`.
pub fn parse_state<T: DeserializeOwned>(bytes: &[u8], limit: u64, newest: u64) -> Result<T, JsonError> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(default)]
        version: u64,
    }
    match parse::<Versioned>(bytes, limit)?.version {
        found if found > newest => Err(JsonError::Newer { found, newest }),
        _ => parse(bytes, limit),
    }
}

/// Parses the bytes again to find the path of the error. Tracking the path is slow, and only an error needs it.
fn locate_error<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> JsonError {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let place = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => error.path().to_string(),
        Ok(_) => String::new(),
    };
    JsonError::at(if place == "." { "" } else { &place }, error.to_string())
}

impl JsonError {
    /// The most characters of a path that an error shows. The author of a file chooses how long it is.
    const MAX_PLACE_CHARACTERS: usize = 160;

    /// The error that the content at `place` is not valid, because of `why`.
    pub fn at(place: &str, why: impl Into<String>) -> Self {
        let place = match place.char_indices().nth(Self::MAX_PLACE_CHARACTERS) {
            Some((end, _)) => format!("{}…", &place[..end]),
            None => place.to_owned(),
        };
        Self::Content { place, why: why.into() }
    }
}

/// Serialises `value` in the form of a file on the branch: an indent of two spaces, one value a line, sorted keys, and a final
/// newline.
pub fn render<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    write(value, &mut serde_json::Serializer::pretty(&mut text));
    text.push(b'\n');
    text
}

/// Writes `value` to `to` as [`render`] serialises it. No write ends within a character.
pub fn render_to<T: Serialize>(value: &T, mut to: impl Write) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::pretty(&mut to))?;
    to.write_all(b"\n")
}

/// Serialises `value` without white space.
pub fn compact<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    write(value, &mut serde_json::Serializer::new(&mut text));
    text
}

fn write<T: Serialize, F: serde_json::ser::Formatter>(
    value: &T,
    serializer: &mut serde_json::Serializer<&mut Vec<u8>, F>,
) {
    let written = value.serialize(serializer);
    debug_assert!(written.is_ok(), "the types of documents always serialise: {written:?}");
}

#[cfg(test)]
mod tests {
    use super::super::{Deployment, Invalid};
    use super::*;

    const GOOD: &str = r#"{"fleet":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","kind":"Deployment","metadata":{},"name":"web-1","revision":1,"schema":"clavel/v1",
        "specification":{"template":{"metadata":{},"narId":"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x",
        "substituters":[],"substituters-public-keys":[]},"unit":"web-1"}}"#;

    fn error(text: &str) -> String {
        parse::<Deployment>(text.as_bytes(), 10_000).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_its_place() {
        assert_eq!(parse::<Deployment>(GOOD.as_bytes(), 10_000).unwrap().name.as_str(), "web-1");
        for (from, to, expected) in [
            ("\"revision\":1", "\"revision\":1,\"revision\":1", "duplicate field `revision`"),
            ("\"metadata\":{},\"name\"", "\"metadata\":{\"a\":\"\",\"a\":\"\"},\"name\"", "at `metadata"),
            ("\"revision\":1", "\"revision\":1.0", "at `revision`: invalid type: floating point"),
            ("\"revision\":1", "\"revision\":9007199254740992", "2^53"),
            ("\"revision\":1", "\"revision\":-1", "at `revision`"),
            ("}}", "}} {}", "trailing characters"),
            ("}}", "}", "EOF"),
            ("Deployment", "Unit", "at `kind`: `Unit` is not the kind asked for: a Deployment is"),
            ("clavel/v1", "clavel/v2", "at `schema`: unknown variant `clavel/v2`"),
            ("-x\"", "-x/y\"", "at `specification.template.narId`"),
            ("\"name\":\"web-1\"", "\"name\":\"../web\"", "at `name`: `../web` is not a name"),
        ] {
            let message = error(&GOOD.replacen(from, to, 1));
            assert!(message.contains(expected), "{message}");
        }
        assert!(error(&format!("\u{feff}{GOOD}")).contains("byte-order mark"));
        let long = parse::<Deployment>(GOOD.as_bytes(), 100);
        assert!(matches!(long, Err(JsonError::TooLong { limit: 100, .. })), "{long:?}");
    }

    #[test]
    fn deep_nesting_is_refused_at_its_first_level() {
        let deep = GOOD.replace("\"unit\":\"web-1\"", &format!("\"unit\":{}", "[".repeat(5_000)));
        assert!(error(&deep).contains("at `specification.unit`"));
    }

    #[test]
    fn an_invalid_text_cannot_control_a_terminal() {
        assert_eq!(Invalid::new("x", "a\u{1b}[2J", "").text, "a\u{fffd}[2J");
    }
}
