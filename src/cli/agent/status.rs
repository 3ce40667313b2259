//! `clavel-agent status`

use serde::Serialize;

use super::ConfigArgument;
use crate::agent::{Applied, FailedActivation, LastPass, StateDirectory, Step};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{IndexVersion, Name, Timestamp};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
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
    step: &'a Step,
    deployments: &'a std::collections::BTreeMap<Name, Applied>,
    failed: &'a std::collections::BTreeMap<Name, FailedActivation>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let directory = StateDirectory::for_reading(&config.state_directory);
    let machine = |error| Exit::machine(&error);
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
        step: &state.step,
        deployments: &state.applied,
        failed: &state.failed,
    };
    if arguments.json { output::json(&status) } else { show(&status) }
}

fn show(status: &Status<'_>) -> Result<(), Exit> {
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
            // Of a single mirror the line above says it all.
            for report in mirrors.iter().filter(|report| !report.is_good() && mirrors.len() > 1) {
                let error = report.error.as_deref().unwrap_or(&report.repository);
                output::line(format_args!("not used    {error}"))?;
            }
        }
        None => output::line("last pass   none yet")?,
    }
    if *status.step != Step::Idle {
        output::line(format_args!("at          {}", at(status.step)))?;
    }
    output::line("")?;
    let rows = status.deployments.iter().map(|(name, applied)| {
        vec![name.to_string(), applied.revision.to_string(), applied.since.to_string(), applied.nar_id.to_string()]
    });
    output::table(&["deployment", "revision", "since", "runs"], rows)?;
    for (name, failed) in status.failed {
        output::line(format_args!("\n{name}: revision {} failed at {}", failed.revision, failed.at))?;
        output::line(output::indented(&failed.error))?;
    }
    Ok(())
}

fn at(step: &Step) -> String {
    match step {
        Step::Idle => "nothing".to_owned(),
        Step::Realising { deployment, revision } => format!("fetching {deployment} revision {revision}"),
        Step::Activating { deployment, revision } => format!("activating {deployment} revision {revision}"),
        Step::RollingBack { deployment, to } => format!("taking {deployment} back to {to}"),
    }
}
