//! What the next pass would do with each deployment. It fetches nothing into the store, activates nothing and records nothing.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::super::activate::Activation;
use super::super::decide::{Decision, Retry, SkipReason, decide};
use super::super::fetch::fetch;
use super::super::lifecycle::{Lifecycle, NextBoot, UnitReference};
use super::super::mirrors::MirrorChoice;
use super::super::occupancy;
use super::super::state::StateError;
use super::super::verify::{Order, Verdict};
use super::Pass;
use super::outcome::PassError;
use crate::changes::{ClosureChange, compare_closures};
use crate::config::AgentConfig;
use crate::model::{Name, Revision, StorePath, UnitType, describe_error};
use crate::process::Invocation;
use crate::store::CacheEntries;

/// How long a system may take to say what a switch to it would do.
const DRY_TIME: Duration = Duration::from_mins(1);
/// The most lines of what it says.
const MAX_LINES: usize = 40;

/// What the next pass would do with one deployment.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedDeployment {
    /// The deployment.
    pub deployment: Name,
    /// What would be done.
    pub action: PlannedAction,
    /// Why that, where it is not said by the action alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The revision that was confirmed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PlannedRevision>,
    /// The newest revision of the branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<PlannedRevision>,
    /// Whether its store path is on this machine already.
    pub is_here: bool,
    /// What differs inside; absent where nothing would be activated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<ClosureChange>,
    /// Why it is not known what differs inside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes_unknown: Option<String>,
    /// What the new system says that a switch to it would do, in its own words. Only a NixOS that is on this machine does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub switch: Vec<String>,
}

/// A revision and its store path.
#[derive(Debug, Clone, PartialEq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlannedRevision {
    /// Its number.
    pub revision: Revision,
    /// The store path.
    pub nar_id: StorePath,
}

/// What would be done with a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PlannedAction {
    /// Nothing: it runs already.
    UpToDate,
    /// It is recorded, since its store path runs already.
    Adopt,
    /// It is fetched where it is not here, and activated.
    Activate,
    /// It is fetched where it is not here, and set for the next boot.
    SetForNextBoot,
    /// Nothing, until the machine boots.
    AwaitReboot,
    /// Nothing, until enough approvers have signed it.
    AwaitApproval,
    /// Nothing: this revision has failed.
    Hold,
    /// What ran before is activated again.
    GoBack,
    /// Nothing: it was withdrawn, and goes on running.
    Withdrawn,
    /// Nothing: this machine cannot run it.
    Refuse,
}

impl PlannedAction {
    /// The action in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::UpToDate => "up to date",
            Self::Adopt => "record it, it runs already",
            Self::Activate => "activate",
            Self::SetForNextBoot => "set for the next boot",
            Self::AwaitReboot => "waits for a reboot",
            Self::AwaitApproval => "waits for approvals",
            Self::Hold => "hold, it has failed",
            Self::GoBack => "go back",
            Self::Withdrawn => "withdrawn, goes on running",
            Self::Refuse => "refuse",
        }
    }

    /// Whether the unit would be changed, now or at its next boot.
    pub fn activates(self) -> bool {
        matches!(self, Self::Activate | Self::SetForNextBoot)
    }
}

/// Reads the branch, and says what the next pass would do.
pub async fn plan(config: &AgentConfig) -> Result<Vec<PlannedDeployment>, PassError> {
    let mut pass = Pass::for_reading(config)?;
    let io = |source| StateError::Io { act: "make a folder in", path: std::env::temp_dir(), source };
    let folder = tempfile::tempdir().map_err(io)?;
    let fetched = fetch(config, folder.path(), &|_| ()).await;
    let MirrorChoice { taken, .. } = pass.look(fetched)?;
    let Some(Verdict { orders, withdrawn, unfit, .. }) = taken.verdict.map(|verdict| *verdict) else {
        return Ok(Vec::new());
    };
    let mut planned = Vec::new();
    for order in &orders {
        planned.push(pass.plan_order(order).await);
    }
    planned.extend(withdrawn.into_iter().map(|name| pass.plan_nothing(name, PlannedAction::Withdrawn, None)));
    let refused = |(name, why)| pass.plan_nothing(name, PlannedAction::Refuse, Some(describe_error(&why)));
    planned.extend(unfit.into_iter().map(refused));
    Ok(planned)
}

/// What is decided about an order: the action, and why.
fn action_of(decision: Decision, next_boot: Option<&NextBoot>) -> (PlannedAction, Option<String>) {
    let reasons = |next_boot: &NextBoot| (!next_boot.because.is_empty()).then(|| next_boot.because.join(", "));
    match decision {
        Decision::UpToDate => (PlannedAction::UpToDate, None),
        Decision::Adopt => (PlannedAction::Adopt, None),
        Decision::Apply => match next_boot {
            Some(next_boot) => (PlannedAction::SetForNextBoot, reasons(next_boot)),
            None => (PlannedAction::Activate, None),
        },
        Decision::Skip(SkipReason::AwaitingReboot(next_boot)) => (PlannedAction::AwaitReboot, reasons(&next_boot)),
        Decision::Skip(SkipReason::Unapproved(approvals)) => {
            (PlannedAction::AwaitApproval, Some(approvals.to_string()))
        }
        Decision::Skip(SkipReason::FailedBefore(failed)) => (PlannedAction::Hold, Some(failed.failure.error.clone())),
        Decision::Skip(SkipReason::GoingBack) => (PlannedAction::GoBack, None),
    }
}

