//! The process of an activation: it reads the request from standard input, runs the programs, and writes the result.
//!
//! `clavel-agent` runs itself anew as this process; people never do. Its standard output is the file that the agent locked, which it
//! keeps open and never writes to: the lock ends with it.

use std::io::Read as _;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::super::state::StateError;
use super::files::{ActivationFolder, ActivationProgram, ActivationRequest, ActivationResult, parse_request};
use crate::model::describe_error;
use crate::model::json::{JsonError, StateVersion};
use crate::process::{ProcessError, ProcessMark};

/// The hidden subcommand that runs this process.
pub const ACTIVATE_COMMAND: &str = "activate";

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
}

/// Carries out the activation that standard input asks for.
pub async fn carry_out() -> Result<(), CarryOutError> {
    // A signal to the agent is not meant for the activation, whoever sends it to all of a service's processes. One that is
    // handled does not end this process, and its programs do not inherit that.
    let _handled = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
        .map(|kind| signal(kind).map_err(CarryOutError::Signals))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).map_err(CarryOutError::Read)?;
    let ActivationRequest { of, folder, programs, milliseconds, .. } =
        parse_request(&bytes).map_err(CarryOutError::Request)?;
    let folder = ActivationFolder::at(folder);
    let ended = run(&folder, programs, Duration::from_millis(milliseconds)).await?;
    let error = ended.err().map(|error| describe_error(&error));
    Ok(folder.write_result(&ActivationResult { of, error, version: StateVersion })?)
}

/// Runs the programs one after another, until one fails.
async fn run(
    folder: &ActivationFolder,
    programs: Vec<ActivationProgram>,
    within: Duration,
) -> Result<Result<(), ProcessError>, StateError> {
    let begun = Instant::now();
    for program in programs {
        let started = |process: Pid| {
            // It is read only where this process was killed.
            if let Err(error) = folder.write_program(ProcessMark::of(process)) {
                tracing::warn!(error = %describe_error(&error), "cannot note the process of the activation");
            }
        };
        let run = program
            .invocation()
            .within(within.saturating_sub(begun.elapsed()))
            .writing_to(folder.open_log()?)
            // An activation starts services.
            .leaving_survivors_alone();
        if let Err(error) = run.run_telling(&started).await {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}
