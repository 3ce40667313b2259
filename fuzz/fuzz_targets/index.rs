//! Feeds random bytes to the parser of the index: parsing ends, an accepted index renders to the same bytes, and both ways to
//! verify it agree.

#![no_main]

use std::sync::LazyLock;

use clavel::model::Index;
use clavel::trust::{Signed, TrustedRoot};
use libfuzzer_sys::fuzz_target;

static ROOT: LazyLock<TrustedRoot> =
    LazyLock::new(|| TrustedRoot::given(include_bytes!("../seeds/root/root.json")).unwrap());

fuzz_target!(|bytes: &[u8]| {
    let verified = Signed::<Index>::verify_file(bytes.to_vec(), ROOT.fleet(), ROOT.publisher()).is_ok();
    let parsed = Signed::<Index>::parse(bytes);
    if let Ok(signed) = &parsed {
        assert_eq!(signed.render(), bytes);
    }
    assert_eq!(verified, parsed.and_then(|signed| signed.verify(ROOT.fleet(), ROOT.publisher())).is_ok());
});
