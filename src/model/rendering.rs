//! The one rendering of a JSON value, in which every file of a branch is written.
//!
//! The check is on the value and not on the fields that this version knows. So a file may have fields of a newer Clavel, and
//! still no byte of it can be hidden from the digest and the signatures, or mean something else to another reader.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Invalid;
use super::json::{self, JsonError};
use super::number::MAX_INTEGER;

/// The most levels of lists and objects inside each other. What claveld writes has seven.
const MAX_LEVELS: usize = 32;
/// The most characters of a key.
const MAX_KEY_LENGTH: usize = 256;

/// Parses a file of at most `limit` bytes, which has to be the one rendering of its value: keys in the order of their bytes, an
/// indent of two spaces, the shortest escapes, and a final newline.
///
/// A key is 1 to 256 characters of printable ASCII without `"` and `\`, so its place in the order is the same for every reader,
/// and a number is an integer from 0 to 2^53 - 1. Thus the rendering without its white space is the canonical form of RFC 8785.
pub fn parse_rendering(bytes: &[u8], limit: u64) -> Result<Value, JsonError> {
    let value: Value = json::parse(bytes, limit)?;
    check(&value, MAX_LEVELS).map_err(|Fault { mut place, why }| {
        place.reverse();
        JsonError::at(&place.join("."), why)
    })?;
    if is_rendering(&value, bytes) { Ok(value) } else { Err(JsonError::OtherRendering) }
}

/// Reads a `T` from a part of a parsed file. It ignores fields that `T` does not have. `place` is the path of the part.
pub fn read_part<T: DeserializeOwned>(part: &Value, place: &str) -> Result<T, JsonError> {
    T::deserialize(part).map_err(|error| {
        // Tracking the path is slow, and only an error needs it.
        let inside = match serde_path_to_error::deserialize::<_, T>(part) {
            Err(error) => error.path().to_string(),
            Ok(_) => ".".to_owned(),
        };
        let place = if inside == "." { place.to_owned() } else { format!("{place}.{inside}") };
        JsonError::at(place.trim_start_matches('.'), error.to_string())
    })
}

/// A fault in a value, and the path to it from the inside out.
struct Fault {
    place: Vec<String>,
    why: String,
}

fn check(value: &Value, levels: usize) -> Result<(), Fault> {
    let fault = |why: String| Fault { place: Vec::new(), why };
    let inside = |step: String| {
        move |mut fault: Fault| {
            fault.place.push(step);
            fault
        }
    };
    match value {
        Value::Array(_) | Value::Object(_) if levels == 0 => {
            Err(fault(format!("lists and objects are more than {MAX_LEVELS} levels deep")))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(at, item)| check(item, levels - 1).map_err(inside(format!("[{at}]"))))
        }
        Value::Object(entries) => entries.iter().try_for_each(|(key, value)| {
            let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && !matches!(byte, b'"' | b'\\');
            if key.is_empty() || key.len() > MAX_KEY_LENGTH || !key.bytes().all(is_plain) {
                let why =
                    format!("it has to be 1 to {MAX_KEY_LENGTH} characters of printable ASCII without `\"` and `\\`");
                return Err(fault(Invalid::new("a key of a file on a branch", key, why).to_string()));
            }
            check(value, levels - 1).map_err(inside(key.clone()))
        }),
        Value::Number(number) => match number.as_u64() {
            Some(0..=MAX_INTEGER) => Ok(()),
            _ => Err(fault(format!("{number} is not an integer from 0 to 2^53 - 1"))),
        },
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
    }
}

/// Whether [`json::render`] makes `bytes` of `value`. It compares while it serialises, and keeps no copy.
pub fn is_rendering<T: Serialize>(value: &T, bytes: &[u8]) -> bool {
    let mut rest = Expected(bytes);
    let written = value.serialize(&mut serde_json::Serializer::pretty(&mut rest));
    written.is_ok() && rest.0 == b"\n"
}

/// A writer that fails at the first byte that differs from the expected ones. It holds those that are still expected.
struct Expected<'a>(&'a [u8]);

