//! A running program and the process group it leads: feeding it, collecting what it says, ending it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

use super::error::ProcessError;
use super::invocation::{Invocation, Streams};
use super::processor::Processor;

/// How many bytes of the end of standard error are kept.
const STDERR_TAIL: usize = 16 << 10;
/// How many bytes of sifted lines are kept.
const MOST_SIFTED: usize = 64 << 20;
/// How long a process group has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// What a program said and how it ended.
pub(super) struct Exited {
    pub(super) stdout: Vec<u8>,
    pub(super) status: ExitStatus,
}

/// What a program wrote to standard error.
#[derive(Debug, Default)]
pub(super) struct StderrText {
    /// The end of it.
    pub(super) tail: Vec<u8>,
    /// What was sifted out.
    pub(super) sifted: Vec<String>,
}

/// Why a program was not attended to its end.
pub(super) enum Interrupted {
    Io(std::io::Error),
    TooMuchOutput,
}

impl From<std::io::Error> for Interrupted {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A child and the process group it leads; the group is ended when this is dropped early.
pub(super) struct ProcessGroup {
    child: Child,
    leader: Option<Pid>,
    ended: bool,
    _processor: Option<Processor>,
}

impl ProcessGroup {
    pub(super) fn spawn(invocation: &Invocation) -> Result<Self, ProcessError> {
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
        command.kill_on_drop(true);
        if !invocation.at_the_terminal {
            // Its own group, so that a deadline ends what it started too (nix forks git, git forks ssh).
            command.process_group(0);
        }
        let processor = invocation.one_processor.then(Processor::take).flatten();
        let mut spawn = || command.spawn();
        let child = match &processor {
            Some(processor) => processor.keep(spawn),
            None => spawn(),
        };
        let child = child.map_err(|source| ProcessError::NotStarted {
            program: invocation.program.to_string_lossy().into_owned(),
            source,
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, leader, ended: false, _processor: processor })
    }

    /// Feeds the child and collects what it says until it ends.
    pub(super) async fn attend(
        &mut self,
        invocation: &Invocation,
        said: &mut StderrText,
    ) -> Result<Exited, Interrupted> {
        let (stdin, stdout, stderr) = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let streams = invocation.streams;
        let ((), stdout, ()) = tokio::try_join!(
            feed(stdin, &invocation.stdin),
            collect(stdout, invocation.output_limit, streams),
            listen(stderr, invocation, said),
        )?;
        let status = self.child.wait().await?;
        self.ended = true;
        Ok(Exited { stdout, status })
    }

    /// The process that leads the group; none where it is gone already.
    pub(super) fn leader(&self) -> Option<Pid> {
        self.leader
    }

    /// SIGTERM to the group, then SIGKILL to whatever of it is left.
    pub(super) async fn end(&mut self) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.kill().await;
    }

    /// The same at once, without asking.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // One that leads no group is not reached by that.
        let _ = self.child.start_kill();
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

impl Drop for ProcessGroup {
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

/// Reads all of `stream`, keeps its end, and sifts out the lines that are marked.
async fn listen(
    stream: Option<impl AsyncRead + Unpin>,
    invocation: &Invocation,
    said: &mut StderrText,
) -> Result<(), Interrupted> {
    let Some(stream) = stream else { return Ok(()) };
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    let (mut line, mut sifted) = (Vec::new(), 0);
    loop {
        line.clear();
        // A line without an end is read in pieces.
        let count = (&mut stream).take(16 << 10).read_until(b'\n', &mut line).await?;
        if count == 0 {
            return Ok(());
        }
        if let Some(rest) = invocation.mark.as_ref().and_then(|mark| line.strip_prefix(mark.as_bytes())) {
            sifted += count;
            if sifted > MOST_SIFTED {
                return Err(Interrupted::TooMuchOutput);
            }
            said.sifted.push(String::from_utf8_lossy(rest).trim_end_matches('\n').to_owned());
            continue;
        }
        if invocation.streams == Streams::PassedOn {
            pass_on(&line);
        }
        said.tail.extend_from_slice(&line);
        if said.tail.len() > STDERR_TAIL {
            said.tail.drain(..said.tail.len() - STDERR_TAIL);
        }
    }
}

fn pass_on(bytes: &[u8]) {
    use std::io::Write as _;
    // A closed terminal must not end the work whose output it would have shown.
    let _ = std::io::stderr().write_all(bytes);
}
