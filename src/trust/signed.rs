//! Documents with their signatures, before and after they are verified.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canonical::{canonical, signing_bytes, value_of};
use super::growth::{check_critical, check_schema};
use super::usable_key::UsableKey;
use super::{Authority, SecretKey, Signature, SignedError, SshSignature, SshSignatureError};
use crate::model::json::{self, JsonError};
use crate::model::{
    FleetId, Invalid, List, MAX_SIGNATURES, Payload, PublicKey, RoleKey, Sha256Digest, is_rendering, parse_rendering,
    read_part,
};

/// The SHA-256 of `bytes`.
pub fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::of(bytes)
}

/// A document and its signatures, as the branch holds them. It is not trusted: [`Signed::verify`] checks it and
/// returns a [`Verified`].
///
/// It keeps the fields that this version does not know: the signatures and the digest cover them.
#[derive(Debug, Clone, PartialEq)]
pub struct Signed<P> {
    envelope: Envelope,
    signed: P,
}

/// A file of the branch, taken apart: the signatures and what they are of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Envelope {
    signatures: List<SignatureEntry, MAX_SIGNATURES>,
    /// The canonical form of what was signed. It has the fields that this version does not know.
    canonical: Vec<u8>,
    /// The fields beside these two. No signature covers them, and nobody reads them.
    others: Map<String, Value>,
}

/// A signature in its file.
#[derive(Debug, Clone, PartialEq)]
enum SignatureEntry {
    /// It has the fields of a signature and no other.
    Known(Signature),
    /// A newer Clavel wrote it.
    Newer {
        value: Value,
        /// None where this version does not know its form. It does not count then.
        known: Option<Signature>,
    },
}

/// A file whose every field this version knows.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(bound = "P: Payload")]
#[schemars(rename = "Signed", description = "A document and its signatures", bound = "P: Payload + JsonSchema")]
struct KnownFile<P> {
    signatures: List<Signature, MAX_SIGNATURES>,
    signed: P,
}

impl<P: Payload + JsonSchema> JsonSchema for Signed<P> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        KnownFile::<P>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        KnownFile::<P>::json_schema(generator)
    }
}

