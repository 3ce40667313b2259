//! Whatever stands in a document's place: it ends, and what is accepted has one rendering.

#![no_main]

use clavel::model::{Agent, Approval, Deployment, Payload, Unit};
use clavel::trust::Signed;
use libfuzzer_sys::fuzz_target;

fn parse<P: Payload>(bytes: &[u8]) {
    if let Ok(signed) = Signed::<P>::parse(bytes) {
        assert_eq!(signed.render(), bytes);
    }
}

fuzz_target!(|bytes: &[u8]| {
    parse::<Agent>(bytes);
    parse::<Approval>(bytes);
    parse::<Deployment>(bytes);
    parse::<Unit>(bytes);
});
