//! `clavel-agent retry`: a person lets a revision that is held, because it failed, begin again. The next pass takes note of it.

use super::AgentConfigArgument;
use crate::agent::{Held, StateDirectory};
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The deployments; all whose revision is held where none is named.
    deployments: Vec<Name>,
    #[command(flatten)]
    config: AgentConfigArgument,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let directory = StateDirectory::for_reading(&config.state_directory);
    let state = directory.load().map_err(Exit::machine)?;
    let mut held = Held::of(&state.deployments);
    if let Some(named) = arguments.deployments.iter().find(|named| !held.deployments.contains_key(*named)) {
        return Err(Exit::machine(format!("no revision of `{named}` is held; see `clavel-agent status`")));
    }
    if !arguments.deployments.is_empty() {
        held.deployments.retain(|name, _| arguments.deployments.contains(name));
    }
    if held.deployments.is_empty() {
        return Err(Exit::machine("no revision is held, so there is nothing to try again; see `clavel-agent status`"));
    }
    directory.ask_for_retries(&held).map_err(Exit::machine)?;
    held.deployments.iter().try_for_each(|(name, revision)| {
        output::line(format_args!("{name}: the next pass tries revision {revision} again"))
    })
}
