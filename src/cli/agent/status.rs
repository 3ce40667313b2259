//! `clavel-agent status`: prints what the agent has recorded. It reads nothing but the configuration and the state folder.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::AgentConfigArgument;
use crate::agent::{
    ActivationFailure, Candidate, CheckReport, CheckStanding, FailedRollout, LastPass, LeftStatus, Lifecycle, NextBoot,
    ProbationReport, RecordedOutcome, Rollback, RollbackResult, Rollout, StateDirectory,
};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{IndexVersion, Name, RootValidity, RootWarning, Timestamp, headline};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: AgentConfigArgument,
    /// Print one JSON document.
    #[arg(long)]
    json: bool,
    /// Print one line, for a prompt or a bar.
    #[arg(long, conflicts_with = "json")]
    oneline: bool,
}

/// The JSON of the status.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Status<'a> {
    agent: &'a Name,
    repository: String,
    mirrors: Vec<String>,
    branch: String,
    index_version: Option<IndexVersion>,
    index_expires: Option<Timestamp>,
    /// The newest root that the agent has seen; none before its first pass.
    root: Option<RootValidity>,
    /// The root ends soon, or has ended.
    root_warning: Option<RootWarning>,
    last_pass: Option<LastPass>,
    /// How the probation stands that is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    probation: Option<ProbationReport>,
    deployments: &'a BTreeMap<Name, Lifecycle>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let directory = StateDirectory::for_reading(&config.state_directory);
    let machine = |error| Exit::machine(error);
    let state = directory.load().map_err(machine)?;
    let index = state.trusted.index.as_ref();
    let root = directory.root()?.map(|root| RootValidity::of(root.root()));
    let status = Status {
        agent: &config.name,
        repository: config.mirrors.first().map(ToString::to_string).unwrap_or_default(),
        mirrors: config.mirrors.iter().skip(1).map(ToString::to_string).collect(),
        branch: config.branch.to_string(),
        index_version: index.map(|index| index.version),
        index_expires: index.map(|index| index.expires),
        root,
        root_warning: root.and_then(|root| root.warning(SystemTime::now().into())),
        last_pass: directory.last_pass().map_err(machine)?,
        probation: directory.probation_report(&state).map_err(machine)?,
        deployments: &state.deployments,
    };
    if arguments.json {
        output::json(&status)
    } else if arguments.oneline {
        output::line(one_line(&status))
    } else {
        print(&status)
    }
}

/// How each deployment stands; the result of the last pass where there is none.
fn one_line(status: &Status<'_>) -> String {
    let of = |(name, lifecycle): (&Name, &Lifecycle)| match (describe_step(name, lifecycle), lifecycle) {
        (Some(step), _) => step,
        (None, Lifecycle::RolledBack(failed)) => match &failed.running {
            Some(running) => {
                format!("{name} revision {} failed, and {} runs", failed.candidate.revision, running.revision)
            }
            None => format!("{name} revision {} failed", failed.candidate.revision),
        },
        (None, lifecycle) => match lifecycle.certainly_running() {
            Some(running) => format!("{name} runs revision {}", running.revision),
            None => format!("{name} is {}", lifecycle.name()),
        },
    };
    let lines: Vec<String> = status.deployments.iter().map(of).collect();
    match (lines.is_empty(), &status.last_pass) {
        (false, _) => lines.join("; "),
        (true, Some(last)) => headline(&last.message),
        (true, None) => "no pass yet".to_owned(),
    }
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
    if let Some(RootValidity { expires, version }) = status.root {
        output::line(format_args!("root        version {version}, until {expires}"))?;
    }
    if let Some(warning) = status.root_warning {
        output::line(format_args!("warning     {warning}"))?;
    }
    match &status.last_pass {
        Some(LastPass { at, message, ok, clock_trouble, warnings, mirrors, deployments, left, .. }) => {
            let is_failure = |recorded: &RecordedOutcome| recorded.outcome == "failed";
            let has_failed = !ok && (deployments.is_empty() || deployments.iter().any(is_failure));
            let word = if has_failed { "failed: " } else { "" };
            output::line(format_args!("last pass   {at}: {word}{message}"))?;
            if let Some(trouble) = clock_trouble {
                output::line(format_args!("clock       {trouble}"))?;
            }
            for warning in warnings {
                output::line(format_args!("warning     {warning}"))?;
            }
            // With a single mirror, the line above says the same.
            for report in mirrors.iter().filter(|report| !report.is_good() && mirrors.len() > 1) {
                let error = report.error.as_deref().unwrap_or(&report.repository);
                output::line(format_args!("not used    {error}"))?;
            }
            for LeftStatus { medium, at, error } in left {
                match (at, error) {
                    (Some(at), _) => output::line(format_args!("status      left on {medium} at {at}"))?,
                    (None, error) => {
                        let why = error.as_deref().unwrap_or("nothing says why");
                        output::line(format_args!("status      not left on {medium}: {why}"))?;
                    }
                }
            }
        }
        None => output::line("last pass   none yet")?,
    }
    for (name, lifecycle) in status.deployments {
        if let Some(step) = describe_step(name, lifecycle) {
            output::line(format_args!("at          {step}"))?;
        }
    }
    status.probation.iter().try_for_each(print_probation)?;
    output::line("")?;
    let rows = status.deployments.iter().filter_map(|(name, lifecycle)| describe_running(name, lifecycle));
    output::table(&["deployment", "revision", "since", "runs"], rows)?;
    for (name, lifecycle) in status.deployments {
        match lifecycle {
            Lifecycle::RolledBack(failed) => print_failure(name, failed)?,
            Lifecycle::RollingBack(rollback) => print_rollback(name, rollback)?,
            Lifecycle::Known(_)
            | Lifecycle::Realised(_)
            | Lifecycle::Activating(_)
            | Lifecycle::AwaitingReboot(_)
            | Lifecycle::Probation(_)
            | Lifecycle::Confirmed { .. } => {}
        }
    }
    Ok(())
}

