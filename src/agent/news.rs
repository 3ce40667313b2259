//! The gist of a pass, by which [`News`](crate::news::News) decides what the daemon's log says again. No I/O.
//!
//! It leaves out what changes at every pass although nothing happened: the present time, and the number of tries.

use super::pass::outcome::{DeploymentFailure, DeploymentOutcome, DeploymentReport, PassReport};
use crate::model::describe_error;
use crate::news::Standing;

/// The gist of a pass, and whether it leaves anything open.
pub(super) fn gist_of(report: &PassReport) -> (String, Standing) {
    let (mut lines, is_open): (Vec<String>, bool) = match &report.result {
        Ok(reports) => (reports.iter().map(gist_of_deployment).collect(), reports.iter().any(is_open)),
        Err(error) => {
            let gist =
                error.stale().map_or_else(|| describe_error(error), |stale| format!("{} {}", stale.what, stale.since));
            (vec![gist], true)
        }
    };
    lines.extend(report.warnings());
    // The difference of a wrong clock changes at every pass.
    lines.extend(report.clock_trouble.iter().map(|_| "clock".to_owned()));
    let is_open = is_open || report.warnings().next().is_some() || report.clock_trouble.is_some();
    (lines.join("\n"), if is_open { Standing::Open } else { Standing::Done })
}

fn gist_of_deployment(report: &DeploymentReport) -> String {
    match &report.outcome {
        DeploymentOutcome::Failed(DeploymentFailure::NotBack { rollback, meanwhile }) => {
            let error = rollback.last_failure.as_ref().map(|failure| &failure.error);
            format!("{}: {} {} {error:?} {meanwhile:?}", report.name, rollback.candidate.revision, rollback.to)
        }
        outcome => format!("{}: {outcome}", report.name),
    }
}

fn is_open(report: &DeploymentReport) -> bool {
    match report.outcome {
        DeploymentOutcome::UpToDate(_) | DeploymentOutcome::Adopted(_) | DeploymentOutcome::Switched(_) => false,
        DeploymentOutcome::Moved { .. }
        | DeploymentOutcome::AwaitingReboot(..)
        | DeploymentOutcome::Waiting(_)
        | DeploymentOutcome::Failed(_)
        | DeploymentOutcome::Withdrawn
        | DeploymentOutcome::Dropped => true,
    }
}
