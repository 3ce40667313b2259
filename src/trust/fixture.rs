//! A fleet for tests. Its first root gives one key every role but the approver's.

use super::{Authority, SecretKey, Signed, TrustedRoot, Verified};
use crate::model::{
    ApprovalPolicy, Epoch, FleetId, Format, Kind, List, Payload, Role, Roles, Root, RootVersion, Schema, Threshold,
};

/// A key and the root that names it.
pub(crate) struct Fleet {
    pub(crate) key: SecretKey,
    pub(crate) root: TrustedRoot,
}

/// A new key.
pub(crate) fn key(id: &str) -> SecretKey {
    SecretKey::generate(id.parse().unwrap()).unwrap()
}

/// A role of these keys.
pub(crate) fn role(keys: &[&SecretKey], threshold: u64) -> Role {
    let keys: Vec<_> = keys.iter().map(|key| key.public().into()).collect();
    Role { keys: keys.try_into().unwrap(), threshold: threshold.try_into().unwrap() }
}

/// The authority of that role.
pub(crate) fn authority(keys: &[&SecretKey], threshold: u64) -> Authority {
    Authority::of(&role(keys, threshold)).unwrap()
}

/// A first root with these root keys. The first of them is the publisher's key too.
pub(crate) fn first_root(keys: &[&SecretKey], threshold: u64) -> Root {
    Root {
        approvals: List::<ApprovalPolicy, 256>::default(),
        epoch: Epoch::FIRST,
        expires: "2100-01-01T00:00:00Z".parse().unwrap(),
        fleet: None,
        format: Format::CURRENT,
        index_ages: List::default(),
        kind: Kind::THIS,
        roles: Roles {
            approver: Role { keys: List::default(), threshold: Threshold::ONE },
            publisher: role(&keys[..1], 1),
            root: role(keys, threshold),
        },
        schema: Schema::V1,
        version: RootVersion::FIRST,
    }
}

/// The root after `before`, with these root keys, not signed yet.
pub(crate) fn root_after(before: &TrustedRoot, keys: &[&SecretKey]) -> Root {
    let version = before.root().version.next().unwrap();
    Root { fleet: Some(before.fleet()), version, epoch: before.root().epoch, ..first_root(keys, 1) }
}

/// The file of `payload`, signed by these keys.
pub(crate) fn signed<P: Payload>(payload: P, keys: &[&SecretKey]) -> Vec<u8> {
    let mut signed = Signed::unsigned(payload);
    for key in keys {
        signed.add(key).unwrap();
    }
    signed.render()
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let key = key("claveld-1");
        let root = TrustedRoot::given(&signed(first_root(&[&key], 1), &[&key])).unwrap();
        Self { key, root }
    }

    pub(crate) fn id(&self) -> FleetId {
        self.root.fleet()
    }

    /// `payload`, signed and verified.
    pub(crate) fn verified<P: Payload>(&self, payload: P) -> Verified<P> {
        Signed::sign(payload, &self.key).verify(self.id(), self.root.publisher()).unwrap()
    }
}