/// The reason why a signature was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// It is not a valid signature by the expected key.
    #[error(transparent)]
    Signature(#[from] SshSignatureError),
    /// The document has the largest number of signatures already.
    #[error(transparent)]
    TooMany(#[from] Invalid),
}

impl Envelope {
    /// Takes a file apart: it limits the size, and accepts one rendering alone. It does not look into what was signed, and returns
    /// that beside itself.
    pub(super) fn parse<P: Payload>(bytes: &[u8]) -> Result<(Self, Value), SignedError> {
        let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
        let missing =
            |field: &str| JsonError::Content { place: String::new(), why: format!("missing field `{field}`") };
        let Value::Object(mut others) = parse_rendering(bytes, P::MAX_BYTES).map_err(malformed)? else {
            return Err(malformed(JsonError::at("", "it is not an object")));
        };
        let mut take = |field: &str| others.remove(field).ok_or_else(|| malformed(missing(field)));
        let (signed, entries) = (take("signed")?, take("signatures")?);
        let entries: List<Value, MAX_SIGNATURES> = read_part(&entries, "signatures").map_err(malformed)?;
        let entries = entries.iter().enumerate().map(|(at, entry)| SignatureEntry::read(at, entry));
        let entries: Vec<SignatureEntry> = entries.collect::<Result<_, JsonError>>().map_err(malformed)?;
        let signatures = entries.try_into().unwrap_or_default();
        Ok((Self { signatures, canonical: canonical(&signed), others }, signed))
    }

    /// Takes a file apart that [`Envelope::parse`] accepts, if this version knows all of its fields. Most files are like this, and
    /// building the value of each would take longer than verifying its signature.
    fn parse_known<P: Payload>(bytes: &[u8]) -> Option<(Self, P)> {
        if P::ASKS_FOR_A_FORMAT || bytes.len() as u64 > P::MAX_BYTES {
            return None;
        }
        let file: KnownFile<P> = serde_json::from_slice(bytes).ok()?;
        // The types have none of the keys and numbers that are refused in a value. So the one rendering is all that is left to check.
        if !is_rendering(&file, bytes) {
            return None;
        }
        let entries: Vec<SignatureEntry> = file.signatures.iter().cloned().map(SignatureEntry::Known).collect();
        let signatures = entries.try_into().ok()?;
        Some((Self { signatures, canonical: canonical(&file.signed), others: Map::new() }, file.signed))
    }

    fn known(&self) -> impl Iterator<Item = &Signature> {
        self.signatures.iter().filter_map(SignatureEntry::known)
    }

    /// Checks that enough keys of `authority` signed it as the kind `P`. It does not check the fleet.
    pub(super) fn check<P: Payload>(&self, authority: &Authority) -> Result<(), SignedError> {
        let valid = authority.count(&signing_bytes::<P>(&self.canonical), self.known());
        if valid >= authority.threshold() {
            return Ok(());
        }
        let trusted = authority.key_ids().map(ToString::to_string).collect();
        Err(SignedError::NotEnoughSignatures { valid, threshold: authority.threshold(), trusted })
    }
}

impl SignatureEntry {
    /// Reads the entry at the place `at` of its list.
    fn read(at: usize, entry: &Value) -> Result<Self, JsonError> {
        let read = || read_part(entry, &format!("signatures[{at}]"));
        let known: Option<Signature> = Signature::has_known_form(entry).then(read).transpose()?;
        Ok(match known {
            Some(signature) if serde_json::to_value(&signature).is_ok_and(|value| value == *entry) => {
                Self::Known(signature)
            }
            known => Self::Newer { value: entry.clone(), known },
        })
    }

    fn known(&self) -> Option<&Signature> {
        match self {
            Self::Known(signature) => Some(signature),
            Self::Newer { known, .. } => known.as_ref(),
        }
    }

    /// The name of the key by its own claim; empty where it has none.
    fn keyid(&self) -> &str {
        match self {
            Self::Known(signature) => signature.keyid().as_str(),
            Self::Newer { value, .. } => value.get("keyid").and_then(Value::as_str).unwrap_or_default(),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Known(signature) => serde_json::to_value(signature).unwrap_or_default(),
            Self::Newer { value, .. } => value.clone(),
        }
    }
}

impl<P: Payload> Signed<P> {
    /// Signs `payload` with `key`.
    pub fn sign(payload: P, key: &SecretKey) -> Self {
        let mut signed = Self::unsigned(payload);
        signed.envelope.signatures = List::one(SignatureEntry::Known(key.sign(&signed.to_be_signed())));
        signed
    }

    /// `payload` without signatures.
    pub fn unsigned(payload: P) -> Self {
        let envelope = Envelope { signatures: List::default(), canonical: canonical(&payload), others: Map::new() };
        Self { envelope, signed: payload }
    }

    /// Adds the signature of `key`. It replaces one under the same name.
    pub fn add(&mut self, key: &SecretKey) -> Result<(), Invalid> {
        self.put(key.sign(&self.to_be_signed()))
    }

    /// Adds a signature that `ssh-keygen` made with `key`. It refuses one that another key made.
    pub fn add_ssh(&mut self, key: &RoleKey, signature: SshSignature) -> Result<(), AddError> {
        let signature = Signature::of_ssh(key.id().clone(), signature);
        self.put_verified(key, signature)
    }

    /// Adds a plain signature that was made elsewhere with `key`. It refuses one that another key made.
    pub fn add_plain(&mut self, key: &PublicKey, bytes: [u8; 64]) -> Result<(), AddError> {
        self.put_verified(&RoleKey::Plain(key.clone()), Signature::new(key.id().clone(), bytes))
    }

    fn put_verified(&mut self, key: &RoleKey, signature: Signature) -> Result<(), AddError> {
        let is_valid = UsableKey::of(key).is_some_and(|key| signature.is_by(&key, &self.to_be_signed()));
        if !is_valid {
            return Err(SshSignatureError::OtherKey(key.id().to_string()).into());
        }
        Ok(self.put(signature)?)
    }

    fn put(&mut self, signature: Signature) -> Result<(), Invalid> {
        let new = SignatureEntry::Known(signature);
        let mut signatures = self.envelope.signatures.to_vec();
        signatures.retain(|other| other.keyid() != new.keyid());
        signatures.push(new);
        signatures.sort_by(|a, b| a.keyid().cmp(b.keyid()));
        self.envelope.signatures = signatures.try_into()?;
        Ok(())
    }

    /// The bytes to sign (DSSE 1.0).
    pub fn to_be_signed(&self) -> Vec<u8> {
        signing_bytes::<P>(&self.envelope.canonical)
    }

    /// Parses a file of the branch: it limits the size, and accepts one rendering alone. It verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        if let Some((envelope, signed)) = Envelope::parse_known(bytes) {
            return Ok(Self { envelope, signed });
        }
        let (envelope, value) = Envelope::parse::<P>(bytes)?;
        check_schema::<P>(&value)?;
        let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
        let signed: P = read_part(&value, "signed").map_err(malformed)?;
        check_critical::<P>(&value, || value_of(&signed))?;
        Ok(Self { envelope, signed })
    }

    /// The bytes of the file.
    pub fn render(&self) -> Vec<u8> {
        let Envelope { signatures, canonical, others } = &self.envelope;
        let mut file = others.clone();
        let signed: Result<Value, _> = serde_json::from_slice(canonical);
        debug_assert!(signed.is_ok(), "the canonical form is JSON: {signed:?}");
        file.insert("signatures".to_owned(), signatures.iter().map(SignatureEntry::value).collect());
        file.insert("signed".to_owned(), signed.unwrap_or_default());
        json::render(&Value::Object(file))
    }

    /// Parses a file, and verifies that it belongs to `fleet` and that enough keys of `authority` signed it.
    pub fn verify_file(bytes: &[u8], fleet: FleetId, authority: &Authority) -> Result<Verified<P>, SignedError> {
        Self::parse(bytes)?.verify(fleet, authority)
    }

    /// Verifies that it belongs to `fleet` and that enough keys of `authority` signed it.
    pub fn verify(self, fleet: FleetId, authority: &Authority) -> Result<Verified<P>, SignedError> {
        let found = self.signed.fleet();
        if found != Some(fleet) {
            return Err(SignedError::OtherFleet { kind: P::KIND, expected: fleet, found });
        }
        self.check(authority)?;
        Ok(Verified { content_digest: self.content_digest(), payload: self.signed })
    }

    /// Checks that enough keys of `authority` signed it. It does not check the fleet.
    pub(super) fn check(&self, authority: &Authority) -> Result<(), SignedError> {
        self.envelope.check::<P>(authority)
    }

    /// The digest of its content: the SHA-256 of its canonical form, which has no signatures.
    pub fn content_digest(&self) -> Sha256Digest {
        digest(&self.envelope.canonical)
    }

    /// Its signatures, apart from those in a form that this version does not know. They are not verified.
    pub fn signatures(&self) -> impl Iterator<Item = &Signature> {
        self.envelope.known()
    }

    /// The payload before it is verified. Callers may show it, and must not act on it.
    pub fn unverified(&self) -> &P {
        &self.signed
    }
}

