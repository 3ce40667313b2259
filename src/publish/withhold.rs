//! The documents that a publication has to leave as they are, where deployments wait for their caches or are held. No I/O:
//! the plan and the caches' answers go in; the withheld documents and the reasons come out.
//!
//! A deployment that waits stays on the branch as it is. So does one that an operator holds, and one whose document is lost.
//! The documents on the branch have to fit together meanwhile:
//! 1. the unit of a deployment that stays is neither changed nor withdrawn;
//! 2. another deployment to a unit that stays waits with it;
//! 3. an agent that would gain or lose a deployment that stays does not change either: no agent may name a deployment that
//!    is not there yet, or run on another machine a deployment that was meant for this one.

use std::collections::{BTreeMap, BTreeSet};

use super::branch_state::{BranchState, Existing, ExistingDocument};
use super::document_change::DocumentChange;
use super::left_out::{Awaited, KeptBack, LostDeployment, MissingSetting, Protection, Unpublishable, Unready, Waiting};
use super::plan::Plan;
use super::survey::{Availability, CacheSurvey};
use super::withheld::Withheld;
use crate::model::PublishPolicy;
use crate::model::{
    Agent, AgentSpecification, Deployment, Document, Folder, Name, NarTemplateSpecification, Specification, Substituter,
};

/// Whether a deployment may be published.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    Waits(Awaited),
    Never(MissingSetting),
}

/// The deployments of `plan` for which claveld asks the caches: those that follow their source.
pub(super) fn deployments_to_look_up(plan: &Plan, fixed: &BTreeSet<Name>) -> Vec<Deployment> {
    let follow = plan.deployments.iter().filter(|deployment| !fixed.contains(&deployment.name));
    follow.map(|deployment| (*deployment).clone()).collect()
}

/// The deployments whose document is lost, and that claveld does not replace by itself under this policy.
pub(super) fn lost_deployments(branch: &BranchState, policy: PublishPolicy) -> Vec<LostDeployment> {
    let lost = branch.deployments.iter().filter(|(_, document)| matches!(document, ExistingDocument::Altered(_)));
    let protected = lost.filter_map(|(name, document)| {
        let protection = match policy {
            _ if branch.holds.contains_key(name) => Protection::Hold,
            PublishPolicy::WhenPinned => Protection::Pin,
            PublishPolicy::WhenEvaluated | PublishPolicy::WhenCached => return None,
        };
        Some(LostDeployment { name: name.clone(), revision: document.revision(), protection })
    });
    protected.collect()
}

fn readiness(template: &NarTemplateSpecification, survey: &CacheSurvey<'_>) -> Readiness {
    if template.substituters.is_empty() {
        return Readiness::Never(MissingSetting::Cache);
    }
    if template.substituters_public_keys.is_empty() {
        return Readiness::Never(MissingSetting::Key);
    }
    // Claveld does not ask a cache that it would have to log in to.
    if !template.substituters.iter().any(Substituter::serves_files) {
        return Readiness::Never(MissingSetting::CacheToAsk);
    }
    match survey.availability(template) {
        Availability::Complete(_) => Readiness::Ready,
        Availability::Incomplete { path, caches } => {
            let needed_by = (path != template.nar_id).then(|| template.nar_id.clone());
            Readiness::Waits(Awaited::Cache { path, needed_by, caches })
        }
    }
}

/// Decides which documents of `plan` stay as they are together with those in `fixed`, and which deployments are not ready. The survey is about the deployments in `asked`; there is none where nothing waits for caches.
pub(super) fn withhold(
    branch: &BranchState,
    plan: &Plan,
    fixed: &Withheld,
    asked: &[Deployment],
    survey: Option<&CacheSurvey<'_>>,
) -> (Withheld, Unready) {
    let mut unready = Unready::default();
    let mut withheld = fixed.clone();
    // A unit that does not change holds up nobody.
    let changed_units: BTreeSet<&Name> = changes_in(plan, Folder::Units).collect();
    withheld.units.retain(|unit| changed_units.contains(unit));
    for (Deployment { name, specification, .. }, survey) in asked.iter().filter_map(|asked| Some((asked, survey?))) {
        match readiness(&specification.template, survey) {
            Readiness::Ready => continue,
            Readiness::Waits(awaited) => unready.waiting.push(Waiting { name: name.clone(), awaited }),
            Readiness::Never(missing) => unready.unpublishable.push(Unpublishable { name: name.clone(), missing }),
        }
        withheld.deployments.insert(name.clone());
    }
    loop {
        withheld.units.extend(units_that_stay(branch, plan, &withheld.deployments));
        let waits_with = |deployment: &&Deployment| {
            !withheld.deployments.contains(&deployment.name) && withheld.units.contains(&deployment.specification.unit)
        };
        let planned = plan.deployments.iter();
        let with_others: Vec<&Deployment> = planned.filter(waits_with).collect();
        if with_others.is_empty() {
            break;
        }
        for Deployment { name, specification, .. } in with_others {
            let awaited = Awaited::Unit { unit: specification.unit.clone() };
            unready.waiting.push(Waiting { name: name.clone(), awaited });
            withheld.deployments.insert(name.clone());
        }
    }
    withheld.agents.extend(agents_that_stay(branch, plan, &withheld.deployments));
    (withheld, unready)
}

