//! Whatever stands in the place of a signature that ssh-keygen made.

#![no_main]

use clavel::trust::SshSignature;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = SshSignature::from_armor(text);
    }
    // As it stands in a document. JSON has other spellings of one text, and a document that has them is refused as a whole.
    let quoted = [b"{\"keyid\":\"a\",\"sig\":\"", bytes, b"\"}"].concat();
    if !bytes.contains(&b'\\')
        && let Ok(signature) = clavel::model::json::parse::<clavel::trust::Signature>(&quoted, 1 << 16)
    {
        assert_eq!(clavel::model::json::compact(&signature), quoted);
    }
});
