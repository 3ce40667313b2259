//! The root: the keys of each role, and the policies for approvals.

use std::num::NonZeroU8;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    BranchFile, Deployment, Epoch, FleetId, Format, IndexAgePolicy, Invalid, Kind, List, Name, Pattern, Payload,
    RoleKey, RootVersion, Schema, Timestamp,
};

/// The most keys that one role may have.
pub const MAX_KEYS: usize = 64;

/// The most signatures of one file.
pub const MAX_SIGNATURES: usize = 16;

/// The keys of each role and the approval policies, at one version (The Update Framework, section 4.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Root {
    /// The deployments that need approvals.
    pub approvals: List<ApprovalPolicy, 256>,
    /// The epoch. A higher one makes everything that was signed before invalid, and counters start again.
    pub epoch: Epoch,
    /// The time from which on it is not valid.
    pub expires: Timestamp,
    /// The fleet that it belongs to. It is absent in the first root, whose digest it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetId>,
    /// The format that its readers have to know, and that its publishers may write.
    #[serde(default = "Format::first")]
    pub format: Format,
    /// The agents of sites that are rarely visited, and how old an index may be for them.
    #[serde(default, rename = "indexAges", skip_serializing_if = "List::is_empty")]
    pub index_ages: List<IndexAgePolicy, 256>,
    /// The kind: Root.
    pub kind: Kind<Self>,
    /// The roles.
    pub roles: Roles,
    /// The version of this schema.
    pub schema: Schema,
    /// The version, which goes up by one.
    pub version: RootVersion,
}

impl BranchFile for Root {
    const KIND: &'static str = "Root";
    const MAX_BYTES: u64 = 256 << 10;
    const ASKS_FOR_A_FORMAT: bool = true;
}

impl Payload for Root {
    const PAYLOAD_TYPE: &'static str = "application/vnd.clavel.root.v1+json";

    fn fleet(&self) -> Option<FleetId> {
        self.fleet
    }
}

impl Root {
    /// How many approvers have to sign a revision of `deployment` before `agents` may take it; none where no policy matches.
    ///
    /// A policy matches by the name of the deployment, of its unit or of one of `agents`. The highest number counts, and it is
    /// never lower than the role's threshold. The author of the flake chooses the first two names, but not the name of an
    /// agent, which its machine's own configuration has.
    pub fn approvals_of(&self, deployment: &Deployment, agents: &[Name]) -> Option<Threshold> {
        let names = || [&deployment.name, &deployment.specification.unit].into_iter().chain(agents);
        let matching = self.approvals.iter().filter(|policy| names().any(|name| policy.pattern.matches_folded(name)));
        matching.map(|policy| policy.approvals.max(self.roles.approver.threshold)).max()
    }
}

/// The roles of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Roles {
    /// The role that approves deployments.
    pub approver: Role,
    /// The role that signs the index and the documents.
    pub publisher: Role,
    /// The role that signs the next root.
    pub root: Role,
}

/// Keys, and how many of them have to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Role {
    /// The keys.
    pub keys: List<RoleKey, MAX_KEYS>,
    /// How many different keys have to sign.
    pub threshold: Threshold,
}

/// A policy that some deployments need approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalPolicy {
    /// How many approvers have to sign.
    pub approvals: Threshold,
    /// The names that it matches: those of deployments, of their units, and of the agents that take them.
    #[serde(rename = "match")]
    pub pattern: Pattern,
}

/// The highest threshold. A root that puts all keys of a role in place of others is signed by the thresholds of both, in one file.
const HIGHEST_THRESHOLD: usize = MAX_SIGNATURES / 2;

/// How many different keys have to sign: 1 to 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Threshold(NonZeroU8);

impl Threshold {
    /// One key.
    pub const ONE: Self = Self(NonZeroU8::MIN);

    /// The number.
    pub fn get(self) -> usize {
        self.0.get().into()
    }
}

impl TryFrom<u64> for Threshold {
    type Error = Invalid;
    fn try_from(number: u64) -> Result<Self, Invalid> {
        let number_of_keys = u8::try_from(number).ok().filter(|n| usize::from(*n) <= HIGHEST_THRESHOLD);
        let rule = || {
            format!(
                "it has to be from 1 to {HIGHEST_THRESHOLD}: a file holds at most {MAX_SIGNATURES} signatures, and a root that \
                 replaces all keys needs those of the old ones and of the new ones"
            )
        };
        let bad = || Invalid::new("a threshold", &number.to_string(), rule());
        number_of_keys.and_then(NonZeroU8::new).map(Self).ok_or_else(bad)
    }
}

