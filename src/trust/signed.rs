//! Documents with their signatures, before and after they are verified.

use schemars::JsonSchema;
use serde_json::{Map, Value};

use super::canonical::{canonical, signing_bytes, value_of};
use super::growth::{check_critical, check_schema};
use super::usable_key::UsableKey;
use super::{Authority, SecretKey, Signature, SignedError, SshSignature, SshSignatureError};
use crate::model::json::{self, JsonError};
use crate::model::{
    FleetId, Invalid, List, MOST_SIGNATURES, Payload, PublicKey, RoleKey, Sha256Digest, parse_rendering, read_part,
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

/// A file of the branch, taken apart: the signatures and the value that they are of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Envelope {
    signatures: List<SignatureEntry, MOST_SIGNATURES>,
    signed: Value,
    /// The fields beside these two. No signature covers them, and nobody reads them.
    others: Map<String, Value>,
}

/// A signature in its file.
#[derive(Debug, Clone, PartialEq)]
struct SignatureEntry {
    value: Value,
    /// None where this version does not know its form. It does not count then.
    known: Option<Signature>,
}

/// The schema of such a file.
#[derive(JsonSchema)]
#[schemars(rename = "Signed", bound = "P: Payload + JsonSchema")]
#[expect(dead_code, reason = "it describes the fields")]
struct SignedSchema<P> {
    signatures: List<Signature, MOST_SIGNATURES>,
    signed: P,
}

impl<P: Payload + JsonSchema> JsonSchema for Signed<P> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        SignedSchema::<P>::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        SignedSchema::<P>::json_schema(generator)
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
    /// Takes a file apart: it limits the size, and accepts one rendering alone. It does not look into what was signed.
    pub(super) fn parse<P: Payload>(bytes: &[u8]) -> Result<Self, SignedError> {
        let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
        let missing =
            |field: &str| JsonError::Content { place: String::new(), why: format!("missing field `{field}`") };
        let Value::Object(mut others) = parse_rendering(bytes, P::LARGEST).map_err(malformed)? else {
            return Err(malformed(JsonError::at("", "it is not an object")));
        };
        let mut take = |field: &str| others.remove(field).ok_or_else(|| malformed(missing(field)));
        let (signed, entries) = (take("signed")?, take("signatures")?);
        let entries: List<Value, MOST_SIGNATURES> = read_part(&entries, "signatures").map_err(malformed)?;
        let entries = entries.iter().enumerate().map(|(at, entry)| SignatureEntry::read(at, entry));
        let entries: Vec<SignatureEntry> = entries.collect::<Result<_, JsonError>>().map_err(malformed)?;
        let signatures = entries.try_into().unwrap_or_default();
        Ok(Self { signatures, signed, others })
    }

    /// What it says it is, as the kind `P`.
    fn read<P: Payload>(self) -> Result<Signed<P>, SignedError> {
        check_schema::<P>(&self.signed)?;
        let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
        let signed: P = read_part(&self.signed, "signed").map_err(malformed)?;
        check_critical::<P>(&self.signed, || value_of(&signed))?;
        Ok(Signed { envelope: self, signed })
    }

    fn known(&self) -> impl Iterator<Item = &Signature> {
        self.signatures.iter().filter_map(|entry| entry.known.as_ref())
    }

    /// Checks that enough keys of `authority` signed it as the kind `P`. It does not check the fleet.
    pub(super) fn check<P: Payload>(&self, authority: &Authority) -> Result<(), SignedError> {
        let valid = authority.count(&signing_bytes::<P>(&self.signed), self.known());
        if valid >= authority.threshold() {
            return Ok(());
        }
        let trusted = authority.key_ids().map(ToString::to_string).collect();
        Err(SignedError::NotEnoughSignatures { valid, threshold: authority.threshold(), trusted })
    }
}

impl From<Signature> for SignatureEntry {
    fn from(signature: Signature) -> Self {
        let value = serde_json::to_value(&signature).unwrap_or_default();
        Self { value, known: Some(signature) }
    }
}

impl SignatureEntry {
    /// Reads the entry at the place `at` of its list.
    fn read(at: usize, entry: &Value) -> Result<Self, JsonError> {
        let read = || read_part(entry, &format!("signatures[{at}]"));
        let known = Signature::has_known_form(entry).then(read).transpose()?;
        Ok(Self { value: entry.clone(), known })
    }

    /// The name of the key by its own claim; empty where it has none.
    fn keyid(&self) -> &str {
        self.value.get("keyid").and_then(Value::as_str).unwrap_or_default()
    }
}

impl<P: Payload> Signed<P> {
    /// Signs `payload` with `key`.
    pub fn sign(payload: P, key: &SecretKey) -> Self {
        let mut signed = Self::unsigned(payload);
        signed.envelope.signatures = List::one(key.sign(&signed.to_be_signed()).into());
        signed
    }

    /// `payload` without signatures.
    pub fn unsigned(payload: P) -> Self {
        let envelope = Envelope { signatures: List::default(), signed: value_of(&payload), others: Map::new() };
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
        let new = SignatureEntry::from(signature);
        let mut signatures = self.envelope.signatures.to_vec();
        signatures.retain(|other| other.keyid() != new.keyid());
        signatures.push(new);
        signatures.sort_by(|a, b| a.keyid().cmp(b.keyid()));
        self.envelope.signatures = signatures.try_into()?;
        Ok(())
    }

    /// The bytes to sign (DSSE 1.0).
    pub fn to_be_signed(&self) -> Vec<u8> {
        signing_bytes::<P>(&self.envelope.signed)
    }

    /// Parses a file of the branch: it limits the size, and accepts one rendering alone. It verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        Envelope::parse::<P>(bytes)?.read()
    }

    /// The bytes of the file.
    pub fn render(&self) -> Vec<u8> {
        let Envelope { signatures, signed, others } = &self.envelope;
        let mut file = others.clone();
        let signatures: Vec<Value> = signatures.iter().map(|entry| entry.value.clone()).collect();
        file.insert("signatures".to_owned(), signatures.into());
        file.insert("signed".to_owned(), signed.clone());
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
        Ok(Verified { content: self.content(), payload: self.signed })
    }

    /// Checks that enough keys of `authority` signed it. It does not check the fleet.
    pub(super) fn check(&self, authority: &Authority) -> Result<(), SignedError> {
        self.envelope.check::<P>(authority)
    }

    /// The digest of its content: the SHA-256 of its canonical form, which has no signatures.
    pub fn content(&self) -> Sha256Digest {
        digest(&canonical(&self.envelope.signed))
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
    content: Sha256Digest,
}

impl<P> Verified<P> {
    /// The digest of its content, which its signatures are no part of.
    pub fn content(&self) -> Sha256Digest {
        self.content
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
        Agent, Draft, Metadata, PublicKey, Revision, Role, Threshold, Unit, UnitSpecification, UnitType,
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
            assert_eq!(unit.content(), signed.content());
            unit.content()
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
        let error = Signed::<Agent>::parse(&bytes).unwrap_err().to_string();
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
