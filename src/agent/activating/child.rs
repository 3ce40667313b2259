//! The process of an activation: it reads the request from standard input, runs the programs, and writes the result.
//!
//! `clavel-agent` runs itself anew as this process; people never do. Its standard output is the file that the agent locked, which it
//! keeps open and never writes to: the lock ends with it.

use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::super::state::StateError;
use super::files::{ActivationFolder, ActivationProgram, ActivationRequest, ActivationResult, parse_request};
use crate::model::describe_error;
use crate::model::json::{JsonError, StateVersion};
use crate::process::{Follower, Invocation, ProcessError, ProcessMark, this_program};

/// The hidden subcommand that runs this process.
pub const ACTIVATE_COMMAND: &str = "activate";
/// The argument of [`ACTIVATE_COMMAND`] in a unit of its own.
pub const IN_UNIT: &str = "--in-unit";
/// The hidden subcommand that notes its own process and becomes a program of the activation.
pub const BECOME_COMMAND: &str = "activate-program";

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum CarryOutError {
    /// The request could not be read.
    #[error("cannot read the activation that is asked for on standard input")]
    Read(#[source] std::io::Error),
    /// The request is not understood.
    #[error(
        "cannot understand the activation that is asked for on standard input; only clavel-agent itself runs this command"
    )]
    Request(#[source] JsonError),
    /// A file of the activation cannot be used.
    #[error(transparent)]
    Files(#[from] StateError),
    /// The signals that tell a process to end could not be put aside.
    #[error("cannot put aside the signals that tell a process to end")]
    Signals(#[source] std::io::Error),
    /// A program of the activation cannot be run.
    #[error(transparent)]
    Program(#[from] ProcessError),
    /// The process that carries out the activation ended before its program began.
    #[error("the process that carries out the activation has ended, so its program does not begin")]
    Alone,
}

/// Carries out the activation that standard input asks for, in a unit of its own or in a process of the agent.
pub async fn carry_out(is_in_unit: bool) -> Result<(), CarryOutError> {
    // A signal to the agent is not meant for the activation, whoever sends it to all of a service's processes. One that is
    // handled does not end this process, and its programs do not inherit that.
    let _handled = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).map_err(CarryOutError::Signals))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(CarryOutError::Read)?;
    let ActivationRequest { of, folder, programs, environment, milliseconds, then_arm, .. } =
        parse_request(&bytes).map_err(CarryOutError::Request)?;
    let folder = ActivationFolder::at(folder);
    folder.take_on()?;
    let mut follower = if is_in_unit { follow_in_journal(&folder) } else { None };
    let ended = {
        let follow = async {
            match &mut follower {
                Some(follower) => follower.follow().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = run(&folder, programs, &environment, Duration::from_millis(milliseconds)) => ended?,
            never = follow => match never {},
        }
    };
    follower.iter_mut().for_each(Follower::show_rest);
    if let Some(arming) = then_arm {
        // The agent may not be there any more, and the timer leaves time for all of the activation.
        let arming = if ended.is_ok() { arming } else { arming.soon() };
        if let Err(error) = arming.arm().await {
            tracing::warn!(error = %describe_error(&error), "the way back would be taken later than it should");
        }
    }
    let error = ended.err();
    let code = error.as_ref().and_then(ProcessError::exit_code);
    let error = error.map(|error| describe_error(&error));
    Ok(folder.write_result(&ActivationResult { of, error, code, version: StateVersion })?)
}

/// Shows what the activation says in the journal, as words of the unit of this process: systemd-run gave it the streams of the agent.
fn follow_in_journal(folder: &ActivationFolder) -> Option<Follower> {
    // The lines at the beginning of such a stream: the identifier, the unit, the priority, and whether lines begin with a priority and go on to
    // syslog, the kernel's log and the console. Of the unit, the journal knows by itself (sd_journal_stream_fd(3)).
    const BEGIN: &[u8] = b"clavel-agent\n\n6\n0\n0\n0\n0\n";
    let shown = UnixStream::connect("/run/systemd/journal/stdout").and_then(|mut journal| {
        journal.write_all(BEGIN)?;
        rustix::stdio::dup2_stderr(&journal)?;
        Follower::at_the_end(&folder.log())
    });
    shown.inspect_err(|error| tracing::debug!(%error, "the journal does not show what the activation says")).ok()
}

/// Runs the programs one after another, until one fails.
async fn run(
    folder: &ActivationFolder,
    programs: Vec<ActivationProgram>,
    environment: &[(OsString, OsString)],
    within: Duration,
) -> Result<Result<(), ProcessError>, StateError> {
    let begun = Instant::now();
    for program in programs {
        let program = program.after(environment);
        let run = match this_program() {
            Ok(this) => program.invocation().run_by(this, become_arguments(folder)),
            Err(error) => {
                tracing::warn!(%error, "cannot find the file of this program, so the process of the activation is not noted");
                program.invocation()
            }
        };
        let run = run
            .within(within.saturating_sub(begun.elapsed()))
            .writing_to(folder.open_log()?)
            // An activation starts services.
            .leaving_survivors_alone();
        if let Err(error) = run.run().await {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

/// The arguments of [`become_program`] before the program's own.
fn become_arguments(folder: &ActivationFolder) -> [OsString; 3] {
    [BECOME_COMMAND.into(), folder.path().into(), std::process::id().to_string().into()]
}

/// Notes this process in the folder of the activation, and becomes the program. `arguments` are the folder, the id of the process
/// that carries out the activation, the program, and its arguments.
///
/// A program that ran before it was noted could end the process that carries out the activation, and nobody would wait for it. Where
/// that process has ended already, an agent may have found nothing noted: then the program does not begin.
pub fn become_program(arguments: impl Iterator<Item = OsString>) -> Result<std::convert::Infallible, CarryOutError> {
    let mut arguments = arguments;
    let [folder, carrying_out, program] = std::array::from_fn(|_| arguments.next().unwrap_or_default());
    if let Err(error) = ActivationFolder::at(folder).write_program(ProcessMark::of(rustix::process::getpid())) {
        tracing::warn!(error = %describe_error(&error), "cannot note the process of the activation");
    }
    if carrying_out != OsStr::new(&std::os::unix::process::parent_id().to_string()) {
        return Err(CarryOutError::Alone);
    }
    Err(Invocation::new(program).args(arguments).become_it().into())
}
