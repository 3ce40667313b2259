//! Signatures in the format of `ssh-keygen -Y sign -n clavel`, with a key in a file, in an ssh-agent or in hardware.
//!
//! OpenSSH's PROTOCOL.sshsig describes the format, and its PROTOCOL.u2f the signatures of a FIDO authenticator. This module
//! accepts one encoding of each signature, whatever else the formats allow, and one namespace. It compares the key inside a
//! signature with the expected key, and never trusts it.

use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};
use ssh_encoding::{Decode as _, Encode as _};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{Algorithm, HashAlg, LineEnding, SshSig};

use super::usable_key::UsableKey;
use crate::model::{PublicKey, RoleKey, printable_line};

/// The namespace: the purpose that the signer signs for (`ssh-keygen -n`).
const NAMESPACE: &str = "clavel";
/// The digest in the signatures that Clavel makes. It is the default of `ssh-keygen`.
const HASH: HashAlg = HashAlg::Sha512;
/// The most bytes of a signature. A signature of a hardware key has 280.
const MAX_BYTES: usize = 1024;
/// The flag by which an authenticator says that somebody touched it (`PROTOCOL.u2f`, "SSH U2F Signatures").
const USER_PRESENT: u8 = 0x01;

/// A well-formed signature of OpenSSH in Clavel's namespace. `is_by` says whether a key made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSignature {
    blob: Vec<u8>,
    hash: HashAlg,
    signer: SshSigner,
    signature: [u8; 64],
}

/// The key that signed, by the signature's own claim, and how it signed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SshSigner {
    Plain([u8; 32]),
    Hardware { bytes: [u8; 32], application: String, flags: u8, counter: u32 },
}

/// The reason why a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshSignatureError {
    /// It is not in the format, or not in the accepted encoding.
    #[error("it is not a signature of ssh-keygen: {0}")]
    Malformed(String),
    /// It was made for another purpose.
    #[error("it was made for `{0}`; sign with `ssh-keygen -Y sign -n {NAMESPACE}`")]
    OtherNamespace(String),
    /// It was made with another kind of key.
    #[error("it was made by a key of the algorithm {0}; only ed25519 keys count, in files, agents or hardware")]
    OtherAlgorithm(String),
    /// The hardware key signed without a touch.
    #[error("it was made by a hardware key that nobody touched; use a key made without `no-touch-required`")]
    NotTouched,
    /// Another key made it, or it is of another message.
    #[error("it is not a valid signature of this by the key `{0}`")]
    OtherKey(String),
}

impl SshSignature {
    /// The bytes that a plain key has to sign for such a signature of `message`. They are few, since they contain the digest of
    /// the message in its place.
    pub fn to_be_signed(message: &[u8]) -> Result<Vec<u8>, SshSignatureError> {
        SshSig::signed_data(NAMESPACE, HASH, message).map_err(|error| SshSignatureError::Malformed(error.to_string()))
    }

    /// Wraps `bytes`, a plain signature by `key`. It does not verify them; `is_by` does.
    pub fn wrap(key: &PublicKey, bytes: [u8; 64]) -> Result<Self, SshSignatureError> {
        let malformed = |error: ssh_key::Error| SshSignatureError::Malformed(error.to_string());
        let signature = ssh_key::Signature::new(Algorithm::Ed25519, bytes).map_err(malformed)?;
        let public = KeyData::Ed25519(Ed25519PublicKey(*key.bytes()));
        let wrapped = SshSig::new(public, NAMESPACE, HASH, signature).map_err(malformed)?;
        Self::parse(&encode(&wrapped)?)
    }

    /// Parses the armoured text that `ssh-keygen` writes.
    pub fn from_armor(text: &str) -> Result<Self, SshSignatureError> {
        let malformed = |error: String| SshSignatureError::Malformed(error);
        if text.len() > 2 * MAX_BYTES {
            return Err(malformed(format!("it is longer than {} bytes", 2 * MAX_BYTES)));
        }
        let signature = SshSig::from_pem(text).map_err(|error| malformed(error.to_string()))?;
        if signature.to_pem(LineEnding::LF).ok().as_deref() != Some(text) {
            return Err(malformed("its armour is not in the one encoding that ssh-keygen writes".to_owned()));
        }
        Self::parse(&encode(&signature)?)
    }

