//! The requests of an operator about one deployment: hold it, release it, or go back to an older revision. No I/O: the branch
//! and the request go in, a plan comes out, and claveld signs and commits it like any other plan.
//!
//! Going back publishes the old specification as a new revision, because a revision has one content for ever. The next
//! evaluation would undo that at once, so going back also holds the deployment.

use std::fmt;

use super::branch_state::{BranchState, ExistingDocument};
use super::document_change::DocumentChange;
use super::left_out::{LostDeployment, Protection, describe_hold};
use super::pin::is_pinned;
use super::plan::{IndexPlan, Plan, PlanError, next_index_version, next_revision};
use crate::branch::{PastDeployment, RevisionLookup};
use crate::model::PublishPolicy;
use crate::model::{
    Deployment, DocumentPath, Folder, Hold, IndexVersion, MetadataValue, Name, Revision, Timestamp, UnitSpecification,
};

/// The request of an operator about one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorRequest {
    /// The deployment.
    pub name: Name,
    /// The operation.
    pub operation: Operation,
    /// The reason; may be empty.
    pub why: MetadataValue,
}

/// An operation on a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// The deployment stays at its revision, whatever its source gives.
    Hold,
    /// The deployment follows its source again.
    Release,
    /// The specification of this revision becomes the newest revision, and stays.
    RollBack(Revision),
}

/// The reason why claveld refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// The branch has no such deployment.
    #[error("the branch has no deployment `{0}`; `clavel list` has their names")]
    Unknown(Name),
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
        "revision {revision} of `{name}` is in the history, but no publisher of the newest root vouches for it: {why}; change \
         the source back instead"
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

/// Decides what to write at `now` to fulfil `request`. `past` is what the history has of the revision to go back to.
pub(super) fn operate(
    branch: &BranchState,
    request: &OperatorRequest,
    past: &RevisionLookup,
    policy: PublishPolicy,
    now: Timestamp,
) -> Result<Plan, OperateError> {
    let OperatorRequest { name, operation, why } = request;
    let (held, version) = (branch.holds.get(name), next_version(branch, name)?);
    let mut plan = Plan {
        changes: Vec::new(),
        conflicts: Vec::new(),
        deployments: Vec::new(),
        units: Vec::new(),
        agents: Vec::new(),
        holds: branch.holds.clone(),
        index: IndexPlan::Write(version),
    };
    let hold_at = |revision| Hold { revision, since: now, why: why.clone() };
    match (operation, held) {
        (Operation::Release, held) => {
            // A lost document is withdrawn: the next document of its source is a new one.
            if let Some(ExistingDocument::Altered(listed)) = branch.deployments.get(name) {
                let path = DocumentPath::new(Folder::Deployments, name.clone());
                plan.changes.push(DocumentChange {
                    path,
                    from: Some(*listed),
                    to: None,
                    repaired: false,
                    system: None,
                });
            } else if held.is_none() {
                present(branch, name)?;
                return Err(OperateError::NotHeld(name.clone()));
            }
            plan.holds.remove(name);
        }
        (Operation::Hold, Some(present)) => {
            return Err(OperateError::HeldAlready { name: name.clone(), hold: present.clone() });
        }
        (Operation::Hold, None) => drop(plan.holds.insert(name.clone(), hold_at(present(branch, name)?.revision))),
        (Operation::RollBack(revision), _) => {
            let present = present(branch, name)?;
            let before = revision_to_go_back_to(branch, present, *revision, past)?;
            if policy == PublishPolicy::WhenPinned && !is_pinned(&before.specification) {
                return Err(OperateError::NotPinned { name: name.clone(), revision: *revision });
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
            plan.holds.insert(name.clone(), hold_at(to));
        }
    }
    Ok(plan)
}

fn next_version(branch: &BranchState, name: &Name) -> Result<IndexVersion, OperateError> {
    let (index, _) = branch.index.as_ref().ok_or_else(|| OperateError::Unknown(name.clone()))?;
    if branch.is_of_an_older_root {
        return Err(OperateError::OlderRoot);
    }
    Ok(next_index_version(index.index().version)?)
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
    pub(super) fn subject(&self, plan: &Plan, branch: &BranchState) -> String {
        let Self { name, operation, .. } = self;
        let revision = plan.holds.get(name).map(|hold| hold.revision);
        match (operation, revision) {
            (Operation::RollBack(back), Some(to)) => {
                format!("rollback: {name} to revision {back}, as revision {to}, and held")
            }
            (Operation::Hold, Some(at)) => format!("hold: {name} at revision {at}"),
            (Operation::Release | Operation::Hold | Operation::RollBack(_), _) => {
                let held = branch.holds.get(name).map(|hold| format!(", {}", describe_hold(hold)));
                format!("release: {name}{}", held.unwrap_or_default())
            }
        }
    }
}

/// The result of an operator's request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct OperationReport {
    /// The deployment.
    pub name: Name,
    /// The hold; none where the deployment follows its source.
    pub held: Option<Hold>,
    /// The change of the document, if any.
    pub change: Option<DocumentChange>,
    /// The version of the index after the operation.
    pub version: IndexVersion,
    /// The commit that claveld made.
    pub commit: String,
}

impl fmt::Display for OperationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, held, change, version, commit } = self;
        match (held, change) {
            (Some(hold), None) => writeln!(f, "{name}: {}", describe_hold(hold))?,
            (Some(hold), Some(_)) => writeln!(
                f,
                "{name}: went back, as revision {}, and is held there, because claveld's next evaluation would undo it\n\
                 `clavel release {name}` lets it follow its source again",
                hold.revision
            )?,
            (None, None) => writeln!(
                f,
                "{name}: released; claveld's next round, at a push or by `claveld once`, follows its source"
            )?,
            (None, Some(change)) => writeln!(
                f,
                "{name}: {change}, because its document is lost; claveld's next round, at a push or by `claveld once`, \
                 publishes what its source gives"
            )?,
        }
        write!(f, "published as index version {version} in commit {}", commit.get(..10).unwrap_or(commit))
    }
}

#[cfg(test)]
mod tests;
