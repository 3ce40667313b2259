//! The requests of an operator: hold deployments, release them, or take one back to an older revision. No I/O: the branch
//! and the request go in, a plan comes out, and claveld signs and commits it like any other plan.
//!
//! Going back publishes the old specification as a new revision, because a revision has one content for ever. The next
//! evaluation would undo that at once, so going back also holds the deployment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::branch_state::{BranchState, ExistingDocument};
use super::document_change::DocumentChange;
use super::left_out::{LostDeployment, Protection, describe_hold};
use super::pin::is_pinned;
use super::plan::{IndexPlan, Plan, PlanError, next_index_version, next_revision};
use crate::branch::{Identity, PastDeployment, RevisionLookup};
use crate::model::PublishPolicy;
use crate::model::{
    Deployment, DocumentPath, Folder, Hold, IndexVersion, MetadataValue, Name, Pattern, Revision, Timestamp,
    UnitSpecification, few,
};

/// The request of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRequest {
    /// The operation.
    pub operation: Operation,
    /// The reason; may be empty.
    pub why: MetadataValue,
    /// The person who asks, who becomes the author of the commit; none where that person is not known.
    pub person: Option<Identity>,
}

/// An operation on deployments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// The deployments stay at their revisions, whatever their sources give.
    Hold {
        /// Their names.
        deployments: Vec<Pattern>,
        /// The time from which on they follow their sources again; none where an operator has to release them.
        until: Option<Timestamp>,
    },
    /// The deployments follow their sources again.
    Release {
        /// Their names.
        deployments: Vec<Pattern>,
    },
    /// The specification of an older revision becomes the newest revision, and stays.
    RollBack {
        /// The deployment.
        name: Name,
        /// The older revision.
        to: Revision,
        /// What keys that a later root removed signed.
        removed_keys: RemovedKeys,
    },
}

/// Whether a document counts that was signed with keys that a later root of the same epoch removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemovedKeys {
    /// It does: the operator says that the keys were replaced as planned, and that nobody stole them.
    Trusted,
    /// It does not.
    NotTrusted,
}

/// The reason why claveld refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// The branch has no such deployment.
    #[error("the branch has no deployment `{0}`; `clavel list` has their names")]
    Unknown(Name),
    /// A pattern matches nothing.
    #[error("the branch has no deployment that `{0}` matches; `clavel list` has their names")]
    Unmatched(Pattern),
    /// Nothing that the pattern matches is held.
    #[error("no deployment that `{0}` matches is held: they follow their sources already")]
    NoneHeld(Pattern),
    /// The hold would be over at once.
    #[error("cannot hold anything until {0}, because that is over")]
    EndsBeforeNow(Timestamp),
    /// The branch had such a deployment.
    #[error(
        "the deployment `{name}` was withdrawn after its revision {last}; it comes back when a source gives it again"
    )]
    Withdrawn {
        /// The deployment.
        name: Name,
        /// Its last revision.
        last: Revision,
    },
    /// Claveld does not trust the document that the branch has under the name.
    #[error(
        "the document of `{0}` on the branch is altered, or not signed by a publisher; let `claveld once` repair it, and try again"
    )]
    Altered(Name),
    /// The document is lost.
    #[error("{0}")]
    Lost(LostDeployment),
    /// The old revision has no pin.
    #[error(
        "revision {revision} of `{name}` has no pin, and `publish.pin` requires one for everything that is published; change \
         the source back instead"
    )]
    NotPinned {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
    },
    /// A root removed the key that signed the branch.
    #[error(
        "the newest root removed the key that signed this branch, and claveld has not signed the branch again yet; run \
         `claveld once`, and try again"
    )]
    OlderRoot,
    /// An operator holds the deployment already.
    #[error("`{name}` is {} already; `clavel release {name}` lets it follow its source again", describe_hold(.hold))]
    HeldAlready {
        /// The deployment.
        name: Name,
        /// The hold.
        hold: Hold,
    },
    /// No operator holds the deployment.
    #[error("`{0}` is not held: it follows its source already")]
    NotHeld(Name),
    /// The history has no such revision.
    #[error("the branch has no revision {revision} of `{name}` in its history; it is at revision {present}")]
    NoSuchRevision {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
        /// The present revision.
        present: Revision,
    },
    /// The history has the revision, and no publisher of the newest root signed it.
    #[error(
        "revision {revision} of `{name}` is in the history, but no publisher of the newest root vouches for it: {why}. If its key was \
         replaced as planned, and nobody stole it, add `--trust-removed-keys`; otherwise change the source back"
    )]
    NotVouchedFor {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
        /// The reason.
        why: String,
    },
    /// The deployment is at that revision now.
    #[error("`{name}` is at revision {revision} now; `clavel hold {name}` keeps it there")]
    AtIt {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
    },
    /// The present revision has the same specification.
    #[error(
        "`{name}` is at revision {present} now, which has the same specification as revision {revision}; `clavel hold {name}` keeps it there"
    )]
    SaysTheSame {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
        /// The present revision.
        present: Revision,
    },
    /// The revision was for another unit.
    #[error(
        "revision {revision} of `{name}` was for the unit `{then}`, and it is for `{now}` now; move it back in its source"
    )]
    OtherUnit {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
        /// The unit at that time.
        then: Name,
        /// The unit now.
        now: Name,
    },
    /// The unit was of another type or arch.
    #[error(
        "revision {revision} of `{name}` was for a unit of {then}, and `{unit}` is {now} now: a system built for one does \
         not run on the other"
    )]
    UnitChanged {
        /// The deployment.
        name: Name,
        /// The requested revision.
        revision: Revision,
        /// The unit.
        unit: Name,
        /// Its type and arch at that time.
        then: String,
        /// Its type and arch now.
        now: String,
    },
    /// A counter cannot grow any further.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// What to write, and the deployments that the request is about.
