//! What may be published already, where deployments wait for their caches. No I/O: the plan and what the caches said go
//! in; what is held back, and why, comes out.
//!
//! A deployment that waits stays on the branch as it is, and so does one that is frozen: somebody holds it, or what it is
//! to stay at is lost. What is on the branch has to
//! fit together meanwhile:
//! 1. the unit of what runs there stays as it is too, and is not withdrawn;
//! 2. another deployment to a unit that stays waits with it;
//! 3. an agent that would get or lose a deployment that stays does so too: none is to name what is not there yet, or to
//!    run on another machine what was meant for this one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Serialize;

use super::changes::{Change, Gone, Kept, KeptBack};
use super::plan::{BranchState, Existing, ExistingDocument, Plan};
use super::survey::{CacheState, Supply, Survey};
use crate::model::PublishPolicy;
use crate::model::{
    Agent, AgentSpecification, Deployment, Document, Folder, Name, NarTemplateSpecification, Specification, StorePath,
    Substituter,
};

/// Names of documents that stay on the branch as they are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) deployments: BTreeSet<Name>,
    pub(super) units: BTreeSet<Name>,
    pub(super) agents: BTreeSet<Name>,
    /// Deployments that do not: they are to be written anew though their specification may be the same, since they lack
    /// their pin.
    pub(super) unpinned: BTreeSet<Name>,
}

/// The deployments that are not published yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Unready {
    /// Those that will be when a cache has them.
    pub waiting: Vec<Waiting>,
    /// Those that no cache can ever make ready.
    pub hopeless: Vec<Hopeless>,
}

/// A deployment that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The deployment.
    pub name: Name,
    /// What for.
    #[serde(flatten)]
    pub awaited: Awaited,
}

/// What a deployment waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Awaited {
    /// For a cache to have its path.
    Cache {
        /// The path.
        path: StorePath,
        /// The deployment's own path, where it is another one that is waited for.
        #[serde(skip_serializing_if = "Option::is_none")]
        needed_by: Option<StorePath>,
        /// What each of its caches said.
        caches: Vec<CacheState>,
    },
    /// For another deployment to its unit, since the unit changes with both.
    Unit {
        /// The unit.
        unit: Name,
    },
}

/// A deployment that would wait for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hopeless {
    /// The deployment.
    pub name: Name,
    /// What it lacks.
    pub lack: Missing,
}

/// What a deployment lacks that could be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// A cache.
    Cache,
    /// A key.
    Key,
    /// A cache that can be asked.
    CacheToAsk,
}

/// Whether a deployment may be published.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    Waits(Awaited),
    Hopeless(Missing),
}

/// The deployments of `plan` that the caches are asked for: those that follow their source.
pub(super) fn followers(plan: &Plan, frozen: &BTreeSet<Name>) -> Vec<Deployment> {
    plan.deployments.iter().filter(|deployment| !frozen.contains(&deployment.name)).cloned().collect()
}

/// The deployments that are lost, and that nothing takes the place of by itself, where `policy` is when one is published.
pub(super) fn gone(branch: &BranchState, policy: PublishPolicy) -> Vec<Gone> {
    let lost = branch.deployments.iter().filter(|(_, document)| matches!(document, ExistingDocument::Altered(_)));
    let told = lost.filter_map(|(name, document)| {
        let kept = match policy {
            _ if branch.holds.contains_key(name) => Kept::Hold,
            PublishPolicy::WhenPinned => Kept::Pin,
            PublishPolicy::WhenEvaluated | PublishPolicy::WhenCached => return None,
        };
        Some(Gone { name: name.clone(), revision: document.revision(), kept })
    });
    told.collect()
}

fn readiness(template: &NarTemplateSpecification, survey: &Survey<'_>) -> Readiness {
    if template.substituters.is_empty() {
        return Readiness::Hopeless(Missing::Cache);
    }
    if template.substituters_public_keys.is_empty() {
        return Readiness::Hopeless(Missing::Key);
    }
    // A machine to log in to is not asked.
    if !template.substituters.iter().any(Substituter::is_of_files) {
        return Readiness::Hopeless(Missing::CacheToAsk);
    }
    match survey.supply(template) {
        Supply::There(_) => Readiness::Ready,
        Supply::Lacks { path, caches } => {
            let needed_by = (path != template.nar_id).then(|| template.nar_id.clone());
            Readiness::Waits(Awaited::Cache { path, needed_by, caches })
        }
    }
}

/// What of `plan` is held back with what is `frozen`, and which deployments are not ready. Where nothing waits for caches
/// nobody asked them.
pub(super) fn hold_back(
    branch: &BranchState,
    plan: &Plan,
    frozen: &BTreeSet<Name>,
    survey: Option<&Survey<'_>>,
) -> (Held, Unready) {
    let mut unready = Unready::default();
    let mut held = Held { deployments: frozen.clone(), ..Held::default() };
    let asked = followers(plan, frozen);
    for (Deployment { name, specification, .. }, survey) in asked.iter().filter_map(|asked| Some((asked, survey?))) {
        match readiness(&specification.template, survey) {
            Readiness::Ready => continue,
            Readiness::Waits(awaited) => unready.waiting.push(Waiting { name: name.clone(), awaited }),
            Readiness::Hopeless(lack) => unready.hopeless.push(Hopeless { name: name.clone(), lack }),
        }
        held.deployments.insert(name.clone());
    }
    loop {
        held.units = units_that_stay(branch, plan, &held.deployments);
        let waits_with = |deployment: &&Deployment| {
            !held.deployments.contains(&deployment.name) && held.units.contains(&deployment.specification.unit)
        };
        let with_others: Vec<&Deployment> = plan.deployments.iter().filter(waits_with).collect();
        if with_others.is_empty() {
            break;
        }
        for Deployment { name, specification, .. } in with_others {
            let awaited = Awaited::Unit { unit: specification.unit.clone() };
            unready.waiting.push(Waiting { name: name.clone(), awaited });
            held.deployments.insert(name.clone());
        }
    }
    held.agents = agents_that_stay(branch, plan, &held.deployments);
    (held, unready)
}

