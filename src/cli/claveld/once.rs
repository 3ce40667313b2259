//! `claveld once`: evaluates all sources once, publishes the changes and prints the outcome.

use std::time::Instant;

use serde::Serialize;

use super::ClaveldConfigArgument;
use super::print::{exit_of, postponed_lines, print_event, print_mirrors, print_trouble, report_lines};
use super::progress::Board;
use crate::claveld::{MirrorReport, MirrorState, RoundEvent, RoundRunner, SourceFailure, learning_time, push_on};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::evaluate::{EvalMode, EvalWarnings, Evaluation, EvaluationWork, Failure};
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
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct OnceOutput<'a> {
    report: &'a PublishReport,
    failures: Vec<&'a Failure>,
    /// The warnings of each source that has any. Absent where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<SourceWarnings<'a>>,
    sources: Vec<BrokenSource>,
    work: Vec<&'a EvaluationWork>,
    /// How each mirror is after the branch was pushed on. Absent where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    mirrors: Vec<MirrorReport>,
}

/// The warnings of a source.
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct SourceWarnings<'a> {
    source: String,
    #[serde(flatten)]
    warnings: &'a EvalWarnings,
}

#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct BrokenSource {
    source: String,
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable_since: Option<Timestamp>,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let started = Instant::now();
    let config = arguments.config.read()?;
    let mode = if arguments.full { EvalMode::Everything } else { EvalMode::Changed };
    let runner = RoundRunner::new(&config, mode)?.allowing_withdrawals(arguments.allow_withdrawals);
    let targets = runner.all_targets();
    let outcome = {
        let board = Board::live();
        runner.run(&targets, &[], &|event| print_event(&board, &event)).await?
    };
    if arguments.json {
        let mirrors = push_on(&config).await;
        let broken = outcome.broken_sources.iter();
        let broken_source = |SourceFailure { source, error, unreachable_since }: &SourceFailure| BrokenSource {
            source: source.to_string(),
            error: error.message(),
            unreachable_since: *unreachable_since,
        };
        let sources = broken.map(broken_source).collect();
        let work = outcome.evaluations.iter().map(|evaluation| &evaluation.work).collect();
        let warned = outcome.evaluations.iter().filter(|evaluation| !evaluation.warnings.each.is_empty());
        let warnings = warned
            .map(|Evaluation { source, warnings, .. }| SourceWarnings { source: source.flake.to_string(), warnings })
            .collect();
        let failures = outcome.failures().collect();
        output::json(&OnceOutput { report: &outcome.report, failures, warnings, sources, work, mirrors })?;
    } else {
        for line in report_lines(&outcome.report).into_iter().chain(postponed_lines(&outcome.report)) {
            output::line(line)?;
        }
        print_trouble(&outcome);
        let mirrors = push_on(&config).await;
        for report in mirrors.iter().filter(|report| matches!(report.state, MirrorState::Level { .. })) {
            output::line(report)?;
        }
        print_mirrors(&mirrors);
    }
    let board = Board::live();
    let on_event = |event: RoundEvent<'_>| print_event(&board, &event);
    let unlearnt = outcome.unlearnt();
    let learn = runner.learn_about(&unlearnt, &on_event);
    // What is left is learnt the next time.
    let _ = tokio::time::timeout(learning_time(started.elapsed()), learn).await;
    exit_of(outcome.completeness())
}
