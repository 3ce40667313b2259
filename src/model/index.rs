//! The index: the list of all documents of the branch at one version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BranchName, DocumentPath, Epoch, FleetId, IndexVersion, Kind, Map, MetadataValue, Name, Payload, Revision, Schema,
    Sha256Digest, Timestamp,
};

/// The most documents on one branch: three for each of ten thousand units, and room to grow.
const MOST: usize = 100_000;

/// The list of the branch's documents at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The branch that it belongs to.
    pub branch: BranchName,
    /// Every document of the branch.
    pub documents: Map<DocumentPath, IndexEntry, MOST>,
    /// The epoch of the root under which it was signed.
    pub epoch: Epoch,
    /// The time from which on it must not be taken for the newest index.
    pub expires: Timestamp,
    /// The fleet that it belongs to.
    pub fleet: FleetId,
    /// The holds: deployments that stay at their revision until an operator releases them.
    pub held: Map<Name, Hold, MOST>,
    /// The time at which it was signed.
    pub issued: Timestamp,
    /// The kind: Index.
    pub kind: Kind<Self>,
    /// The SHA-256 of the previous index file; absent in the first index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256Digest>,
    /// The version of this schema.
    pub schema: Schema,
    /// The documents that were withdrawn. A document that is neither here nor in `documents` was never on the branch.
    pub tombstones: Map<DocumentPath, Tombstone, MOST>,
    /// The version, which goes up by one with every publication of an epoch.
    pub version: IndexVersion,
}

impl Payload for Index {
    const KIND: &'static str = "Index";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.index.v1+json";
    // Three entries for each of ten thousand units are 6 MiB. An attacker without a key can make an agent read and hash this
    // much.
    const LARGEST: u64 = 16 << 20;

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}

/// The entry of a document in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The length of its file, in bytes.
    pub length: u64,
    /// Its revision.
    pub revision: Revision,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
}

/// The hold of a deployment in the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The revision at which the deployment stays.
    pub revision: Revision,
    /// The time at which the hold began.
    pub since: Timestamp,
    /// The reason, in the words of the operator.
    pub why: MetadataValue,
}

/// The entry of a document that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The last revision of the document. If it comes back, its revisions continue from here.
    pub revision: Revision,
}
