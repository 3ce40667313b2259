//! `clavel-agent once`: arguments, printing and the exit code. The pass is `agent::Pass`.

use std::fmt::Display;
use std::io::IsTerminal as _;

use serde::Serialize;

use super::AgentConfigArgument;
use super::messages::{describe_left, event_message, report_message};
use crate::agent::{DeploymentOutcome, DeploymentReport, Pass, UnusedUnit};
use crate::cli::exit::{Exit, code_of};
use crate::cli::{output, wait_for_stop_signal};
use crate::model::{Name, json};
use crate::stderr;
use crate::store::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    /// Print the result for each deployment as one JSON document.
    #[arg(long)]
    json: bool,
}

/// The JSON of one deployment, or of a warning: about a unit of the configuration, a hook, or the root.
#[derive(Serialize, schemars::JsonSchema)]
pub(in crate::cli) struct PrintedEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'a Name>,
    outcome: &'static str,
    message: String,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let store_output = if std::io::stderr().is_terminal() { Output::Inherit } else { Output::Capture };
    let mut pass = Pass::open(&config, store_output)?;
    stderr::never_wait();
    let under_way = pass.activation_under_way();
    let mut stop = std::pin::pin!(wait_for_stop_signal());
    let ended = {
        // It is dropped after it was asked what is under way.
        let mut run = std::pin::pin!(pass.run(&|event| output::tell(vec![event_message(&event)])));
        tokio::select! {
            report = &mut run => Ok(report),
            stopped = &mut stop => {
                stopped?;
                Err(under_way.borrow().as_ref().map(describe_left))
            }
        }
    };
    let report = match ended {
        Ok(report) => report,
        Err(left) => {
            pass.pause().map_err(Exit::machine)?;
            return Err(Exit::machine(left.unwrap_or_else(|| "stopped before the pass was over".to_owned())));
        }
    };
    // The reader of the output may be slow, and another pass must not wait for it.
    drop(pass);
    if let Some(trouble) = &report.clock_trouble {
        output::warning(trouble);
    }
    report.warnings().for_each(output::warning);
    report.root_warning.iter().for_each(output::warning);
    let code = report.first_failure().map(code_of);
    let reports = report.result?;
    let print: Box<dyn FnOnce() -> Result<(), Exit> + Send> = if arguments.json {
        let warnings = report.unused_units.iter().map(PrintedEntry::warning);
        let others = report.hook_warnings.iter().map(PrintedEntry::other_warning);
        let others = others.chain(report.root_warning.iter().map(PrintedEntry::other_warning));
        let entries = reports.iter().map(PrintedEntry::of).chain(warnings).chain(others);
        let entries = json::render(&entries.collect::<Vec<_>>());
        Box::new(move || output::rendered_json(&entries))
    } else {
        let lines: Vec<String> = data_of(&reports);
        Box::new(move || lines.iter().try_for_each(output::line))
    };
    tokio::select! {
        printed = tokio::task::spawn_blocking(print) => printed.map_err(|error| Exit::machine(error).without_document())??,
        stopped = stop => {
            stopped?;
            return Err(Exit::machine("stopped before the result was printed").without_document());
        }
    }
    code.map_or(Ok(()), |code| Err(Exit::silent(code)))
}

impl<'a> PrintedEntry<'a> {
    fn warning(unused: &'a UnusedUnit) -> Self {
        Self { deployment: None, unit: Some(&unused.unit), outcome: "warning", message: unused.to_string() }
    }

    fn other_warning(warning: impl Display) -> Self {
        Self { deployment: None, unit: None, outcome: "warning", message: warning.to_string() }
    }

    fn of(DeploymentReport { name, outcome, .. }: &'a DeploymentReport) -> Self {
        Self { deployment: Some(name), unit: None, outcome: outcome.word(), message: format!("{name}: {outcome}") }
    }
}

/// Prints the failures on standard error, and gives the lines of the others for standard output.
fn data_of(reports: &[DeploymentReport]) -> Vec<String> {
    let line = |report: &DeploymentReport| match report.outcome {
        DeploymentOutcome::Failed(_) => {
            output::tell_as_error(vec![report_message(report)]);
            None
        }
        _ => Some(report.to_string()),
    };
    reports.iter().filter_map(line).collect()
}
