//! An approver's statement that a deployment may be applied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BranchFile, Deployment, Epoch, FleetId, Kind, Name, Payload, Revision, Schema, Sha256Digest};

/// The approval of one revision of a deployment, with its content. The approver signs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// The digest of the deployment's content: the SHA-256 of its canonical form.
    pub content_digest: Sha256Digest,
    /// The epoch of the root under which it was signed. Revisions start again in each epoch.
    pub epoch: Epoch,
    /// The fleet that the deployment belongs to.
    pub fleet: FleetId,
    /// The kind: Approval.
    pub kind: Kind<Self>,
    /// The deployment's name.
    pub name: Name,
    /// The deployment's revision.
    pub revision: Revision,
    /// The version of this schema.
    pub schema: Schema,
}

impl Approval {
    /// The approval of `deployment`, whose content has the digest `content_digest`, in `epoch`.
    pub fn of(deployment: &Deployment, content_digest: Sha256Digest, epoch: Epoch) -> Self {
        let Deployment { fleet, name, revision, .. } = deployment.clone();
        Self { content_digest, epoch, fleet, kind: Kind::THIS, name, revision, schema: Schema::V1 }
    }
}

impl BranchFile for Approval {
    const KIND: &'static str = "Approval";
    const MAX_BYTES: u64 = 16 << 10;
}

impl Payload for Approval {
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.approval.v1+json";

    fn fleet(&self) -> Option<FleetId> {
        Some(self.fleet)
    }
}
