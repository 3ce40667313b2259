//! The agent's side of an activation: it starts the process, waits for it, and picks up what an earlier agent began.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::service_manager::{Manager, UnitName};
use super::super::state::StateError;
use super::super::way_back::arming::Arming;
use super::child::{ACTIVATE_COMMAND, IN_UNIT};
use super::files::{ActivationFailed, ActivationFolder, ActivationId, ActivationProgram, ActivationRequest};
use crate::disk::FileLock;
use crate::model::json::StateVersion;
use crate::model::{Name, describe_error};
use crate::process::{DetachedStreams, Follower, Invocation, this_program};
use crate::stderr::is_journal;

/// How often the agent looks whether an activation has ended that is not its own.
const LOOK: Duration = Duration::from_millis(100);
/// Variables with which systemd talks to the agent itself (systemd.exec(5)).
const OWN_VARIABLES: [&str; 7] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "MAINPID",
    "NOTIFY_SOCKET",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// The time that an activation has after its deadline to be ended and to write its result.
pub(in super::super) const GRACE: Duration = Duration::from_secs(15);

/// An activation that is to be carried out.
#[derive(Debug)]
pub(in super::super) struct Undertaking<'a> {
    pub(in super::super) of: &'a ActivationId,
    pub(in super::super) unit: &'a Name,
    pub(in super::super) programs: Vec<ActivationProgram>,
    pub(in super::super) within: Duration,
    /// The timer to start once it has ended.
    pub(in super::super) then_arm: Option<Arming>,
}

/// What became of the activation that an earlier agent began.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum PickUp {
    /// It ended by itself, well or with this error.
    Ended(Result<(), ActivationFailed>),
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
        self.forget_request()?;
        self.end_leftover(until).await
    }

    /// Carries out an activation, in a process that has `lock` from now on, and gives its result. Under systemd, the process is a unit of its
    /// own.
    pub(in super::super) async fn run(
        &self,
        lock: FileLock,
        Undertaking { of, unit, programs, within, then_arm }: Undertaking<'_>,
    ) -> Result<Result<(), ActivationFailed>, StateError> {
        self.forget_result()?;
        let milliseconds = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let folder = self.path().as_os_str().to_owned();
        let (environment, version) = (own_environment(), StateVersion);
        let request =
            ActivationRequest { of: of.clone(), folder, programs, environment, milliseconds, then_arm, version };
        let stdin = self.write_request(&request)?;
        let stderr = self.new_log()?;
        let until = Instant::now() + within + GRACE;
        let program = match this_program() {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("cannot find the file of this program: {error}").into())),
        };
        let clone = |file: &File| {
            file.try_clone().map_err(|source| StateError::Io {
                act: "use the lock in",
                path: self.path().to_owned(),
                source,
            })
        };
        let lock = lock.into_file();
        let streams = || {
            Ok::<_, StateError>(DetachedStreams {
                stdin: clone(&stdin)?,
                stdout: clone(&lock)?,
                stderr: clone(&stderr)?,
            })
        };
        let mut how = None;
        let manager = Manager::find();
        if let Some(manager) = manager {
            let run = in_unit(manager, unit, of, within + GRACE * 2, program.clone());
            how = Some(self.watch(run, streams()?, is_journal()).await);
        }
        if !self.is_taken_on() {
            if let (Some(manager), Some(how)) = (manager, &how) {
                tracing::warn!(%how, "systemd did not run the activation in a unit of its own ({manager:?}); it is a process of the agent");
            }
            how = Some(self.watch(Invocation::new(program).arg(ACTIVATE_COMMAND), streams()?, false).await);
        }
        drop(lock);
        // The process that was waited for may have ended before the activation: systemd may have started anew meanwhile.
        match self.pick_up(of, until.saturating_duration_since(Instant::now()), &|| ()).await? {
            PickUp::Ended(result) => Ok(result),
            PickUp::Nothing | PickUp::StillRuns => Ok(Err(format!(
                "the process that carries it out ended without a result ({}); {} has its output",
                how.unwrap_or_default(),
                self.log().display()
            )
            .into())),
        }
    }

    /// Waits for the end of `run`, and says how it ended. What the activation says is shown, unless another shows it.
    async fn watch(&self, run: Invocation, streams: DetachedStreams, is_shown: bool) -> String {
        let mut follower = Follower::at_the_end(&self.log()).ok().filter(|_| !is_shown);
        let run = OWN_VARIABLES.iter().fold(run, |run, name| run.env_remove(*name));
        let mut process = match run.start_detached(streams) {
            Ok(process) => process,
            Err(error) => return describe_error(&error),
        };
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
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
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

/// The activation as a unit of systemd. It ends with its first process, and what that left running is let alone.
fn in_unit(manager: Manager, unit: &Name, of: &ActivationId, within: Duration, program: PathBuf) -> Invocation {
    let (deployment, revision) = (&of.deployment, of.revision);
    let options = [
        // It gets the streams of systemd-run, of which one is the lock.
        "--pipe".to_owned(),
        "--wait".to_owned(),
        "--service-type=exec".to_owned(),
        "--working-directory=/".to_owned(),
        format!("--description=Activates revision {revision} of {deployment}"),
        "--property=KillMode=process".to_owned(),
        format!("--property=RuntimeMaxSec={}s", within.as_secs()),
        format!("--property=LogExtraFields=CLAVEL_UNIT={unit}"),
        format!("--property=LogExtraFields=CLAVEL_DEPLOYMENT={deployment}"),
        format!("--property=LogExtraFields=CLAVEL_REVISION={revision}"),
    ];
    // This link is one of the process that reads it.
    let program = if program == Path::new("/proc/self/exe") {
        format!("/proc/{}/exe", std::process::id()).into()
    } else {
        program
    };
    let command = [program.into_os_string(), ACTIVATE_COMMAND.into(), IN_UNIT.into()];
    manager.run_unit(&UnitName::of("activation", unit), options.map(OsString::from), command)
}

/// The variables of this process, without those with which systemd talks to this process alone.
fn own_environment() -> Vec<(OsString, OsString)> {
    let is_own = |name: &OsString| {
        let name = name.to_string_lossy();
        OWN_VARIABLES.contains(&name.as_ref()) || name.starts_with("LISTEN_")
    };
    std::env::vars_os().filter(|(name, _)| !is_own(name)).collect()
}
