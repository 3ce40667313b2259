//! `claveld learn`: what a hook leaves behind. It pushes the branch on to the mirrors, and learns for the evaluation of the next push. People
//! need not run it.

use std::time::Duration;

use rustix::process::Pid;

use super::ClaveldConfigArgument;
use crate::claveld;
use crate::cli::exit::Exit;
use crate::process::ProcessMark;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ClaveldConfigArgument,
    /// The process to wait for.
    #[arg(long, value_name = "PID")]
    after: Option<i32>,
    /// The most seconds to work.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u64,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let config = arguments.config.read()?;
    let after = arguments.after.and_then(Pid::from_raw).map(ProcessMark::of);
    let within = Duration::from_secs(arguments.within);
    let (_, learnt) = tokio::join!(claveld::push_on(&config), claveld::learn(&config, after, within));
    learnt.map_err(|error| Exit::machine(format!("cannot take the lock on learning: {error}")))
}
