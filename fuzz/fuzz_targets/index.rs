//! Feeds random bytes to the parsers of the index and of its bins: parsing ends, and an accepted index renders to the same bytes.

#![no_main]

use std::sync::LazyLock;

use clavel::model::Index;
use clavel::trust::{Signed, TrustedRoot, parse_bin};
use libfuzzer_sys::fuzz_target;

static ROOT: LazyLock<TrustedRoot> =
    LazyLock::new(|| TrustedRoot::given(include_bytes!("../seeds/root/root.json")).unwrap());

fuzz_target!(|bytes: &[u8]| {
    if let Ok(signed) = Signed::<Index>::parse(bytes) {
        assert_eq!(signed.render(), bytes);
        let _ = signed.verify(ROOT.fleet(), ROOT.publisher());
    }
    let _ = parse_bin(bytes);
});
