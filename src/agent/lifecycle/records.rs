//! The records that the states of a deployment carry. No I/O, and no transition.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::model::{Checks, Map, Name, Probation, Revision, Sha256Digest, StorePath, Timestamp, UnitType};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// A revision on its way to a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// The unit that it is for.
    pub unit: UnitReference,
    /// The revision.
    pub candidate: Candidate,
    /// How often its activation was begun.
    pub attempts: u32,
    /// The path that is activated again if it fails.
    pub way_back: WayBack,
    /// A store path that failed on the unit, where nothing ran before it. It is no way back, although the profile may lead there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_back_to: Option<StorePath>,
    /// Where it is to run from the next boot of the machine on, and not at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_boot: Option<NextBoot>,
    /// What it has to prove after its activation.
    #[serde(default)]
    pub proof: Proof,
    /// The revision that was confirmed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningDeployment>,
}

/// An activation for the next boot of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NextBoot {
    /// Why a switch is not safe; empty where the deployment or the machine asks for the next boot.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub because: Vec<String>,
    /// The kernel's name for the boot before the next one; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_in: Option<String>,
}

/// What a revision has to prove on probation, recorded before the switch, so that a probation needs no branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proof {
    /// The checks of the deployment.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub checks: Checks,
    /// Its settings of a probation.
    #[serde(default)]
    pub probation: Probation,
    /// The mirrors that answered before the switch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// The units of systemd that had failed before the switch.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub failed_units: BTreeSet<String>,
    /// Whether the agent ended in order during the probation. Then it is most likely not the revision that ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_paused: bool,
    /// How often the agent has ended in order during the probation.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pauses: u32,
}

/// The return to what ran before a revision that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollback {
    /// The unit.
    pub unit: UnitReference,
    /// The revision that failed.
    pub candidate: Candidate,
    /// How it failed.
    pub failure: ActivationFailure,
    /// The store path that is activated again.
    pub to: StorePath,
    /// Whether the revision was only set for the next boot, so that what runs is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_ran: bool,
    /// How often its activation was begun.
    pub tries: u32,
    /// The last try that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<RollbackFailure>,
    /// The revision that was confirmed last. It is not certain that it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_confirmed: Option<RunningDeployment>,
}

/// A try of a rollback that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RollbackFailure {
    /// When.
    pub at: Timestamp,
    /// How many tries were begun until then.
    pub tries: u32,
    /// The error, for people.
    pub error: String,
}

/// A revision that failed, and what became of the unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FailedRollout {
    /// The unit that it was for.
    pub unit: UnitReference,
    /// The revision that failed.
    pub candidate: Candidate,
    /// How it failed.
    pub failure: ActivationFailure,
    /// The result of the rollback.
    pub rollback: RollbackResult,
    /// The revision that was confirmed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningDeployment>,
}

/// A unit, as far as an activation needs it. It is recorded so that a rollback needs no branch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitReference {
    /// Its name.
    pub name: Name,
    /// Its type, which says how it is activated.
    #[serde(rename = "type")]
    pub unit_type: UnitType,
}

/// A revision that is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Candidate {
    /// Its number.
    pub revision: Revision,
    /// The digest of the document's content.
    #[serde(rename = "content")]
    pub content_digest: Sha256Digest,
    /// The store path that it names.
    pub nar_id: StorePath,
}

/// A revision that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunningDeployment {
    /// The unit that it runs on.
    pub unit: UnitReference,
    /// Its number.
    pub revision: Revision,
    /// The digest of the document's content.
    #[serde(rename = "content")]
    pub content_digest: Sha256Digest,
    /// The store path that runs.
    pub nar_id: StorePath,
    /// When it was confirmed.
    pub since: Timestamp,
}

/// How a revision failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActivationFailure {
    /// When.
    pub at: Timestamp,
    /// How many attempts were made.
    pub attempts: u32,
    /// The error, for people.
    pub error: String,
}

/// The target of a rollback. It is recorded before the first attempt moves the profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WayBack {
    /// Nothing is recorded yet, because no attempt was made.
    NotRecorded,
    /// The unit ran nothing before.
    Nothing,
    /// The unit ran this store path before.
    Path(StorePath),
}

/// The result of a rollback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RollbackResult {
    /// The unit runs again what it ran before.
    Restored,
    /// The unit runs this path, as it did before, from the next boot of its machine on.
    AfterReboot(StorePath),
    /// Nothing ran before.
    NothingBefore,
    /// The same store path ran before, and would fail again.
    SameBefore,
}

impl NextBoot {
    /// The reasons as they end a sentence; empty where somebody asked for the next boot.
    pub fn why(&self) -> String {
        if self.because.is_empty() { String::new() } else { format!(", because {}", self.because.join(", ")) }
    }
}

impl WayBack {
    /// The store path that ran before, where one is recorded.
    pub fn path(&self) -> Option<&StorePath> {
        match self {
            Self::Path(path) => Some(path),
            Self::NotRecorded | Self::Nothing => None,
        }
    }
}

impl Rollout {
    /// The store path that the unit goes back to, where that is another one.
    pub(in super::super) fn target_of_way_back(&self) -> Option<&StorePath> {
        self.way_back.path().filter(|to| **to != self.candidate.nar_id)
    }
}

impl Rollback {
    /// How many tries were begun and did not end, since one ended.
    pub(in super::super) fn interruptions(&self) -> u32 {
        self.tries - self.last_failure.as_ref().map_or(0, |failure| failure.tries.min(self.tries))
    }
}

impl Candidate {
    pub(super) fn running_since(self, unit: UnitReference, since: Timestamp) -> RunningDeployment {
        let Self { revision, content_digest, nar_id } = self;
        RunningDeployment { unit, revision, content_digest, nar_id, since }
    }
}
