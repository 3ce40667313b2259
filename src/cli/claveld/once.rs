//! `claveld once`

use serde::Serialize;

use super::ConfigArgument;
use super::evaluate::{differences, failures};
use super::progress::{Board, reasons};
use crate::claveld::{Announcement, Outcome, Round};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::evaluate::{EvalMode, EvaluationWork, Failure};
use crate::publish::PublishReport;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON document: the report, what is broken, and the sources that are broken as a whole.
    #[arg(long)]
    json: bool,
    /// Evaluate everything, and compare it with what is remembered.
    #[arg(long)]
    full: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    report: &'a PublishReport,
    failures: Vec<&'a Failure>,
    sources: Vec<BrokenSource>,
    work: Vec<&'a EvaluationWork>,
}

#[derive(Serialize)]
struct BrokenSource {
    source: String,
    error: String,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let round = Round::new(&config, if arguments.full { EvalMode::Everything } else { EvalMode::Changed })?;
    let targets = round.all();
    let outcome = {
        let board = Board::live();
        round.run(&targets, &|announcement| announced(&board, &announcement)).await?
    };
    if arguments.json {
        let broken = outcome.broken_sources.iter();
        let sources = broken.map(|b| BrokenSource { source: b.source.to_string(), error: b.error.message() }).collect();
        let work = outcome.evaluations.iter().map(|evaluation| &evaluation.work).collect();
        output::json(&Printed { report: &outcome.report, failures: outcome.failures().collect(), sources, work })?;
    } else {
        for line in report(&outcome.report) {
            output::line(line)?;
        }
        trouble(&outcome);
    }
    let board = Board::live();
    round.look_again(&targets, &|announcement| announced(&board, &announcement)).await;
    verdict(&outcome)
}

pub(super) fn announced(board: &Board, announcement: &Announcement<'_>) {
    match announcement {
        Announcement::Evaluating { source, progress } => board.advance(source, progress),
        Announcement::Publishing => board.say("publishing"),
    }
}

/// Why what was evaluated was, in lines.
pub(super) fn told_reasons(outcome: &Outcome) {
    outcome.evaluations.iter().flat_map(|evaluation| reasons(&evaluation.work)).for_each(output::remark);
}

/// What was published, in lines.
pub(super) fn report(report: &PublishReport) -> Vec<String> {
    let width = report.changes.iter().map(|change| change.path.to_string().len()).max().unwrap_or(0);
    let told = report.described_changes().flat_map(|(change, inside)| {
        let inside = inside.into_iter().map(|line| format!("  {line}"));
        std::iter::once(format!("{:width$}  {change}", change.path)).chain(inside)
    });
    let mut lines: Vec<String> = told.collect();
    match (&report.commit, report.changes.is_empty()) {
        (Some(commit), false) => {
            lines.push(format!("published as index version {} in commit {}", report.version, &commit[..10]));
        }
        (Some(commit), true) => lines.push(format!(
            "nothing changed; index version {} signed anew in commit {}",
            report.version,
            &commit[..10]
        )),
        (None, _) => lines.push(format!("nothing changed (index version {})", report.version)),
    }
    lines.extend(report.unready.waiting.iter().map(ToString::to_string));
    lines.extend(report.kept_back.iter().map(ToString::to_string));
    lines.extend(report.lost_holds.iter().map(|name| {
        format!("{name}: is held no more, since nobody who publishes now vouches for what it was held at")
    }));
    lines
}

/// Tells what stands in the way of the rest.
pub(super) fn trouble(outcome: &Outcome) {
    failures(outcome.failures());
    differences(outcome.differences());
    for broken in &outcome.broken_sources {
        output::error(&broken.error);
    }
    for conflict in &outcome.report.conflicts {
        output::error(conflict);
    }
    for lost in &outcome.report.lost {
        output::error(lost);
    }
    for unpublishable in &outcome.report.unready.unpublishable {
        output::error(unpublishable);
    }
}

pub(super) fn verdict(outcome: &Outcome) -> Result<(), Exit> {
    if outcome.is_whole() { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
}
