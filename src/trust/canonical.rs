//! The bytes to sign: the DSSE pre-authentication encoding of the payload type and the canonical form.

use crate::model::{Payload, json};

/// The bytes to sign for `payload`: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body` (DSSE 1.0, "Signature
/// Definition"), where the body is the payload's canonical form.
pub(super) fn signing_bytes<P: Payload>(payload: &P) -> Vec<u8> {
    dsse_encode::<P>(canonical(payload))
}

/// The same bytes, from the file of a payload that is in the one rendering; `None` for any other file.
///
/// It saves the time and the memory to serialise a large payload again. The payload is the last field of the file, and its
/// canonical form is the same text without white space.
pub(super) fn signing_bytes_of_file<P: Payload>(mut rendering: Vec<u8>) -> Option<Vec<u8>> {
    const BEFORE: &[u8] = b"\n  \"signed\": ";
    const AFTER: &[u8] = b"\n}\n";
    // No string in a rendering contains a line break, so this finds the field and nothing else.
    let start = memchr::memmem::find(&rendering, BEFORE)? + BEFORE.len();
    rendering.truncate(rendering.strip_suffix(AFTER)?.len());
    rendering.drain(..start);
    json::make_compact(&mut rendering);
    Some(dsse_encode::<P>(rendering))
}

/// The canonical form in the bytes to sign: the part after the fourth space.
pub(super) fn body(signing_bytes: &[u8]) -> &[u8] {
    signing_bytes.splitn(5, |byte| *byte == b' ').nth(4).unwrap_or_default()
}

fn dsse_encode<P: Payload>(mut body: Vec<u8>) -> Vec<u8> {
    let kind = P::PAYLOAD_TYPE;
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len());
    body.splice(..0, head.into_bytes());
    body
}

