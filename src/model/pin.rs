//! The pin of a store path: what is to be in it, and in all that it needs.
//!
//! A path that is named by its inputs does not say what is in it: whoever holds a cache's key does. A pin does.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::metadata::MOST as MOST_METADATA;
use super::text::as_text;
use super::{Invalid, Metadata, NarHash, Sha256Digest, StorePath};

/// What is in one store path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The hash of its Nix archive.
    pub nar_hash: NarHash,
    /// The length of that archive, in bytes.
    pub nar_size: u64,
}

/// A store path with all that it needs: each path, and what is in it.
pub type Closure = BTreeMap<StorePath, Content>;

/// The digest of a closure, written as 64 lower-case hexadecimal digits: the SHA-256 of its lines ([`closure_lines`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClosureDigest(Sha256Digest);

/// What the digest of a closure is over: a line `PATH NARHASH NARSIZE` for each of its paths, the first among them. The
/// hash is in SRI form, the size in decimal digits and bytes; one space stands between, a line feed ends each line, and
/// the lines are in the order of their bytes.
pub fn closure_lines(closure: &Closure) -> Vec<u8> {
    let line =
        |(path, Content { nar_hash, nar_size }): (&StorePath, &Content)| format!("{path} {nar_hash} {nar_size}\n");
    let mut lines: Vec<String> = closure.iter().map(line).collect();
    // What a path's own order is does not matter to whoever computes it with other tools.
    lines.sort_unstable();
    lines.concat().into_bytes()
}

impl ClosureDigest {
    /// The closure whose lines have this digest.
    pub fn of(lines: Sha256Digest) -> Self {
        Self(lines)
    }
}

impl fmt::Display for ClosureDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ClosureDigest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |error: Invalid| Invalid { what: "the digest of a closure", ..error };
        text.parse().map(Self).map_err(bad)
    }
}

as_text!(ClosureDigest, pattern: "^[0-9a-f]{64}$", about: "What is in a path and in all that it needs");

/// What is to be under a deployment's store path, whatever a cache's key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The digest of the path's closure, the path itself among it.
    pub closure: ClosureDigest,
    /// The hash of the path itself.
    pub nar_hash: NarHash,
}

/// Why a template's metadata has no pin that could be held to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// One of its two keys stands alone.
    #[error("the template's metadata has `{there}` and no `{missing}`, and one is worth nothing without the other")]
    Half {
        /// The key that is there.
        there: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// A key holds what cannot stand there.
    #[error("the template's metadata has a `{key}` that is none: {source}")]
    Bad {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        source: Invalid,
    },
}

impl Pin {
    const CLOSURE: &'static str = "closure";
    const NAR_HASH: &'static str = "narHash";

    /// The keys of a template's metadata that are Claveld's alone; a flake may not set them.
    pub const KEYS: [&'static str; 2] = [Self::CLOSURE, Self::NAR_HASH];

    /// The pin that a template's `metadata` has, where it has one.
    pub fn of(metadata: &Metadata) -> Result<Option<Self>, PinError> {
        match (metadata.get(Self::CLOSURE), metadata.get(Self::NAR_HASH)) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(PinError::Half { there: Self::CLOSURE, missing: Self::NAR_HASH }),
            (None, Some(_)) => Err(PinError::Half { there: Self::NAR_HASH, missing: Self::CLOSURE }),
            (Some(closure), Some(nar_hash)) => Ok(Some(Self {
                closure: closure.as_str().parse().map_err(|source| PinError::Bad { key: Self::CLOSURE, source })?,
                nar_hash: nar_hash.as_str().parse().map_err(|source| PinError::Bad { key: Self::NAR_HASH, source })?,
            })),
        }
    }

    /// Writes itself beside what the flake said of its template. A key the flake has no right to, or two too many, is an
    /// error.
    pub fn add_to(&self, mut metadata: Metadata) -> Result<Metadata, Invalid> {
        Self::refuse_in(&metadata)?;
        metadata.insert(Self::CLOSURE.parse()?, self.closure.to_string().parse()?)?;
        metadata.insert(Self::NAR_HASH.parse()?, self.nar_hash.to_string().parse()?)?;
        Ok(metadata)
    }

    /// Refuses a template's `metadata` that has a key which only Claveld writes, or no room for those.
    pub fn refuse_in(metadata: &Metadata) -> Result<(), Invalid> {
        if let Some(taken) = Self::KEYS.iter().find(|key| metadata.get(**key).is_some()) {
            let why = "Claveld writes it itself, where `publish.pin` is set";
            return Err(Invalid::new("a metadata key of a template for a flake to set", taken, why));
        }
        if metadata.len() + Self::KEYS.len() > MOST_METADATA {
            let most = MOST_METADATA - Self::KEYS.len();
            let (found, why) = (metadata.len().to_string(), format!("it may be at most {most}: two are Claveld's"));
            return Err(Invalid::new("a number of metadata keys of a template", &found, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn pin() -> Pin {
        Pin { closure: "0".repeat(64).parse().unwrap(), nar_hash: HASH.parse().unwrap() }
    }

    fn metadata(entries: &[(&str, &str)]) -> Metadata {
        let mut metadata = Metadata::default();
        for (key, value) in entries {
            metadata.insert(key.parse().unwrap(), value.parse().unwrap()).unwrap();
        }
        metadata
    }

    #[test]
    fn it_comes_back_from_the_metadata_it_went_into() {
        let pinned = pin().add_to(metadata(&[("team", "infra")])).unwrap();
        assert_eq!(pinned.len(), 3);
        assert_eq!(Pin::of(&pinned), Ok(Some(pin())));
        assert_eq!(Pin::of(&metadata(&[("team", "infra")])), Ok(None));
    }

    #[test]
    fn half_of_it_or_a_bad_one_is_never_taken_for_none() {
        let digest = "0".repeat(64);
        for entries in [&[("closure", digest.as_str())][..], &[("narHash", HASH)]] {
            assert!(matches!(Pin::of(&metadata(entries)), Err(PinError::Half { .. })), "{entries:?}");
        }
        for (closure, hash) in [("x", HASH), (digest.as_str(), "sha256-x")] {
            let both = metadata(&[("closure", closure), ("narHash", hash)]);
            assert!(matches!(Pin::of(&both), Err(PinError::Bad { .. })), "{closure} {hash}");
        }
    }

    #[test]
    fn a_flake_may_not_write_it() {
        for key in Pin::KEYS {
            let error = pin().add_to(metadata(&[(key, "x")])).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("Claveld writes it itself"), "{error}");
        }
    }

    #[test]
    fn there_is_room_for_it_whatever_a_flake_says() {
        let keys: Vec<String> = (0..63).map(|n| format!("k{n}")).collect();
        let some = |count: usize| metadata(&keys[..count].iter().map(|key| (key.as_str(), "x")).collect::<Vec<_>>());
        assert!(pin().add_to(some(62)).is_ok());
        assert!(Pin::refuse_in(&some(63)).unwrap_err().to_string().contains("at most 62"));
    }

    #[test]
    fn the_lines_are_in_the_order_of_their_bytes() {
        let content = Content { nar_hash: HASH.parse().unwrap(), nar_size: 120 };
        let (a, b) = ("/nix/store/00000000000000000000000000000000-z", "/nix/store/11111111111111111111111111111111-a");
        let closure: Closure = [b, a].map(|path| (path.parse().unwrap(), content)).into();
        let lines = String::from_utf8(closure_lines(&closure)).unwrap();
        assert_eq!(lines, format!("{a} {HASH} 120\n{b} {HASH} 120\n"));
    }
}
