//! Feeds random bytes to the parsers of public and secret keys.

#![no_main]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use clavel::model::{PublicKey, RoleKey};
use clavel::trust::SecretKey;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(key) = text.parse::<PublicKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(key) = text.parse::<RoleKey>() {
            assert_eq!(key.to_string(), text);
        }
        let _ = RoleKey::from_openssh(text, None);
    }
    let path = std::env::temp_dir().join(format!("clavel-fuzz-key-{}", std::process::id()));
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    if file.and_then(|mut file| file.write_all(bytes)).is_ok()
        && let Ok(key) = SecretKey::read(&path)
    {
        assert_eq!(std::str::from_utf8(bytes).map(str::trim_end), Ok(key.to_text().as_str()));
    }
});
