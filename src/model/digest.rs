//! Digests of files on the branch, and of Nix archives.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::Invalid;
use super::text::as_text;

/// The SHA-256 of a file's bytes, written as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

impl Sha256Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Wraps the bytes of a digest.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its first 12 digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        f.write_str(faster_hex::hex_encode(&self.0, &mut digits).map_err(|_| fmt::Error)?)
    }
}

impl FromStr for Sha256Digest {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("a SHA-256 digest", text, "it has to be 64 lower-case hexadecimal digits");
        let mut bytes = [0; 32];
        // The decoder would ignore the end of a longer text, and it accepts upper-case digits.
        if text.len() != 2 * bytes.len() || text.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(bad());
        }
        faster_hex::hex_decode(text.as_bytes(), &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

as_text!(Sha256Digest, pattern: "^[0-9a-f]{64}$", about: "The SHA-256 of a file's bytes");

/// The identity of a fleet: the SHA-256 of the canonical form of its first root.
///
/// It does not cover the root's signatures, so a fleet has its identity before all of its keys have signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FleetId(Sha256Digest);

impl FleetId {
    /// The fleet whose first root has this digest.
    pub fn of(first_root: Sha256Digest) -> Self {
        Self(first_root)
    }

    /// Its first 12 digits, for people.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for FleetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for FleetId {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |error: Invalid| Invalid { what: "the digest of a fleet's first root", ..error };
        text.parse().map(Self).map_err(bad)
    }
}

as_text!(FleetId, pattern: "^[0-9a-f]{64}$", about: "The fleet that it belongs to: the digest of its first root");

/// The hash of a Nix archive in the SRI form that Nix prints: `sha256-` and the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NarHash([u8; 32]);

impl NarHash {
    /// The bytes of the hash.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for NarHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256-{}", STANDARD.encode(self.0))
    }
}

impl FromStr for NarHash {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = || Invalid::new("a NAR hash", text, "it has to be `sha256-` and the base64 of 32 bytes");
        let encoded = text.strip_prefix("sha256-").ok_or_else(bad)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| bad())?;
        bytes.try_into().map(Self).map_err(|_| bad())
    }
}

as_text!(NarHash, pattern: "^sha256-[A-Za-z0-9+/]{43}=$", about: "The SHA-256 of a Nix archive, in SRI form");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_digest_has_one_text(bytes: [u8; 32]) {
            let digest = Sha256Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
            prop_assert_eq!(NarHash(bytes).to_string().parse(), Ok(NarHash(bytes)));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        assert!("A".repeat(64).parse::<Sha256Digest>().is_err());
        assert!("0".repeat(63).parse::<Sha256Digest>().is_err());
        assert!("é".repeat(32).parse::<Sha256Digest>().is_err());
        // The last character has two bits that must be zero, and are not zero here.
        assert!("sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=".parse::<NarHash>().is_err());
        assert!("sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse::<NarHash>().is_err());
    }
}
