//! The status that an agent leaves beside a bundle. It is signed by the key that it names.

use super::{Authority, AuthorityError, Signed, SignedError, Verified};
use crate::model::{AgentStatus, List, Role, Threshold};

/// Why a status does not count.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It is damaged, forged, or of another schema.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// Nothing can be signed with the key that it names.
    #[error("the key that it names is no key")]
    Key(#[from] AuthorityError),
}

/// Verifies that the key in the status signed it. The caller says whether that is the machine's key, and whether it is of the fleet.
pub fn verify_status(bytes: &[u8]) -> Result<Verified<AgentStatus>, StatusError> {
    let signed = Signed::<AgentStatus>::parse(bytes)?;
    let AgentStatus { key, fleet, .. } = signed.unverified();
    let (role, fleet) = (Role { keys: List::one(key.clone().into()), threshold: Threshold::ONE }, *fleet);
    Ok(signed.verify(fleet, &Authority::of(&role)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FleetId, Kind, Schema};
    use crate::trust::{SecretKey, digest};

    #[test]
    fn a_status_is_valid_by_its_own_key_alone_and_with_no_flipped_bit() {
        let key = |name: &str| SecretKey::generate(name.parse().unwrap()).unwrap();
        let (ours, other) = (key("web-1"), key("web-1"));
        let status = AgentStatus {
            agent: "web-1".parse().unwrap(),
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            commit: None,
            deployments: List::default(),
            epoch: None,
            error: None,
            fleet: FleetId::of(digest(b"fleet")),
            index_version: None,
            key: ours.public(),
            kind: Kind::THIS,
            schema: Schema::V1,
        };
        let bytes = Signed::sign(status.clone(), &ours).render();
        assert_eq!(*verify_status(&bytes).unwrap(), status);
        assert!(matches!(
            verify_status(&Signed::sign(status.clone(), &other).render()),
            Err(StatusError::Signed(SignedError::NotEnoughSignatures { .. }))
        ));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            // The name beside a signature is a hint, and the only thing that nobody signed.
            assert!(verify_status(&flipped).is_ok_and(|read| *read == status) || verify_status(&flipped).is_err());
        }
    }
}
