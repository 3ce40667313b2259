//! Feeds random bytes to the reader of the one rendering: an accepted file is the rendering of its value, and without its white
//! space it is the canonical form that an independent implementation makes (RFC 8785).

#![no_main]

use clavel::model::{json, parse_rendering};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(value) = parse_rendering(bytes, 1 << 20) {
        assert_eq!(json::render(&value), bytes);
        assert_eq!(json::compact(&value), serde_json_canonicalizer::to_vec(&value).unwrap());
    }
});
