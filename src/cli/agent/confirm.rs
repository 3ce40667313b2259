//! `clavel-agent confirm`: a person confirms the revision that is on probation. The agent that waits takes note of it by itself.

use super::AgentConfigArgument;
use crate::agent::StateDirectory;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The deployment; the one on probation where none is named.
    deployment: Option<Name>,
    #[command(flatten)]
    config: AgentConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let directory = StateDirectory::for_reading(&config.state_directory);
    let state = directory.load().map_err(Exit::machine)?;
    let report = directory.probation_report(&state).map_err(Exit::machine)?;
    let Some(report) = report else {
        return Err(Exit::machine(
            "no revision is on probation, so there is nothing to confirm; see `clavel-agent status`",
        ));
    };
    if let Some(named) = arguments.deployment.as_ref().filter(|named| **named != report.deployment) {
        let (deployment, revision) = (&report.deployment, report.revision);
        return Err(Exit::machine(format!(
            "`{named}` is not on probation; revision {revision} of `{deployment}` is, until {}",
            report.deadline
        )));
    }
    directory.confirm(&report).map_err(Exit::machine)?;
    let rest = if report.awaits_person { "" } else { ", and stays once its checks hold" };
    output::line(format_args!("{}: revision {} is confirmed{rest}", report.deployment, report.revision))
}