impl std::io::Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..=MAX_INTEGER).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[ !#-\\[\\]-~]{1,12}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn parse(text: &str) -> Result<Value, JsonError> {
        parse_rendering(text.as_bytes(), 100_000)
    }

    proptest! {
        #[test]
        fn a_rendering_is_parsed_and_its_dense_form_is_canonical(value in values()) {
            let text = json::render(&value);
            let canonical = serde_json_canonicalizer::to_vec(&value).unwrap();
            prop_assert_eq!(json::compact(&value), canonical);
            prop_assert_eq!(parse_rendering(&text, 100_000), Ok(value));
        }

        #[test]
        fn a_changed_byte_gives_another_value_or_an_error(value in values(), at: prop::sample::Index, byte: u8) {
            let text = json::render(&value);
            let mut other = text.clone();
            let at = at.index(other.len());
            other[at] = byte;
            if other != text && let Ok(found) = parse_rendering(&other, 100_000) {
                prop_assert_ne!(&found, &value);
                prop_assert_eq!(json::render(&found), other);
            }
        }
    }

    #[test]
    fn every_other_spelling_of_a_value_is_refused() {
        assert_eq!(parse("{\n  \"a\": 1,\n  \"b\": [\n    \"x/y\"\n  ]\n}\n"), Ok(json!({ "a": 1, "b": ["x/y"] })));
        for other in [
            "{\n  \"b\": [\n    \"x/y\"\n  ],\n  \"a\": 1\n}\n",
            "{\n  \"a\": 1,\n  \"a\": 1,\n  \"b\": [\n    \"x/y\"\n  ]\n}\n",
            "{\n  \"a\": 1,\n  \"b\": [\n    \"x\\/y\"\n  ]\n}\n",
            "{\n  \"a\": 1,\n  \"b\": [\n    \"\\u0078/y\"\n  ]\n}\n",
            "{\n  \"a\": 1,\n  \"b\": [\"x/y\"]\n}\n",
            "{\n  \"a\": 1,\n  \"b\": [\n    \"x/y\"\n  ]\n}",
            "{\r\n  \"a\": 1\r\n}\r\n",
            "{\n\t\"a\": 1\n}\n",
        ] {
            assert_eq!(parse(other), Err(JsonError::OtherRendering), "{other}");
        }
    }

    #[test]
    fn what_two_readers_could_read_differently_is_an_error_that_names_its_place() {
        for (text, expected) in [
            ("{\n  \"a\": {\n    \"b\": 1.5\n  }\n}\n", "at `a.b`: 1.5 is not an integer"),
            ("{\n  \"a\": [\n    -1\n  ]\n}\n", "at `a.[0]`: -1 is not an integer"),
            ("{\n  \"a\": 9007199254740992\n}\n", "at `a`: 9007199254740992 is not an integer"),
            ("{\n  \"a\": 1e3\n}\n", "at `a`: 1000.0 is not an integer"),
            ("{\n  \"\": 1\n}\n", "is not a key of a file"),
            ("{\n  \"é\": 1\n}\n", "is not a key of a file"),
            ("{\n  \"a\\\"\": 1\n}\n", "is not a key of a file"),
            ("{} {}\n", "trailing characters"),
            ("\u{feff}{}\n", "byte-order mark"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let nested = |levels| json::render(&(0..levels).fold(json!(1), |inside, _| json!([inside])));
        assert!(parse_rendering(&nested(MAX_LEVELS), 100_000).is_ok());
        for levels in [MAX_LEVELS + 1, 200] {
            assert!(parse_rendering(&nested(levels), 100_000).is_err(), "{levels}");
        }
        let endless = "[".repeat(90_000);
        assert!(parse(&endless).unwrap_err().to_string().contains("recursion limit"));
    }

    #[test]
    fn a_part_is_read_without_its_unknown_fields() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Known {
            a: u8,
        }
        let part = json!({ "a": 1, "new": { "b": [] } });
        assert_eq!(read_part::<Known>(&part, "signed"), Ok(Known { a: 1 }));
        let error = read_part::<Known>(&json!({ "a": "x" }), "signed").unwrap_err().to_string();
        assert!(error.starts_with("at `signed.a`: invalid type"), "{error}");
    }
}
