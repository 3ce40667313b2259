//! The reasons why a run of a program fails.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

/// The reason why a run of a program failed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("cannot run `{program}` (check that it is installed and on the PATH)")]
    NotStarted {
        /// The program's name or path.
        program: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The program ended with a non-zero exit code.
    #[error("`{command}` failed with exit code {code}{}", stderr_suffix(stderr))]
    Failed {
        /// The program and its first argument.
        command: String,
        /// Its exit code.
        code: i32,
        /// Its standard error, without the middle where it is long.
        stderr: String,
    },
    /// The program was ended by a signal that Clavel did not send.
    #[error("`{command}` was killed by signal {signal}{}{}", memory_hint(*signal), stderr_suffix(stderr))]
    Killed {
        /// The program and its first argument.
        command: String,
        /// The signal's number.
        signal: i32,
        /// Its standard error, without the middle where it is long.
        stderr: String,
    },
    /// The program ran past its deadline and was ended.
    #[error("`{command}` did not finish within {} and was ended{}", humantime::format_duration(*deadline), stderr_suffix(stderr))]
    TimedOut {
        /// The program and its first argument.
        command: String,
        /// The time that it had.
        deadline: Duration,
        /// Its standard error, without the middle where it is long.
        stderr: String,
    },
    /// The program wrote more than the limit, and was ended.
    #[error("`{command}` wrote more than {limit} bytes and was ended")]
    TooMuchOutput {
        /// The program and its first argument.
        command: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// The program took more memory than the limit, and was ended.
    #[error("`{command}` needed more than {} of memory and was ended", bytesize::ByteSize(*limit))]
    TooMuchMemory {
        /// The program and its first argument.
        command: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The program and those below it were more processes than the limit, and were ended.
    #[error("`{command}` started more than {limit} processes and was ended")]
    TooManyProcesses {
        /// The program and its first argument.
        command: String,
        /// The limit.
        limit: u64,
    },
    /// The program wrote more than the limit to files and to the store, and was ended.
    #[error("`{command}` wrote more than {} to files and to the store and was ended", bytesize::ByteSize(*limit))]
    TooMuchWritten {
        /// The program and its first argument.
        command: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The program made no progress, and was ended.
    #[error("`{command}` made no progress for {} and was ended", humantime::format_duration(*within))]
    Stalled {
        /// The program and its first argument.
        command: String,
        /// The time in which it wrote next to nothing.
        within: Duration,
    },
    /// The disk that the program writes to is almost full, so it was ended.
    #[error(
        "`{command}` was ended, because less than {} are free on the disk of {}; free some, for example with `nix-collect-garbage`",
        bytesize::ByteSize(*least), folder.display()
    )]
    DiskFull {
        /// The program and its first argument.
        command: String,
        /// A folder on that disk.
        folder: PathBuf,
        /// How many bytes have to stay free.
        least: u64,
    },
    /// Its input could not be written, or its output could not be read.
    #[error("cannot exchange data with `{command}`")]
    Io {
        /// The program and its first argument.
        command: String,
        /// The error of the system.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// The exit code of the program, where it ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Failed { code, .. } => Some(*code),
            Self::NotStarted { .. }
            | Self::Killed { .. }
            | Self::TimedOut { .. }
            | Self::TooMuchOutput { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyProcesses { .. }
            | Self::TooMuchWritten { .. }
            | Self::DiskFull { .. }
            | Self::Stalled { .. }
            | Self::Io { .. } => None,
        }
    }

    /// The program's standard error, without the middle where it is long; empty for errors that do not have it.
    pub fn stderr(&self) -> &str {
        match self {
            Self::Failed { stderr, .. } | Self::Killed { stderr, .. } | Self::TimedOut { stderr, .. } => stderr,
            Self::NotStarted { .. }
            | Self::TooMuchOutput { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyProcesses { .. }
            | Self::TooMuchWritten { .. }
            | Self::DiskFull { .. }
            | Self::Stalled { .. }
            | Self::Io { .. } => "",
        }
    }
}

/// Standard error, as an error message appends it.
fn stderr_suffix(stderr: &str) -> String {
    let stderr = stderr.trim();
    if stderr.is_empty() { String::new() } else { format!(":\n{stderr}") }
}

fn memory_hint(signal: i32) -> &'static str {
    if signal == Signal::KILL.as_raw() { " (most likely because memory ran out)" } else { "" }
}
