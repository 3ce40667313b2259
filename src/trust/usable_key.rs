//! A public key that is safe to verify with.

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use crate::model::RoleKey;

/// The encoding of the neutral point (RFC 8032, section 5.1.2): y is 1, and x is 0.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// A key of a role that signatures can be verified with.
#[derive(Debug, Clone)]
pub(super) struct UsableKey {
    pub(super) key: RoleKey,
    pub(super) point: VerifyingKey,
}

impl UsableKey {
    /// `key`, where its bytes are a point that a secret key makes, in its one encoding.
    pub(super) fn of(key: &RoleKey) -> Option<Self> {
        let point = VerifyingKey::from_bytes(key.bytes()).ok()?;
        // A second encoding of the same point would look like a second key where bytes are compared.
        let edwards = point.to_edwards();
        let is_canonical = edwards.compress().as_bytes() == key.bytes();
        // Under a point of low order, everybody can sign. Under a point with a part of low order, verifiers disagree about
        // some signatures, and the owner of its secret has seven more keys that only look different.
        let is_of_prime_order = !point.is_weak() && edwards.is_torsion_free();
        (is_canonical && is_of_prime_order).then(|| Self { key: key.clone(), point })
    }

    /// Whether the bytes of `signature` are one by this key over `message`, by the rules of [`VerifyingKey::verify_strict`].
    ///
    /// Beyond those of `verify` they ask that neither the key nor R, the signature's first half, is of low order.
    /// The key is of the prime order, and so is the point that R has to be the one encoding of; the neutral one alone is of
    /// low order there. So R is known without being decompressed, which is a tenth of all that a verification costs.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        !signature.starts_with(&NEUTRAL) && self.point.verify(message, &Signature::from_bytes(signature)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::Scalar;
    use ed25519_dalek::{Signer as _, SigningKey};
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha512};

    use super::*;
    use crate::model::PublicKey;

    fn usable(key: &SigningKey) -> UsableKey {
        UsableKey::of(&PublicKey::new("k".parse().unwrap(), key.verifying_key().to_bytes()).into()).unwrap()
    }

    /// A signature whose R is the neutral point: only the owner of the secret key can make it.
    fn with_neutral_r(key: &SigningKey, message: &[u8]) -> [u8; 64] {
        let hash =
            Sha512::new().chain_update(NEUTRAL).chain_update(key.verifying_key()).chain_update(message).finalize();
        let s = Scalar::from_bytes_mod_order_wide(&hash.into()) * key.to_scalar();
        [NEUTRAL, s.to_bytes()].concat().try_into().unwrap()
    }

    #[test]
    fn a_signature_with_a_neutral_r_is_none_though_a_lax_verifier_takes_it() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let bytes = with_neutral_r(&key, b"x");
        let signature = Signature::from_bytes(&bytes);
        assert!(key.verifying_key().verify(b"x", &signature).is_ok());
        assert!(key.verifying_key().verify_strict(b"x", &signature).is_err());
        assert!(!usable(&key).verifies(b"x", &bytes));
    }

    proptest! {
        #[test]
        fn what_verifies_is_what_the_strict_rules_take(
            seed: [u8; 32], message: Vec<u8>, other: [u8; 32], place in 0..3_usize, at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let key = SigningKey::from_bytes(&seed);
            let good = key.sign(&message).to_bytes();
            let mut altered = good;
            altered[at.index(64)] ^= 1 << bit;
            let mut in_part = good;
            if place < 2 {
                in_part[32 * place..][..32].copy_from_slice(&other);
            }
            for bytes in [good, altered, in_part, with_neutral_r(&key, &message)] {
                let strict = key.verifying_key().verify_strict(&message, &Signature::from_bytes(&bytes)).is_ok();
                prop_assert_eq!(usable(&key).verifies(&message, &bytes), strict);
            }
            prop_assert!(usable(&key).verifies(&message, &good));
        }
    }
}
