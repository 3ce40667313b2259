//! The bytes to sign: the DSSE pre-authentication encoding of the payload type and the canonical form.

use serde::Serialize;
use serde_json::Value;

use crate::model::{Payload, json};

/// The JSON value of `payload`, whose canonical form is signed.
pub(super) fn value_of<P: Payload>(payload: &P) -> Value {
    let value = serde_json::to_value(payload);
    debug_assert!(value.is_ok(), "the types of documents always serialise: {value:?}");
    value.unwrap_or_default()
}

/// The canonical form by RFC 8785 of a payload, or of the value of one.
///
/// A value comes from a rendering ([`crate::model::parse_rendering`]). Either has no numbers but integers up to 2^53 - 1, and its
/// keys are printable ASCII, in order: `serde_json` sorts those of a value, and a payload's fields are declared so. Therefore the
/// text without white space is the canonical form. The tests compare it with an independent implementation.
pub(super) fn canonical<T: Serialize>(payload: &T) -> Vec<u8> {
    json::compact(payload)
}

/// The bytes to sign for a payload of the kind `P`: `"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body` (DSSE 1.0, "Signature
/// Definition"), where the body is the payload's canonical form.
pub(super) fn signing_bytes<P: Payload>(body: &[u8]) -> Vec<u8> {
    let kind = P::PAYLOAD_TYPE;
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len());
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{
        Agent, AgentSpecification, Approval, ApprovalPolicy, BinCount, BinDigests, Deployment, DeploymentSpecification,
        Document, Draft, Epoch, FileDigest, FleetId, Folder, FolderName, Index, IndexVersion, Kind, List, Metadata,
        Name, NarTemplateSpecification, Revision, Root, RootVersion, Schema, Specification, Unit, UnitSpecification,
        UnitType,
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
        (names(), metadata(), proptest::bool::ANY).prop_map(|(unit, metadata, is_checked)| {
            let template = NarTemplateSpecification {
                metadata: metadata.into(),
                nar_id: "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap(),
                substituters: List::try_from(vec!["https://cache.example.org".parse().unwrap()]).unwrap(),
                substituters_public_keys: List::default(),
            };
            let specification = DeploymentSpecification::new(unit, template);
            let check = r#"{"http":"http://x/","interval":"1s","mode":"permissive","timeout":"1s"}"#;
            let probation = r#"{"confirm":"manual","deadline":"1s","settle":"1s"}"#;
            if is_checked {
                let check = ("web".parse().unwrap(), serde_json::from_str(check).unwrap());
                let probation = Some(serde_json::from_str(probation).unwrap());
                let mode = Some(crate::model::ActivationMode::Boot);
                DeploymentSpecification { checks: vec![check].try_into().unwrap(), mode, probation, ..specification }
            } else {
                specification
            }
        })
    }

    fn check<P: Payload + Clone>(payload: &P) {
        let theirs = serde_json_canonicalizer::to_vec(&serde_json::to_value(payload).unwrap()).unwrap();
        assert_eq!(String::from_utf8(canonical(&value_of(payload))).unwrap(), String::from_utf8(theirs).unwrap());
        let file = crate::trust::fixture::signed(payload.clone(), &[&crate::trust::fixture::key("k")]);
        assert!(crate::trust::Signed::<P>::parse(&file).is_ok());
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
        fn the_index_is_serialised_canonically(length: u32, version in 1..(1_u64 << 53), count in 0..3_usize) {
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            let count = BinCount::every().nth(count).unwrap();
            let sha256 = super::super::digest(b"x");
            check(&Index {
                bins: BinDigests::of(count, |_| FileDigest { length: length.into(), sha256 }),
                branch: "deployments".parse().unwrap(), epoch: Epoch::FIRST, expires: now, fleet: fleet(),
                folders: Folder::ALL.map(FolderName::from).to_vec().try_into().unwrap(),
                issued: now, kind: Kind::THIS, previous: Some(super::super::digest(b"y")), schema: Schema::V1, sources: List::default(),
                version: IndexVersion::try_from(version).unwrap(),
            });
        }

        #[test]
        fn the_root_is_serialised_canonically(
            patterns in proptest::collection::vec(any::<String>(), 0..4), threshold in 1..=8_u64, version in 1..(1_u64 << 53),
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
        let bytes = String::from_utf8(signing_bytes::<Unit>(&canonical(&unit))).unwrap();
        assert!(bytes.starts_with("DSSEv1 35 application/vnd.clavel.unit.v1+json 204 {\"fleet\":\""), "{bytes}");
    }
}
