//! Evaluates an expression purely, without building anything, and watches which files are read where that is requested.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Nix, NixError, settings};
use crate::model::describe_error;
use crate::process::{Invocation, OnLine, WriteAllowance, find_program};

/// The largest log of strace for one evaluation. A NixOS host reads some thousands of files, which gives 4 MiB.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// An expression, and how to evaluate it.
#[derive(Clone, Copy)]
pub struct EvalRequest<'a> {
    /// The action and its object for errors, such as `evaluate web-1`.
    pub action: &'a str,
    /// The expression, in Nix's language.
    pub expression: &'a str,
    /// The most memory it may take, in bytes.
    pub memory: u64,
    /// The longest time that it may take.
    pub time: Duration,
    /// The bytes that it may write together with the other evaluations of its source.
    pub writes: &'a WriteAllowance,
    /// The most bytes of the answer.
    pub largest: usize,
    /// The beginning of the traces that are told apart.
    pub mark: &'a str,
    /// Takes these traces, and everything else that Nix says meanwhile.
    pub on_line: OnLine<'a>,
    /// Whether its reads are watched.
    pub watch: Watch,
}

/// Whether the reads of an evaluation are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// strace logs every system call that names a file.
    Files,
    /// They are not watched.
    Nothing,
}

/// The system calls of an evaluation that name files.
#[derive(Debug)]
pub enum SystemCalls {
    /// The log of strace, with every text in hexadecimal.
    Logged(String),
    /// The log is too large. It has this many bytes, and was not read.
    TooMany(u64),
    /// They were not watched.
    NotWatched,
}

/// The output of an evaluation.
#[derive(Debug)]
pub struct EvalOutput {
    /// The JSON on the standard output, or why Nix gave none.
    pub json: Result<Vec<u8>, NixError>,
    /// The system calls that name files.
    pub calls: SystemCalls,
    /// The time that it took.
    pub time: Duration,
    /// The most memory that it held, in bytes; zero where it failed.
    pub memory: u64,
}

impl Nix {
    /// Whether strace can watch a program on this machine; otherwise why not.
    pub async fn can_watch(&self) -> Result<(), String> {
        if find_program("strace").is_none() {
            return Err("there is no strace on the PATH".to_owned());
        }
        let tried =
            strace(Path::new("/dev/null")).args(["nix-instantiate", "--version"]).within(Duration::from_secs(30));
        let tried = self.caged(tried, None).await.map_err(|error| describe_error(&error))?;
        tried.run().await.map(drop).map_err(|error| {
            format!("strace cannot watch a program on this machine: {}", describe_error(&error).replace('\n', " "))
        })
    }

    /// Everything on this machine that answers may depend on: the program of Nix and its settings.
    pub fn identity(&self) -> String {
        let program = find_program("nix-instantiate");
        let about = program.as_ref().and_then(|program| std::fs::metadata(program).ok());
        let about = about.map(|about| (about.len(), about.mtime(), about.mtime_nsec()));
        let mut settings: Vec<_> =
            std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NIX_")).collect();
        settings.sort();
        format!("{program:?} {about:?} {settings:?} {:?}", settings::files())
    }

    /// The options of every evaluation, in or outside of the cage. `run` ends in `nix-instantiate`.
    pub(super) fn evaluating(&self, run: Invocation, expression: &str) -> Invocation {
        run.of_nix(self.deadline)
            .args(["--extra-experimental-features", "nix-command flakes"])
            // The evaluation of a host's drvPath writes its .drv file, so the store must be writable.
            // Without it, Nix leaves most positions in the user's files out. `process/nix_report.rs` chooses among them.
            .arg("--show-trace")
            .args(["--eval", "--strict", "--json", "--read-write-mode"])
            // The nixConfig of a flake must not change how it is evaluated.
            .args(["--option", "accept-flake-config", "false"])
            // The expression comes by the standard input, since it may be longer than an argument may be.
            .arg("-")
            .stdin(expression)
    }

    /// Evaluates the expression of `request`. It is an error where nothing was evaluated at all.
    pub async fn evaluate(&self, request: &EvalRequest<'_>) -> Result<EvalOutput, NixError> {
        let action = || request.action.to_owned();
        let files = |source| NixError::Files { action: action(), source };
        let folder = tempfile::tempdir().map_err(files)?;
        let log = folder.path().join("calls");
        let started = Instant::now();
        let run = match request.watch {
            // Nobody waits for what is learnt.
            Watch::Files => strace(&self.path_inside(folder.path()).join("calls"))
                .at_low_priority()
                .arg("nix-instantiate")
                .reported_as("nix-instantiate"),
            Watch::Nothing if self.is_low_priority => Invocation::new("nix-instantiate").at_low_priority(),
            Watch::Nothing => Invocation::new("nix-instantiate"),
        };
        let run = self
            .evaluating(run, request.expression)
            // A host must depend on the flake alone, not on this machine.
            .args(["--option", "pure-eval", "true"])
            // Importing from a derivation would build it.
            .args(["--option", "allow-import-from-derivation", "false"])
            // If anything else requests a build, there is no builder.
            .args(["--option", "max-jobs", "0", "--option", "builders", ""])
            // The daemon would ask its caches for a path that is missing, and a flake can name any path.
            .args(["--option", "substitute", "false"])
            .telling_marked_lines(format!("trace: {}", request.mark))
            .within(request.time)
            .within_memory(request.memory)
            .at_most(request.largest);
        let run = match request.watch {
            // Newer versions cache across processes the store path of a folder, and would not read the folder again.
            Watch::Files => {
                let caches = self.path_inside(folder.path());
                run.env("NIX_CACHE_HOME", caches).env("XDG_CACHE_HOME", caches)
            }
            Watch::Nothing => run,
        };
        let run = self.caged(run, Some(folder.path())).await?.sharing_writes(request.writes);
        let output = run.run_hearing(request.on_line).await;
        let calls = match request.watch {
            // Where strace did not even start, there is no log.
            Watch::Files if output.is_ok() || log.exists() => read_log(&log).map_err(files)?,
            Watch::Files | Watch::Nothing => SystemCalls::NotWatched,
        };
        let (time, memory) = (started.elapsed(), output.as_ref().map_or(0, |output| output.peak_memory));
        let json = output.map(|output| output.stdout);
        let json = json.map_err(|failure| NixError::failed(action(), failure, self.detail));
        Ok(EvalOutput { json, calls, time, memory })
    }
}

/// Reads the log of strace, unless it is too large.
fn read_log(log: &Path) -> std::io::Result<SystemCalls> {
    let length = std::fs::metadata(log)?.len();
    if length > MAX_LOG_BYTES {
        Ok(SystemCalls::TooMany(length))
    } else {
        std::fs::read_to_string(log).map(SystemCalls::Logged)
    }
}

/// A run of strace, which logs to `log` the files that the program after it reads.
fn strace(log: &Path) -> Invocation {
    Invocation::new("strace")
        // Watch the child processes too.
        .arg("--follow-forks")
        // strace and the program wait for each other at every call, so they never run at the same time.
        .on_one_processor()
        // Stop the program at the traced calls only.
        .arg("--seccomp-bpf")
        .args(["--trace", "%file,io_uring_setup", "--signal", "none", "--quiet=all"])
        // Print descriptors with their paths, and every text in hexadecimal, so that nothing is ambiguous. PATH_MAX is 4096.
        .args(["--decode-fds=path", "--strings-in-hex=all", "--string-limit", "4096"])
        .arg("--output")
        .arg(log.as_os_str())
        .arg("--")
}
