//! Whose signatures count, and how many of them it takes.

use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

use crate::model::{KeyId, MOST_KEYS, PublicKey, Role, RoleKey};

/// Keys and how many of them have to agree.
#[derive(Debug, Clone)]
pub struct Authority {
    keys: Vec<UsableKey>,
    threshold: usize,
}

/// Why keys make no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nobody could sign.
    #[error("it has no key, so nothing could ever be verified; give it at least one")]
    NoKeys,
    /// These bytes are no key, or a key under which anybody can sign.
    #[error(
        "the public key `{0}` is not a usable ed25519 key (it is no point of the curve in its one encoding, or it has a part of low order)"
    )]
    Unusable(KeyId),
    /// More signatures are asked for than there are keys.
    #[error("{threshold} different keys have to sign, and it has {keys}")]
    OutOfReach {
        /// How many have to sign.
        threshold: usize,
        /// How many different ones there are.
        keys: usize,
    },
}

const _: () = assert!(MOST_KEYS <= 64, "every signature is tried with every key");

impl Authority {
    /// The keys of `role`, and as many of them as it says.
    pub fn of(role: &Role) -> Result<Self, AuthorityError> {
        Self::new(&role.keys, role.threshold.get())
    }

    fn new(keys: &[RoleKey], threshold: usize) -> Result<Self, AuthorityError> {
        if keys.is_empty() {
            return Err(AuthorityError::NoKeys);
        }
        let mut different: Vec<UsableKey> = Vec::new();
        for key in keys {
            let key = UsableKey::of(key).ok_or_else(|| AuthorityError::Unusable(key.id().clone()))?;
            // One key under two names is one key, in hardware or out of it.
            if !different.iter().any(|known| known.point == key.point) {
                different.push(key);
            }
        }
        if threshold > different.len() {
            return Err(AuthorityError::OutOfReach { threshold, keys: different.len() });
        }
        Ok(Self { keys: different, threshold })
    }

    /// How many different keys have to have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Whether `keys` together have enough of a say.
    pub fn suffices(&self, keys: &[PublicKey]) -> bool {
        let have = |known: &&UsableKey| match &known.key {
            RoleKey::Plain(known) => keys.iter().any(|key| key.bytes() == known.bytes()),
            RoleKey::Hardware(_) => false,
        };
        self.keys.iter().filter(have).count() >= self.threshold
    }

    /// The names of the keys, for people.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|known| known.key.id())
    }

    /// How many different keys signed `message`. The names in `signatures` only say which key to try first.
    pub(super) fn count<'a>(
        &self,
        message: &[u8],
        signatures: impl IntoIterator<Item = &'a super::Signature>,
    ) -> usize {
        let mut left: Vec<&UsableKey> = self.keys.iter().collect();
        for signature in signatures {
            left.sort_by_key(|known| known.key.id() != signature.keyid());
            if let Some(at) = left.iter().position(|known| signature.is_by(known, message)) {
                left.swap_remove(at);
            }
        }
        self.keys.len() - left.len()
    }
}

/// The encoding of the neutral point (RFC 8032, section 5.1.2): y is 1, and x is 0.
const NEUTRAL: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

/// A key of a role that can be verified by.
#[derive(Debug, Clone)]
pub(super) struct UsableKey {
    pub(super) key: RoleKey,
    pub(super) point: VerifyingKey,
}

impl UsableKey {
    /// `key`, where its bytes are a point that a secret key makes, in its one encoding.
    pub(super) fn of(key: &RoleKey) -> Option<Self> {
        let point = VerifyingKey::from_bytes(key.bytes()).ok()?;
        // A second encoding of a point would be a second key to whoever compares bytes.
        let edwards = point.to_edwards();
        let is_canonical = edwards.compress().as_bytes() == key.bytes();
        // Under a point of low order anybody can sign. One with a part of low order holds for some signatures that verifiers
        // do not agree on, and whoever has its secret has seven more keys that only look different.
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

    fn usable(key: &SigningKey) -> UsableKey {
        UsableKey::of(&PublicKey::new("k".parse().unwrap(), key.verifying_key().to_bytes()).into()).unwrap()
    }

    /// A signature whose R is the neutral point: whoever has the secret key can make it, and nobody else.
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

    #[test]
    fn keys_of_low_order_are_no_keys() {
        let mut identity = [0; 32];
        identity[0] = 1;
        for bytes in [[0; 32], identity] {
            let key = PublicKey::new("weak".parse().unwrap(), bytes);
            assert_eq!(
                Authority::new(&[key.into()], 1).unwrap_err(),
                AuthorityError::Unusable("weak".parse().unwrap())
            );
        }
        assert_eq!(Authority::new(&[], 1).unwrap_err(), AuthorityError::NoKeys);
    }
}
