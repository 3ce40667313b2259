//! The command lines of the three programs: they parse arguments, call the other rooms, and print the results.
//!
//! Data goes to standard output, everything else to standard error. This room decides only how a result is worded and which
//! exit code it has; every other decision belongs to another room.

pub mod agent;
mod check;
pub mod clavel;
pub mod claveld;
mod credential;
mod exit;
mod fetch;
mod output;
mod schemas;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Parser};
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::output::DataForm;
use crate::git::{FETCH_COMMAND, is_credential_call};
use crate::redact::without_users;

pub use exit::Exit;
pub use schemas::output_schemas;

/// The time that the reader of standard error has at the end of a command that waits for no reader.
const LAST_OUTPUT: Duration = Duration::from_secs(3);

/// The exit code of clap.
const USAGE_ERROR: u8 = 2;

/// Parses the arguments, runs the command, and turns its result into an exit code.
fn main<A: Parser>(verbosity: impl Fn(&A) -> u8, run: impl AsyncFn(A) -> Result<(), Exit>) -> ExitCode {
    // Only the programs themselves use this subcommand, so no help and no completion shows it.
    if std::env::args_os().skip(1).eq([FETCH_COMMAND]) {
        start_log(0);
        return run_to_exit_code(fetch::run(), DataForm::Text);
    }
    let own: Vec<OsString> = std::env::args_os().skip(1).collect();
    if is_credential_call(&own) {
        start_log(0);
        let wish = own.into_iter().nth(1).unwrap_or_default();
        return run_to_exit_code(std::future::ready(credential::run(&wish)), DataForm::Text);
    }
    let (arguments, form) = parse_arguments::<A>();
    start_log(verbosity(&arguments));
    run_to_exit_code(run(arguments), form)
}

/// Parses the arguments. One that is wrong, `--help` and `--version` end the process here.
fn parse_arguments<A: Parser>() -> (A, DataForm) {
    let parsed = A::command().try_get_matches().and_then(|matches| {
        let arguments = A::from_arg_matches(&matches).map_err(|error| error.format(&mut A::command()))?;
        Ok((arguments, data_form(&matches)))
    });
    parsed.unwrap_or_else(|error| {
        let error = without_secrets(error);
        // There are no arguments yet that say it.
        if error.use_stderr() && std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
            let message = error.to_string();
            output::json_error(message.strip_prefix("error: ").unwrap_or(&message).trim_end(), USAGE_ERROR);
        }
        error.exit()
    })
}

/// The error of clap, whose texts quote arguments: without the users and passwords of URLs in them, and without what follows `?` there.
fn without_secrets(mut error: clap::Error) -> clap::Error {
    let clean = |text: &str| {
        let text = without_users(text);
        match text.split_once("://").and_then(|(_, rest)| rest.split_once('?')) {
            Some((_, parameters)) => text[..text.len() - parameters.len() - 1].to_owned(),
            None => text,
        }
    };
    let cleaned: Vec<(ContextKind, ContextValue)> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(clean(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(|text| clean(text)).collect())))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in cleaned {
        error.insert(kind, value);
    }
    error
}

/// Whether the innermost command has `--json`, and was given it.
fn data_form(matches: &ArgMatches) -> DataForm {
    if let Some((_, inner)) = matches.subcommand() {
        return data_form(inner);
    }
    match matches.try_get_one::<bool>("json") {
        Ok(Some(true)) => DataForm::Json,
        Ok(Some(false) | None) | Err(_) => DataForm::Text,
    }
}

/// Forbids core dumps of this program and of its children: a dump would contain the secret key.
fn forbid_core_dumps() {
    let most = rustix::process::getrlimit(Resource::Core).maximum;
    // The kernel lets every process lower its own limit.
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: most });
}

/// Runs a command, and turns its result into an exit code.
fn run_to_exit_code(command: impl Future<Output = Result<(), Exit>>, form: DataForm) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output::report(&Exit::machine(error), form),
    };
    let outcome = runtime.block_on(command);
    // A fetch that nothing waits for any more must not delay the exit.
    runtime.shutdown_background();
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => output::report(&exit, form),
    };
    crate::stderr::flush(LAST_OUTPUT);
    code
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
    let log = tracing_subscriber::fmt::layer().with_writer(output::Logs).with_ansi(false).without_time();
    tracing_subscriber::registry().with(log.with_filter(filter)).init();
}

/// The signals that a command handles. One that is handled does not end the process by itself.
#[derive(Debug)]
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// SIGTERM or SIGINT: end.
    Stop,
    /// SIGHUP: the terminal is gone, or a daemon is to read its configuration anew.
    HangUp,
}

impl Signals {
    fn handle() -> Result<Self, Exit> {
        let handle = |kind| signal(kind).map_err(Exit::machine);
        Ok(Self {
            terminate: handle(SignalKind::terminate())?,
            interrupt: handle(SignalKind::interrupt())?,
            hangup: handle(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.hangup.recv() => Asked::HangUp,
        }
    }

    /// Waits until a daemon has to stop, and gives `None`, or until it has another configuration. One that `read` refuses is
    /// reported, and changes nothing.
    async fn stop_or_reload<C>(&mut self, read: impl Fn() -> Result<C, Exit>) -> Option<C> {
        loop {
            match self.next().await {
                Asked::Stop => return None,
                Asked::HangUp => match read() {
                    Ok(config) => {
                        output::remark("SIGHUP: the configuration was read anew");
                        return Some(config);
                    }
                    Err(exit) => report_refused_reload(&exit),
                },
            }
        }
    }
}

/// Says that a daemon goes on with the configuration that it has.
fn report_refused_reload(exit: &Exit) {
    output::error(format_args!(
        "SIGHUP: the new configuration is refused, and the one of before stays: {}",
        exit.message()
    ));
}

/// Waits for a signal that ends a command that is no daemon: SIGTERM, SIGINT or SIGHUP.
async fn wait_for_stop_signal() -> Result<(), Exit> {
    Signals::handle()?.next().await;
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
