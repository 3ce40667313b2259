//! The one place that runs programs.
//!
//! Every program runs in a process group of its own, under a deadline, without the terminal's standard input, with
//! bounded output, and its argv is logged once. What a program is asked to do, and why each flag is there, belongs to
//! the room that asks (`nix`, `repository`, `agent`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// A deadline for programs that nobody gave one: one hour.
const DEFAULT_DEADLINE: Duration = Duration::from_hours(1);
/// How many bytes of standard output are kept when nobody says otherwise: 64 MiB.
const DEFAULT_OUTPUT_LIMIT: usize = 64 << 20;
/// How many bytes of the end of standard error are kept.
const STDERR_TAIL: usize = 16 << 10;
/// How long a process group has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// What `git rev-parse --local-env-vars` lists, and what a quarantine adds.
const GIT_LOCAL_VARIABLES: [&str; 16] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Why a program did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started at all.
    #[error("cannot run `{program}`: {source}; is it installed and on the PATH?")]
    NotStarted {
        /// The program's name or path.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program ended with a non-zero exit code.
    #[error("`{command}` failed with exit code {code}{}", said(stderr))]
    Failed {
        /// The program and its first argument.
        command: String,
        /// Its exit code.
        code: i32,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program was ended by a signal that Clavel did not send.
    #[error("`{command}` was killed by signal {signal}{}{}", memory_hint(*signal), said(stderr))]
    Killed {
        /// The program and its first argument.
        command: String,
        /// The signal's number.
        signal: i32,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program ran past its deadline and was ended.
    #[error("`{command}` did not finish within {} and was ended{}", humantime::format_duration(*deadline), said(stderr))]
    TimedOut {
        /// The program and its first argument.
        command: String,
        /// The time it was given.
        deadline: Duration,
        /// The end of its standard error.
        stderr: String,
    },
    /// The program wrote more than it may.
    #[error("`{command}` wrote more than {limit} bytes and was ended")]
    TooMuchOutput {
        /// The program and its first argument.
        command: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// Talking to the program failed.
    #[error("lost contact with `{command}`: {source}")]
    Io {
        /// The program and its first argument.
        command: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// The end of what the program wrote to standard error; empty where it did not get that far.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } | Self::Killed { stderr, .. } | Self::TimedOut { stderr, .. } => stderr,
            Self::NotStarted { .. } | Self::TooMuchOutput { .. } | Self::Io { .. } => "",
        }
    }
}

fn said(stderr: &str) -> String {
    let stderr = stderr.trim();
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}

fn memory_hint(signal: i32) -> &'static str {
    if signal == Signal::KILL.as_raw() { " (most likely because memory ran out)" } else { "" }
}

/// What a program that ended well left behind.
#[derive(Debug)]
pub struct Output {
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// The end of its standard error.
    pub stderr: String,
}

/// Where a program's standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Streams {
    /// Collected, bounded, and handed back.
    Collected,
    /// Standard output to our standard error as it comes (data goes to stdout, and this is not ours); standard error
    /// is passed on too, and its end is kept for the error.
    PassedOn,
}

/// A program about to be run.
#[derive(Debug)]
pub struct Invocation {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, Option<OsString>)>,
    directory: Option<PathBuf>,
    stdin: Vec<u8>,
    deadline: Duration,
    output_limit: usize,
    streams: Streams,
}

impl Invocation {
    /// A run of `program`, looked up on the PATH unless it is a path.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            stdin: Vec::new(),
            deadline: DEFAULT_DEADLINE,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            streams: Streams::Collected,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment, which is otherwise inherited.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), Some(value.into())));
        self
    }

    /// Takes a variable out of the inherited environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), None));
        self
    }

    /// Forgets the git repository that this process was started in: git sets these for its hooks, and whoever inherits
    /// them works on the wrong repository.
    #[must_use]
    pub fn outside_any_repository(self) -> Self {
        GIT_LOCAL_VARIABLES.iter().fold(self, Self::env_remove)
    }

    /// Runs in `directory`.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Writes `bytes` to the program's standard input, which is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Ends the program's whole process group after `deadline`.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Ends the program when it writes more than `bytes` to standard output.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Lets the person see what the program says while it runs.
    #[must_use]
    pub fn passing_output_on(mut self) -> Self {
        self.streams = Streams::PassedOn;
        self
    }

    /// Runs the program to its end. Anything but exit code 0 is an error.
    pub async fn run(self) -> Result<Output, ProcessError> {
        tracing::debug!(argv = %self, "running");
        let command = self.short();
        let (deadline, limit) = (self.deadline, self.output_limit);
        let mut group = Group::spawn(&self)?;
        let mut stderr = Vec::new();
        let ended = tokio::time::timeout(deadline, group.attend(&self, &mut stderr)).await;
        if !matches!(ended, Ok(Ok(_))) {
            group.end().await;
        }
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        match ended {
            Ok(Ok((stdout, status))) => settle(command, status, stdout, stderr),
            Ok(Err(Interrupted::TooMuchOutput)) => Err(ProcessError::TooMuchOutput { command, limit }),
            Ok(Err(Interrupted::Io(source))) => Err(ProcessError::Io { command, source }),
            Err(_elapsed) => Err(ProcessError::TimedOut { command, deadline, stderr }),
        }
    }

    /// The program and its verb: enough to recognise it in an error.
    fn short(&self) -> String {
        let program = PathBuf::from(&self.program);
        let name = program.file_name().unwrap_or(&self.program).to_string_lossy().into_owned();
        match self.arguments.first().map(|argument| argument.to_string_lossy()) {
            Some(verb) if !verb.starts_with('-') && verb.len() <= 40 => format!("{name} {verb}"),
            _ => name,
        }
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.program.to_string_lossy())?;
        for argument in &self.arguments {
            write!(f, " {}", quoted(argument))?;
        }
        Ok(())
    }
}

fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+,%?&#".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into_owned() } else { format!("{text:?}") }
}

fn settle(command: String, status: ExitStatus, stdout: Vec<u8>, stderr: String) -> Result<Output, ProcessError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Output { stdout, stderr }),
        (Some(code), _) => Err(ProcessError::Failed { command, code, stderr }),
        (None, signal) => Err(ProcessError::Killed { command, signal: signal.unwrap_or(0), stderr }),
    }
}

/// Why a program was not attended to its end.
enum Interrupted {
    Io(std::io::Error),
    TooMuchOutput,
}

impl From<std::io::Error> for Interrupted {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A child and the process group it leads; the group is ended when this is dropped early.
struct Group {
    child: Child,
    leader: Option<Pid>,
    ended: bool,
}

impl Group {
    fn spawn(invocation: &Invocation) -> Result<Self, ProcessError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place")]
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.arguments);
        for (key, value) in &invocation.environment {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(directory) = &invocation.directory {
            command.current_dir(directory);
        }
        // A program asked for nothing gets an end of file at once, never the terminal.
        command.stdin(if invocation.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        // Its own group, so that a deadline ends what it started too (nix forks git, git forks ssh).
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(|source| ProcessError::NotStarted {
            program: invocation.program.to_string_lossy().into_owned(),
            source,
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, leader, ended: false })
    }

    /// Feeds the child and collects what it says until it ends.
    async fn attend(
        &mut self,
        invocation: &Invocation,
        stderr_tail: &mut Vec<u8>,
    ) -> Result<(Vec<u8>, ExitStatus), Interrupted> {
        let (stdin, stdout, stderr) = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let streams = invocation.streams;
        let ((), stdout, ()) = tokio::try_join!(
            feed(stdin, &invocation.stdin),
            collect(stdout, invocation.output_limit, streams),
            tail(stderr, stderr_tail, streams),
        )?;
        let status = self.child.wait().await?;
        self.ended = true;
        Ok((stdout, status))
    }

    /// SIGTERM to the group, then SIGKILL to whatever of it is left.
    async fn end(&mut self) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        self.ended = true;
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // The group may be gone already, and that is what was wanted.
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

async fn feed(stdin: Option<tokio::process::ChildStdin>, bytes: &[u8]) -> Result<(), Interrupted> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match stdin.write_all(bytes).await {
        // A program that does not read all of its input says so with its exit code.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Reads all of `stream`, of at most `limit` bytes.
async fn collect(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
    streams: Streams,
) -> Result<Vec<u8>, Interrupted> {
    let mut all = Vec::new();
    let Some(mut stream) = stream else { return Ok(all) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(all);
        }
        match streams {
            Streams::PassedOn => pass_on(&buffer[..count]),
            Streams::Collected if all.len() + count > limit => return Err(Interrupted::TooMuchOutput),
            Streams::Collected => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Reads all of `stream` and keeps its end.
async fn tail(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, streams: Streams) -> Result<(), Interrupted> {
    let Some(mut stream) = stream else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if streams == Streams::PassedOn {
            pass_on(&buffer[..count]);
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > STDERR_TAIL {
            kept.drain(..kept.len() - STDERR_TAIL);
        }
    }
}

fn pass_on(bytes: &[u8]) {
    use std::io::Write as _;
    // A closed terminal must not end the work whose output it would have shown.
    let _ = std::io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn output_is_collected_and_input_is_fed() {
        let output = Invocation::new("cat").stdin("hello").run().await.unwrap();
        assert_eq!(output.stdout, b"hello");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_failure_carries_the_end_of_what_was_said() {
        let error = Invocation::new("sh").args(["-c", "echo why >&2; exit 3"]).run().await.unwrap_err();
        assert!(matches!(&error, ProcessError::Failed { code: 3, stderr, .. } if stderr == "why\n"), "{error}");
        assert_eq!(error.to_string(), "`sh` failed with exit code 3:\nwhy");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_ends_the_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let error = Invocation::new("sh").args(["-c", &script]).within(Duration::from_millis(300)).run().await;
        assert!(matches!(error, Err(ProcessError::TimedOut { .. })), "{error:?}");
        let grandchild: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let still_there = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        for _ in 0..200 {
            if !still_there() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild outlived the deadline");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn endless_output_is_cut_off() {
        // One that does not mind that nobody reads any more.
        let script = "trap '' PIPE; while :; do echo yes || sleep 600; done";
        let error = Invocation::new("sh").args(["-c", script]).at_most(1 << 10).run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchOutput { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_kill_is_told_apart_from_a_failure() {
        let error = Invocation::new("sh").args(["-c", "kill -9 $$"]).run().await.unwrap_err();
        assert!(error.to_string().contains("killed by signal 9 (most likely because memory ran out)"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_missing_program_is_named() {
        let error = Invocation::new("no-such-program").run().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot run `no-such-program`"), "{error}");
    }
}
