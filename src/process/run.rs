//! One run of a program, from its start to its result.

use std::os::unix::process::ExitStatusExt as _;

use super::error::ProcessError;
use super::group::{CollectError, ExitedProgram, OnLine, ProcessGroup};
use super::invocation::Invocation;
use super::limits::{Excess, ResourceLimits};
use super::output_file::OutputFile;
use super::stderr::StderrText;
use crate::redact::without_users;

/// How many bytes at the end of a file of output an error may quote.
const FILE_TAIL: usize = 16 << 10;

/// The output of a program that succeeded.
#[derive(Debug)]
pub struct ProcessOutput {
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error, from its last marked line on, and without the middle where it is long.
    pub stderr: String,
    /// The most memory that it and the programs that it started held at once, in bytes; zero if it had no limit, or ended
    /// before the first measurement.
    pub peak_memory: u64,
}

impl Invocation {
    /// Runs the program to its end. Anything but exit code 0 is an error.
    pub async fn run(self) -> Result<ProcessOutput, ProcessError> {
        Box::pin(self.run_hearing(&|_| ())).await
    }

    /// Runs the program as [`Invocation::run`] does, and gives each line of its standard error to `on_line` as soon as it is written.
    pub async fn run_hearing(self, on_line: OnLine<'_>) -> Result<ProcessOutput, ProcessError> {
        tracing::debug!(argv = %self, "running");
        let command = self.short_name();
        let (deadline, limit) = (self.deadline, self.output_limit);
        let output_file = self.output_file.as_ref().map(OutputFile::begin);
        let mut group = ProcessGroup::spawn(&self)?;
        let mut memory = ResourceLimits::set(group.leader(), self.memory_limit, self.bounds.clone(), self.progress);
        let mut errors = StderrText::default();
        let ended = tokio::select! {
            ended = tokio::time::timeout(deadline, group.collect_output(&self, &mut errors, on_line)) => ended.map_err(|_| Limit::Time),
            excess = memory.watch() => Err(Limit::Use(excess)),
            never = OutputFile::keep_short(output_file.as_ref()) => match never {},
        };
        match &ended {
            Ok(Ok(_)) => {}
            // It gets no time to end by itself, because it would take still more memory meanwhile.
            Err(Limit::Use(_)) => group.kill().await,
            Ok(Err(_)) | Err(Limit::Time) => group.end().await,
        }
        if let Some(file) = &output_file {
            file.tail(FILE_TAIL).split_inclusive(|byte| *byte == b'\n').for_each(|line| errors.add(line));
        }
        let too_much_memory = |limit| ProcessError::TooMuchMemory { command: self.short_name(), limit };
        if let Some(limit) = memory.exceeded() {
            return Err(too_much_memory(limit));
        }
        let stderr = without_users(&errors.text());
        match ended {
            Ok(Ok(exited)) => result_of(command, !self.inherits_environment, exited, stderr, memory.peak()),
            Ok(Err(CollectError::TooMuchOutput)) => Err(ProcessError::TooMuchOutput { command, limit }),
            Ok(Err(CollectError::Io(source))) => Err(ProcessError::Io { command, source }),
            Err(Limit::Time) => Err(ProcessError::TimedOut { command, deadline, stderr }),
            Err(Limit::Use(Excess::Memory)) => Err(too_much_memory(self.memory_limit.unwrap_or_default())),
            Err(Limit::Use(Excess::Processes(limit))) => Err(ProcessError::TooManyProcesses { command, limit }),
            Err(Limit::Use(Excess::Written(limit))) => Err(ProcessError::TooMuchWritten { command, limit }),
            Err(Limit::Use(Excess::Stalled(within))) => Err(ProcessError::Stalled { command, within }),
            Err(Limit::Use(Excess::DiskFull(folder, least))) => Err(ProcessError::DiskFull { command, folder, least }),
        }
    }
}

/// The limit because of which Clavel ended a program.
enum Limit {
    Time,
    Use(Excess),
}

