//! Feeds random bytes to the parser of roots: parsing ends, and a trusted root renders to the same bytes and has enough keys for
//! each threshold.

#![no_main]

use clavel::model::Root;
use clavel::trust::{Signed, TrustedRoot};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = Signed::<Root>::parse(bytes) {
        assert_eq!(signed.render(), bytes);
    }
    if let Ok(root) = TrustedRoot::given(bytes) {
        assert_eq!(root.file(), bytes);
        assert!(root.publisher().threshold() <= root.publisher().key_ids().count());
    }
});
