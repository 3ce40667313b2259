//! `clavel-agent status`: prints what the agent has recorded. It reads nothing but the configuration and the state folder.

use std::collections::BTreeMap;

use serde::Serialize;

use super::AgentConfigArgument;
use crate::agent::{FailedRollout, LastPass, Lifecycle, MAX_ATTEMPTS, RollbackResult, Rollout, StateDirectory};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{IndexVersion, Name, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// The JSON of the status.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    agent: &'a Name,
    repository: String,
    mirrors: Vec<String>,
    branch: String,
    index_version: Option<IndexVersion>,
    index_expires: Option<Timestamp>,
    last_pass: Option<LastPass>,
    deployments: &'a BTreeMap<Name, Lifecycle>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let directory = StateDirectory::for_reading(&config.state_directory);
    let machine = |error| Exit::machine(error);
    let state = directory.load().map_err(machine)?;
    let index = state.trusted.index.as_ref();
    let status = Status {
        agent: &config.name,
        repository: config.mirrors.first().map(ToString::to_string).unwrap_or_default(),
        mirrors: config.mirrors.iter().skip(1).map(ToString::to_string).collect(),
        branch: config.branch.to_string(),
        index_version: index.map(|index| index.version),
        index_expires: index.map(|index| index.expires),
        last_pass: directory.last_pass().map_err(machine)?,
        deployments: &state.deployments,
    };
    if arguments.json { output::json(&status) } else { print(&status) }
}

fn print(status: &Status<'_>) -> Result<(), Exit> {
    output::line(format_args!("agent       {}", status.agent))?;
    output::line(format_args!("repository  {} ({})", status.repository, status.branch))?;
    for mirror in &status.mirrors {
        output::line(format_args!("mirror      {mirror}"))?;
    }
    match (status.index_version, status.index_expires) {
        (Some(version), Some(expires)) => output::line(format_args!("index       version {version}, until {expires}"))?,
        _ => output::line("index       none seen yet")?,
    }
    match &status.last_pass {
        Some(LastPass { at, message, ok, clock_trouble, mirrors, .. }) => {
            let word = if *ok { "" } else { "failed: " };
            output::line(format_args!("last pass   {at}: {word}{message}"))?;
            if let Some(trouble) = clock_trouble {
                output::line(format_args!("clock       {trouble}"))?;
            }
            // With a single mirror, the line above says the same.
            for report in mirrors.iter().filter(|report| !report.is_good() && mirrors.len() > 1) {
                let error = report.error.as_deref().unwrap_or(&report.repository);
                output::line(format_args!("not used    {error}"))?;
            }
        }
        None => output::line("last pass   none yet")?,
    }
    for (name, lifecycle) in status.deployments {
        if let Some(step) = describe_step(name, lifecycle) {
            output::line(format_args!("at          {step}"))?;
        }
    }
    output::line("")?;
    let rows = status.deployments.iter().filter_map(|(name, lifecycle)| {
        let running = lifecycle.last_confirmed()?;
        let (revision, since) = (running.revision.to_string(), running.since.to_string());
        Some(vec![name.to_string(), revision, since, running.nar_id.to_string()])
    });
    output::table(&["deployment", "revision", "since", "runs"], rows)?;
    for (name, lifecycle) in status.deployments {
        if let Lifecycle::RolledBack(failed) = lifecycle {
            print_failure(name, failed)?;
        }
    }
    Ok(())
}

fn print_failure(name: &Name, FailedRollout { candidate, failure, rollback, .. }: &FailedRollout) -> Result<(), Exit> {
    let attempts = if failure.attempts > 1 { format!(" in attempt {}", failure.attempts) } else { String::new() };
    output::line(format_args!("\n{name}: revision {} failed at {}{attempts}", candidate.revision, failure.at))?;
    output::line(output::indent(&failure.error))?;
    match rollback {
        RollbackResult::Restored => Ok(()),
        RollbackResult::SameBefore => {
            output::line(format_args!("{name}: the same store path ran before, so there is nothing to go back to"))
        }
        RollbackResult::NothingBefore => {
            output::line(format_args!("{name}: nothing ran before that it could go back to"))
        }
        RollbackResult::Failed { to, error } => {
            output::line(format_args!("{name}: going back to {to} failed as well"))?;
            output::line(output::indent(error))
        }
    }
}

/// The step that a deployment is at; `None` where nothing is being done for it.
fn describe_step(name: &Name, lifecycle: &Lifecycle) -> Option<String> {
    let revision = |rollout: &Rollout| format!("{name} revision {}", rollout.candidate.revision);
    match lifecycle {
        Lifecycle::Known(rollout) => Some(format!("fetching or waiting for {}", revision(rollout))),
        Lifecycle::Realised(rollout) => Some(format!("{} is fetched and not activated yet", revision(rollout))),
        Lifecycle::Activating(rollout) => {
            Some(format!("activating {} (attempt {} of {MAX_ATTEMPTS})", revision(rollout), rollout.attempts))
        }
        Lifecycle::Probation(rollout) => Some(format!("{} is activated and not confirmed yet", revision(rollout))),
        Lifecycle::RollingBack(rollback) => Some(format!("taking {name} back to {}", rollback.to)),
        Lifecycle::Confirmed { .. } | Lifecycle::RolledBack(_) => None,
    }
}
