//! A program about to be run: its arguments, its environment, and its limits.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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

/// Where a program's standard output and error go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// Collected, bounded, and handed back.
    Collected,
    /// Standard output to our standard error as it comes (data goes to stdout, and this is not ours); standard error
    /// is passed on too, and its end is kept for the error.
    PassedOn,
}

/// A program about to be run.
#[derive(Debug)]
pub struct Invocation {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    pub(super) directory: Option<PathBuf>,
    pub(super) stdin: Vec<u8>,
    pub(super) deadline: Duration,
    pub(super) output_limit: usize,
    pub(super) memory_limit: Option<u64>,
    pub(super) one_processor: bool,
    pub(super) mark: Option<String>,
    pub(super) streams: Streams,
    pub(super) at_the_terminal: bool,
    pub(super) watched: Option<String>,
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

    /// The program and its verb: enough to recognise it in an error.
    pub(super) fn short(&self) -> String {
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
