//! The pin of a store path: digests of its content and of the content of its closure.
//!
//! An input-addressed store path does not determine its content. The owner of a cache's key can sign any content for it;
//! a pin makes every content but one invalid. `trust` computes pins, and `agent::pin` checks them; neither belongs here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::metadata::MAX_ENTRIES as MAX_METADATA;
use super::text::as_text;
use super::{Invalid, Metadata, NarHash, Sha256Digest, StorePath};

/// The content of one store path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The hash of its Nix archive.
    pub nar_hash: NarHash,
    /// The length of that archive, in bytes.
    pub nar_size: u64,
}

/// The content of a store path and of every path that it needs, by path.
pub type Closure = BTreeMap<StorePath, Content>;

/// The digest of a closure, written as 64 lower-case hexadecimal digits: the SHA-256 of its lines ([`closure_lines`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClosureDigest(Sha256Digest);

/// The text that the digest of a closure is computed over. It has a line `PATH NARHASH NARSIZE` for each path of the
/// closure. The hash is in SRI form, the size is a decimal number of bytes, one space separates the fields, a line feed ends
/// each line, and the lines are sorted by their bytes.
pub fn closure_lines(closure: &Closure) -> Vec<u8> {
    let line =
        |(path, Content { nar_hash, nar_size }): (&StorePath, &Content)| format!("{path} {nar_hash} {nar_size}\n");
    let mut lines: Vec<String> = closure.iter().map(line).collect();
    // Sort the lines and not the paths, so that other tools can compute the same text.
    lines.sort_unstable();
    lines.concat().into_bytes()
}

impl ClosureDigest {
    /// The digest of a closure, from the digest of its lines.
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

as_text!(ClosureDigest, pattern: "^[0-9a-f]{64}$", about: "The digest of a store path and of every path that it needs");

/// The only valid content of a deployment's store path, no matter what a cache signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The digest of the path's closure, which includes the path itself.
    pub closure: ClosureDigest,
    /// The hash of the Nix archive of the path itself.
    pub nar_hash: NarHash,
}

/// Why the pin in a template's metadata is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// One of its two keys is missing.
    #[error("the template's metadata has `{there}` and no `{missing}`; a pin needs both")]
    Incomplete {
        /// The key that is present.
        there: &'static str,
        /// The key that is missing.
        missing: &'static str,
    },
    /// A key has an invalid value.
    #[error("the template's metadata has an invalid `{key}`")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The rule that its value breaks.
        source: Invalid,
    },
}

impl Pin {
    const CLOSURE: &'static str = "closure";
    const NAR_HASH: &'static str = "narHash";

    /// The keys of a template's metadata that only claveld may set.
    pub const KEYS: [&'static str; 2] = [Self::CLOSURE, Self::NAR_HASH];

    /// The pin in a template's `metadata`, where it has one.
    pub(super) fn read(metadata: &Metadata) -> Result<Option<Self>, PinError> {
        match (metadata.get(Self::CLOSURE), metadata.get(Self::NAR_HASH)) {
            (None, None) => Ok(None),
            (Some(_), None) => Err(PinError::Incomplete { there: Self::CLOSURE, missing: Self::NAR_HASH }),
            (None, Some(_)) => Err(PinError::Incomplete { there: Self::NAR_HASH, missing: Self::CLOSURE }),
            (Some(closure), Some(nar_hash)) => Ok(Some(Self {
                closure: closure
                    .as_str()
                    .parse()
                    .map_err(|source| PinError::InvalidValue { key: Self::CLOSURE, source })?,
                nar_hash: nar_hash
                    .as_str()
                    .parse()
                    .map_err(|source| PinError::InvalidValue { key: Self::NAR_HASH, source })?,
            })),
        }
    }

    /// Adds itself to the metadata that the flake gave the template. It is an error if the flake set one of these keys or
    /// too many keys.
    pub(super) fn add_to(&self, mut metadata: Metadata) -> Result<Metadata, Invalid> {
        Self::refuse_in(&metadata)?;
        metadata.insert(Self::CLOSURE.parse()?, self.closure.to_string().parse()?)?;
        metadata.insert(Self::NAR_HASH.parse()?, self.nar_hash.to_string().parse()?)?;
        Ok(metadata)
    }

    /// Refuses a template's `metadata` that has one of these keys, or no room for them.
    pub(super) fn refuse_in(metadata: &Metadata) -> Result<(), Invalid> {
        if let Some(taken) = Self::KEYS.iter().find(|key| metadata.get(**key).is_some()) {
            let why = "Claveld writes it itself, where `publish.pin` is set";
            return Err(Invalid::new("a metadata key of a template for a flake to set", taken, why));
        }
        if metadata.len() + Self::KEYS.len() > MAX_METADATA {
            let most = MAX_METADATA - Self::KEYS.len();
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
    fn a_pin_is_read_from_the_metadata_that_it_was_added_to() {
        let pinned = pin().add_to(metadata(&[("team", "infra")])).unwrap();
        assert_eq!(pinned.len(), 3);
        assert_eq!(Pin::read(&pinned), Ok(Some(pin())));
        assert_eq!(Pin::read(&metadata(&[("team", "infra")])), Ok(None));
    }

    #[test]
    fn an_incomplete_or_invalid_pin_is_an_error_and_not_a_missing_one() {
        let digest = "0".repeat(64);
        for entries in [&[("closure", digest.as_str())][..], &[("narHash", HASH)]] {
            assert!(matches!(Pin::read(&metadata(entries)), Err(PinError::Incomplete { .. })), "{entries:?}");
        }
        for (closure, hash) in [("x", HASH), (digest.as_str(), "sha256-x")] {
            let both = metadata(&[("closure", closure), ("narHash", hash)]);
            assert!(matches!(Pin::read(&both), Err(PinError::InvalidValue { .. })), "{closure} {hash}");
        }
    }

    #[test]
    fn a_flake_may_not_set_its_keys() {
        for key in Pin::KEYS {
            let error = pin().add_to(metadata(&[(key, "x")])).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("Claveld writes it itself"), "{error}");
        }
    }

    #[test]
    fn a_template_must_leave_room_for_its_keys() {
        let keys: Vec<String> = (0..63).map(|n| format!("k{n}")).collect();
        let some = |count: usize| metadata(&keys[..count].iter().map(|key| (key.as_str(), "x")).collect::<Vec<_>>());
        assert!(pin().add_to(some(62)).is_ok());
        assert!(Pin::refuse_in(&some(63)).unwrap_err().to_string().contains("at most 62"));
    }

    #[test]
    fn the_lines_are_sorted_by_their_bytes() {
        let content = Content { nar_hash: HASH.parse().unwrap(), nar_size: 120 };
        let (a, b) = ("/nix/store/00000000000000000000000000000000-z", "/nix/store/11111111111111111111111111111111-a");
        let closure: Closure = [b, a].map(|path| (path.parse().unwrap(), content)).into();
        let lines = String::from_utf8(closure_lines(&closure)).unwrap();
        assert_eq!(lines, format!("{a} {HASH} 120\n{b} {HASH} 120\n"));
    }
}