/// The documents in a folder that the plan changes.
fn changes_in(plan: &Plan, folder: Folder) -> impl Iterator<Item = &Name> {
    plan.changes.iter().filter(move |change| change.path.folder() == folder).map(|change| change.path.name())
}

/// The agents that would gain or lose a withheld deployment.
fn agents_that_stay(branch: &BranchState, plan: &Plan, deployments: &BTreeSet<Name>) -> BTreeSet<Name> {
    let withheld = |agent: &AgentSpecification| -> BTreeSet<Name> {
        agent.deployments.iter().filter(|name| deployments.contains(*name)).cloned().collect()
    };
    let after: BTreeMap<&Name, BTreeSet<Name>> =
        plan.agents.iter().map(|agent| (&agent.name, withheld(&agent.specification))).collect();
    let stays = |name: &&Name| {
        let after = after.get(name).cloned().unwrap_or_default();
        match branch.agents.get(*name) {
            None => !after.is_empty(),
            Some(there) => match there.known() {
                Some(agent) => withheld(&agent.specification) != after,
                // Its document is damaged: claveld repairs it, unless it would name a deployment that is not there.
                None => after.iter().any(|name| !branch.deployments.contains_key(name)),
            },
        }
    };
    changes_in(plan, Folder::Agents).filter(stays).cloned().collect()
}

/// The units that the plan would change or withdraw, although a withheld deployment runs on them.
fn units_that_stay(branch: &BranchState, plan: &Plan, deployments: &BTreeSet<Name>) -> BTreeSet<Name> {
    let unit = |name: &Name| Some(&branch.deployments.get(name)?.known()?.specification.unit);
    let in_use: BTreeSet<&Name> = deployments.iter().filter_map(unit).collect();
    // A unit whose content is unknown protects nothing: claveld repairs it at once.
    let is_lost = |name: &&Name| branch.units.get(*name).is_some_and(|unit| unit.known().is_none());
    changes_in(plan, Folder::Units)
        .filter(|name| !is_lost(name))
        .filter(|name| in_use.contains(name))
        .cloned()
        .collect()
}

/// The changes of `whole` that operators' holds keep back: of the held deployment, of its unit, and of the agents that name
/// it.
pub(super) fn kept_back(branch: &BranchState, whole: &Plan, withheld: &Withheld) -> Vec<KeptBack> {
    let takes = |agent: &Agent, name: &Name| agent.specification.deployments.contains(name);
    let (deployments, units) = (by_name(&whole.deployments), by_name(&whole.units));
    let agents = by_name(&whole.agents);
    let all = branch.holds.iter().map(|(name, hold)| {
        let unit = branch.deployments.get(name).and_then(ExistingDocument::known).map(|d| &d.specification.unit);
        let is_kept = |change: &&DocumentChange| {
            let of = change.path.name();
            match change.path.folder() {
                Folder::Deployments => of == name && !has_same_specification(&branch.deployments, &deployments, of),
                Folder::Units => {
                    let stays = withheld.units.contains(of) && unit == Some(of);
                    stays && !has_same_specification(&branch.units, &units, of)
                }
                Folder::Agents => {
                    let before = branch.agents.get(of).and_then(ExistingDocument::known);
                    let after = agents.get(of);
                    let did_name = before.is_some_and(|agent| takes(agent, name));
                    withheld.agents.contains(of) && (did_name || after.is_some_and(|agent| takes(agent, name)))
                }
            }
        };
        let changes = whole.changes.iter().filter(is_kept).cloned().collect();
        KeptBack { name: name.clone(), hold: hold.clone(), changes }
    });
    all.filter(|kept| !kept.changes.is_empty()).collect()
}

type ByName<'a, S> = BTreeMap<&'a Name, &'a Document<S>>;

fn by_name<S: Specification>(documents: &[Document<S>]) -> ByName<'_, S> {
    documents.iter().map(|document| (&document.name, document)).collect()
}

/// Whether claveld would only sign the document again, with the same specification.
fn has_same_specification<S: Specification>(before: &Existing<S>, after: &ByName<'_, S>, name: &Name) -> bool {
    let before = before.get(name).and_then(ExistingDocument::known);
    before.zip(after.get(name)).is_some_and(|(before, after)| before.specification == after.specification)
}

#[cfg(test)]
mod tests;
