//! Parses and writes JSON.
//!
//! Parsing is strict: an unknown field, a duplicate key at any level, a number that is not an integer, a byte-order mark,
//! trailing data and too many bytes are errors that name the place. The types check most of this themselves
//! (`deny_unknown_fields`, [`super::Map`], integer fields), since every part of a document has a type.

use serde::Serialize;
use serde::de::DeserializeOwned;

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

/// Parses the bytes again to find the path of the error. Tracking the path is slow, and only an error needs it.
fn locate_error<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> JsonError {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let place = match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => error.path().to_string(),
        Ok(_) => String::new(),
    };
    let place = if place == "." { String::new() } else { place };
    JsonError::Content { place, why: error.to_string() }
}

/// Serialises `value` in the form of a file on the branch: an indent of two spaces, one value a line, sorted keys, and a final
/// newline.
pub fn render<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    write(value, &mut serde_json::Serializer::pretty(&mut text));
    text.push(b'\n');
    text
}

/// Serialises `value` without white space.
pub fn compact<T: Serialize>(value: &T) -> Vec<u8> {
    let mut text = Vec::with_capacity(1024);
    write(value, &mut serde_json::Serializer::new(&mut text));
    text
}

/// Whether [`render`] would make `bytes` of `value`. It compares while it serialises, and keeps no copy.
pub fn is_rendering<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let mut rest = Expected(bytes);
    let written = value.serialize(&mut serde_json::Serializer::pretty(&mut rest));
    written.is_ok() && rest.0 == b"\n"
}

/// A writer that fails at the first byte that differs from the expected ones. It holds those that are still expected.
struct Expected<'a>(&'a [u8]);

impl std::io::Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0 = self.0.strip_prefix(bytes).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Removes the white space from a rendering. The result is the form of [`compact`].
pub fn make_compact(rendering: &mut Vec<u8>) {
    let (mut read, mut written) = (0, 0);
    while read < rendering.len() {
        // Remove white space outside of strings alone.
        let string = memchr::memchr(b'"', &rendering[read..]).map_or(rendering.len(), |at| read + at);
        for at in read..string {
            if !matches!(rendering[at], b' ' | b'\n') {
                rendering[written] = rendering[at];
                written += 1;
            }
        }
        let end = string + end_of_string(&rendering[string..]);
        rendering.copy_within(string..end, written);
        (read, written) = (end, written + end - string);
    }
    rendering.truncate(written);
}

/// The end of the string with which `bytes` begin: after its closing quotation mark, or the end of `bytes` without one.
fn end_of_string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += found;
        if bytes[at] == b'"' {
            return at + 1;
        }
        // Skip the backslash and the character that it escapes.
        at += 2;
    }
    bytes.len()
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
            ("\"unit\"", "\"extra\":1,\"unit\"", "at `specification.extra`: unknown field `extra`"),
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

    proptest::proptest! {
        #[test]
        fn a_rendering_without_white_space_is_the_compact_form(
            texts in proptest::collection::btree_map(".*", proptest::collection::vec(".*", 0..6), 0..6),
        ) {
            let rendering = render(&texts);
            let mut dense = rendering.clone();
            make_compact(&mut dense);
            proptest::prop_assert_eq!(dense, compact(&texts));
            proptest::prop_assert!(is_rendering(&texts, &rendering));
            for other in [&rendering[..rendering.len() - 1], &[&rendering[..], b" "].concat(), b"", b"\n"] {
                proptest::prop_assert!(!is_rendering(&texts, other));
            }
        }

        #[test]
        fn any_bytes_can_be_made_compact(mut bytes: Vec<u8>) {
            let before = bytes.len();
            make_compact(&mut bytes);
            proptest::prop_assert!(bytes.len() <= before);
        }
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