#[derive(Debug)]
pub(super) struct OperationPlan {
    pub(super) plan: Plan,
    pub(super) names: Vec<Name>,
}

/// Decides what to write at `now` to fulfil `request`. `past` is what the history has of the revision to go back to.
pub(super) fn operate(
    branch: &BranchState,
    request: &OperatorRequest,
    past: &RevisionLookup,
    policy: PublishPolicy,
    now: Timestamp,
) -> Result<OperationPlan, OperateError> {
    let mut plan = Plan {
        changes: Vec::new(),
        conflicts: Vec::new(),
        deployments: Vec::new(),
        units: Vec::new(),
        agents: Vec::new(),
        holds: branch.holds.clone(),
        index: IndexPlan::Write(next_version(branch)?),
    };
    let names = match &request.operation {
        Operation::Hold { deployments, until } => {
            if let Some(until) = until.filter(|until| *until <= now) {
                return Err(OperateError::EndsBeforeNow(until));
            }
            let hold = |revision| Hold { revision, since: now, until: *until, why: request.why.clone() };
            hold_all(branch, &mut plan, &selected(deployments, &branch.deployments.keys())?, hold)?
        }
        Operation::Release { deployments } => release_all(branch, &mut plan, deployments)?,
        Operation::RollBack { name, to, removed_keys: _ } => {
            let hold = |revision| Hold { revision, since: now, until: None, why: request.why.clone() };
            roll_back(branch, &mut plan, name, *to, past, policy, hold)?;
            vec![name.clone()]
        }
    };
    Ok(OperationPlan { plan, names })
}

/// The names that the patterns choose among `known`, once each. A pattern that can match one name alone chooses it, known or not.
fn selected<'a>(
    patterns: &[Pattern],
    known: &(impl Iterator<Item = &'a Name> + Clone),
) -> Result<Vec<Name>, OperateError> {
    let mut names = BTreeSet::new();
    for pattern in patterns {
        let before = names.len();
        match pattern.as_str().parse() {
            Ok(name) if !pattern.is_wild() => drop(names.insert(name)),
            Ok(_) | Err(_) => {
                names.extend(known.clone().filter(|name| pattern.matches(name.as_str())).cloned());
                if names.len() == before {
                    return Err(OperateError::Unmatched(pattern.clone()));
                }
            }
        }
    }
    Ok(names.into_iter().collect())
}

/// Holds each of `names`. One that is held already stays at its revision, and its hold gets the new end and the new reason.
fn hold_all(
    branch: &BranchState,
    plan: &mut Plan,
    names: &[Name],
    begin: impl Fn(Revision) -> Hold,
) -> Result<Vec<Name>, OperateError> {
    let mut done = Vec::new();
    let mut unchanged = None;
    for name in names {
        let new = match branch.holds.get(name) {
            None => begin(present(branch, name)?.revision),
            Some(there) => {
                let Hold { until, why, .. } = begin(there.revision);
                let why = if why.as_str().is_empty() { there.why.clone() } else { why };
                let new = Hold { until, why, ..there.clone() };
                if new == *there {
                    unchanged.get_or_insert((name, there));
                    continue;
                }
                new
            }
        };
        plan.holds.insert(name.clone(), new);
        done.push(name.clone());
    }
    match unchanged {
        Some((name, hold)) if done.is_empty() => {
            Err(OperateError::HeldAlready { name: name.clone(), hold: hold.clone() })
        }
        Some(_) | None => Ok(done),
    }
}

