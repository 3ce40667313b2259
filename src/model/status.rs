//! The status that an agent leaves beside a bundle, for the operator who makes the next one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BranchFile, Epoch, FleetId, IndexVersion, Kind, List, Name, Payload, PublicKey, Revision, Schema};
use super::{StorePath, Timestamp};

/// What an agent says about its machine. Its own key signs it, so nothing but its word stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The agent's name.
    pub agent: Name,
    /// When it was written.
    pub at: Timestamp,
    /// The commit of the branch that it read from a bundle here, as 40 hexadecimal digits: a later bundle may build on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Its deployments, sorted by name.
    pub deployments: List<DeploymentStatus, 1024>,
    /// The epoch of the index that it believes; absent where it has believed none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Why the last pass ended before it decided anything; absent where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The fleet.
    pub fleet: FleetId,
    /// The version of the index that it believes; absent where it has believed none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_version: Option<IndexVersion>,
    /// The key that signs it.
    pub key: PublicKey,
    /// The kind: Status.
    pub kind: Kind<Self>,
    /// The version of this schema.
    pub schema: Schema,
}

/// A deployment in the status of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentStatus {
    /// Why the newest revision does not run; absent where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The deployment.
    pub name: Name,
    /// The store path that certainly runs. The machine has all that it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nar_id: Option<StorePath>,
    /// The revision that certainly runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Since when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The state, as in `clavel-agent status --json`.
    pub state: String,
}

impl AgentStatus {
    /// Whether it says the same as `other`, whenever each was written.
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        Self { at: other.at, ..self.clone() } == *other
    }

    /// The store paths of which it has all that they need.
    pub fn whole_paths(&self) -> impl Iterator<Item = &StorePath> {
        self.deployments.iter().filter_map(|deployment| deployment.nar_id.as_ref())
    }
}

impl BranchFile for AgentStatus {
    const KIND: &'static str = "Status";
    const MAX_BYTES: u64 = 1 << 20;
}

impl Payload for AgentStatus {
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.status.v1+json";

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}
