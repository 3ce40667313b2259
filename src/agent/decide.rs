//! What to do with an order that was verified, given what runs. Pure.

use super::state::{Applied, FailedActivation};
use super::verify::Order;
use crate::trust::Approvals;

/// What is to happen with one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It runs already.
    UpToDate,
    /// What it names runs already under an earlier revision: nothing but the record changes.
    Adopt,
    /// Fetch it and switch to it.
    Apply,
    /// It is left alone, and what runs goes on running.
    Hold(HoldReason),
}

/// Why an order is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldReason {
    /// This very revision failed to activate before, and would again.
    FailedBefore(FailedActivation),
    /// Too few approvers have signed it.
    Unapproved(Approvals),
}

/// Whether what failed before is to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Only a new revision is tried.
    NewRevisions,
    /// The operator asks for another try.
    Everything,
}

/// Decides about `order`, where `applied` runs and `failed` was the last failure.
pub(super) fn decide(
    order: &Order,
    applied: Option<&Applied>,
    failed: Option<&FailedActivation>,
    retry: Retry,
) -> Decision {
    let revision = order.deployment.revision;
    if applied.is_some_and(|applied| applied.revision == revision && applied.content == order.content) {
        return Decision::UpToDate;
    }
    if let Some(approvals) = order.approvals.as_ref().filter(|approvals| !approvals.suffice()) {
        return Decision::Hold(HoldReason::Unapproved(approvals.clone()));
    }
    if applied.is_some_and(|applied| applied.nar_id == order.deployment.specification.template.nar_id) {
        return Decision::Adopt;
    }
    match failed {
        Some(failed)
            if retry == Retry::NewRevisions && failed.revision == revision && failed.content == order.content =>
        {
            Decision::Hold(HoldReason::FailedBefore(failed.clone()))
        }
        _ => Decision::Apply,
    }
}
