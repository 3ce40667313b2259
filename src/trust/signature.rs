//! A signature in a document: a plain ed25519 signature, or one in the format of ssh-keygen.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::ssh::SshSignature;
use super::usable_key::UsableKey;
use crate::model::{KeyId, RoleKey};

/// The bytes with which a signature of `ssh-keygen` begins (OpenSSH's PROTOCOL.sshsig).
const SSHSIG: &[u8] = b"SSHSIG";

/// A signature, and the name of the key that made it, by its own claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Signature {
    keyid: KeyId,
    sig: SignatureBytes,
}

impl Signature {
    /// Whether an entry of `signatures` has a form that this version knows. A later one may know more forms.
    pub(super) fn has_known_form(entry: &Value) -> bool {
        // Text that is no base64 is no form of its own, but an error.
        let decoded = entry.get("sig").and_then(Value::as_str).map(|text| STANDARD.decode(text));
        decoded.is_some_and(|bytes| bytes.map_or(true, |bytes| bytes.len() == 64 || bytes.starts_with(SSHSIG)))
    }

    pub(super) fn new(keyid: KeyId, bytes: [u8; 64]) -> Self {
        Self { keyid, sig: SignatureBytes::Plain(bytes) }
    }

    pub(super) fn of_ssh(keyid: KeyId, signature: SshSignature) -> Self {
        Self { keyid, sig: SignatureBytes::Ssh(Box::new(signature)) }
    }

    /// The name of the key that made it, by its own claim: a hint, and never a reason to trust.
    pub fn keyid(&self) -> &KeyId {
        &self.keyid
    }

    /// Whether the key `by` made it over `message`.
    pub(super) fn is_by(&self, by: &UsableKey, message: &[u8]) -> bool {
        match (&self.sig, &by.key) {
            (SignatureBytes::Ssh(signature), _) => signature.is_by(by, message),
            (SignatureBytes::Plain(bytes), RoleKey::Plain(_)) => by.verifies(message, bytes),
            // An authenticator never signs the bare message.
            (SignatureBytes::Plain(_), RoleKey::Hardware(_)) => false,
        }
    }
}

/// The bytes of a signature: 64 of a plain ed25519 one, or the blob of `ssh-keygen`. In JSON they are base64 with padding.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SignatureBytes {
    Plain([u8; 64]),
    Ssh(Box<SshSignature>),
}

impl Serialize for SignatureBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = match self {
            Self::Plain(bytes) => bytes.as_slice(),
            Self::Ssh(signature) => signature.blob(),
        };
        serializer.serialize_str(&STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for SignatureBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(deserializer)?;
        let bad = || {
            D::Error::custom(
                "it is neither the base64 of a 64-byte ed25519 signature nor that of a signature of ssh-keygen",
            )
        };
        let bytes = STANDARD.decode(&text).map_err(|_| bad())?;
        if let Ok(bytes) = bytes.as_slice().try_into() {
            return Ok(Self::Plain(bytes));
        }
        if !bytes.starts_with(SSHSIG) {
            return Err(bad());
        }
        SshSignature::parse(&bytes).map(|signature| Self::Ssh(Box::new(signature))).map_err(D::Error::custom)
    }
}

impl JsonSchema for SignatureBytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SignatureBytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // "U1NIU0lH" is the base64 of "SSHSIG".
        schemars::json_schema!({
            "type": "string",
            "pattern": "^([A-Za-z0-9+/]{86}==|U1NIU0lH[A-Za-z0-9+/]{80,1356}={0,2})$",
        })
    }
}
