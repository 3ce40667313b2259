//! The agent's side of an activation: it starts the process, waits for it, and picks up what an earlier agent began.

use std::time::{Duration, Instant};

use super::super::state::StateError;
use super::child::ACTIVATE_COMMAND;
use super::files::{ActivationFolder, ActivationId, ActivationProgram, ActivationRequest};
use crate::disk::FileLock;
use crate::model::describe_error;
use crate::model::json::StateVersion;
use crate::process::{DetachedStreams, Follower, Invocation, this_program};

/// How often the agent looks whether an activation has ended that is not its own.
const LOOK: Duration = Duration::from_millis(100);
/// The time that an activation has after its deadline to be ended and to write its result.
const GRACE: Duration = Duration::from_secs(15);

/// What became of the activation that an earlier agent began.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum PickUp {
    /// It ended by itself, well or with this error.
    Ended(Result<(), String>),
    /// It ended with the machine, or did not begin.
    Nothing,
    /// It does not end, although its deadline is over.
    StillRuns,
}

impl ActivationFolder {
    /// Waits for the activation that an earlier agent began, for as long as it may take, and gives its result. `waiting` is called
    /// where it still runs.
    pub(in super::super) async fn pick_up(
        &self,
        of: &ActivationId,
        within: Duration,
        waiting: &dyn Fn(),
    ) -> Result<PickUp, StateError> {
        let until = Instant::now() + within + GRACE;
        // Its process is no child of this one, so its lock says whether it runs.
        if self.try_lock()?.is_none() {
            waiting();
            let mut follower = Follower::at_the_end(&self.log()).ok();
            while self.try_lock()?.is_none() {
                follower.iter_mut().for_each(Follower::show_rest);
                if Instant::now() > until {
                    return Ok(PickUp::StillRuns);
                }
                tokio::time::sleep(LOOK).await;
            }
            follower.iter_mut().for_each(Follower::show_rest);
        }
        if let Some(result) = self.read_result(of)? {
            return Ok(PickUp::Ended(result));
        }
        self.end_leftover(until).await
    }

    /// Carries out an activation, in a process that has `lock` from now on, and gives its result.
    pub(in super::super) async fn run(
        &self,
        lock: FileLock,
        of: &ActivationId,
        programs: Vec<ActivationProgram>,
        within: Duration,
    ) -> Result<Result<(), String>, StateError> {
        self.forget_result()?;
        let milliseconds = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let folder = self.path().as_os_str().to_owned();
        let request = ActivationRequest { of: of.clone(), folder, programs, milliseconds, version: StateVersion };
        let stdin = self.write_request(&request)?;
        let stderr = self.new_log()?;
        let mut follower = Follower::at_the_end(&self.log()).ok();
        let program = match this_program() {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("cannot find the file of this program: {error}"))),
        };
        let streams = DetachedStreams { stdin, stdout: lock.into_file(), stderr };
        let mut process = match Invocation::new(program).arg(ACTIVATE_COMMAND).start_detached(streams) {
            Ok(process) => process,
            Err(error) => return Ok(Err(describe_error(&error))),
        };
        let until = Instant::now() + within + GRACE;
        let status = {
            let follow = async {
                match &mut follower {
                    Some(follower) => follower.follow().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                status = process.wait() => status,
                never = follow => match never {},
            }
        };
        follower.iter_mut().for_each(Follower::show_rest);
        if let Some(result) = self.read_result(of)? {
            return Ok(result);
        }
        let _ = self.end_leftover(until).await?;
        let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        Ok(Err(format!(
            "the process that carries it out ended without a result ({how}); {} has its output",
            self.log().display()
        )))
    }

    /// Waits for a program of an activation whose process was killed, and ends it at that time. Its result is lost.
    async fn end_leftover(&self, until: Instant) -> Result<PickUp, StateError> {
        let Some(program) = self.read_program()? else { return Ok(PickUp::Nothing) };
        let ended_until = until + GRACE;
        while program.runs() {
            if Instant::now() > ended_until {
                return Ok(PickUp::StillRuns);
            }
            if Instant::now() > until {
                program.end();
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(PickUp::Nothing)
    }
}