impl std::str::FromStr for Threshold {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let number: u64 = text.parse().map_err(|_| Invalid::new("a threshold", text, "it is not a whole number"))?;
        number.try_into()
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer)?.try_into().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "integer", "minimum": 1, "maximum": HIGHEST_THRESHOLD })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root whose policies ask for 1 approval of `db-*` and 3 of `*-prod`, with that threshold of the approver's role.
    fn root_with_policies(threshold: u64) -> Root {
        let policy = |pattern: &str, approvals: u64| ApprovalPolicy {
            approvals: approvals.try_into().unwrap(),
            pattern: pattern.parse().unwrap(),
        };
        let role = |threshold: u64| Role { keys: List::default(), threshold: threshold.try_into().unwrap() };
        Root {
            approvals: vec![policy("db-*", 1), policy("*-prod", 3)].try_into().unwrap(),
            epoch: Epoch::FIRST,
            expires: "2026-01-01T00:00:00Z".parse().unwrap(),
            fleet: None,
            format: Format::FIRST,
            index_ages: List::default(),
            kind: Kind::THIS,
            roles: Roles { approver: role(threshold), publisher: role(1), root: role(1) },
            schema: Schema::V1,
            version: RootVersion::FIRST,
        }
    }

    fn deployment(name: &str, unit: &str) -> Deployment {
        let json = serde_json::json!({
            "fleet": "0".repeat(64), "kind": "Deployment", "metadata": {}, "name": name, "revision": 1,
            "schema": "clavel/v1", "specification": { "unit": unit, "template": {
                "metadata": {}, "narId": "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-a",
                "substituters": [], "substituters-public-keys": [] } } });
        serde_json::from_value(json).unwrap()
    }

    /// How many approvals the deployment `name` for `unit` needs, where `agent` takes it.
    fn needed(threshold: u64, name: &str, unit: &str, agent: &str) -> Option<usize> {
        let agents = [agent.parse().unwrap()];
        root_with_policies(threshold).approvals_of(&deployment(name, unit), &agents).map(Threshold::get)
    }

    #[test]
    fn the_policy_with_the_highest_number_counts() {
        let of = |threshold, name| needed(threshold, name, name, name);
        assert_eq!(of(1, "web-1"), None);
        assert_eq!(of(1, "db-1"), Some(1));
        assert_eq!(of(1, "db-prod"), Some(3));
        assert_eq!(of(2, "db-1"), Some(2));
    }

    #[test]
    fn each_name_of_deployment_unit_and_agent_can_need_approval() {
        assert_eq!(needed(1, "x", "y", "z"), None);
        assert_eq!(needed(1, "db-1", "y", "z"), Some(1));
        assert_eq!(needed(1, "x", "db-1", "z"), Some(1));
        assert_eq!(needed(1, "x", "y", "db-1"), Some(1));
        // The highest number of all policies that match counts.
        assert_eq!(needed(1, "db-1", "x-prod", "z"), Some(3));
        assert_eq!(needed(1, "x-prod", "y", "db-1"), Some(3));
        assert_eq!(root_with_policies(1).approvals_of(&deployment("x", "y"), &[]), None);
        let agents = ["z", "db-1", "a-prod"].map(|agent| agent.parse().unwrap());
        assert_eq!(root_with_policies(1).approvals_of(&deployment("x", "y"), &agents).map(Threshold::get), Some(3));
        // Case does not matter.
        assert_eq!(needed(1, "x", "DB-1", "z"), Some(1));
    }

    #[test]
    fn a_threshold_is_at_most_half_of_the_signatures_of_a_file() {
        for bad in ["0", "9", "16", "64", "65", "-1", "1.0", "256", "\"1\""] {
            assert!(serde_json::from_str::<Threshold>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Threshold>("8").unwrap().get(), HIGHEST_THRESHOLD);
        let error = "9".parse::<Threshold>().unwrap_err().to_string();
        assert!(error.contains("from 1 to 8: a file holds at most 16 signatures"), "{error}");
    }
}
