//! Feeds random bytes to the parser of ssh-keygen's signatures.

#![no_main]

use clavel::trust::SshSignature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = SshSignature::from_armor(text);
    }
    // The signature inside a document. JSON can spell a text in several ways, and Clavel refuses a document that uses another one.
    let quoted = [b"{\"keyid\":\"a\",\"sig\":\"", bytes, b"\"}"].concat();
    if !bytes.contains(&b'\\')
        && let Ok(signature) = clavel::model::json::parse::<clavel::trust::Signature>(&quoted, 1 << 16)
    {
        assert_eq!(clavel::model::json::compact(&signature), quoted);
    }
});