    /// Parses the bytes inside the armour.
    pub(super) fn parse(blob: &[u8]) -> Result<Self, SshSignatureError> {
        let malformed = |why: &str| SshSignatureError::Malformed(why.to_owned());
        if blob.len() > MAX_BYTES {
            return Err(SshSignatureError::Malformed(format!("it is longer than {MAX_BYTES} bytes")));
        }
        let mut rest = blob;
        let parsed = SshSig::decode(&mut rest).map_err(|error| SshSignatureError::Malformed(error.to_string()))?;
        let mut again = Vec::with_capacity(blob.len());
        let encoded = parsed.encode(&mut again);
        if !rest.is_empty() || encoded.is_err() || again != blob {
            return Err(malformed("it is not in the one encoding that ssh-keygen writes"));
        }
        if parsed.version() != SshSig::VERSION || !parsed.reserved().is_empty() {
            return Err(malformed("it has another version of the format"));
        }
        if parsed.namespace() != NAMESPACE {
            return Err(SshSignatureError::OtherNamespace(printable_line(parsed.namespace(), 40)));
        }
        let hash = parsed.hash_alg();
        if !matches!(hash, HashAlg::Sha256 | HashAlg::Sha512) {
            return Err(malformed("its hash is neither sha256 nor sha512"));
        }
        let (signer, signature) = signer_and_signature(&parsed)?;
        Ok(Self { blob: again, hash, signer, signature })
    }

    /// Its bytes, as [`SshSignature::parse`] accepts them.
    pub(super) fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Whether the key `by` made it over `message`.
    pub(super) fn is_by(&self, by: &UsableKey, message: &[u8]) -> bool {
        let is_same_key = match (&self.signer, &by.key) {
            (SshSigner::Plain(bytes), RoleKey::Plain(known)) => bytes == known.bytes(),
            (SshSigner::Hardware { bytes, application, .. }, RoleKey::Hardware(known)) => {
                bytes == by.key.bytes() && application == known.application()
            }
            (SshSigner::Plain(_), RoleKey::Hardware(_)) | (SshSigner::Hardware { .. }, RoleKey::Plain(_)) => false,
        };
        is_same_key && self.is_over(message, &by.point)
    }

    fn is_over(&self, message: &[u8], point: &VerifyingKey) -> bool {
        // It fails only without a namespace, which is never empty here.
        let Ok(wrapped) = SshSig::signed_data(NAMESPACE, self.hash, message) else { return false };
        let signed = match &self.signer {
            SshSigner::Plain(_) => wrapped,
            SshSigner::Hardware { application, flags, counter, .. } => {
                hardware_message(&wrapped, application, *flags, *counter)
            }
        };
        point.verify_strict(&signed, &ed25519_dalek::Signature::from_bytes(&self.signature)).is_ok()
    }
}

fn encode(signature: &SshSig) -> Result<Vec<u8>, SshSignatureError> {
    let mut blob = Vec::new();
    signature.encode(&mut blob).map_err(|error| SshSignatureError::Malformed(error.to_string()))?;
    Ok(blob)
}

/// The bytes that an authenticator signs for `message`.
fn hardware_message(message: &[u8], application: &str, flags: u8, counter: u32) -> Vec<u8> {
    let mut signed = Sha256::digest(application).to_vec();
    signed.push(flags);
    signed.extend_from_slice(&counter.to_be_bytes());
    signed.extend_from_slice(&Sha256::digest(message));
    signed
}

fn signer_and_signature(parsed: &SshSig) -> Result<(SshSigner, [u8; 64]), SshSignatureError> {
    let bytes = parsed.signature_bytes();
    let bad_length =
        || SshSignatureError::Malformed("its signature does not have the length of an ed25519 one".to_owned());
    match (parsed.public_key(), parsed.algorithm()) {
        (KeyData::Ed25519(key), Algorithm::Ed25519) => {
            Ok((SshSigner::Plain(key.0), bytes.try_into().map_err(|_| bad_length())?))
        }
        (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
            let (signature, rest) = bytes.split_first_chunk::<64>().ok_or_else(bad_length)?;
            let &[flags, a, b, c, d] = rest else { return Err(bad_length()) };
            if flags & USER_PRESENT == 0 {
                return Err(SshSignatureError::NotTouched);
            }
            let (bytes, application) = (key.public_key().0, key.application().to_owned());
            let counter = u32::from_be_bytes([a, b, c, d]);
            Ok((SshSigner::Hardware { bytes, application, flags, counter }, *signature))
        }
        (KeyData::Ed25519(_) | KeyData::SkEd25519(_), _) => {
            Err(SshSignatureError::Malformed("its key and its signature have two algorithms".to_owned()))
        }
        (other, _) => Err(SshSignatureError::OtherAlgorithm(other.algorithm().to_string())),
    }
}

#[cfg(test)]
#[path = "ssh_tests.rs"]
mod tests;
