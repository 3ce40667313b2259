//! Whose signatures count, and how many of them it takes.

use ed25519_dalek::VerifyingKey;

use crate::model::{KeyId, PublicKey};

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
    #[error("no public key is trusted, so nothing could ever be verified; name at least one")]
    NoKeys,
    /// These bytes are no key, or a key under which anybody can sign.
    #[error("the public key `{0}` is not a usable ed25519 key (it is no point of the curve, or one of low order)")]
    Unusable(KeyId),
    /// More keys than are looked at.
    #[error("{0} public keys are trusted, and at most {MOST_KEYS} may be")]
    TooMany(usize),
}

/// The most keys one authority has.
const MOST_KEYS: usize = 64;

impl Authority {
    /// Any one of `keys` is enough.
    pub fn any_of(keys: &[PublicKey]) -> Result<Self, AuthorityError> {
        if keys.is_empty() {
            return Err(AuthorityError::NoKeys);
        }
        if keys.len() > MOST_KEYS {
            return Err(AuthorityError::TooMany(keys.len()));
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
        Ok(Self { keys: usable, threshold: 1 })
    }

    /// How many different keys have to have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
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
            assert_eq!(Authority::any_of(&[key]).unwrap_err(), AuthorityError::Unusable("weak".parse().unwrap()));
        }
        assert_eq!(Authority::any_of(&[]).unwrap_err(), AuthorityError::NoKeys);
    }
}
