//! Evaluating an expression, purely, building nothing; watched, where that is asked for.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Nix, NixError, settings};
use crate::process::{Invocation, ProcessError};

/// The most that strace may tell of one evaluation: a NixOS host looks at some thousands of files, which is 4 MiB.
const LARGEST_LOG: u64 = 256 << 20;

/// An expression, and how it is to be evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// What it is, for the errors: "evaluate web-1".
    pub act: &'a str,
    /// The expression, in Nix's language.
    pub expression: &'a str,
    /// The most memory it may take, in bytes.
    pub memory: u64,
    /// The most bytes that the answer may have.
    pub largest: usize,
    /// What begins the traces that are collected.
    pub mark: &'a str,
    /// Whether what it reads is watched.
    pub watch: Watch,
}

/// Whether somebody looks on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Every look at a file is told.
    Files,
    /// Nobody does.
    Nothing,
}

/// The system calls that name files.
#[derive(Debug)]
pub enum Calls {
    /// As strace writes them, with every text in hexadecimal.
    Seen(String),
    /// There are so many that this many bytes of them were not read.
    TooMany(u64),
    /// Nobody watched.
    Unseen,
}

/// What came of an evaluation.
#[derive(Debug)]
pub struct Answer {
    /// What `--json` prints.
    pub json: Vec<u8>,
    /// The traces that began with the mark, without it.
    pub told: Vec<String>,
    /// What was seen of it.
    pub calls: Calls,
    /// How long it took.
    pub time: Duration,
    /// The most memory that it held, in bytes.
    pub memory: u64,
}

impl NixError {
    /// Whether it was ended because it took too much memory or time, or died of it.
    pub fn is_limit(&self) -> bool {
        match self {
            Self::Failed { source, .. } => match source {
                ProcessError::TooMuchMemory { .. } | ProcessError::TimedOut { .. } | ProcessError::Killed { .. } => {
                    true
                }
                ProcessError::Failed { stderr, .. } => died_of_memory(stderr),
                ProcessError::NotStarted { .. } | ProcessError::TooMuchOutput { .. } | ProcessError::Io { .. } => false,
            },
            Self::Unexpected { .. } | Self::Files { .. } => false,
        }
    }
}

/// What Nix and its collector say when the system gives them no more.
fn died_of_memory(stderr: &str) -> bool {
    ["Out of memory", "out of memory", "std::bad_alloc", "Too many heap sections"]
        .iter()
        .any(|said| stderr.contains(said))
}

impl Nix {
    /// Whether this machine lets strace watch a program; else why not.
    pub async fn can_watch(&self) -> Result<(), String> {
        let watched = strace(Path::new("/dev/null")).arg("true").within(Duration::from_secs(30)).run().await;
        watched.map(drop).map_err(|error| match error {
            ProcessError::NotStarted { .. } => "there is no strace on the PATH to watch it with".to_owned(),
            other => format!("strace cannot watch here: {}", other.to_string().replace('\n', " ")),
        })
    }

    /// Everything of this machine that the answers may depend on: which Nix it is, and how it is configured.
    pub fn identity(&self) -> String {
        let program = std::env::var_os("PATH").and_then(|path| {
            std::env::split_paths(&path)
                .map(|folder| folder.join("nix-instantiate"))
                .find_map(|p| p.canonicalize().ok())
        });
        let about = program.as_ref().and_then(|program| std::fs::metadata(program).ok());
        let about = about.map(|about| (about.len(), about.mtime(), about.mtime_nsec()));
        let mut settings: Vec<_> =
            std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NIX_")).collect();
        settings.sort();
        format!("{program:?} {about:?} {settings:?} {:?}", settings::files())
    }

    /// Evaluates the question's expression.
    pub async fn evaluate(&self, question: &Question<'_>) -> Result<Answer, NixError> {
        let act = || question.act.to_owned();
        let files = |source| NixError::Files { act: act(), source };
        let folder = tempfile::tempdir().map_err(files)?;
        let log = folder.path().join("calls");
        let started = Instant::now();
        let run = match question.watch {
            Watch::Files => strace(&log).arg("nix-instantiate").on_behalf_of("nix-instantiate"),
            Watch::Nothing => Invocation::new("nix-instantiate"),
        };
        let run = run
            .of_nix(self.deadline)
            .args(["--extra-experimental-features", "nix-command flakes"])
            // The .drv of a host is written while its path is asked for.
            .args(["--eval", "--strict", "--json", "--read-write-mode"])
            // What a host is must follow from the flake alone, not from this machine.
            .args(["--option", "pure-eval", "true"])
            // An import from a derivation would have to be built first.
            .args(["--option", "allow-import-from-derivation", "false"])
            // And whatever else might ask for a build finds nobody to do it.
            .args(["--option", "max-jobs", "0", "--option", "builders", ""])
            // A flake's nixConfig may not change how it is evaluated.
            .args(["--option", "accept-flake-config", "false"])
            // An expression may be longer than an argument.
            .arg("-")
            .stdin(question.expression)
            .sifting(format!("trace: {}", question.mark))
            .within_memory(question.memory)
            .at_most(question.largest);
        let run = match question.watch {
            // Newer versions remember across processes what a folder was copied to, and would not read it again.
            Watch::Files => run.env("NIX_CACHE_HOME", folder.path()).env("XDG_CACHE_HOME", folder.path()),
            Watch::Nothing => run,
        };
        let output = run.run().await.map_err(|source| NixError::Failed { act: act(), source })?;
        let calls = match question.watch {
            Watch::Files => seen(&log).map_err(files)?,
            Watch::Nothing => Calls::Unseen,
        };
        let time = started.elapsed();
        Ok(Answer { json: output.stdout, told: output.sifted, calls, time, memory: output.peak_memory })
    }
}

/// What strace wrote to `log`.
fn seen(log: &Path) -> std::io::Result<Calls> {
    let length = std::fs::metadata(log)?.len();
    if length > LARGEST_LOG { Ok(Calls::TooMany(length)) } else { std::fs::read_to_string(log).map(Calls::Seen) }
}

/// strace, which writes to `log` what the program after it looks at.
fn strace(log: &Path) -> Invocation {
    Invocation::new("strace")
        // All that it starts, too.
        .arg("--follow-forks")
        // It and the program stop for each other all the time, and never run at once.
        .on_one_processor()
        // Only these calls stop the program.
        .arg("--seccomp-bpf")
        .args(["--trace", "%file,io_uring_setup", "--signal", "none", "--quiet=all"])
        // Descriptors with their paths, and every text in hexadecimal: there is one way to read it. PATH_MAX is 4096.
        .args(["--decode-fds=path", "--strings-in-hex=all", "--string-limit", "4096"])
        .arg("--output")
        .arg(log.as_os_str())
        .arg("--")
}
