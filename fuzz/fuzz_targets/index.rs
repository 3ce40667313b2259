//! Whatever stands in the index's place: it ends, and what is accepted has one rendering.

#![no_main]

use clavel::model::Index;
use clavel::trust::Signed;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = Signed::<Index>::parse(bytes) {
        assert_eq!(signed.render(), bytes);
    }
});
