//! `clavel-agent once`

use std::io::IsTerminal as _;
use std::time::SystemTime;

use super::ConfigArgument;
use crate::agent::{Event, LastPass, Pass, PassError, Retry, Settled};
use crate::cli::exit::{Exit, code_of, error};
use crate::cli::output;
use crate::model::Name;
use crate::nix::Voice;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Try again what failed to activate before.
    #[arg(long)]
    retry: bool,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let retry = if arguments.retry { Retry::Everything } else { Retry::NewRevisions };
    let voice = if std::io::stderr().is_terminal() { Voice::Aloud } else { Voice::Quiet };
    let mut pass = Pass::open(&config, voice)?;
    let outcome = pass.run(retry, &|event| output::remark(told(&event))).await;
    note(&pass, &outcome);
    settled(&outcome?)
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
    if let Err(unwritten) = pass.directory().note_pass(&LastPass { at: SystemTime::now().into(), message, ok }) {
        error(unwritten);
    }
}

/// What a pass is at, in a line.
pub(super) fn told(event: &Event<'_>) -> String {
    match event {
        Event::Fetched(commit) => format!("the branch is at {}", &commit.to_string()[..10]),
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

/// Says what became of each deployment; the code is that of the first failure.
fn settled(settled: &[(Name, Settled)]) -> Result<(), Exit> {
    let mut code = None;
    for (name, outcome) in settled {
        match outcome {
            Settled::Failed(failure) => {
                error(line(name, outcome));
                code = code.or(Some(code_of(failure)));
            }
            _ => output::line(line(name, outcome))?,
        }
    }
    code.map_or(Ok(()), |code| Err(Exit::silent(code)))
}