/// A payload that enough trusted keys signed. Only [`Signed::verify`] and [`Signed::verify_file`] make one.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<P> {
    payload: P,
    content_digest: Sha256Digest,
}

impl<P> Verified<P> {
    /// The digest of its content, which its signatures are no part of.
    pub fn content_digest(&self) -> Sha256Digest {
        self.content_digest
    }

    /// The payload without its proof. Callers may show it, and must not act on it.
    pub fn into_inner(self) -> P {
        self.payload
    }
}

impl<P> std::ops::Deref for Verified<P> {
    type Target = P;
    fn deref(&self) -> &P {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        Agent, Draft, Metadata, PublicKey, Revision, Role, Threshold, Unit, UnitSpecification, UnitType, describe_error,
    };
    use crate::trust::fixture::authority;

    fn fleet() -> FleetId {
        FleetId::of(digest(b"fleet"))
    }

    fn unit() -> Unit {
        let unit = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
        Draft::new("web-1".parse().unwrap(), Metadata::default(), unit).at(Revision::FIRST, fleet())
    }

    fn key(id: &str) -> SecretKey {
        SecretKey::generate(id.parse().unwrap()).unwrap()
    }

    fn read(bytes: &[u8], authority: &Authority) -> Result<Verified<Unit>, SignedError> {
        Signed::verify_file(bytes, fleet(), authority)
    }

    #[test]
    fn a_document_that_a_trusted_key_signed_is_verified() {
        let key = key("claveld-1");
        let authority = authority(&[&key], 1);
        assert_eq!(*read(&Signed::sign(unit(), &key).render(), &authority).unwrap(), unit());
    }

