//! Deciding what the daemon's log says again: a log that repeats itself every minute finds no reader. No I/O.
//!
//! The gist of a result leaves out what changes at every pass although nothing happened: the present time, and the number of tries.

use std::time::{Duration, Instant};

use super::pass::outcome::{DeploymentFailure, DeploymentOutcome, DeploymentReport, PassReport};
use crate::model::describe_error;

/// How often the log says again what waits or has failed.
const AGAIN: Duration = Duration::from_hours(24);

/// What the log said last about one thing.
#[derive(Debug, Default)]
pub(super) struct News(Option<(String, Instant)>);

/// Whether somebody has to look at a result, so that it is said again after a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Something waits or has failed.
    Open,
    /// Nothing is left to do.
    Done,
}

impl News {
    /// Whether this is to be said now, and notes that it is.
    pub(super) fn is_news(&mut self, gist: &str, standing: Standing, now: Instant) -> bool {
        let is_known = self.0.as_ref().is_some_and(|(said, at)| {
            said == gist && (standing == Standing::Done || now.saturating_duration_since(*at) < AGAIN)
        });
        if !is_known {
            self.0 = Some((gist.to_owned(), now));
        }
        !is_known
    }
}

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
    lines.extend(report.unused_units.iter().map(ToString::to_string));
    // The difference of a wrong clock changes at every pass.
    lines.extend(report.clock_trouble.iter().map(|_| "clock".to_owned()));
    let is_open = is_open || !report.unused_units.is_empty() || report.clock_trouble.is_some();
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
        DeploymentOutcome::Waiting(_)
        | DeploymentOutcome::Failed(_)
        | DeploymentOutcome::Withdrawn
        | DeploymentOutcome::Dropped => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_said_when_it_begins_when_it_changes_and_once_a_day() {
        let mut news = News::default();
        let begin = Instant::now();
        let hours = |hours| begin + Duration::from_hours(hours);
        let said = [
            ("waits", 0, true),
            ("waits", 1, false),
            ("waits", 23, false),
            ("waits", 24, true),
            ("waits", 25, false),
            ("failed", 26, true),
            ("waits", 27, true),
            ("waits", 50, false),
            ("waits", 51, true),
        ];
        for (gist, at, expected) in said {
            assert_eq!(news.is_news(gist, Standing::Open, hours(at)), expected, "{gist} after {at} h");
        }
        assert!(news.is_news("up to date", Standing::Done, hours(52)));
        assert!(!news.is_news("up to date", Standing::Done, hours(5200)));
    }
}
