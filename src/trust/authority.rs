//! Whose signatures count, and how many of them it takes.

use ed25519_dalek::VerifyingKey;

use crate::model::{KeyId, MOST_KEYS, PublicKey, Role};

/// Keys and how many of them have to agree.
#[derive(Debug, Clone)]
pub struct Authority {
    keys: Vec<(KeyId, VerifyingKey)>,
    threshold: usize,
}

/// Why keys make no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// Nobody could sign.
    #[error("it has no key, so nothing could ever be verified; give it at least one")]
    NoKeys,
    /// These bytes are no key, or a key under which anybody can sign.
    #[error("the public key `{0}` is not a usable ed25519 key (it is no point of the curve, or one of low order)")]
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

    fn new(keys: &[PublicKey], threshold: usize) -> Result<Self, AuthorityError> {
        if keys.is_empty() {
            return Err(AuthorityError::NoKeys);
        }
        let mut usable: Vec<(KeyId, VerifyingKey)> = Vec::new();
        for key in keys {
            let verifying = VerifyingKey::from_bytes(key.bytes()).ok().filter(|verifying| !verifying.is_weak());
            let verifying = verifying.ok_or_else(|| AuthorityError::Unusable(key.id().clone()))?;
            // One key under two names is one key.
            if !usable.iter().any(|(_, known)| known == &verifying) {
                usable.push((key.id().clone(), verifying));
            }
        }
        if threshold > usable.len() {
            return Err(AuthorityError::OutOfReach { threshold, keys: usable.len() });
        }
        Ok(Self { keys: usable, threshold })
    }

    /// How many different keys have to have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Whether `keys` together have enough of a say.
    pub fn suffices(&self, keys: &[PublicKey]) -> bool {
        let have = |(_, known): &&(KeyId, VerifyingKey)| keys.iter().any(|key| key.bytes() == known.as_bytes());
        self.keys.iter().filter(have).count() >= self.threshold
    }

    /// The names of the keys, for people.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|(id, _)| id)
    }

    /// How many different keys signed `message`. The names in `signatures` only say which key to try first.
    pub(super) fn count(&self, message: &[u8], signatures: &[super::Signature]) -> usize {
        let mut counted = vec![false; self.keys.len()];
        for signature in signatures {
            let bytes = ed25519_dalek::Signature::from_bytes(signature.bytes());
            let named = |(_, (id, _)): &(usize, &(KeyId, VerifyingKey))| id == signature.keyid();
            let all = || self.keys.iter().enumerate();
            let in_order = all().filter(named).chain(all().filter(|entry| !named(entry)));
            let signer = in_order
                .filter(|(at, _)| !counted[*at])
                .find(|(_, (_, key))| key.verify_strict(message, &bytes).is_ok())
                .map(|(at, _)| at);
            if let Some(at) = signer {
                counted[at] = true;
            }
        }
        counted.into_iter().filter(|counted| *counted).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_low_order_are_no_keys() {
        let mut identity = [0; 32];
        identity[0] = 1;
        for bytes in [[0; 32], identity] {
            let key = PublicKey::new("weak".parse().unwrap(), bytes);
            assert_eq!(Authority::new(&[key], 1).unwrap_err(), AuthorityError::Unusable("weak".parse().unwrap()));
        }
        assert_eq!(Authority::new(&[], 1).unwrap_err(), AuthorityError::NoKeys);
    }
}
