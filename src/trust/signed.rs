//! Documents with their signatures, before and after they are verified.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::canonical::{body, canonical, signing_bytes, signing_bytes_of_file};
use super::usable_key::UsableKey;
use super::{Authority, SecretKey, Signature, SshSignature, SshSignatureError};
use crate::model::json::{self, JsonError};
use crate::model::{FleetId, Invalid, List, Payload, PublicKey, RoleKey, Sha256Digest};

/// The SHA-256 of `bytes`.
pub fn digest(bytes: &[u8]) -> Sha256Digest {
    Sha256Digest::of(bytes)
}

/// The digest of the content of `payload`: the SHA-256 of its canonical form, without signatures.
pub(super) fn content<P: Payload>(payload: &P) -> Sha256Digest {
    digest(&canonical(payload))
}

/// A document and its signatures, as the branch holds them. It is not trusted: [`Signed::verify`] checks it and
/// returns a [`Verified`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(bound = "P: Payload", deny_unknown_fields)]
#[schemars(bound = "P: Payload + JsonSchema")]
pub struct Signed<P: Payload> {
    signatures: List<Signature, 16>,
    signed: P,
}

/// The reason why a file is not a trusted document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignedError {
    /// It does not parse as its kind.
    #[error("it is not a valid {kind}: {source}")]
    Malformed {
        /// The kind that it should be.
        kind: &'static str,
        /// The reason, and the place of the error.
        source: JsonError,
    },
    /// It is not in the one rendering that its content has.
    #[error(
        "it is not written in the one form a {kind} has (sorted keys, an indent of two spaces, a final newline): somebody edited it"
    )]
    OtherRendering {
        /// The kind that it should be.
        kind: &'static str,
    },
    /// It belongs to another fleet.
    #[error("it belongs to the fleet {}, and this fleet is {}: a {kind} is valid in its own fleet alone",
        found.map_or_else(|| "that it does not name".to_owned(), |found| found.short() + "…"), expected.short() + "…")]
    OtherFleet {
        /// Its kind.
        kind: &'static str,
        /// The expected fleet.
        expected: FleetId,
        /// The fleet that it names.
        found: Option<FleetId>,
    },
    /// Too few trusted keys signed it.
    #[error(
        "{}, and {threshold} of {} {} to have signed it",
        if *valid == 0 { "no valid signature by a trusted key".to_owned() } else { format!("{valid} trusted keys signed it") },
        trusted.join(", "),
        if *threshold == 1 { "has" } else { "have" }
    )]
    NotEnoughSignatures {
        /// How many different trusted keys signed it.
        valid: usize,
        /// How many have to sign it.
        threshold: usize,
        /// The names of the trusted keys.
        trusted: Vec<String>,
    },
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

impl<P: Payload> Signed<P> {
    /// Signs `payload` with `key`.
    pub fn sign(payload: P, key: &SecretKey) -> Self {
        Self { signatures: List::one(key.sign(&signing_bytes(&payload))), signed: payload }
    }

    /// `payload` without signatures.
    pub fn unsigned(payload: P) -> Self {
        Self { signatures: List::default(), signed: payload }
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
        let mut signatures = self.signatures.to_vec();
        signatures.retain(|other| other.keyid() != signature.keyid());
        signatures.push(signature);
        signatures.sort_by(|a, b| a.keyid().cmp(b.keyid()));
        self.signatures = signatures.try_into()?;
        Ok(())
    }

    /// The bytes to sign (DSSE 1.0).
    pub fn to_be_signed(&self) -> Vec<u8> {
        signing_bytes(&self.signed)
    }

    /// Parses a file of the branch strictly: it limits the size, and accepts one rendering alone. It verifies nothing.
    pub fn parse(bytes: &[u8]) -> Result<Self, SignedError> {
        let malformed = |source| SignedError::Malformed { kind: P::KIND, source };
        let signed: Self = json::parse(bytes, P::LARGEST).map_err(malformed)?;
        if json::is_rendering(&signed, bytes) { Ok(signed) } else { Err(SignedError::OtherRendering { kind: P::KIND }) }
    }

    /// The bytes of the file.
    pub fn render(&self) -> Vec<u8> {
        json::render(self)
    }

    /// Parses a file, and verifies that it belongs to `fleet` and that enough keys of `authority` signed it.
    pub fn verify_file(bytes: Vec<u8>, fleet: FleetId, authority: &Authority) -> Result<Verified<P>, SignedError> {
        Self::verify_bytes(bytes, fleet, authority).map(|(verified, _)| verified)
    }

    /// Does the same, and returns the digest of the content as well, without another serialisation.
    pub fn verify_file_with_content(
        bytes: Vec<u8>,
        fleet: FleetId,
        authority: &Authority,
    ) -> Result<(Verified<P>, Sha256Digest), SignedError> {
        let (verified, message) = Self::verify_bytes(bytes, fleet, authority)?;
        Ok((verified, digest(body(&message))))
    }

    /// Returns the verified payload and the bytes that were signed.
    fn verify_bytes(
        bytes: Vec<u8>,
        fleet: FleetId,
        authority: &Authority,
    ) -> Result<(Verified<P>, Vec<u8>), SignedError> {
        let signed = Self::parse(&bytes)?;
        signed.check_fleet(fleet)?;
        let message = signing_bytes_of_file::<P>(bytes).ok_or(SignedError::OtherRendering { kind: P::KIND })?;
        signed.check_message(&message, authority)?;
        Ok((Verified { payload: signed.signed }, message))
    }

    /// Verifies that it belongs to `fleet` and that enough keys of `authority` signed it.
    pub fn verify(self, fleet: FleetId, authority: &Authority) -> Result<Verified<P>, SignedError> {
        self.check_fleet(fleet)?;
        self.check(authority)?;
        Ok(Verified { payload: self.signed })
    }

    fn check_fleet(&self, fleet: FleetId) -> Result<(), SignedError> {
        let found = self.signed.fleet();
        if found == Some(fleet) {
            Ok(())
        } else {
            Err(SignedError::OtherFleet { kind: P::KIND, expected: fleet, found })
        }
    }

    /// Checks that enough keys of `authority` signed it. It does not check the fleet.
    pub(super) fn check(&self, authority: &Authority) -> Result<(), SignedError> {
        self.check_message(&self.to_be_signed(), authority)
    }

    fn check_message(&self, message: &[u8], authority: &Authority) -> Result<(), SignedError> {
        let valid = authority.count(message, self.signatures.iter());
        if valid >= authority.threshold() {
            return Ok(());
        }
        let trusted = authority.key_ids().map(ToString::to_string).collect();
        Err(SignedError::NotEnoughSignatures { valid, threshold: authority.threshold(), trusted })
    }

    /// Its signatures. They are not verified.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
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
}

impl<P: Payload> Verified<P> {
    /// The digest of its content, which its signatures are no part of.
    pub fn content(&self) -> Sha256Digest {
        content(&self.payload)
    }
}

impl<P> Verified<P> {
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
        Signed::verify_file(bytes.to_vec(), fleet(), authority)
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
            let (unit, content) =
                Signed::<Unit>::verify_file_with_content(signed.render(), fleet(), &authority).unwrap();
            assert_eq!(unit.content(), content);
            content
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
            assert_eq!(error, SignedError::OtherRendering { kind: "Unit" });
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
            let keyid_changed = Signed::<Unit>::parse(&bytes).is_ok_and(|s| s.signatures[0].keyid() != key.id());
            prop_assert_eq!(read(&bytes, &authority).is_ok(), keyid_changed);
        }
    }
}
