//! A set of keys, and the number of them that have to sign.

use super::signature::Signature;
use super::usable_key::UsableKey;
use crate::model::{KeyId, MAX_KEYS, PublicKey, Role, RoleKey};

/// Keys, and how many different ones of them have to sign.
#[derive(Debug, Clone)]
pub struct Authority {
    keys: Vec<UsableKey>,
    threshold: usize,
}

/// The reason why a role's keys cannot verify anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The role has no key.
    #[error("it has no key, so nothing could ever be verified; give it at least one")]
    NoKeys,
    /// The key is not a valid point of the curve, or anybody can sign under it.
    #[error(
        "the public key `{0}` is not a usable ed25519 key (it is not the one encoding of a point of the curve, or the point \
         has a part of low order)"
    )]
    Unusable(KeyId),
    /// The threshold is higher than the number of different keys.
    #[error("{threshold} different keys have to sign, and it has {keys}")]
    UnreachableThreshold {
        /// How many different keys have to sign.
        threshold: usize,
        /// How many different keys there are.
        keys: usize,
    },
}

const _: () = assert!(MAX_KEYS <= 64, "every signature is tried with every key");

impl Authority {
    /// The authority of `role`: its keys and its threshold.
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
            // A key counts once, whatever its names are, and whether it is plain or in hardware.
            if !different.iter().any(|known| known.point == key.point) {
                different.push(key);
            }
        }
        if threshold > different.len() {
            return Err(AuthorityError::UnreachableThreshold { threshold, keys: different.len() });
        }
        Ok(Self { keys: different, threshold })
    }

    /// How many different keys have to have signed.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Whether signatures by all of `keys` would reach the threshold.
    pub fn suffices(&self, keys: &[PublicKey]) -> bool {
        let has_signed = |known: &&UsableKey| match &known.key {
            RoleKey::Plain(known) => keys.iter().any(|key| key.bytes() == known.bytes()),
            RoleKey::Hardware(_) => false,
        };
        self.keys.iter().filter(has_signed).count() >= self.threshold
    }

    /// The names of the keys, for people.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|known| known.key.id())
    }

    /// Counts the different keys that signed `message`. The names in `signatures` only say which key to try first.
    pub(super) fn count<'a>(&self, message: &[u8], signatures: impl IntoIterator<Item = &'a Signature>) -> usize {
        let mut remaining: Vec<&UsableKey> = self.keys.iter().collect();
        for signature in signatures {
            remaining.sort_by_key(|known| known.key.id() != signature.keyid());
            if let Some(at) = remaining.iter().position(|known| signature.is_by(known, message)) {
                remaining.swap_remove(at);
            }
        }
        self.keys.len() - remaining.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_low_order_are_refused() {
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
