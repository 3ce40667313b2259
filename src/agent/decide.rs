//! Deciding about a verified deployment, given its state on the unit. No I/O.
//!
//! Checking signatures belongs to `verify`, the states to `lifecycle`, and doing what is decided to `pass`.

use super::lifecycle::{Candidate, FailedRollout, Lifecycle, NextBoot, UnitReference};
use super::verify::Order;
use crate::model::StorePath;
use crate::trust::Approvals;

/// The agent's decision about one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This revision runs already.
    UpToDate,
    /// The store path runs already under an earlier revision: only the record changes.
    Adopt,
    /// Fetch the store path and activate it.
    Apply,
    /// Leave the unit as it is.
    Skip(SkipReason),
}

/// Why the agent leaves a unit as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SkipReason {
    /// This very revision failed before, and would fail again.
    FailedBefore(Box<FailedRollout>),
    /// This very revision failed, and going back to what ran before does not hold yet.
    GoingBack,
    /// This very revision is set for the next boot of the machine, for these reasons.
    AwaitingReboot(NextBoot),
    /// Too few approvers have signed it.
    Unapproved(Approvals),
}

/// Whether a revision that failed before is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Only a new revision is tried.
    NewRevisions,
    /// An operator asked for another try of this one.
    AsAsked,
}

/// The place that the profile of a unit leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ProfileTarget {
    /// This store path.
    Path(StorePath),
    /// Nowhere: Clavel has set no profile there.
    Nowhere,
    /// The platform's own tool moves the profile, and it is not where it was looked for; or the configuration does not fit the
    /// unit. Then the record counts.
    Unknown,
}

/// Decides about `order`, where the deployment is in the state `known`, and the profile of its unit leads to `profile`.
pub(super) fn decide(order: &Order, known: Option<&Lifecycle>, profile: &ProfileTarget, retry: Retry) -> Decision {
    let candidate = Candidate::from(order);
    let unit = UnitReference::from(order);
    // What another unit runs is nothing that this one runs, and neither is what was switched to in another store or profile.
    let is_here = *profile != ProfileTarget::Nowhere;
    let running = known.and_then(Lifecycle::certainly_running).filter(|running| is_here && running.unit == unit);
    if running.is_some_and(|running| {
        running.revision == candidate.revision && running.content_digest == candidate.content_digest
    }) {
        return Decision::UpToDate;
    }
    if let Some(approvals) = order.approvals.as_ref().filter(|approvals| !approvals.suffice()) {
        return Decision::Skip(SkipReason::Unapproved(approvals.clone()));
    }
    let leads_elsewhere = matches!(profile, ProfileTarget::Path(path) if *path != candidate.nar_id);
    if !leads_elsewhere && running.is_some_and(|running| running.nar_id == candidate.nar_id) {
        return Decision::Adopt;
    }
    let is_same =
        |failed: &Candidate| failed.revision == candidate.revision && failed.content_digest == candidate.content_digest;
    match known {
        Some(Lifecycle::AwaitingReboot(rollout)) if rollout.unit == unit && is_same(&rollout.candidate) => {
            Decision::Skip(SkipReason::AwaitingReboot(rollout.next_boot.clone().unwrap_or_default()))
        }
        Some(Lifecycle::RollingBack(rollback)) if retry == Retry::NewRevisions && is_same(&rollback.candidate) => {
            Decision::Skip(SkipReason::GoingBack)
        }
        Some(Lifecycle::RolledBack(failed)) if retry == Retry::NewRevisions && is_same(&failed.candidate) => {
            Decision::Skip(SkipReason::FailedBefore(Box::new(failed.clone())))
        }
        _ => Decision::Apply,
    }
}
