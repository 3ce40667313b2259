//! The one place that runs programs.
//!
//! Every program runs in a process group of its own, under a deadline, without the terminal's standard input, with
//! bounded output, and its argv is logged once. What a program is asked to do, and why each flag is there, belongs to
//! the room that asks (`nix`, `store`, `git`, `agent`).

mod group;
mod memory;
mod nix;
mod processor;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use group::{Attended, Group, Interrupted};
use memory::Warden;
use processor::Processor;

pub use memory::machine_memory;

/// A deadline for programs that nobody gave one: one hour.
const DEFAULT_DEADLINE: Duration = Duration::from_hours(1);
/// How many bytes of standard output are kept when nobody says otherwise: 64 MiB.
const DEFAULT_OUTPUT_LIMIT: usize = 64 << 20;

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
    /// The program took more memory than it may.
    #[error("`{command}` needed more than {} of memory and was ended", bytesize::ByteSize(*limit))]
    TooMuchMemory {
        /// The program and its first argument.
        command: String,
        /// The limit in bytes.
        limit: u64,
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
            Self::NotStarted { .. } | Self::TooMuchOutput { .. } | Self::TooMuchMemory { .. } | Self::Io { .. } => "",
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
    /// The end of its standard error, without what was sifted out.
    pub stderr: String,
    /// The lines of standard error that began with the mark, without it; empty where none was asked for.
    pub sifted: Vec<String>,
    /// The most memory that it and what it started held at once, in bytes; zero where it was given no limit,
    /// or ended at once.
    pub peak_memory: u64,
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
    memory_limit: Option<u64>,
    one_processor: bool,
    mark: Option<String>,
    streams: Streams,
    at_the_terminal: bool,
    watched: Option<String>,
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
            memory_limit: None,
            one_processor: false,
            mark: None,
            streams: Streams::Collected,
            at_the_terminal: false,
            watched: None,
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

    /// Ends the program when it and what it started hold more than `bytes` of memory.
    #[must_use]
    pub fn within_memory(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Keeps the program and all that it starts on one processor, one that few others were put on.
    #[must_use]
    pub fn on_one_processor(mut self) -> Self {
        self.one_processor = true;
        self
    }

    /// Collects all lines of standard error that begin with `mark`, apart from the rest; of at most 64 MiB.
    #[must_use]
    pub fn sifting(mut self, mark: impl Into<String>) -> Self {
        self.mark = Some(mark.into());
        self
    }

    /// Lets the person see what the program says while it runs.
    #[must_use]
    pub fn passing_output_on(mut self) -> Self {
        self.streams = Streams::PassedOn;
        self
    }

    /// Lets the program ask at the terminal, as for a passphrase: it stays in this process's own group, so that a deadline
    /// ends the program alone, and not what it started.
    #[must_use]
    pub fn at_the_terminal(mut self) -> Self {
        self.at_the_terminal = true;
        self
    }

    /// Says that this runs `program`, which is among its arguments, and is what errors are about.
    #[must_use]
    pub fn on_behalf_of(mut self, program: &str) -> Self {
        self.watched = Some(program.to_owned());
        self
    }

    /// Runs the program to its end. Anything but exit code 0 is an error.
    pub async fn run(self) -> Result<Output, ProcessError> {
        tracing::debug!(argv = %self, "running");
        let command = self.short();
        let (deadline, limit) = (self.deadline, self.output_limit);
        let mut group = Group::spawn(&self)?;
        let mut warden = Warden::over(group.leader(), self.memory_limit);
        let mut said = Said::default();
        let ended = tokio::select! {
            ended = tokio::time::timeout(deadline, group.attend(&self, &mut said)) => ended.map_err(|_| Stopped::Time),
            () = warden.watch() => Err(Stopped::Memory),
        };
        match &ended {
            Ok(Ok(_)) => {}
            // Whatever it does with a grace, it takes more of what there is too little of.
            Err(Stopped::Memory) => group.kill().await,
            Ok(Err(_)) | Err(Stopped::Time) => group.end().await,
        }
        let too_much_memory = |limit| ProcessError::TooMuchMemory { command: self.short(), limit };
        if let Some(limit) = warden.exceeded() {
            return Err(too_much_memory(limit));
        }
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        match ended {
            Ok(Ok(attended)) => settle(command, attended, stderr, said.sifted, warden.peak()),
            Ok(Err(Interrupted::TooMuchOutput)) => Err(ProcessError::TooMuchOutput { command, limit }),
            Ok(Err(Interrupted::Io(source))) => Err(ProcessError::Io { command, source }),
            Err(Stopped::Time) => Err(ProcessError::TimedOut { command, deadline, stderr }),
            Err(Stopped::Memory) => Err(too_much_memory(self.memory_limit.unwrap_or_default())),
        }
    }

    /// The program and its verb: enough to recognise it in an error.
    fn short(&self) -> String {
        if let Some(watched) = &self.watched {
            return watched.clone();
        }
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

/// Why Clavel ended a program.
enum Stopped {
    Time,
    Memory,
}

/// What a program wrote to standard error.
#[derive(Debug, Default)]
struct Said {
    /// The end of it.
    stderr: Vec<u8>,
    /// What was sifted out.
    sifted: Vec<String>,
}

fn settle(
    command: String,
    Attended { stdout, status }: Attended,
    stderr: String,
    sifted: Vec<String>,
    peak_memory: u64,
) -> Result<Output, ProcessError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(Output { stdout, stderr, sifted, peak_memory }),
        (Some(code), _) => Err(ProcessError::Failed { command, code, stderr }),
        (None, signal) => Err(ProcessError::Killed { command, signal: signal.unwrap_or(0), stderr }),
    }
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
    async fn a_deadline_ends_one_that_stays_at_the_terminal() {
        let sleep = Invocation::new("sleep").arg("600").at_the_terminal().within(Duration::from_millis(100));
        let error = sleep.run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn endless_output_is_cut_off() {
        // One that does not mind that nobody reads any more.
        let script = "trap '' PIPE; while :; do echo yes || sleep 600; done";
        let error = Invocation::new("sh").args(["-c", script]).at_most(1 << 10).run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchOutput { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_marked_is_sifted_out_and_all_of_it_kept() {
        let script =
            "i=0; while [ $i -lt 5000 ]; do echo \"mark $i\" >&2; i=$((i+1)); done; echo rest >&2; printf 'mark x' >&2";
        let output = Invocation::new("sh").args(["-c", script]).sifting("mark ").run().await.unwrap();
        assert_eq!(output.sifted.len(), 5001);
        assert_eq!((output.sifted[4999].as_str(), output.sifted[5000].as_str()), ("4999", "x"));
        assert_eq!(output.stderr, "rest\n");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_that_takes_too_much_memory_is_ended_with_what_it_started() {
        // The hungry one is a grandchild, as nix is below a program that watches it.
        let script = "sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; true";
        let error = Invocation::new("sh").args(["-c", script]).within_memory(64 << 20).run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchMemory { .. }), "{error}");
        assert_eq!(error.to_string(), "`sh` needed more than 64.0 MiB of memory and was ended");
        let output = Invocation::new("sh").args(["-c", "sleep 0.3"]).within_memory(64 << 20).run().await.unwrap();
        assert!((1..64 << 20).contains(&output.peak_memory), "{}", output.peak_memory);
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
