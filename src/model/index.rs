//! The index: the list of all documents of the branch at one version.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BranchName, DocumentPath, Epoch, FleetId, IndexVersion, Kind, Map, MetadataValue, Name, Payload, Revision, Schema,
    Sha256Digest, Timestamp,
};

/// The most documents one branch holds: three for each of ten thousand units, and room.
const MOST: usize = 100_000;

/// Which documents make up the branch, at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// The branch that it is of.
    pub branch: BranchName,
    /// Every document of the branch.
    pub documents: Map<DocumentPath, IndexEntry, MOST>,
    /// The epoch of the root that it was signed under.
    pub epoch: Epoch,
    /// From when on it must not be believed to be the newest.
    pub expires: Timestamp,
    /// Which fleet it is of.
    pub fleet: FleetId,
    /// Deployments that stay at their revision until somebody releases them.
    pub held: Map<Name, Hold, MOST>,
    /// When it was signed.
    pub issued: Timestamp,
    /// What it is: an Index.
    pub kind: Kind<Self>,
    /// The SHA-256 of the index file before it; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Sha256Digest>,
    /// The version of this schema.
    pub schema: Schema,
    /// Documents that were here once and are withdrawn. What is neither here nor above was never on the branch.
    pub tombstones: Map<DocumentPath, Tombstone, MOST>,
    /// Counts up by one with every publication of an epoch.
    pub version: IndexVersion,
}

impl Payload for Index {
    const KIND: &'static str = "Index";
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.index.v1+json";
    /// Three entries for each of ten thousand units are 6 MiB. Somebody without a key can make an agent read and hash this much.
    const LARGEST: u64 = 16 << 20;

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}

/// What the index says about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The bytes of its file.
    pub length: u64,
    /// Its revision.
    pub revision: Revision,
    /// The SHA-256 of its file.
    pub sha256: Sha256Digest,
}

/// What the index says about a deployment that somebody froze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The revision it stays at.
    pub revision: Revision,
    /// Since when.
    pub since: Timestamp,
    /// Why, in the words of whoever did it.
    pub why: MetadataValue,
}

/// What the index says about a document that was withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tombstone {
    /// The last revision there was; if the document comes back, it goes on from here.
    pub revision: Revision,
}
