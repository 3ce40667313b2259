//! Why a program did not do what it was asked.

use std::time::Duration;

use rustix::process::Signal;

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
