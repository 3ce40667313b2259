//! A program that outlives this process, whatever ends it: it is in a process group of its own, and no pipe leads from one to the
//! other.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::error::ProcessError;
use super::invocation::Invocation;

/// The files that a detached program has for its standard streams.
#[derive(Debug)]
pub struct DetachedStreams {
    /// Its standard input.
    pub stdin: File,
    /// Its standard output. An open file that is locked stays locked for as long as the program keeps it.
    pub stdout: File,
    /// Its standard error.
    pub stderr: File,
}

/// A program that was started detached. Dropping this leaves it running.
#[derive(Debug)]
pub struct Detached(Child);

impl Invocation {
    /// Starts the program with the environment of this process and the variables of the invocation. It has neither a deadline nor
    /// another limit.
    pub fn start_detached(self, streams: DetachedStreams) -> Result<Detached, ProcessError> {
        tracing::debug!(argv = %self, "starting");
        #[expect(clippy::disallowed_methods, reason = "this is one of the places that start programs")]
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for (key, value) in &self.environment {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        let DetachedStreams { stdin, stdout, stderr } = streams;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        // A signal of the terminal goes to the group of this process.
        command.process_group(0).kill_on_drop(false);
        let program = self.program.to_string_lossy().into_owned();
        let child = command.spawn().map_err(|source| ProcessError::NotStarted { program, source })?;
        Ok(Detached(child))
    }

    /// Becomes the program, with the environment and the streams of this process. It returns only where that failed.
    pub fn become_it(self) -> ProcessError {
        #[expect(clippy::disallowed_methods, reason = "this process becomes the program")]
        let source = std::process::Command::new(&self.program).args(&self.arguments).exec();
        ProcessError::NotStarted { program: self.program.to_string_lossy().into_owned(), source }
    }
}

impl Detached {
    /// Waits for the program's end.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.0.wait().await
    }
}

/// The file of this program, and not of another version that replaced it.
pub fn this_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    // Where the file was replaced, Linux reports a path that does not exist; this link still leads to the running program.
    Ok(if program.exists() { program } else { "/proc/self/exe".into() })
}

/// The file that has replaced that of this program since it started. Only Linux says so (proc(5), `/proc/pid/exe`).
pub fn successor() -> Option<PathBuf> {
    let program = std::env::current_exe().ok().filter(|program| !program.exists())?;
    let path = PathBuf::from(program.to_str()?.strip_suffix(" (deleted)")?);
    path.is_file().then_some(path)
}

/// A process of this machine that is no child of this one: its id, and when it started, since the kernel gives ids again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProcessMark {
    id: i32,
    /// In ticks since the machine started; `None` where this machine has no /proc.
    started: Option<u64>,
}

impl ProcessMark {
    /// The mark of a process that runs now.
    pub fn of(process: Pid) -> Self {
        let id = process.as_raw_nonzero().get();
        Self { id, started: started(id) }
    }

    /// Whether it certainly runs.
    pub fn runs(&self) -> bool {
        self.started.is_some() && started(self.id) == self.started
    }

    /// Ends it and the process group that it leads.
    pub fn end(&self) {
        if let Some(leader) = Pid::from_raw(self.id).filter(|_| self.runs()) {
            // An error means that the group has ended already, which is the purpose.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// When a process started that has not ended.
#[cfg(target_os = "linux")]
fn started(id: i32) -> Option<u64> {
    let stat = procfs::process::Process::new(id).ok()?.stat().ok()?;
    (!matches!(stat.state, 'Z' | 'X')).then_some(stat.starttime)
}

/// Other systems have no `/proc`.
#[cfg(not(target_os = "linux"))]
fn started(_: i32) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start() {
        let this = ProcessMark::of(rustix::process::getpid());
        assert!(this.runs());
        assert!(!ProcessMark { started: Some(1), ..this }.runs());
        assert!(!ProcessMark { started: None, ..this }.runs());
    }
}
