//! A running program and the process group that it leads: writes its input, collects its output, and ends it.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::error::ProcessError;
use super::invocation::{InputEnd, Invocation, Priority, Streams, Survivors, Terminal};
use super::processor::Processor;
use super::stderr::StderrText;
use crate::stderr::Relay;

/// The niceness of a program that lets others go first (nice(1)): beside one that does not, it gets a tenth of a processor.
const LOW_PRIORITY: i32 = 10;
/// The most bytes of marked lines.
const MAX_MARKED_BYTES: usize = 64 << 20;
/// The time that a process group has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(2);
/// The time that the output of a program that has ended is read further where processes that it left running may hold it open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A line of a program's standard error.
#[derive(Debug)]
pub enum StderrLine<'a> {
    /// One that begins with the mark: what follows it.
    Marked(String),
    /// Any other, with its end; a long one comes in pieces.
    Other(&'a [u8]),
}

/// What takes each line of standard error as soon as it is written.
pub type OnLine<'a> = &'a (dyn Fn(StderrLine<'_>) + Sync);

/// The standard output of a program that ended, and its exit status.
pub(super) struct ExitedProgram {
    pub(super) stdout: Vec<u8>,
    pub(super) status: ExitStatus,
}

/// The reason why the output of a program was not collected to its end.
pub(super) enum CollectError {
    Io(std::io::Error),
    TooMuchOutput,
}

impl From<std::io::Error> for CollectError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A child process and the process group that it leads. The group ends with the child: when the child ends by itself, unless the
/// invocation lets its survivors alone, and when this is dropped before.
pub(super) struct ProcessGroup {
    child: Child,
    leader: Option<Pid>,
    ended: bool,
    _processor: Option<Processor>,
}

impl ProcessGroup {
    pub(super) fn spawn(invocation: &Invocation) -> Result<Self, ProcessError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that starts programs")]
        let mut command = Command::new(&invocation.program);
        command.args(&invocation.arguments);
        if !invocation.inherits_environment {
            command.env_clear();
        }
        for (key, value) in &invocation.environment {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        if let Some(directory) = &invocation.directory {
            command.current_dir(directory);
        }
        // A program without input reads an end of file at once, and never the terminal.
        command.stdin(if invocation.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
        let not_started =
            |source| ProcessError::NotStarted { program: invocation.program.to_string_lossy().into_owned(), source };
        match &invocation.output_file {
            None => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Some(file) => {
                let clone = || file.try_clone().map_err(not_started);
                command.stdout(clone()?).stderr(clone()?)
            }
        };
        command.kill_on_drop(true);
        if invocation.terminal == Terminal::NotAsked {
            // It gets a group of its own, so that a deadline also ends the programs that it started (nix forks git, git forks
            // ssh).
            command.process_group(0);
        }
        let processor = invocation.one_processor.then(Processor::take).flatten();
        let mut spawn = || command.spawn();
        let child = match &processor {
            Some(processor) => processor.spawn_on(spawn),
            None => spawn(),
        };
        let child = child.map_err(not_started)?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if invocation.priority == Priority::Low {
            // What it starts inherits it. It is only slower for others without it.
            let _ = setpriority_process(leader, LOW_PRIORITY);
        }
        Ok(Self { child, leader, ended: false, _processor: processor })
    }

    /// Writes the input of the child and collects its output until it ends, and ends what it left running.
    pub(super) async fn collect_output(
        &mut self,
        invocation: &Invocation,
        errors: &mut StderrText,
        on_line: OnLine<'_>,
    ) -> Result<ExitedProgram, CollectError> {
        let (stdin, stdout, stderr) = (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take());
        let streams = invocation.streams;
        let exchange = async {
            let (_held, stdout, ()) = tokio::try_join!(
                write_input(stdin, &invocation.stdin, invocation.input_end),
                read_stdout(stdout, invocation.output_limit, streams),
                read_stderr(stderr, invocation, errors, on_line),
            )?;
            Ok::<_, CollectError>(stdout)
        };
        tokio::pin!(exchange);
        // What the child left running may hold its output open, so the end of the output cannot be waited for alone.
        let first = tokio::select! {
            stdout = &mut exchange => Ok(stdout?),
            status = self.child.wait() => Err(status?),
        };
        let (status, collected) = match first {
            Ok(stdout) => (self.child.wait().await?, Some(stdout)),
            Err(status) => (status, None),
        };
        self.ended = true;
        if invocation.survivors == Survivors::Ended {
            // The kernel gives the number of a group to no other while the group has a process.
            self.signal(Signal::KILL);
        }
        let stdout = match (collected, invocation.survivors) {
            (Some(stdout), _) => stdout,
            (None, Survivors::Ended) => exchange.await?,
            // What they write later is not of the program any more.
            (None, Survivors::LetAlone) => match tokio::time::timeout(LAST_OUTPUT, exchange).await {
                Ok(stdout) => stdout?,
                Err(_) => Vec::new(),
            },
        };
        Ok(ExitedProgram { stdout, status })
    }

    /// The process that leads the group; `None` if it has ended already.
    pub(super) fn leader(&self) -> Option<Pid> {
        self.leader
    }

    /// Sends SIGTERM to the group, and after a moment SIGKILL to the processes that are left.
    pub(super) async fn end(&mut self) {
        self.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, self.child.wait()).await;
        self.kill().await;
    }

    /// Sends SIGKILL to the group at once.
    pub(super) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        // A program that stays at the terminal leads no group, so the signal does not reach it.
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
        self.ended = true;
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // An error means that the group has ended already, which is the purpose.
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

/// Writes `bytes` to the program's standard input, and closes it, or returns it where it is to be held open.
async fn write_input(
    stdin: Option<ChildStdin>,
    bytes: &[u8],
    end: InputEnd,
) -> Result<Option<ChildStdin>, CollectError> {
    let Some(mut stdin) = stdin else { return Ok(None) };
    match stdin.write_all(bytes).await {
        // A program may end without reading all of its input. If that is an error, its exit code says so.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Some(stdin).filter(|_| end == InputEnd::Held)),
    }
}

/// Reads all of standard output, of at most `limit` bytes.
async fn read_stdout(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
    streams: Streams,
) -> Result<Vec<u8>, CollectError> {
    let mut all = Vec::new();
    let Some(mut stream) = stream else { return Ok(all) };
    let mut buffer = vec![0; 16 << 10];
    let mut relay = Relay::default();
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(all);
        }
        match streams {
            Streams::PassedOn => relay.write(&buffer[..count]),
            Streams::Collected if all.len() + count > limit => return Err(CollectError::TooMuchOutput),
            Streams::Collected => all.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Reads all of standard error, keeps what comes after the last marked line, and tells the marked lines apart.
async fn read_stderr(
    stream: Option<impl AsyncRead + Unpin>,
    invocation: &Invocation,
    errors: &mut StderrText,
    on_line: OnLine<'_>,
) -> Result<(), CollectError> {
    let Some(stream) = stream else { return Ok(()) };
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    let (mut line, mut marked, mut relay) = (Vec::new(), 0, Relay::default());
    loop {
        line.clear();
        // A line without an end is read in pieces.
        let mut count = (&mut stream).take(16 << 10).read_until(b'\n', &mut line).await?;
        if count == 0 {
            return Ok(());
        }
        let is_marked = invocation.mark.as_ref().is_some_and(|mark| line.starts_with(mark.as_bytes()));
        if is_marked && !line.ends_with(b"\n") {
            count += (&mut stream).take(MAX_MARKED_BYTES as u64).read_until(b'\n', &mut line).await?;
        }
        if let Some(rest) = invocation.mark.as_ref().and_then(|mark| line.strip_prefix(mark.as_bytes())) {
            marked += count;
            if marked > MAX_MARKED_BYTES {
                return Err(CollectError::TooMuchOutput);
            }
            on_line(StderrLine::Marked(String::from_utf8_lossy(rest).trim_end_matches('\n').to_owned()));
            // Whatever fails later, what came before is about something else.
            *errors = StderrText::default();
            continue;
        }
        on_line(StderrLine::Other(&line));
        if invocation.streams == Streams::PassedOn {
            relay.write(&line);
        }
        errors.add(&line);
    }
}