/// The canonical form by RFC 8785.
///
/// A payload has no numbers but integers up to 2^53 - 1, its fields are declared in the order of their names, and the keys of
/// its maps are ASCII and sorted. Therefore the text that `serde_json` writes without white space is the canonical form. The
/// tests below compare every payload with an independent implementation.
pub(super) fn canonical<P: Payload>(payload: &P) -> Vec<u8> {
    json::compact(payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        Agent, AgentSpecification, Approval, ApprovalPolicy, Deployment, DeploymentSpecification, Document,
        DocumentPath, Draft, Epoch, FleetId, Folder, Hold, Index, IndexEntry, IndexVersion, Kind, List, Map, Metadata,
        Name, NarTemplateSpecification, Revision, Root, RootVersion, Schema, Specification, Tombstone, Unit,
        UnitSpecification, UnitType,
    };

    fn fleet() -> FleetId {
        FleetId::of(super::super::digest(b"fleet"))
    }

    fn names() -> impl Strategy<Value = Name> {
        "[A-Za-z0-9_@][A-Za-z0-9._@-]{0,20}".prop_map(|text| text.parse().unwrap())
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let value = any::<String>().prop_map(|text| text.chars().filter(|c| !c.is_control()).collect::<String>());
        let entries = proptest::collection::btree_map("[A-Za-z0-9._/-]{1,10}", value, 0..6);
        entries.prop_map(|entries| {
            let mut metadata = Metadata::default();
            for (key, value) in entries {
                if let Ok(value) = value.parse() {
                    metadata.insert(key.parse().unwrap(), value).unwrap();
                }
            }
            metadata
        })
    }

    fn document<S: Specification>(specification: impl Strategy<Value = S>) -> impl Strategy<Value = Document<S>> {
        (names(), metadata(), 1..(1_u64 << 53), specification).prop_map(|(name, metadata, revision, specification)| {
            Draft::new(name, metadata, specification).at(Revision::try_from(revision).unwrap(), fleet())
        })
    }

    fn deployment() -> impl Strategy<Value = DeploymentSpecification> {
        (names(), metadata()).prop_map(|(unit, metadata)| DeploymentSpecification {
            unit,
            template: NarTemplateSpecification {
                metadata,
                nar_id: "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap(),
                substituters: List::try_from(vec!["https://cache.example.org".parse().unwrap()]).unwrap(),
                substituters_public_keys: List::default(),
            },
        })
    }

    fn check<P: Payload + Clone>(payload: &P) {
        let theirs = serde_json_canonicalizer::to_vec(&serde_json::to_value(payload).unwrap()).unwrap();
        assert_eq!(String::from_utf8(canonical(payload)).unwrap(), String::from_utf8(theirs).unwrap());
        let file = crate::trust::fixture::signed(payload.clone(), &[&crate::trust::fixture::key("k")]);
        assert_eq!(signing_bytes_of_file::<P>(file), Some(signing_bytes(payload)));
        assert_eq!(body(&signing_bytes(payload)), canonical(payload));
    }

    proptest! {
        #[test]
        fn every_document_is_serialised_canonically(
            deployment in document(deployment()),
            agent in document(proptest::collection::vec(names(), 0..5).prop_map(|names| AgentSpecification {
                deployments: List::try_from(names).unwrap(),
            })),
            unit in document(Just(UnitSpecification {
                arch: "x86_64-linux".parse().unwrap(),
                unit_type: UnitType::Command,
            })),
        ) {
            check(&deployment);
            check(&agent);
            check(&unit);
            check(&Approval::of(&deployment, super::super::digest(b"z"), Epoch::FIRST));
        }

        #[test]
        fn the_index_is_serialised_canonically(
            names in proptest::collection::btree_set(names(), 0..8),
            length: u32, version in 1..(1_u64 << 53),
        ) {
            let revision = Revision::FIRST;
            let (mut documents, mut tombstones, mut held) = (Map::default(), Map::default(), Map::default());
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            for name in names {
                let hold = Hold { revision: Revision::FIRST, since: now, why: "a \"quoted\" é".parse().unwrap() };
                held.insert(name.clone(), hold).unwrap();
                let entry = IndexEntry { length: length.into(), revision, sha256: super::super::digest(b"x") };
                documents.insert(DocumentPath::new(Folder::Units, name.clone()), entry).unwrap();
                tombstones.insert(DocumentPath::new(Folder::Agents, name), Tombstone { revision }).unwrap();
            }
            check(&Index {
                branch: "deployments".parse().unwrap(), documents, epoch: Epoch::FIRST, expires: now, fleet: fleet(), held,
                issued: now, kind: Kind::THIS, previous: Some(super::super::digest(b"y")), schema: Schema::V1, tombstones,
                version: IndexVersion::try_from(version).unwrap(),
            });
        }

        #[test]
        fn the_root_is_serialised_canonically(
            patterns in proptest::collection::vec(any::<String>(), 0..4), threshold in 1..=64_u64, version in 1..(1_u64 << 53),
        ) {
            let policies: Vec<ApprovalPolicy> = patterns
                .iter()
                .filter_map(|pattern| pattern.parse().ok())
                .map(|pattern| ApprovalPolicy { approvals: threshold.try_into().unwrap(), pattern })
                .collect();
            let key = crate::trust::fixture::key("root-1");
            check(&Root {
                approvals: policies.try_into().unwrap(),
                fleet: Some(fleet()),
                version: RootVersion::try_from(version).unwrap(),
                ..crate::trust::fixture::first_root(&[&key], 1)
            });
        }
    }

    #[test]
    fn no_two_kinds_sign_the_same_bytes() {
        let types = [
            Agent::PAYLOAD_TYPE,
            Deployment::PAYLOAD_TYPE,
            Unit::PAYLOAD_TYPE,
            Index::PAYLOAD_TYPE,
            Root::PAYLOAD_TYPE,
            Approval::PAYLOAD_TYPE,
        ];
        let distinct: std::collections::BTreeSet<_> = types.into_iter().collect();
        assert_eq!(distinct.len(), types.len());
        let unit = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
        let unit = Draft::new("a".parse().unwrap(), Metadata::default(), unit).at(Revision::FIRST, fleet());
        let bytes = String::from_utf8(signing_bytes(&unit)).unwrap();
        assert!(bytes.starts_with("DSSEv1 35 application/vnd.clavel.unit.v1+json 204 {\"fleet\":\""), "{bytes}");
    }
}
