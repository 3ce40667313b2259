//! The operator's commands: arguments in, the other rooms' work, and output, hints and exit codes.
//!
//! Data goes to standard output; everything else to standard error. What is decided here is only how to say it.

pub mod agent;
pub mod clavel;
pub mod claveld;
mod exit;
mod output;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit};

pub use exit::Exit;

/// Parses the arguments, runs the command, and turns what came of it into an exit code.
fn main<A: Parser>(verbosity: impl Fn(&A) -> u8, run: impl AsyncFn(A) -> Result<(), Exit>) -> ExitCode {
    let arguments = A::parse();
    start_log(verbosity(&arguments));
    to_its_end(run(arguments))
}

/// Keeps this program and what it starts from leaving a core dump, which would hold the key that signs.
fn leave_no_core_dump() {
    let most = rustix::process::getrlimit(Resource::Core).maximum;
    // Asking for less than one may have is never refused.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: most });
}

/// Runs a command, and turns what came of it into an exit code.
fn to_its_end(command: impl Future<Output = Result<(), Exit>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::report(&Exit::machine(&error)),
    };
    let outcome = runtime.block_on(command);
    // A fetch that was left behind must not hold up the end.
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
    // gix tells more of itself than anybody asked for.
    let filter = Targets::new().with_default(LevelFilter::WARN).with_target("clavel", level);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).without_time();
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
}

/// Waits for SIGTERM or SIGINT.
async fn asked_to_stop() -> std::io::Result<()> {
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
