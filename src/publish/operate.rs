//! What an operator wants otherwise than the sources: a deployment frozen, released, or gone back with. No I/O: the branch as
//! it is and the wish go in, a plan comes out, which is signed and committed as any other.
//!
//! What was published once is published again as a new revision, since a revision has one content for ever. Claveld's next
//! evaluation would undo that at once, so going back freezes the deployment as well.

use std::fmt;

use super::changes::{Change, Gone, Kept, told_hold};
use super::pin::is_pinned;
use super::plan::{BranchState, ExistingDocument, IndexPlan, Plan, PlanError, counted_on};
use crate::branch::{Found, Past};
use crate::model::PublishPolicy;
use crate::model::{
    Deployment, DocumentPath, Folder, Hold, IndexVersion, MetadataValue, Name, Revision, Timestamp, Tombstone,
    UnitSpecification,
};

/// What an operator wants of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The deployment.
    pub name: Name,
    /// What is to become of it.
    pub deed: Deed,
    /// Why; may be empty.
    pub why: MetadataValue,
}

/// What is to become of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It stays at its revision, whatever its source gives.
    Hold,
    /// It follows its source again.
    Release,
    /// What this revision said is said again, and stays.
    RollBack(Revision),
}

/// Why a wish is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// The branch has no such deployment.
    #[error("the branch has no deployment `{0}`; `clavel list` has their names")]
    Unknown(Name),
    /// It had one.
    #[error(
        "the deployment `{name}` was withdrawn after its revision {last}; it comes back when a source gives it again"
    )]
    Withdrawn {
        /// The deployment.
        name: Name,
        /// Its last revision.
        last: Revision,
    },
    /// What the branch has under the name is not to be believed.
    #[error("what the branch has of `{0}` is not to be believed; `claveld once` publishes it anew, and then try again")]
    Altered(Name),
    /// Nothing has it any more.
    #[error("{0}")]
    Gone(Gone),
    /// It has no pin.
    #[error(
        "revision {revision} of `{name}` has no pin, and `publish.pin` wants one for whatever is published; change the \
         source back instead"
    )]
    NotPinned {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
    },
    /// A root took out the key that signed the branch.
    #[error(
        "the newest root took out the key that signed this branch, and claveld has not signed it anew yet; run \
         `claveld once`, and then try again"
    )]
    OlderRoot,
    /// It is frozen already.
    #[error("`{name}` is {} already; `clavel release {name}` lets it follow its source again", told_hold(.hold))]
    HeldAlready {
        /// The deployment.
        name: Name,
        /// Where, since when, and why.
        hold: Hold,
    },
    /// It is not frozen.
    #[error("`{0}` is not held: it follows its source already")]
    NotHeld(Name),
    /// It has no such revision.
    #[error("the branch has no revision {revision} of `{name}` in its history; it is at revision {present}")]
    NoSuchRevision {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
        /// What it is at.
        present: Revision,
    },
    /// The history has something under that revision, and nobody who publishes now vouches for it.
    #[error(
        "revision {revision} of `{name}` is in the history, and not to be believed by the newest root: {why}; change the \
         source back instead"
    )]
    NotBelieved {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
        /// Why it is not believed.
        why: String,
    },
    /// It is there now.
    #[error("`{name}` is at revision {revision} now; `clavel hold {name}` keeps it there")]
    AtIt {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
    },
    /// Another revision says the same, and is there now.
    #[error(
        "`{name}` is at revision {present} now, which says what revision {revision} said; `clavel hold {name}` keeps it there"
    )]
    SaysTheSame {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
        /// What it is at.
        present: Revision,
    },
    /// It was for another machine.
    #[error(
        "revision {revision} of `{name}` was for the unit `{then}`, and it is for `{now}` now; move it back in its source"
    )]
    OtherUnit {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
        /// The unit at that time.
        then: Name,
        /// The unit now.
        now: Name,
    },
    /// Its unit was another kind of machine.
    #[error(
        "revision {revision} of `{name}` was for a unit of {then}, and `{unit}` is {now} now: what was built for one does \
         not run on the other"
    )]
    UnitChanged {
        /// The deployment.
        name: Name,
        /// What was asked for.
        revision: Revision,
        /// The unit.
        unit: Name,
        /// Its type and arch at that time.
        then: String,
        /// Its type and arch now.
        now: String,
    },
    /// A counter is at its end.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Decides what to write so that `wish` is done at `now`, where the history has `past` of the revision to go back to, and
/// `policy` is when a deployment is published.
pub(super) fn operate(
    branch: &BranchState,
    wish: &Wish,
    past: &Found,
    policy: PublishPolicy,
    now: Timestamp,
) -> Result<Plan, OperateError> {
    let Wish { name, deed, why } = wish;
    let (frozen, version) = (branch.holds.get(name), next_version(branch, name)?);
    let mut plan = Plan {
        changes: Vec::new(),
        conflicts: Vec::new(),
        deployments: Vec::new(),
        units: Vec::new(),
        agents: Vec::new(),
        holds: branch.holds.clone(),
        index: IndexPlan::Write(version),
    };
    let frozen_at = |revision| Hold { revision, since: now, why: why.clone() };
    match (deed, frozen) {
        (Deed::Release, frozen) => {
            // Where nothing has it any more, there is nothing to go on from: what its source gives then is new.
            if let Some(ExistingDocument::Altered(listed)) = branch.deployments.get(name) {
                let path = DocumentPath::new(Folder::Deployments, name.clone());
                plan.changes.push(Change { path, from: Some(*listed), to: None, mended: false, system: None });
            } else if frozen.is_none() {
                present(branch, name)?;
                return Err(OperateError::NotHeld(name.clone()));
            }
            plan.holds.remove(name);
        }
        (Deed::Hold, Some(hold)) => {
            return Err(OperateError::HeldAlready { name: name.clone(), hold: hold.clone() });
        }
        (Deed::Hold, None) => drop(plan.holds.insert(name.clone(), frozen_at(present(branch, name)?.revision))),
        (Deed::RollBack(revision), _) => {
            let present = present(branch, name)?;
            let before = old(branch, present, *revision, past)?;
            if policy == PublishPolicy::WhenPinned && !is_pinned(&before.specification) {
                return Err(OperateError::NotPinned { name: name.clone(), revision: *revision });
            }
            let path = DocumentPath::new(Folder::Deployments, name.clone());
            let to = counted_on(&path, present.revision)?;
            plan.deployments.push(Deployment { revision: to, ..before.clone() });
            plan.changes.push(Change { path, from: Some(present.revision), to: Some(to), mended: false, system: None });
            plan.holds.insert(name.clone(), frozen_at(to));
        }
    }
    Ok(plan)
}