impl Pass<'_> {
    fn plan_nothing(&self, deployment: Name, action: PlannedAction, why: Option<String>) -> PlannedDeployment {
        let from = self.state.deployments.get(&deployment).and_then(Lifecycle::last_confirmed);
        let from = from.map(|running| PlannedRevision { revision: running.revision, nar_id: running.nar_id.clone() });
        PlannedDeployment {
            deployment,
            action,
            why,
            from,
            to: None,
            is_here: false,
            changes: None,
            changes_unknown: None,
            switch: Vec::new(),
        }
    }

    async fn plan_order(&self, order: &Order) -> PlannedDeployment {
        let name = &order.deployment.name;
        let path = &order.deployment.specification.template.nar_id;
        let (known, unit) = (self.state.deployments.get(name), UnitReference::from(order));
        let activation = self.activation_of(&unit);
        let current = activation.as_ref().ok().and_then(Activation::current);
        let ran = occupancy::ran_before(&unit.name, &self.state.deployments, current);
        let decision = decide(order, known, &self.profile_target(&unit, known), Retry::NewRevisions);
        let next_boot = self.next_boot_of(order, ran.as_ref());
        let (action, why) = match activation {
            Err(error) => (PlannedAction::Refuse, Some(describe_error(&error))),
            Ok(_) => action_of(decision, next_boot.as_ref()),
        };
        let mut planned = self.plan_nothing(name.clone(), action, why);
        planned.to = Some(PlannedRevision { revision: order.deployment.revision, nar_id: path.clone() });
        planned.is_here = self.store.files_of(path).exists();
        if action.activates() {
            match self.compare(ran.as_ref(), order, planned.is_here).await {
                Ok(changes) => planned.changes = Some(changes),
                Err(why) => planned.changes_unknown = Some(why),
            }
        }
        if action == PlannedAction::Activate && unit.unit_type == UnitType::Nixos && planned.is_here {
            planned.switch = dry_activate(&self.store.files_of(path)).await.unwrap_or_else(|why| vec![why]);
        }
        planned
    }

    /// What differs between the closures of what `ran` and of the new path, which is here or in one of its caches.
    async fn compare(&self, ran: Option<&StorePath>, order: &Order, is_here: bool) -> Result<ClosureChange, String> {
        let template = &order.deployment.specification.template;
        let new = std::slice::from_ref(&template.nar_id);
        let old = match ran {
            Some(ran) => self.store.closures_here(std::slice::from_ref(ran)).await,
            None => Ok(CacheEntries::new()),
        };
        let old = old.map_err(|error| describe_error(&error))?;
        let mut found = Err("none of its caches is named".to_owned());
        if is_here {
            found = self.store.closures_here(new).await.map_err(|error| describe_error(&error));
        } else {
            for cache in template.substituters.iter() {
                found = self.store.look_up_closure(cache, new).await.map_err(|error| describe_error(&error));
                if found.is_ok() {
                    break;
                }
            }
        }
        // The systems themselves are told as such.
        let is_inside = |path: &&StorePath| **path != template.nar_id && ran != Some(*path);
        Ok(compare_closures(old.keys().filter(is_inside), found?.keys().filter(is_inside)))
    }
}

/// What a NixOS says that a switch to it would do, in its own words. This changes nothing (NixOS's manual, "dry-activate").
async fn dry_activate(files: &Path) -> Result<Vec<String>, String> {
    let run = Invocation::new(files.join("bin/switch-to-configuration")).arg("dry-activate").within(DRY_TIME);
    let output =
        run.run().await.map_err(|error| format!("it cannot say what would happen: {}", describe_error(&error)))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &output.stderr;
    Ok(said.lines().filter(|line| line.starts_with("would ")).take(MAX_LINES).map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_told_with_its_reason() {
        let next_boot = NextBoot { because: vec!["dbus → dbus-broker".to_owned()], set_in: None };
        let boot = Some("dbus → dbus-broker".to_owned());
        assert_eq!(action_of(Decision::Apply, None), (PlannedAction::Activate, None));
        assert_eq!(action_of(Decision::Apply, Some(&next_boot)), (PlannedAction::SetForNextBoot, boot.clone()));
        let skip = Decision::Skip(SkipReason::AwaitingReboot(next_boot));
        assert_eq!(action_of(skip, None), (PlannedAction::AwaitReboot, boot));
        assert_eq!(action_of(Decision::UpToDate, None), (PlannedAction::UpToDate, None));
    }
}
