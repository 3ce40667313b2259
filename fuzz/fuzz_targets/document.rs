//! Feeds random bytes to the parsers of documents: parsing ends, and an accepted document renders to the same bytes.

#![no_main]

use std::sync::LazyLock;

use clavel::model::{Agent, Approval, Deployment, Payload, Unit};
use clavel::trust::{Signed, TrustedRoot};
use libfuzzer_sys::fuzz_target;

static ROOT: LazyLock<TrustedRoot> =
    LazyLock::new(|| TrustedRoot::given(include_bytes!("../seeds/root/root.json")).unwrap());

fn parse<P: Payload>(bytes: &[u8]) {
    if let Ok(signed) = Signed::<P>::parse(bytes) {
        assert_eq!(signed.render(), bytes);
        let _ = signed.verify(ROOT.fleet(), ROOT.publisher());
    }
}

fuzz_target!(|bytes: &[u8]| {
    parse::<Agent>(bytes);
    parse::<Approval>(bytes);
    parse::<Deployment>(bytes);
    parse::<Unit>(bytes);
});
