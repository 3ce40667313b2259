//! `claveld once`: evaluates all sources once, publishes the changes and prints the outcome.

use serde::Serialize;

use super::ClaveldConfigArgument;
use super::print::{exit_of, print_event, print_trouble, report_lines};
use super::progress::Board;
use crate::claveld::{RoundRunner, SourceFailure};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::evaluate::{EvalMode, EvaluationWork, Failure};
use crate::model::Timestamp;
use crate::publish::PublishReport;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ClaveldConfigArgument,
    /// Print one JSON document: the report, the broken attributes, and the sources that are broken as a whole.
    #[arg(long)]
    json: bool,
    /// Evaluate everything, and compare the results with the records.
    #[arg(long)]
    full: bool,
    /// Withdraw as many documents as this, where their sources do not give them any more. Without it claveld withdraws few of them
    /// at once, and says how many wait.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, hide_default_value = true)]
    allow_withdrawals: usize,
}

/// The document that `--json` prints.
#[derive(Serialize)]
struct OnceOutput<'a> {
    report: &'a PublishReport,
    failures: Vec<&'a Failure>,
    sources: Vec<BrokenSource>,
    work: Vec<&'a EvaluationWork>,
}

#[derive(Serialize)]
struct BrokenSource {
    source: String,
    error: String,
    #[serde(rename = "unreachableSince", skip_serializing_if = "Option::is_none")]
    unreachable_since: Option<Timestamp>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let mode = if arguments.full { EvalMode::Everything } else { EvalMode::Changed };
    let runner = RoundRunner::new(&config, mode)?.allowing_withdrawals(arguments.allow_withdrawals);
    let targets = runner.all_targets();
    let outcome = {
        let board = Board::live();
        runner.run(&targets, &[], &|event| print_event(&board, &event)).await?
    };
    if arguments.json {
        let broken = outcome.broken_sources.iter();
        let broken_source = |SourceFailure { source, error, unreachable_since }: &SourceFailure| BrokenSource {
            source: source.to_string(),
            error: error.message(),
            unreachable_since: *unreachable_since,
        };
        let sources = broken.map(broken_source).collect();
        let work = outcome.evaluations.iter().map(|evaluation| &evaluation.work).collect();
        output::json(&OnceOutput { report: &outcome.report, failures: outcome.failures().collect(), sources, work })?;
    } else {
        for line in report_lines(&outcome.report) {
            output::line(line)?;
        }
        print_trouble(&outcome);
    }
    let board = Board::live();
    runner.check_relocations(&targets, &|event| print_event(&board, &event)).await;
    exit_of(outcome.completeness())
}
