//! `clavel-agent run`: arguments, signals and printing. The loop is `agent::daemon`.

use super::AgentConfigArgument;
use super::messages::{describe_left, event_message, pass_messages};
use crate::agent::{self, AgentEvent, DaemonEnd};
use crate::cli::exit::Exit;
use crate::cli::{Signals, output, report_refused_reload};
use crate::config::AgentConfig;
use crate::model::describe_error;
use crate::stderr;

pub(super) async fn run(argument: &AgentConfigArgument) -> Result<(), Exit> {
    let (mut config, mut before): (_, Option<AgentConfig>) = (argument.read()?, None);
    let mut signals = Signals::handle()?;
    stderr::never_wait();
    loop {
        let next = signals.stop_or_reload(|| argument.read());
        match (agent::run(&config, next, &print_event).await, before.take()) {
            (Ok(DaemonEnd::Replaced | DaemonEnd::Stopped(None)), _) => return Ok(()),
            (Ok(DaemonEnd::Stopped(Some(new))), _) => before = Some(std::mem::replace(&mut config, new)),
            // The agent could not begin with the new one.
            (Err(error), Some(before)) => {
                report_refused_reload(&error.into());
                config = before;
            }
            (Err(error), None) => return Err(error.into()),
        }
    }
}

fn print_event(event: &AgentEvent<'_>) {
    match event {
        AgentEvent::Pass(event) => output::tell(vec![event_message(event)]),
        AgentEvent::Ended(report) if report.is_good() => output::tell(pass_messages(report)),
        AgentEvent::Ended(report) => output::tell_as_error(pass_messages(report)),
        AgentEvent::LeavingActivation(deployment) => output::remark(describe_left(deployment)),
        AgentEvent::Replaced(file) => {
            output::remark(format_args!("{} is new; this agent ends, and the new one takes over", file.display()));
        }
        AgentEvent::BadSuccessor(file, error) => output::error(format_args!(
            "{} is new and does not run, so this agent goes on: {}",
            file.display(),
            describe_error(error)
        )),
    }
}
