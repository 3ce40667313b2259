//! `clavel-agent run`: arguments and printing. The loop is `agent::daemon`.

use super::once::{describe_event, print_report};
use crate::agent::{self, DaemonEvent};
use crate::cli::exit::Exit;
use crate::cli::{output, wait_for_stop_signal};
use crate::config::AgentConfig;

pub(super) async fn run(config: &AgentConfig) -> Result<(), Exit> {
    let stopped = agent::run(config, wait_for_stop_signal(), &print_event).await?;
    stopped.map_err(|error| Exit::machine(&error))
}

fn print_event(event: &DaemonEvent<'_>) {
    match event {
        DaemonEvent::Pass(event) => output::remark(describe_event(event)),
        DaemonEvent::Ended(report) => print_report(report),
        DaemonEvent::FinishingActivation => output::remark("asked to stop; finishing the activation first"),
    }
}
