//! `clavel-agent once`: arguments, printing and the exit code. The pass is `agent::Pass`.

use std::fmt::Display;
use std::io::IsTerminal as _;

use serde::Serialize;

use super::AgentConfigArgument;
use crate::agent::{DeploymentOutcome, DeploymentReport, Event, Pass, PassReport, Retry, UnusedUnit};
use crate::cli::exit::{Exit, code_of};
use crate::cli::{output, wait_for_stop_signal};
use crate::model::{Name, describe_error, headline, json};
use crate::stderr;
use crate::store::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    /// Try again the revisions whose activation failed before.
    #[arg(long)]
    retry: bool,
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
    let retry = if arguments.retry { Retry::Everything } else { Retry::NewRevisions };
    let store_output = if std::io::stderr().is_terminal() { Output::Inherit } else { Output::Capture };
    let mut pass = Pass::open(&config, store_output)?;
    stderr::never_wait();
    let under_way = pass.activation_under_way();
    let mut stop = std::pin::pin!(wait_for_stop_signal());
    let ended = {
        // It is dropped after it was asked what is under way.
        let mut run = std::pin::pin!(pass.run(retry, &|event| output::remark(describe_event(&event))));
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
        output::remark(format_args!("warning: {trouble}"));
    }
    for warning in report.warnings() {
        output::remark(format_args!("warning: {warning}"));
    }
    if let Some(warning) = &report.root_warning {
        output::remark(format_args!("warning: {warning}"));
    }
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

/// Prints the report of a pass on standard error.
pub(super) fn print_report(report: &PassReport) {
    match &report.result {
        Err(refused) => output::error(describe_error(refused)),
        Ok(_) if report.is_good() => output::remark(report),
        Ok(_) => output::error(report),
    }
}

/// Describes an event of a pass in one line.
pub(super) fn describe_event(event: &Event<'_>) -> String {
    match event {
        Event::ForkKept(folder) => format!("both contents are kept in {}", folder.display()),
        Event::ForkFolderFull(folder) => format!(
            "cannot keep both contents of another fork: {} is full; look at its files and move them away",
            folder.display()
        ),
        Event::Mirror(report) => {
            format!("a mirror is not used: {}", report.error.as_deref().unwrap_or(&report.repository))
        }
        Event::Fetched(commit) => format!("the branch is at {}", &commit.to_string()[..10]),
        Event::Rewritten(before) => format!(
            "the history of the branch was rewritten: {} is not part of it any more; its index is signed and no older, so the \
             agent uses it",
            &before.to_string()[..10]
        ),
        Event::Realising(order) => {
            let deployment = &order.deployment;
            let path = &deployment.specification.template.nar_id;
            format!("{}: fetching {path} (revision {})", deployment.name, deployment.revision)
        }
        Event::AwaitingActivation { deployment } => {
            format!("{deployment}: an activation that began before this agent still runs; waiting for it")
        }
        Event::EarlierActivationSucceeded { deployment, revision } => {
            format!("{deployment}: switched to revision {revision}, by an activation that began before this agent")
        }
        Event::Activating { deployment, rollout } => match rollout.attempts {
            1 => format!("{deployment}: activating"),
            attempts => format!("{deployment}: activating again (attempt {attempts})"),
        },
        Event::MirrorUnread { deployment, error } => {
            format!("{deployment}: on probation until a mirror can be read again: {}", headline(error))
        }
        Event::OnProbation { deployment, checks: 1 } => format!("{deployment}: on probation; it has one check"),
        Event::OnProbation { deployment, checks } => format!("{deployment}: on probation; it has {checks} checks"),
        Event::AwaitingPerson { deployment, deadline } => format!(
            "{deployment}: all of it holds; confirm it with `clavel-agent confirm {deployment}`, or the machine goes back {} after \
             the switch",
            humantime::format_duration(*deadline)
        ),
        Event::OnlyTold { deployment, complaint } => format!("{deployment}: warning: it stays, and {complaint}"),
        Event::RollingBack { deployment, rollback } => {
            format!("{deployment}: revision {} failed; going back to {}", rollback.candidate.revision, rollback.to)
        }
        Event::RollbackFailed { deployment, error } => {
            format!("{deployment}: going back failed as well: {}", describe_error(error))
        }
        Event::ReportNotSaved(error) => {
            format!("`clavel-agent status` will not show this pass: {}", describe_error(error))
        }
        Event::MetricsNotWritten(path, error) => {
            format!(
                "cannot write the metrics to {}: {error}; correct `metrics-file`, or make its folder",
                path.display()
            )
        }
    }
}

/// Says that the agent ends before an activation.
pub(super) fn describe_left(deployment: &Name) -> String {
    format!(
        "{deployment}: the agent ends, and leaves the activation running that is under way; the next pass waits for it and takes \
         its result"
    )
}

impl<'a> PrintedEntry<'a> {
    fn warning(unused: &'a UnusedUnit) -> Self {
        Self { deployment: None, unit: Some(&unused.unit), outcome: "warning", message: unused.to_string() }
    }

    fn other_warning(warning: impl Display) -> Self {
        Self { deployment: None, unit: None, outcome: "warning", message: warning.to_string() }
    }

    fn of(DeploymentReport { name, outcome }: &'a DeploymentReport) -> Self {
        Self { deployment: Some(name), unit: None, outcome: outcome.word(), message: format!("{name}: {outcome}") }
    }
}

/// Prints the failures on standard error, and gives the lines of the others for standard output.
fn data_of(reports: &[DeploymentReport]) -> Vec<String> {
    let line = |report: &DeploymentReport| match report.outcome {
        DeploymentOutcome::Failed(_) => {
            output::error(report);
            None
        }
        _ => Some(report.to_string()),
    };
    reports.iter().filter_map(line).collect()
}
