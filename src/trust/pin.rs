//! Computes the pin of a store path and its closure.

use super::digest;
use crate::model::{Closure, ClosureDigest, Pin, StorePath, closure_lines};

/// Computes the pin of `path` with this closure; none where the closure does not contain the path itself.
pub fn pin_of(path: &StorePath, closure: &Closure) -> Option<Pin> {
    let nar_hash = closure.get(path)?.nar_hash;
    Some(Pin { closure: ClosureDigest::of(digest(&closure_lines(closure))), nar_hash })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Content;

    #[test]
    fn every_field_of_a_closure_changes_its_digest() {
        let hash = |first: &str| format!("sha256-{first}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").parse().unwrap();
        let path = |name: &str| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap();
        let content = Content { nar_hash: hash("A"), nar_size: 120 };
        let closure: Closure = [(path("top"), content), (path("dep"), content)].into();
        let whole = pin_of(&path("top"), &closure).unwrap();
        assert_eq!(whole.nar_hash, hash("A"));
        for (name, changed) in [
            ("dep", Content { nar_hash: hash("B"), ..content }),
            ("dep", Content { nar_size: 121, ..content }),
            ("more", content),
        ] {
            let mut other = closure.clone();
            other.insert(path(name), changed);
            let other = pin_of(&path("top"), &other).unwrap();
            assert_eq!(other.nar_hash, whole.nar_hash);
            assert_ne!(other.closure, whole.closure, "{name} {changed:?}");
        }
        assert_eq!(pin_of(&path("gone"), &closure), None);
        // `printf 'PATH HASH 120\n' | sha256sum` prints this digest.
        let alone = pin_of(&path("dep"), &[(path("dep"), content)].into()).unwrap();
        assert_eq!(alone.closure.to_string(), ALONE);
    }

    const ALONE: &str = "4208aba27465ef28fc0d1163a1d16811922ea407d8645051f1c1b5e6a8e13738";
}