fn release_all(branch: &BranchState, plan: &mut Plan, patterns: &[Pattern]) -> Result<Vec<Name>, OperateError> {
    let names = selected(patterns, &branch.holds.keys()).map_err(|error| match error {
        OperateError::Unmatched(pattern) => OperateError::NoneHeld(pattern),
        other => other,
    })?;
    for name in &names {
        // A lost document is withdrawn: the next document of its source is a new one.
        if let Some(ExistingDocument::Altered(listed)) = branch.deployments.get(name) {
            let path = DocumentPath::new(Folder::Deployments, name.clone());
            plan.changes.push(DocumentChange { path, from: Some(*listed), to: None, repaired: false, system: None });
        } else if !branch.holds.contains_key(name) {
            present(branch, name)?;
            return Err(OperateError::NotHeld(name.clone()));
        }
        plan.holds.remove(name);
    }
    Ok(names)
}

fn roll_back(
    branch: &BranchState,
    plan: &mut Plan,
    name: &Name,
    revision: Revision,
    past: &RevisionLookup,
    policy: PublishPolicy,
    hold: impl Fn(Revision) -> Hold,
) -> Result<(), OperateError> {
    let present = present(branch, name)?;
    let before = revision_to_go_back_to(branch, present, revision, past)?;
    if policy == PublishPolicy::WhenPinned && !is_pinned(&before.specification) {
        return Err(OperateError::NotPinned { name: name.clone(), revision });
    }
    let path = DocumentPath::new(Folder::Deployments, name.clone());
    let to = next_revision(&path, present.revision)?;
    let document = Deployment { revision: to, ..before.clone() };
    plan.deployments.push(document);
    plan.changes.push(DocumentChange {
        path,
        from: Some(present.revision),
        to: Some(to),
        repaired: false,
        system: None,
    });
    plan.holds.insert(name.clone(), hold(to));
    Ok(())
}

/// The version of the index after the operation.
fn next_version(branch: &BranchState) -> Result<IndexVersion, OperateError> {
    if branch.is_of_an_older_root {
        return Err(OperateError::OlderRoot);
    }
    match &branch.index {
        Some((index, _)) => Ok(next_index_version(index.index().version)?),
        // There is no deployment either.
        None => Ok(IndexVersion::FIRST),
    }
}

/// The deployment on the branch.
fn present<'a>(branch: &'a BranchState, name: &Name) -> Result<&'a Deployment, OperateError> {
    match branch.deployments.get(name) {
        Some(ExistingDocument::Intact(document)) => Ok(document),
        Some(ExistingDocument::Altered(revision)) if branch.holds.contains_key(name) => {
            Err(OperateError::Lost(LostDeployment {
                name: name.clone(),
                revision: *revision,
                protection: Protection::Hold,
            }))
        }
        Some(_) => Err(OperateError::Altered(name.clone())),
        None => {
            let path = DocumentPath::new(Folder::Deployments, name.clone());
            let name = name.clone();
            Err(match branch.last_of_withdrawn(&path) {
                Some(last) => OperateError::Withdrawn { name, last },
                None => OperateError::Unknown(name),
            })
        }
    }
}

/// The old revision, where it may run on the unit that the deployment runs on now.
fn revision_to_go_back_to<'a>(
    branch: &BranchState,
    present: &Deployment,
    revision: Revision,
    past: &'a RevisionLookup,
) -> Result<&'a Deployment, OperateError> {
    let name = || present.name.clone();
    if revision == present.revision {
        return Err(OperateError::AtIt { name: name(), revision });
    }
    let PastDeployment { deployment: old, unit: then } = match past {
        RevisionLookup::Found(past) => &**past,
        RevisionLookup::Untrusted(why) => {
            return Err(OperateError::NotVouchedFor { name: name(), revision, why: why.clone() });
        }
        RevisionLookup::NotFound => {
            return Err(OperateError::NoSuchRevision { name: name(), revision, present: present.revision });
        }
    };
    if old.specification == present.specification {
        return Err(OperateError::SaysTheSame { name: name(), revision, present: present.revision });
    }
    let unit = &present.specification.unit;
    if old.specification.unit != *unit {
        let (then, now) = (old.specification.unit.clone(), unit.clone());
        return Err(OperateError::OtherUnit { name: name(), revision, then, now });
    }
    let describe = |unit: &UnitSpecification| format!("type {} and arch {}", unit.unit_type, unit.arch);
    let now = branch.units.get(unit).and_then(ExistingDocument::known).map(|unit| describe(&unit.specification));
    let then = then.as_ref().map(|unit| describe(&unit.specification));
    match (then, now) {
        (Some(then), Some(now)) if then != now => {
            Err(OperateError::UnitChanged { name: name(), revision, unit: unit.clone(), then, now })
        }
        // The next round repairs a unit that is altered, and going back changes nothing about it.
        _ => Ok(old),
    }
}