fn next_version(branch: &BranchState, name: &Name) -> Result<IndexVersion, OperateError> {
    let (index, _) = branch.index.as_ref().ok_or_else(|| OperateError::Unknown(name.clone()))?;
    if branch.is_of_an_older_root {
        return Err(OperateError::OlderRoot);
    }
    let at_its_end = || PlanError::CounterAtItsEnd { what: "index version".to_owned() };
    Ok(index.version.next().ok_or_else(at_its_end)?)
}

/// The deployment as the branch has it.
fn present<'a>(branch: &'a BranchState, name: &Name) -> Result<&'a Deployment, OperateError> {
    match branch.deployments.get(name) {
        Some(ExistingDocument::Intact(document)) => Ok(document),
        Some(ExistingDocument::Altered(revision)) if branch.holds.contains_key(name) => {
            Err(OperateError::Gone(Gone { name: name.clone(), revision: *revision, kept: Kept::Hold }))
        }
        Some(_) => Err(OperateError::Altered(name.clone())),
        None => {
            let path = DocumentPath::new(Folder::Deployments, name.clone());
            let stone = branch.index.as_ref().and_then(|(index, _)| index.tombstones.get(&path));
            let name = name.clone();
            Err(match stone {
                Some(Tombstone { revision: last }) => OperateError::Withdrawn { name, last: *last },
                None => OperateError::Unknown(name),
            })
        }
    }
}

/// What to go back to, where it may run where the deployment runs now.
fn old<'a>(
    branch: &BranchState,
    present: &Deployment,
    revision: Revision,
    past: &'a Found,
) -> Result<&'a Deployment, OperateError> {
    let name = || present.name.clone();
    if revision == present.revision {
        return Err(OperateError::AtIt { name: name(), revision });
    }
    let Past { deployment: old, unit: then } = match past {
        Found::Past(past) => &**past,
        Found::NotBelieved(why) => {
            return Err(OperateError::NotBelieved { name: name(), revision, why: why.clone() });
        }
        Found::Nowhere => {
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
    let told = |unit: &UnitSpecification| format!("type {} and arch {}", unit.unit_type, unit.arch);
    let now = branch.units.get(unit).and_then(ExistingDocument::known).map(|unit| told(&unit.specification));
    let then = then.as_ref().map(|unit| told(&unit.specification));
    match (then, now) {
        (Some(then), Some(now)) if then != now => {
            Err(OperateError::UnitChanged { name: name(), revision, unit: unit.clone(), then, now })
        }
        // What of the unit is not to be believed is mended by the next round, and what goes back changes nothing of it.
        _ => Ok(old),
    }
}

impl Wish {
    /// What was done, in the first line of a commit's message.
    pub(super) fn subject(&self, plan: &Plan, branch: &BranchState) -> String {
        let Self { name, deed, .. } = self;
        let revision = plan.holds.get(name).map(|hold| hold.revision);
        match (deed, revision) {
            (Deed::RollBack(back), Some(to)) => {
                format!("rollback: {name} to revision {back}, as revision {to}, and held")
            }
            (Deed::Hold, Some(at)) => format!("hold: {name} at revision {at}"),
            (Deed::Release | Deed::Hold | Deed::RollBack(_), _) => {
                let held = branch.holds.get(name).map(|hold| format!(", {}", told_hold(hold)));
                format!("release: {name}{}", held.unwrap_or_default())
            }
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Operated {
    /// The deployment.
    pub name: Name,
    /// Where it is frozen now; none where it follows its source.
    pub held: Option<Hold>,
    /// The change, where it went back.
    pub change: Option<Change>,
    /// The version of the index now.
    pub version: IndexVersion,
    /// The commit that was made.
    pub commit: String,
}

impl fmt::Display for Operated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, held, change, version, commit } = self;
        match (held, change) {
            (Some(hold), None) => writeln!(f, "{name}: {}", told_hold(hold))?,
            (Some(hold), Some(_)) => writeln!(
                f,
                "{name}: went back, as revision {}, and is held there, since claveld's next evaluation would undo it\n\
                 `clavel release {name}` lets it follow its source again",
                hold.revision
            )?,
            (None, None) => writeln!(
                f,
                "{name}: released; claveld's next round, at a push or by `claveld once`, follows its source"
            )?,
            (None, Some(change)) => writeln!(
                f,
                "{name}: {change}, since nothing has it any more; claveld's next round, at a push or by `claveld once`, \
                 publishes what its source gives"
            )?,
        }
        write!(f, "published as index version {version} in commit {}", commit.get(..10).unwrap_or(commit))
    }
}

#[cfg(test)]
mod tests;
