//! Public keys and their text, in Nix's own format. Verifying signatures belongs to `trust`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Invalid;
use super::text::{as_text, check_printable_ascii, validated_text};

validated_text! {
    /// The name of a key, the part before the colon: 1 to 128 printable ASCII characters without white space or `:`.
    ///
    /// In a signature it is a hint which key to try first, and never a reason to trust.
    KeyId, what: "a key's name", check: check_id, pattern: "^[!-9;-~]{1,128}$"
}

fn check_id(text: &str) -> Result<(), String> {
    check_printable_ascii(text, 128)?;
    if text.contains(':') { Err("it may not contain a colon".to_owned()) } else { Ok(()) }
}

/// An ed25519 public key in Nix's format: `NAME:BASE64`, where the base64 is of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    id: KeyId,
    bytes: [u8; 32],
}

impl PublicKey {
    /// The key `bytes` under the name `id`.
    pub fn new(id: KeyId, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// Its name.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The key itself.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.id, STANDARD.encode(self.bytes))
    }
}

impl FromStr for PublicKey {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        // An invalid text may be a secret key, or a part of one, so errors show its name alone.
        let split = text.split_once(':');
        let shown = split.map_or_else(|| "…".to_owned(), |(id, _)| format!("{id}:…"));
        let bad = |why: &str| Invalid::new("a public key", &shown, why);
        let (id, encoded) = split.ok_or_else(|| bad("it has to be NAME:BASE64"))?;
        let bytes = STANDARD.decode(encoded).map_err(|_| bad("the part after the colon is not base64"))?;
        if bytes.len() == 64 {
            return Err(bad("it is as long as a secret key"));
        }
        let bytes = bytes.try_into().map_err(|_| bad("an ed25519 public key is 32 bytes long"))?;
        Ok(Self { id: id.parse()?, bytes })
    }
}

as_text!(PublicKey, pattern: "^[!-9;-~]{1,128}:[A-Za-z0-9+/]{43}=$", about: "An ed25519 public key in Nix's format");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_is_read_and_written_back() {
        let text = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.id().as_str(), "cache.nixos.org-1");
        assert_eq!(key.to_string(), text);
    }

    #[test]
    fn a_secret_key_is_refused_and_not_shown() {
        let secret = format!("k:{}", STANDARD.encode([7; 64]));
        let error = secret.parse::<PublicKey>().unwrap_err().to_string();
        assert_eq!(error, "`k:…` is not a public key: it is as long as a secret key");
    }

    #[test]
    fn an_error_shows_nothing_but_the_name_of_an_invalid_key() {
        // All bytes differ, so each piece of the text occurs once in it.
        let bytes: Vec<u8> = (0..64).map(|byte| byte * 3 + 1).collect();
        let secret = format!("k:{}", STANDARD.encode(bytes));
        let (_, whole) = secret.split_once(':').unwrap();
        let cut_off = (3..secret.len()).map(|end| secret[..end].to_owned());
        let others = [whole.to_owned(), format!("{secret}:x"), format!("{secret}\n# mine"), format!("\u{1b}:{whole}")];
        for bad in cut_off.chain(others) {
            let Err(error) = bad.parse::<PublicKey>() else { continue };
            let error = error.to_string();
            for piece in whole.as_bytes().chunks(4) {
                let piece = std::str::from_utf8(piece).unwrap();
                assert!(!error.contains(piece), "{error}");
            }
        }
    }
}