impl OperatorRequest {
    /// The first line of the commit message.
    pub(super) fn subject(&self, names: &[Name], plan: &Plan, branch: &BranchState) -> String {
        let one = match names {
            [one] => Some(one),
            _ => None,
        };
        let hold_of = |holds: &BTreeMap<Name, Hold>| one.and_then(|name| holds.get(name).cloned());
        let few = few(names.iter());
        match (&self.operation, hold_of(&plan.holds)) {
            (Operation::RollBack { to: back, .. }, Some(Hold { revision, .. })) => {
                format!("rollback: {few} to revision {back}, as revision {revision}, and held")
            }
            (Operation::Hold { until, .. }, hold) => {
                let at = hold.map(|hold| format!(" at revision {}", hold.revision)).unwrap_or_default();
                let until = until.map(|until| format!(" until {until}")).unwrap_or_default();
                format!("hold: {few}{at}{until}")
            }
            (Operation::Release { .. } | Operation::RollBack { .. }, _) => {
                let held = hold_of(&branch.holds).map(|hold| format!(", {}", describe_hold(&hold)));
                format!("release: {few}{}", held.unwrap_or_default())
            }
        }
    }
}

/// What an operation did to one deployment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct OperatedDeployment {
    /// The deployment.
    pub name: Name,
    /// The hold; none where the deployment follows its source.
    pub held: Option<Hold>,
    /// The change of the document, if any.
    pub change: Option<DocumentChange>,
}

/// What the plan does to each of `names`.
pub(super) fn operations(names: &[Name], plan: &Plan) -> Vec<OperatedDeployment> {
    let change = |name: &Name| plan.changes.iter().find(|change| change.path.name() == name).cloned();
    let operated = |name: &Name| OperatedDeployment {
        name: name.clone(),
        held: plan.holds.get(name).cloned(),
        change: change(name),
    };
    names.iter().map(operated).collect()
}

/// The most deployments that a commit message lists.
const MAX_LISTED: usize = 200;

/// The deployments with their holds, for a commit message.
pub(super) fn describe_holds(deployments: &[OperatedDeployment]) -> String {
    let line = |operated: &OperatedDeployment| match &operated.held {
        Some(hold) => format!("{}: held at revision {}", operated.name, hold.revision),
        None => format!("{}: released", operated.name),
    };
    let mut lines: Vec<String> = deployments.iter().take(MAX_LISTED).map(line).collect();
    if deployments.len() > MAX_LISTED {
        lines.push(format!("and {} more", deployments.len() - MAX_LISTED));
    }
    lines.join("\n")
}

/// The result of an operator's request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct OperationReport {
    /// The deployments that it was about.
    pub deployments: Vec<OperatedDeployment>,
    /// The version of the index after the operation.
    pub version: IndexVersion,
    /// The commit that claveld made.
    pub commit: String,
}

impl fmt::Display for OperationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { deployments, version, commit } = self;
        for operated in deployments {
            writeln!(f, "{operated}")?;
        }
        write!(f, "published as index version {version} in commit {}", commit.get(..10).unwrap_or(commit))
    }
}

impl fmt::Display for OperatedDeployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, held, change } = self;
        match (held, change) {
            (Some(hold), None) => write!(f, "{name}: {}", describe_hold(hold)),
            (Some(hold), Some(_)) => write!(
                f,
                "{name}: went back, as revision {}, and is held there, because claveld's next evaluation would undo it\n\
                 `clavel release {name}` lets it follow its source again",
                hold.revision
            ),
            (None, None) => write!(f, "{name}: released; {NEXT_ROUND} follows its source"),
            (None, Some(change)) => {
                write!(
                    f,
                    "{name}: {change}, because its document is lost; {NEXT_ROUND} publishes what its source gives"
                )
            }
        }
    }
}

/// When a release has its effect.
const NEXT_ROUND: &str = "`claveld run` at once, or else the next push or `claveld once`,";

#[cfg(test)]
mod tests;
