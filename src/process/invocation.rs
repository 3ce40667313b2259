//! A program that is to be run: its arguments, its environment, and its limits.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use super::limits::{CageBounds, Progress};

/// The deadline of a program for which the caller sets none: one hour.
const DEFAULT_DEADLINE: Duration = Duration::from_hours(1);
/// The most bytes of standard output where the caller sets no limit: 64 MiB.
const DEFAULT_OUTPUT_LIMIT: usize = 64 << 20;

/// The variables that `git rev-parse --local-env-vars` lists, and those that a quarantine adds.
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

/// The destination of a program's standard output and standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Streams {
    /// Both are collected within their limits, and returned.
    Collected,
    /// Both go to the standard error of this process at once. (Its standard output is for its own data alone.) The end of
    /// standard error is also kept for the error.
    PassedOn,
}

/// What becomes of the processes that the program left running in its group, once it has ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Survivors {
    /// They are ended.
    Ended,
    /// They run on.
    LetAlone,
}

/// Whether the program's standard input ends where the input that was given ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputEnd {
    /// It ends there.
    Closed,
    /// It ends with this process, or once the output of the program has ended.
    Held,
}

/// Whether a program has as much of the processors as others have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Priority {
    /// It has.
    Usual,
    /// Others go first.
    Low,
}

/// What a program has to do with the terminal of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terminal {
    /// It is in the group of this process, and may ask there.
    Asked,
    /// It leads a group of its own.
    NotAsked,
    /// It makes a session of its own, which has no terminal.
    OutOfReach,
}

/// A program that is to be run.
#[derive(Debug)]
pub struct Invocation {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, Option<OsString>)>,
    /// Whether the program gets the variables of this process too.
    pub(super) inherits_environment: bool,
    pub(super) directory: Option<PathBuf>,
    pub(super) stdin: Vec<u8>,
    pub(super) input_end: InputEnd,
    pub(super) survivors: Survivors,
    pub(super) deadline: Duration,
    pub(super) output_limit: usize,
    pub(super) memory_limit: Option<u64>,
    pub(super) bounds: Option<CageBounds>,
    pub(super) progress: Option<Progress>,
    pub(super) one_processor: bool,
    pub(super) priority: Priority,
    pub(super) mark: Option<String>,
    pub(super) streams: Streams,
    /// The file that gets both streams in place of this process.
    pub(super) output_file: Option<File>,
    pub(super) terminal: Terminal,
    pub(super) reported_as: Option<String>,
}

impl Invocation {
    /// A run of `program`, looked up on the PATH unless it is a path.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            inherits_environment: true,
            directory: None,
            stdin: Vec::new(),
            input_end: InputEnd::Closed,
            survivors: Survivors::Ended,
            deadline: DEFAULT_DEADLINE,
            output_limit: DEFAULT_OUTPUT_LIMIT,
            memory_limit: None,
            bounds: None,
            progress: None,
            one_processor: false,
            priority: Priority::Usual,
            mark: None,
            streams: Streams::Collected,
            output_file: None,
            terminal: Terminal::NotAsked,
            reported_as: None,
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

    /// Sets a variable of the environment. The others are inherited.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), Some(value.into())));
        self
    }

    /// Removes a variable from the inherited environment.
    #[must_use]
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.environment.push((key.into(), None));
        self
    }

    /// Removes the variables that name the git repository of this process. Git sets them for its hooks, and a program that
    /// inherits them would work on the wrong repository.
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

    /// Leaves the standard input open after the bytes that were written to it, so that the program reads its end when this process
    /// has ended, however that came about.
    #[must_use]
    pub fn holding_stdin_open(mut self) -> Self {
        self.input_end = InputEnd::Held;
        self
    }

    /// Lets run on what the program leaves running when it ends by itself; otherwise its process group is ended with it.
    #[must_use]
    pub fn leaving_survivors_alone(mut self) -> Self {
        self.survivors = Survivors::LetAlone;
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

    /// Ends the program where it writes less than `least` bytes `within` some time: to files, to a store, or to anything else.
    #[must_use]
    pub fn making_progress(mut self, within: Duration, least: u64) -> Self {
        self.progress = Some(Progress { within, least });
        self
    }

    /// Bounds what a program writes that fetches from a server or a repository, and how many processes it starts.
    #[must_use]
    pub fn fetching(mut self) -> Self {
        self.bounds = Some(CageBounds::of_a_fetch());
        self
    }

    /// Ends the program when it and the programs that it started hold more than `bytes` of memory.
    #[must_use]
    pub fn within_memory(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Keeps the program and all programs that it starts on one processor, on which few others were put.
    #[must_use]
    pub fn on_one_processor(mut self) -> Self {
        self.one_processor = true;
        self
    }

    /// Lets other programs go first (nice(1)).
    #[must_use]
    pub fn at_low_priority(mut self) -> Self {
        self.priority = Priority::Low;
        self
    }

    /// Tells the lines of standard error that begin with `mark` apart from the others, at most 64 MiB of them.
    #[must_use]
    pub fn telling_marked_lines(mut self, mark: impl Into<String>) -> Self {
        self.mark = Some(mark.into());
        self
    }

    /// Shows the output of the program on standard error while it runs.
    #[must_use]
    pub fn passing_output_on(mut self) -> Self {
        self.streams = Streams::PassedOn;
        self
    }

    /// Makes the program write both of its outputs to `file`, which has to be open for reading and appending. What the program leaves
    /// running can then write on, whatever becomes of this process. The end of what was written is kept for the error.
    #[must_use]
    pub fn writing_to(mut self, file: File) -> Self {
        self.output_file = Some(file);
        self
    }

    /// Lets the program ask at the terminal, for example for a passphrase. For that it stays in the group of this process, so a
    /// deadline ends the program alone, and not the programs that it started.
    #[must_use]
    pub fn at_the_terminal(mut self) -> Self {
        self.terminal = Terminal::Asked;
        self
    }

    /// Takes the terminal of this process from the program, for one that runs as another user: it could type there what this user's shell
    /// then reads.
    #[must_use]
    pub fn without_a_terminal(self) -> Self {
        // It makes a session by itself where it leads no group yet, stays the same process, and leads the group that the deadline ends.
        Self { terminal: Terminal::OutOfReach, ..self.run_by("setsid", []) }
    }

    /// Has it run by `program`, whose arguments are `arguments` and then this program and its arguments. Errors name this program.
    #[must_use]
    pub fn run_by(self, program: impl Into<OsString>, arguments: impl IntoIterator<Item = OsString>) -> Self {
        let reported_as = Some(self.short_name());
        let arguments = arguments.into_iter().chain([self.program]).chain(self.arguments).collect();
        Self { program: program.into(), arguments, reported_as, ..self }
    }

    /// Makes errors name `program`, which this one runs in turn.
    #[must_use]
    pub fn reported_as(mut self, program: &str) -> Self {
        self.reported_as = Some(program.to_owned());
        self
    }

    /// The program and its verb, by which a reader recognises it in an error.
    pub(super) fn short_name(&self) -> String {
        if let Some(program) = &self.reported_as {
            return program.clone();
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

/// An argument as the log shows it: in quotes if it has unusual characters.
fn quoted(argument: &OsStr) -> String {
    let text = argument.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+,%?&#".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.into_owned() } else { format!("{text:?}") }
}