fn result_of(
    command: String,
    is_caged: bool,
    ExitedProgram { stdout, status }: ExitedProgram,
    stderr: String,
    peak_memory: u64,
) -> Result<ProcessOutput, ProcessError> {
    // A program in a cage is a grandchild, whose signal bwrap reports as the shell does.
    let status = match (status.code(), status.signal()) {
        (Some(code), _) if is_caged && code > 128 => (None, Some(code - 128)),
        other => other,
    };
    match status {
        (Some(0), _) => Ok(ProcessOutput { stdout, stderr, peak_memory }),
        (Some(code), _) => Err(ProcessError::Failed { command, code, stderr }),
        (None, signal) => Err(ProcessError::Killed { command, signal: signal.unwrap_or(0), stderr }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::group::StderrLine;
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn input_is_written_and_output_is_collected() {
        let output = Invocation::new("cat").stdin("hello").run().await.unwrap();
        assert_eq!(output.stdout, b"hello");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_error_has_the_end_of_standard_error() {
        let error = Invocation::new("sh").args(["-c", "echo why >&2; exit 3"]).run().await.unwrap_err();
        assert!(matches!(&error, ProcessError::Failed { code: 3, stderr, .. } if stderr == "why\n"), "{error}");
        assert_eq!(error.to_string(), "`sh` failed with exit code 3:\nwhy");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_program_says_is_kept_without_the_users_of_urls() {
        let say = "echo \"no: 'https://T0KEN@h/x' and k OK\" >&2; exit 1";
        let error = Invocation::new("sh").args(["-c", say]).run().await.unwrap_err();
        assert_eq!(error.stderr(), "no: 'https://h/x' and k OK\n");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_ends_the_grandchildren_too() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let error = Invocation::new("sh").args(["-c", &script]).within(Duration::from_millis(300)).run().await;
        assert!(matches!(error, Err(ProcessError::TimedOut { .. })), "{error:?}");
        assert_ends(std::fs::read_to_string(&pid_file).unwrap().trim()).await;
    }

    fn runs(process: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }

    async fn assert_ends(process: &str) {
        for _ in 0..200 {
            if !runs(process) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the grandchild outlived its group");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_a_program_left_running_ends_with_it() {
        // With its output open, and without; where it succeeds, and where it fails.
        for (redirected, code) in [("", 0), (">/dev/null 2>&1", 0), ("", 3)] {
            let script = format!("echo all; sleep 600 {redirected} & echo $! >&2; exit {code}");
            let run = Invocation::new("sh").args(["-c", &script]).within(Duration::from_mins(1)).run().await;
            let stderr = match run {
                Ok(output) => {
                    assert_eq!(output.stdout, b"all\n");
                    output.stderr
                }
                Err(ProcessError::Failed { code: 3, stderr, .. }) if code == 3 => stderr,
                Err(error) => panic!("{error}"),
            };
            assert_ends(stderr.trim()).await;
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_let_alone_runs_on_and_is_not_waited_for() {
        for redirected in ["", ">/dev/null 2>&1"] {
            let script = format!("sleep 600 {redirected} & echo $! >&2");
            let program = Invocation::new("sh").args(["-c", &script]).within(Duration::from_mins(1));
            let process = program.leaving_survivors_alone().run().await.unwrap().stderr;
            assert!(runs(process.trim()));
            Invocation::new("kill").arg(process.trim()).run().await.unwrap();
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn an_input_that_is_held_open_does_not_end_before_the_output() {
        let script = "read -r line; echo $line; read -t 1 -r more; echo $?";
        let bash = || Invocation::new("bash").args(["-c", script]).stdin("hello\n");
        // `read` has a status above 128 where time ran out, and 1 at the end of the input.
        assert_eq!(bash().run().await.unwrap().stdout, b"hello\n1\n");
        assert_eq!(bash().holding_stdin_open().run().await.unwrap().stdout, b"hello\n142\n");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_ends_a_program_at_the_terminal() {
        let sleep = Invocation::new("sleep").arg("600").at_the_terminal().within(Duration::from_millis(100));
        let error = sleep.run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn endless_output_is_cut_off() {
        // The script goes on after Clavel has stopped reading.
        let script = "trap '' PIPE; while :; do echo yes || sleep 600; done";
        let error = Invocation::new("sh").args(["-c", script]).at_most(1 << 10).run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchOutput { .. }), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn all_lines_are_heard_and_the_marked_ones_told_apart() {
        let script =
            "i=0; while [ $i -lt 5000 ]; do echo \"mark $i\" >&2; i=$((i+1)); done; echo rest >&2; printf 'mark x' >&2";
        let run = |script: &str| Invocation::new("sh").args(["-c", script]).telling_marked_lines("mark ");
        let (marked, others) = (std::sync::Mutex::new(Vec::new()), std::sync::Mutex::new(Vec::new()));
        let hear = |line: StderrLine<'_>| match line {
            StderrLine::Marked(line) => marked.lock().unwrap().push(line),
            StderrLine::Other(line) => others.lock().unwrap().extend_from_slice(line),
        };
        let output = run(script).run_hearing(&hear).await.unwrap();
        assert_eq!(marked.lock().unwrap().len(), 5001);
        assert_eq!(marked.lock().unwrap()[4999..], ["4999", "x"]);
        assert_eq!(output.stderr, "", "what came before the last marked line is about something else");
        let output = run("echo before >&2; echo mark 1 >&2; echo after >&2").run_hearing(&|_| ()).await.unwrap();
        assert_eq!(output.stderr, "after\n");
        assert_eq!(*others.lock().unwrap(), b"rest\n");
        let long = "x=0123456789abcdef; x=$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x; x=$x$x$x$x; echo mark $x >&2; exit 1";
        run(long).run_hearing(&hear).await.unwrap_err();
        assert_eq!(marked.lock().unwrap()[5001].len(), 16 * 8 * 8 * 8 * 4);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_program_whose_grandchild_takes_too_much_memory_is_ended() {
        // A watched nix is a grandchild too: strace runs it.
        let script = "sh -c 'x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done'; true";
        let error = Invocation::new("sh").args(["-c", script]).within_memory(64 << 20).run().await.unwrap_err();
        assert!(matches!(error, ProcessError::TooMuchMemory { .. }), "{error}");
        assert_eq!(error.to_string(), "`sh` needed more than 64.0 MiB of memory and was ended");
        let output = Invocation::new("sh").args(["-c", "sleep 0.3"]).within_memory(64 << 20).run().await.unwrap();
        assert!((1..64 << 20).contains(&output.peak_memory), "{}", output.peak_memory);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_kill_is_reported_with_its_signal() {
        let error = Invocation::new("sh").args(["-c", "kill -9 $$"]).run().await.unwrap_err();
        assert!(error.to_string().contains("killed by signal 9 (most likely because memory ran out)"), "{error}");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_missing_program_is_named() {
        let error = Invocation::new("no-such-program").run().await.unwrap_err();
        assert!(error.to_string().starts_with("cannot run `no-such-program`"), "{error}");
    }
}
