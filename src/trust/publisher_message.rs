//! The bytes that a publisher signs, taken apart by a process that has the key and nothing else: it signs no other bytes.
//!
//! A publisher signs the documents and the index. Roots and approvals have other roles, so a publisher's signature of one is
//! either worthless or, where one key has two roles, dangerous.

use super::SecretKey;
use super::canonical::{canonical, signing_bytes};
use crate::model::json::{self, JsonError};
use crate::model::{
    Agent, AgentSpecification, Deployment, DeploymentSpecification, Document, Index, Payload, Specification, Unit,
    UnitSpecification, printable_line,
};

/// The bytes to sign for a document or an index, in the one encoding that a publisher signs.
#[derive(Debug)]
pub struct PublisherMessage<'a> {
    bytes: &'a [u8],
    subject: String,
}

/// The reason why a publisher does not sign some bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublisherMessageError {
    /// They are not in the encoding that Clavel signs.
    #[error("it is no document of Clavel")]
    NoDocument,
    /// They are a document of a kind that no publisher signs, or of none that this version knows.
    #[error("a publisher signs deployments, units, agents and indexes, and this has the type `{0}`")]
    OtherType(String),
    /// The document is not valid.
    #[error("it is no valid {kind}")]
    Malformed {
        /// The kind that its type names.
        kind: &'static str,
        /// The reason.
        source: JsonError,
    },
    /// It is not in the one form that its content has, or has fields that this version does not know.
    #[error(
        "it is not in the one form that a {0} has, or it has fields that this version does not know; claveld and its signer have \
         to be of the same version"
    )]
    OtherForm(&'static str),
}

impl<'a> PublisherMessage<'a> {
    /// Takes the bytes to sign apart, strictly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PublisherMessageError> {
        let (payload_type, body) = split(bytes).ok_or(PublisherMessageError::NoDocument)?;
        let subject = match payload_type {
            Deployment::PAYLOAD_TYPE => document(bytes, body, describe::<DeploymentSpecification>)?,
            Unit::PAYLOAD_TYPE => document(bytes, body, describe::<UnitSpecification>)?,
            Agent::PAYLOAD_TYPE => document(bytes, body, describe::<AgentSpecification>)?,
            Index::PAYLOAD_TYPE => {
                document(bytes, body, |index: &Index| format!("Index of version {}", index.version))?
            }
            other => return Err(PublisherMessageError::OtherType(printable_line(other, 60))),
        };
        Ok(Self { bytes, subject })
    }

    /// What it is, for people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Signs it.
    pub fn sign(&self, key: &SecretKey) -> [u8; 64] {
        key.sign_bytes(self.bytes)
    }
}

/// The payload type and the body of `bytes`. The header is checked afterwards, against the one that the body has to have.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let mut parts = bytes.splitn(5, |byte| *byte == b' ');
    let (_version, _length, payload_type) = (parts.next()?, parts.next()?, parts.next()?);
    let (_length, body) = (parts.next()?, parts.next()?);
    Some((std::str::from_utf8(payload_type).ok()?, body)).filter(|_| bytes.starts_with(b"DSSEv1 "))
}

/// Checks that `bytes` are those to sign for the `P` that `body` is, and describes it.
fn document<P: Payload>(
    bytes: &[u8],
    body: &[u8],
    describe: impl Fn(&P) -> String,
) -> Result<String, PublisherMessageError> {
    let malformed = |source| PublisherMessageError::Malformed { kind: P::KIND, source };
    let payload: P = json::parse(body, P::MAX_BYTES).map_err(malformed)?;
    if signing_bytes::<P>(&canonical(&payload)) != bytes {
        return Err(PublisherMessageError::OtherForm(P::KIND));
    }
    Ok(describe(&payload))
}

fn describe<S: Specification>(document: &Document<S>) -> String {
    format!("{} `{}` at revision {}", S::KIND, document.name, document.revision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Draft, FleetId, Metadata, Revision, UnitType, describe_error};
    use crate::trust::fixture::{first_root, key};
    use crate::trust::{Signed, digest};

    fn unit() -> Vec<u8> {
        let unit = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::Nixos };
        let unit = Draft::new("web-1".parse().unwrap(), Metadata::default(), unit);
        Signed::unsigned(unit.at(Revision::FIRST, FleetId::of(digest(b"fleet")))).to_be_signed()
    }

    #[test]
    fn a_document_is_described_and_signed_as_it_is() {
        let (bytes, key) = (unit(), key("claveld-1"));
        let message = PublisherMessage::parse(&bytes).unwrap();
        assert_eq!(message.subject(), "Unit `web-1` at revision 1");
        assert_eq!(message.sign(&key), key.sign_bytes(&bytes));
    }

    #[test]
    fn nothing_else_is_signed() {
        let key = key("claveld-1");
        let root = Signed::unsigned(first_root(&[&key], 1)).to_be_signed();
        let good = String::from_utf8(unit()).unwrap();
        // The same content, with the length that its header has to have.
        let with_body = |from: &str, to: &str| {
            let body = good.split_once(" {").unwrap().1.replacen(from, to, 1);
            format!("DSSEv1 35 application/vnd.clavel.unit.v1+json {} {{{body}", body.len() + 1)
        };
        assert_eq!(with_body("", ""), good);
        for (bad, expected) in [
            (String::from_utf8(root).unwrap(), "the type `application/vnd.clavel.root.v1+json`"),
            (good.replace(".unit.", ".approval."), "the type `application/vnd.clavel.approval.v1+json`"),
            (good.replace(".unit.", ".agent."), "it is no valid Agent: at `kind`"),
            (good.replacen("DSSEv1 ", "", 1), "it is no document of Clavel"),
            (good.replacen("DSSEv1", "SSHSIG", 1), "it is no document of Clavel"),
            (String::new(), "it is no document of Clavel"),
            (good.replacen(" 35 ", " 36 ", 1), "not in the one form"),
            (good.replacen(" 35 ", " 035 ", 1), "not in the one form"),
            (with_body("\"revision\":1", "\"revision\": 1"), "not in the one form"),
            (with_body("\"revision\":1", "\"revision\":1,\"x\":1"), "not in the one form"),
            (with_body("\"revision\":1", "\"revision\":1,\"revision\":1"), "it is no valid Unit"),
            (with_body("\"revision\":1", "\"revision\":0"), "it is no valid Unit: at `revision`"),
            (format!("{good} "), "it is not in the one form"),
            (format!("{good}{{}}"), "it is no valid Unit"),
        ] {
            let error = describe_error(&PublisherMessage::parse(bad.as_bytes()).unwrap_err());
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }
}
