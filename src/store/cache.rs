//! The entry that a binary cache or a store has for a path, and the signatures of the entry.

use std::collections::BTreeMap;

use nix_derivation::nixbase32;
use nix_narinfo::{NarInfoSignature, TrustedPublicKey};
use serde::Deserialize;

use crate::model::{Content, NarHash, PublicKey, StorePath};

/// The entry of a path in a binary cache or a store: the hash and size of its content, its references and its signatures.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheEntry {
    nar_hash: NarHash,
    nar_size: u64,
    references: Vec<StorePath>,
    #[serde(default)]
    signatures: Vec<String>,
    /// Nix writes it as text; a later one may write it in another form.
    #[serde(default)]
    ca: Option<serde_json::Value>,
}

/// Paths, with the entry of each.
pub type CacheEntries = BTreeMap<StorePath, CacheEntry>;

/// The keys of a deployment's caches, parsed once for all entries that they are asked about.
#[derive(Debug)]
pub struct CacheKeys(Vec<TrustedPublicKey>);

impl CacheKeys {
    /// These keys.
    pub fn of(keys: &[PublicKey]) -> Self {
        Self(keys.iter().filter_map(|key| TrustedPublicKey::parse(&key.to_string()).ok()).collect())
    }
}

impl CacheEntry {
    /// Whether one of `keys` signed this entry for `path`.
    pub fn is_signed_by(&self, path: &StorePath, keys: &CacheKeys) -> bool {
        let fingerprint = self.fingerprint(path);
        let mut signatures = self.signatures.iter().filter_map(|text| NarInfoSignature::parse(text).ok());
        // A malformed signature does not count; another one may be valid.
        signatures.any(|signature| signature.verify(fingerprint.as_bytes(), &keys.0).unwrap_or(false))
    }

    /// The text that a signature is made of (Nix's manual, "Signing paths").
    fn fingerprint(&self, path: &StorePath) -> String {
        let references: Vec<String> = self.references.iter().map(ToString::to_string).collect();
        let hash = nixbase32::encode(self.nar_hash.bytes());
        format!("1;{path};sha256:{hash};{};{}", self.nar_size, references.join(","))
    }

    /// The hash and the size of the path's content.
    pub fn content(&self) -> Content {
        Content { nar_hash: self.nar_hash, nar_size: self.nar_size }
    }

    /// The paths that this one needs. It is one of them itself if it refers to itself.
    pub fn references(&self) -> &[StorePath] {
        &self.references
    }

    /// Its signatures, which are not verified here.
    pub fn signatures(&self) -> &[String] {
        &self.signatures
    }

    /// How the path follows from its content, in Nix's form; none for what was built.
    pub fn content_address(&self) -> Option<&str> {
        self.ca.as_ref()?.as_str()
    }

    /// Adds the signatures that `other`, an entry for the same path, has. Those of other content do not count.
    pub fn add_signatures_of(&mut self, other: &Self) {
        if self.content() == other.content() {
            let new = other.signatures.iter().filter(|signature| !self.signatures.contains(signature));
            let new: Vec<String> = new.cloned().collect();
            self.signatures.extend(new);
        }
    }

    /// The names of the keys in its signatures, which are not verified here.
    pub fn signers(&self) -> Vec<&str> {
        self.signatures.iter().filter_map(|text| text.split_once(':')).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The output of Nix 2.8 for a path in a cache that was signed with the key below.
    const LISTED: &str = r#"{"path":"/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t",
        "narHash":"sha256-77dlDcqTnlOIvhVcgRCg77MIUBXSOhzwYrzh+budw6g=","narSize":456,"references":[],
        "signatures":["SIGNATURE"],"url":"nar/x.nar"}"#;
    const KEY: &str = "c-1:zUKaRQdOh2MbC3fCvP0xWwVxdeVkF/0L1WQg6VNMcT0=";
    const SIGNATURE: &str =
        "c-1:CFBcSNfkQy9R8cvBewykipAUJ6FlNCVL3kuoC8Amn8eiNJ5kR8JPRP6WveaCYTkA7BlnA1DzMdwP/ao7Nf/EAQ==";

    #[test]
    fn an_entry_is_verified_by_its_signature_alone() {
        let path: StorePath = "/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t".parse().unwrap();
        let entry: CacheEntry = serde_json::from_str(&LISTED.replace("SIGNATURE", SIGNATURE)).unwrap();
        let key: PublicKey = KEY.parse().unwrap();
        assert!(entry.is_signed_by(&path, &CacheKeys::of(std::slice::from_ref(&key))));
        assert_eq!(entry.signers(), ["c-1"]);
        assert!(!entry.is_signed_by(&path, &CacheKeys::of(&[PublicKey::new("c-1".parse().unwrap(), [7; 32])])));
        assert!(!CacheEntry { nar_size: 457, ..entry }.is_signed_by(&path, &CacheKeys::of(&[key])));
    }
}
