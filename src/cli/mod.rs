//! The command lines of the three programs: they parse arguments, call the other rooms, and print the results.
//!
//! Data goes to standard output, everything else to standard error. This room decides only how a result is worded and which
//! exit code it has; every other decision belongs to another room.

pub mod agent;
pub mod clavel;
pub mod claveld;
mod exit;
mod fetch;
mod output;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit};

use crate::git::FETCH_COMMAND;

pub use exit::Exit;

/// Parses the arguments, runs the command, and turns its result into an exit code.
fn main<A: Parser>(verbosity: impl Fn(&A) -> u8, run: impl AsyncFn(A) -> Result<(), Exit>) -> ExitCode {
    // Only the programs themselves use this subcommand, so no help and no completion shows it.
    if std::env::args_os().skip(1).eq([FETCH_COMMAND]) {
        start_log(0);
        return run_to_exit_code(fetch::run());
    }
    let arguments = A::parse();
    start_log(verbosity(&arguments));
    run_to_exit_code(run(arguments))
}

/// Forbids core dumps of this program and of its children: a dump would contain the secret key.
fn forbid_core_dumps() {
    let most = rustix::process::getrlimit(Resource::Core).maximum;
    // The kernel lets every process lower its own limit.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: most });
}

/// Runs a command, and turns its result into an exit code.
fn run_to_exit_code(command: impl Future<Output = Result<(), Exit>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::report(&Exit::machine(error)),
    };
    let outcome = runtime.block_on(command);
    // A fetch that nothing waits for any more must not delay the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => output::report(&exit),
    }
}

fn start_log(verbosity: u8) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
    use tracing_subscriber::util::SubscriberInitExt as _;

    let level = match verbosity {
        0 => LevelFilter::WARN,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    // gix logs much at these levels that is of no use to an operator.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("clavel", level);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time();
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
}

/// Waits for SIGTERM or SIGINT.
async fn wait_for_stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_lines_are_sound() {
        super::claveld::Arguments::command().debug_assert();
        super::agent::Arguments::command().debug_assert();
        super::clavel::Arguments::command().debug_assert();
    }
}