/// Prints what a revision has proved so far, and what follows where it does not prove the rest.
fn print_probation(report: &ProbationReport) -> Result<(), Exit> {
    let back = match &report.way_back {
        Some(path) => format!("the machine goes back to {path}"),
        None => "it counts as failed; nothing ran before".to_owned(),
    };
    output::line(format_args!("deadline    {}; without a confirmation until then, {back}", report.deadline))?;
    for CheckReport { name, is_of_machine, looks_at, standing, error, .. } in &report.checks {
        let of = if *is_of_machine { ", of this machine" } else { "" };
        let word = match standing {
            CheckStanding::Pending => "not seen yet".to_owned(),
            CheckStanding::Holds => "holds".to_owned(),
            CheckStanding::Fails => format!("does not hold: {}", headline(error.as_deref().unwrap_or_default())),
        };
        output::line(format_args!("check       {name} ({looks_at}{of}) {word}"))?;
    }
    match (report.mirror_is_read, &report.mirror_error) {
        (Some(true), _) => output::line("check       a mirror was read after the switch")?,
        (Some(false), Some(error)) => {
            output::line(format_args!("check       no mirror can be read: {}", headline(error)))?;
        }
        (Some(false), None) => output::line("check       no mirror was read yet")?,
        (None, _) => {}
    }
    if report.awaits_person {
        output::line(format_args!("waits       for `clavel-agent confirm {}`", report.deployment))?;
    }
    Ok(())
}

/// The row of what runs. An attempt or a rollback may have left the unit halfway, and then it is not certain.
fn describe_running(name: &Name, lifecycle: &Lifecycle) -> Option<Vec<String>> {
    if let Some(running) = lifecycle.certainly_running() {
        let (revision, since) = (running.revision.to_string(), running.since.to_string());
        return Some(vec![name.to_string(), revision, since, running.nar_id.to_string()]);
    }
    let is_halfway = lifecycle.pending_rollback().is_some() || lifecycle.last_confirmed().is_some();
    is_halfway.then(|| vec![name.to_string(), "-".to_owned(), "-".to_owned(), "not certain".to_owned()])
}

fn print_activation_failure(name: &Name, candidate: &Candidate, failure: &ActivationFailure) -> Result<(), Exit> {
    let attempts = if failure.attempts > 1 { format!(" in attempt {}", failure.attempts) } else { String::new() };
    output::line(format_args!("\n{name}: revision {} failed at {}{attempts}", candidate.revision, failure.at))?;
    output::line(output::indent(&failure.error))
}

fn print_rollback(name: &Name, rollback: &Rollback) -> Result<(), Exit> {
    let Rollback { candidate, failure, to, tries, last_failure, .. } = rollback;
    print_activation_failure(name, candidate, failure)?;
    output::line(format_args!("{name}: going back to {to} does not hold yet; it is tried again at every pass"))?;
    match last_failure {
        Some(last) => {
            output::line(format_args!("{name}: {tries} tries; the last one that ended failed at {}", last.at))?;
            output::line(output::indent(&last.error))
        }
        None => output::line(format_args!("{name}: {tries} tries; none has ended yet")),
    }
}

fn print_failure(name: &Name, FailedRollout { candidate, failure, rollback, .. }: &FailedRollout) -> Result<(), Exit> {
    print_activation_failure(name, candidate, failure)?;
    match rollback {
        RollbackResult::Restored => Ok(()),
        RollbackResult::AfterReboot(to) => output::line(format_args!(
            "{name}: {to} is set for the next boot, because it cannot be switched to; the machine needs a reboot"
        )),
        RollbackResult::SameBefore => {
            output::line(format_args!("{name}: the same store path ran before, so there is nothing to go back to"))
        }
        RollbackResult::NothingBefore => {
            output::line(format_args!("{name}: nothing ran before that it could go back to"))
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
            Some(format!("activating {} (attempt {})", revision(rollout), rollout.attempts))
        }
        Lifecycle::Probation(rollout) => {
            Some(format!("{} is activated and on probation (attempt {})", revision(rollout), rollout.attempts))
        }
        Lifecycle::AwaitingReboot(rollout) => {
            let why = rollout.next_boot.as_ref().map(NextBoot::why).unwrap_or_default();
            Some(format!("{} is set for the next boot, and waits for a reboot{why}", revision(rollout)))
        }
        Lifecycle::RollingBack(rollback) => Some(format!("taking {name} back to {}", rollback.to)),
        Lifecycle::Confirmed { .. } | Lifecycle::RolledBack(_) => None,
    }
}