/// The agents that would get or lose what is held back.
fn agents_that_stay(branch: &BranchState, plan: &Plan, deployments: &BTreeSet<Name>) -> BTreeSet<Name> {
    let held = |agent: &AgentSpecification| -> BTreeSet<Name> {
        agent.deployments.iter().filter(|name| deployments.contains(*name)).cloned().collect()
    };
    let after: BTreeMap<&Name, BTreeSet<Name>> =
        plan.agents.iter().map(|agent| (&agent.name, held(&agent.specification))).collect();
    let changes = plan.changes.iter().filter(|change| change.path.folder() == Folder::Agents);
    let stays = |name: &&Name| {
        let after = after.get(name).cloned().unwrap_or_default();
        match branch.agents.get(*name) {
            None => !after.is_empty(),
            Some(there) => match there.known() {
                Some(agent) => held(&agent.specification) != after,
                // It is mended, unless it would name what is not there.
                None => after.iter().any(|name| !branch.deployments.contains_key(name)),
            },
        }
    };
    changes.map(|change| change.path.name()).filter(stays).cloned().collect()
}

/// The units that the plan would change or withdraw, and that what is held back runs on.
fn units_that_stay(branch: &BranchState, plan: &Plan, deployments: &BTreeSet<Name>) -> BTreeSet<Name> {
    let unit = |name: &Name| Some(&branch.deployments.get(name)?.known()?.specification.unit);
    let in_use: BTreeSet<&Name> = deployments.iter().filter_map(unit).collect();
    // What nobody knows any more is of no use to anybody: it is mended at once.
    let is_lost = |name: &&Name| branch.units.get(*name).is_some_and(|unit| unit.known().is_none());
    let changes = plan.changes.iter().filter(|change| change.path.folder() == Folder::Units);
    let names = changes.map(|change| change.path.name()).filter(|name| !is_lost(name));
    names.filter(|name| in_use.contains(name)).cloned().collect()
}

/// What of `whole` somebody's hold keeps back: the change of what is frozen, of its unit, and of the agents that name it.
pub(super) fn kept_back(branch: &BranchState, whole: &Plan, held: &Held) -> Vec<KeptBack> {
    let takes = |agent: &Agent, name: &Name| agent.specification.deployments.contains(name);
    let (deployments, units) = (by_name(&whole.deployments), by_name(&whole.units));
    let agents = by_name(&whole.agents);
    let all = branch.holds.iter().map(|(name, hold)| {
        let unit = branch.deployments.get(name).and_then(ExistingDocument::known).map(|d| &d.specification.unit);
        let is_kept = |change: &&Change| {
            let of = change.path.name();
            match change.path.folder() {
                Folder::Deployments => of == name && !says_the_same(&branch.deployments, &deployments, of),
                Folder::Units => {
                    let is_held = held.units.contains(of) && unit == Some(of);
                    is_held && !says_the_same(&branch.units, &units, of)
                }
                Folder::Agents => {
                    let before = branch.agents.get(of).and_then(ExistingDocument::known);
                    let after = agents.get(of);
                    let named = before.is_some_and(|agent| takes(agent, name));
                    held.agents.contains(of) && (named || after.is_some_and(|agent| takes(agent, name)))
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

/// Whether a document is only to be signed anew.
fn says_the_same<S: Specification>(before: &Existing<S>, after: &ByName<'_, S>, name: &Name) -> bool {
    let before = before.get(name).and_then(ExistingDocument::known);
    before.zip(after.get(name)).is_some_and(|(before, after)| before.specification == after.specification)
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        let Self { deployments, units, agents, unpinned: _ } = self;
        deployments.is_empty() && units.is_empty() && agents.is_empty()
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.awaited {
            Awaited::Cache { path, needed_by, caches } => {
                let caches: Vec<String> = caches.iter().map(ToString::to_string).collect();
                let needed_by = needed_by.as_ref().map(|needs| format!(", which {needs} needs,")).unwrap_or_default();
                write!(f, "{}: waits for {path}{needed_by} in {}", self.name, caches.join(", or in "))
            }
            Awaited::Unit { unit } => {
                write!(f, "{}: waits for the other deployments to {unit}, which changes with them", self.name)
            }
        }
    }
}

impl fmt::Display for Hopeless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lack = match self.lack {
            Missing::Cache => "it names no cache",
            Missing::Key => "it names no key of its caches",
            Missing::CacheToAsk => "none of its caches is asked: only https://, http:// and file:// are",
        };
        write!(f, "{} is not published, and with `publish.wait-for-cache` never will be: {lack}", self.name)
    }
}

#[cfg(test)]
mod tests;
