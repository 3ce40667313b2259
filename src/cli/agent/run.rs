//! `clavel-agent run`: arguments and printing. The loop is `agent::daemon`.

use super::once::{describe_event, print_report};
use crate::agent::{self, AgentEvent};
use crate::cli::exit::Exit;
use crate::cli::{output, wait_for_stop_signal};
use crate::config::AgentConfig;

pub(super) async fn run(config: &AgentConfig) -> Result<(), Exit> {
    let stopped = agent::run(config, wait_for_stop_signal(), &print_event).await?;
    stopped.map_err(Exit::machine)
}

fn print_event(event: &AgentEvent<'_>) {
    match event {
        AgentEvent::Pass(event) => output::remark(describe_event(event)),
        AgentEvent::Ended(report) => print_report(report),
        AgentEvent::FinishingPass => output::remark("asked to stop; finishing the activation first"),
    }
}
