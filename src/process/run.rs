//! One run of a program, from its start to its result.

use std::os::unix::process::ExitStatusExt as _;

use super::error::ProcessError;
use super::group::{Exited, Interrupted, ProcessGroup, StderrText};
use super::invocation::Invocation;
use super::memory::MemoryLimit;

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

impl Invocation {
    /// Runs the program to its end. Anything but exit code 0 is an error.
    pub async fn run(self) -> Result<Output, ProcessError> {
        tracing::debug!(argv = %self, "running");
        let command = self.short();
        let (deadline, limit) = (self.deadline, self.output_limit);
        let mut group = ProcessGroup::spawn(&self)?;
        let mut memory = MemoryLimit::over(group.leader(), self.memory_limit);
        let mut said = StderrText::default();
        let ended = tokio::select! {
            ended = tokio::time::timeout(deadline, group.attend(&self, &mut said)) => ended.map_err(|_| Stopped::Time),
            () = memory.watch() => Err(Stopped::Memory),
        };
        match &ended {
            Ok(Ok(_)) => {}
            // Whatever it does with a grace, it takes more of what there is too little of.
            Err(Stopped::Memory) => group.kill().await,
            Ok(Err(_)) | Err(Stopped::Time) => group.end().await,
        }
        let too_much_memory = |limit| ProcessError::TooMuchMemory { command: self.short(), limit };
        if let Some(limit) = memory.exceeded() {
            return Err(too_much_memory(limit));
        }
        let stderr = String::from_utf8_lossy(&said.tail).into_owned();
        match ended {
            Ok(Ok(attended)) => result_of(command, attended, stderr, said.sifted, memory.peak()),
            Ok(Err(Interrupted::TooMuchOutput)) => Err(ProcessError::TooMuchOutput { command, limit }),
            Ok(Err(Interrupted::Io(source))) => Err(ProcessError::Io { command, source }),
            Err(Stopped::Time) => Err(ProcessError::TimedOut { command, deadline, stderr }),
            Err(Stopped::Memory) => Err(too_much_memory(self.memory_limit.unwrap_or_default())),
        }
    }
}

/// Why Clavel ended a program.
enum Stopped {
    Time,
    Memory,
}

fn result_of(
    command: String,
    Exited { stdout, status }: Exited,
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
    use std::time::Duration;

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
