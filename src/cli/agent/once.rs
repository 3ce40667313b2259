//! `clavel-agent once`

use std::io::IsTerminal as _;
use std::time::SystemTime;

use serde::Serialize;

use super::ConfigArgument;
use crate::agent::{Event, LastPass, Pass, PassError, Retry, Settled};
use crate::cli::exit::{Exit, code_of};
use crate::cli::output;
use crate::model::Name;
use crate::store::Output;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Try again what failed to activate before.
    #[arg(long)]
    retry: bool,
    /// Print one JSON document: what became of each deployment.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints of a deployment.
#[derive(Serialize)]
struct Printed<'a> {
    deployment: &'a Name,
    outcome: &'static str,
    message: String,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let retry = if arguments.retry { Retry::Everything } else { Retry::NewRevisions };
    let shown = if std::io::stderr().is_terminal() { Output::Inherit } else { Output::Capture };
    let mut pass = Pass::open(&config, shown)?;
    let outcome = pass.run(retry, &|event| output::remark(told(&event))).await;
    note(&pass, &outcome);
    if let Some(trouble) = pass.clock_trouble() {
        output::remark(format_args!("warning: {trouble}"));
    }
    let outcome = outcome?;
    if arguments.json {
        let printed =
            |(name, settled)| Printed { deployment: name, outcome: word(settled), message: line(name, settled) };
        output::json(&outcome.iter().map(|(name, settled)| printed((name, settled))).collect::<Vec<_>>())?;
    } else {
        show(&outcome)?;
    }
    // The code is that of the first failure.
    let failure = outcome.iter().find_map(|(_, settled)| match settled {
        Settled::Failed(failure) => Some(code_of(failure)),
        _ => None,
    });
    failure.map_or(Ok(()), |code| Err(Exit::silent(code)))
}

/// Leaves word of how a pass ended for `status`.
pub(super) fn note(pass: &Pass<'_>, outcome: &Result<Vec<(Name, Settled)>, PassError>) {
    let (ok, message) = match outcome {
        Err(error) => (false, error.to_string()),
        Ok(settled) => {
            let ok = !settled.iter().any(|(_, s)| matches!(s, Settled::Failed(_)));
            (ok, settled.iter().map(|(name, s)| line(name, s)).collect::<Vec<_>>().join("; "))
        }
    };
    let message = message.lines().next().unwrap_or_default().to_owned();
    let stale = outcome.as_ref().err().and_then(PassError::stale);
    let trouble = stale.map_or(pass.clock_trouble(), |stale| stale.clock.as_ref());
    let last = LastPass {
        at: SystemTime::now().into(),
        clocks: pass.clocks().cloned(),
        clock_trouble: trouble.map(ToString::to_string),
        message,
        ok,
        stale_since: stale.map(|stale| stale.since),
        mirrors: pass.mirrors().to_vec(),
    };
    if let Err(unwritten) = pass.directory().note_pass(&last) {
        output::error(unwritten);
    }
}

/// What a pass is at, in a line.
pub(super) fn told(event: &Event<'_>) -> String {
    match event {
        Event::Evidence(place) => format!("both sides were kept in {}", place.display()),
        Event::EvidenceFull(folder) => format!(
            "there are two contents under one number again, and they are not kept: {} has as many cases as there may be; look \
             at them, and move them away",
            folder.display()
        ),
        Event::Mirror(report) => {
            format!("a mirror is not used: {}", report.error.as_deref().unwrap_or(&report.repository))
        }
        Event::Fetched(commit) => format!("the branch is at {}", &commit.to_string()[..10]),
        Event::Rewritten(before) => format!(
            "the branch's history was rewritten: {} is no part of it any more; its index is signed and no older, so it is believed",
            &before.to_string()[..10]
        ),
        Event::Realising(order) => {
            let deployment = &order.deployment;
            let path = &deployment.specification.template.nar_id;
            format!("{}: fetching {path} (revision {})", deployment.name, deployment.revision)
        }
        Event::Activating(order) => format!("{}: activating", order.deployment.name),
        Event::RollingBack(path) => format!("the activation failed; going back to {path}"),
        Event::RollBackFailed(error) => format!("going back failed too: {error}"),
    }
}

/// What became of a deployment, in a line.
pub(super) fn line(name: &Name, settled: &Settled) -> String {
    match settled {
        Settled::UpToDate(revision) => format!("{name}: up to date at revision {revision}"),
        Settled::Adopted(revision) => format!("{name}: runs what revision {revision} names already"),
        Settled::Switched(revision) => format!("{name}: switched to revision {revision}"),
        Settled::Waiting(why) => format!("{name}: {why}"),
        Settled::Failed(failure) => format!("{name}: {failure}"),
        Settled::Withdrawn => format!("{name}: was withdrawn; what runs goes on running"),
    }
}

/// The word for what became of a deployment.
fn word(settled: &Settled) -> &'static str {
    match settled {
        Settled::UpToDate(_) => "up-to-date",
        Settled::Adopted(_) => "adopted",
        Settled::Switched(_) => "switched",
        Settled::Waiting(_) => "waiting",
        Settled::Failed(_) => "failed",
        Settled::Withdrawn => "withdrawn",
    }
}

/// Says what became of each deployment.
fn show(settled: &[(Name, Settled)]) -> Result<(), Exit> {
    settled.iter().try_for_each(|(name, outcome)| match outcome {
        Settled::Failed(_) => {
            output::error(line(name, outcome));
            Ok(())
        }
        _ => output::line(line(name, outcome)),
    })
}