    #[test]
    fn another_signature_does_not_change_the_content() {
        let (ours, stranger) = (key("claveld-1"), key("mallory-1"));
        let authority = authority(&[&ours], 1);
        let mut signed = Signed::sign(unit(), &ours);
        let content = |signed: &Signed<Unit>| {
            let unit = Signed::<Unit>::verify_file(&signed.render(), fleet(), &authority).unwrap();
            assert_eq!(unit.content_digest(), signed.content_digest());
            unit.content_digest()
        };
        let before = content(&signed);
        signed.add(&stranger).unwrap();
        assert_eq!(content(&signed), before);
    }

    #[test]
    fn the_name_of_the_key_is_only_a_hint() {
        let key = key("claveld-1");
        let renamed = PublicKey::new("other".parse().unwrap(), *key.public().bytes()).into();
        let authority = Authority::of(&Role { keys: List::one(renamed), threshold: Threshold::ONE }).unwrap();
        assert!(read(&Signed::sign(unit(), &key).render(), &authority).is_ok());
    }

    #[test]
    fn a_document_that_no_trusted_key_signed_is_refused() {
        let (ours, theirs) = (key("claveld-1"), key("claveld-1"));
        let authority = authority(&[&ours], 1);
        let error = read(&Signed::sign(unit(), &theirs).render(), &authority).unwrap_err();
        assert_eq!(error.to_string(), "no valid signature by a trusted key, and 1 of claveld-1 has to have signed it");
    }

    #[test]
    fn a_document_of_another_fleet_is_refused() {
        let key = key("claveld-1");
        let elsewhere = FleetId::of(digest(b"another fleet"));
        let signed = Signed::<Unit>::parse(&Signed::sign(unit(), &key).render()).unwrap();
        let error = signed.verify(elsewhere, &authority(&[&key], 1)).unwrap_err();
        assert!(matches!(error, SignedError::OtherFleet { .. }), "{error}");
    }

    #[test]
    fn a_document_does_not_pass_for_another_kind() {
        let key = key("claveld-1");
        let bytes = Signed::sign(unit(), &key).render();
        let error = describe_error(&Signed::<Agent>::parse(&bytes).unwrap_err());
        assert!(error.contains("`Unit` is not the kind asked for"), "{error}");
    }

    #[test]
    fn another_rendering_of_the_same_content_is_refused() {
        let key = key("claveld-1");
        let text = String::from_utf8(Signed::sign(unit(), &key).render()).unwrap();
        for other in [
            text.trim_end().to_owned(),
            text.replacen("  ", "\t", 1),
            text.replace("web-1", "web\\u002d1"),
            text.replace('/', "\\/"),
            text.replace('\n', "\r\n"),
        ] {
            let error = Signed::<Unit>::parse(other.as_bytes()).unwrap_err();
            assert_eq!(error, SignedError::Malformed { kind: "Unit", source: JsonError::OtherRendering });
        }
    }

    #[test]
    fn a_file_whose_fields_are_known_is_read_as_any_other() {
        let mut signed = Signed::sign(unit(), &key("claveld-1"));
        signed.add(&key("claveld-2")).unwrap();
        let file = signed.render();
        assert_eq!(Envelope::parse_known(&file), Some((signed.envelope.clone(), unit())));
        let (envelope, value) = Envelope::parse::<Unit>(&file).unwrap();
        assert_eq!((envelope, value), (signed.envelope, value_of(&unit())));
        let mut newer: Value = serde_json::from_slice(&file).unwrap();
        newer["signed"]["specification"]["new"] = true.into();
        let newer = json::render(&newer);
        assert_eq!(Envelope::parse_known::<Unit>(&newer), None);
        let signed = Signed::<Unit>::parse(&newer).unwrap();
        assert_eq!((signed.unverified(), signed.render()), (&unit(), newer));
    }

    proptest! {
        #[test]
        fn one_flipped_bit_makes_a_document_invalid(at: prop::sample::Index, bit in 0..8_u8) {
            let key = key("claveld-1");
            let authority = authority(&[&key], 1);
            let mut bytes = Signed::sign(unit(), &key).render();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            // The key's name is a hint. A change of that name is the only one that keeps the document valid.
            let keyid_changed = Signed::<Unit>::parse(&bytes).is_ok_and(|s| s.signatures().any(|s| s.keyid() != key.id()));
            prop_assert_eq!(read(&bytes, &authority).is_ok(), keyid_changed);
        }
    }
}
