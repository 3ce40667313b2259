//! `claveld once`

use serde::Serialize;

use super::ConfigArgument;
use super::evaluate::{failures, said};
use crate::cli::exit::{Code, Exit, error};
use crate::cli::output::{self, Spinner};
use crate::evaluate::Failure;
use crate::publish::{Announcement, Outcome, Report, Round};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON document: the report, what is broken, and the sources that are broken as a whole.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    report: &'a Report,
    failures: Vec<&'a Failure>,
    sources: Vec<BrokenSource>,
}

#[derive(Serialize)]
struct BrokenSource {
    source: String,
    error: String,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let round = Round::new(&config)?;
    let outcome = {
        let spinner = Spinner::start();
        round.run(&round.all(), &|announcement| spinner.say(announced(&announcement))).await?
    };
    if arguments.json {
        let broken = outcome.broken_sources.iter();
        let sources = broken.map(|b| BrokenSource { source: b.source.to_string(), error: b.error.message() }).collect();
        output::json(&Printed { report: &outcome.report, failures: outcome.failures().collect(), sources })?;
    } else {
        for line in report(&outcome.report) {
            output::line(line)?;
        }
        trouble(&outcome);
    }
    verdict(&outcome)
}

pub(super) fn announced(announcement: &Announcement<'_>) -> String {
    match announcement {
        Announcement::Evaluating { source, progress } => said(source, progress),
        Announcement::Publishing => "publishing".to_owned(),
    }
}

/// What was published, in lines.
pub(super) fn report(report: &Report) -> Vec<String> {
    let width = report.changes.iter().map(|change| change.path.as_str().len()).max().unwrap_or(0);
    let told = report.told().flat_map(|(change, inside)| {
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
    lines
}

/// Tells what stands in the way of the rest.
pub(super) fn trouble(outcome: &Outcome) {
    failures(outcome.failures());
    for broken in &outcome.broken_sources {
        error(&broken.error);
    }
    for conflict in &outcome.report.conflicts {
        error(conflict);
    }
}

pub(super) fn verdict(outcome: &Outcome) -> Result<(), Exit> {
    if outcome.is_whole() { Ok(()) } else { Err(Exit::silent(Code::Incomplete)) }
}
