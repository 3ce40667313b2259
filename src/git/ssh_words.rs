//! Keeps what ssh says while gix fetches. gix looks for some lines of it, and reports for all others only that the connection ended.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_setfd};

/// The most bytes that are kept, from the end.
const MAX_BYTES: usize = 4 << 10;
/// How long to wait for the last words after ssh was ended. A program that ssh left behind may hold the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The other end of ssh's standard error.
pub(super) struct SshWords {
    pipe: PipeWriter,
    words: Receiver<Vec<u8>>,
}

impl SshWords {
    /// Begins to listen.
    pub(super) fn listen() -> io::Result<Self> {
        let (reader, pipe) = io::pipe()?;
        // The programs that this one starts have it as well.
        fcntl_setfd(&pipe, FdFlags::empty())?;
        let (send, words) = channel();
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            // Nobody listens any more where the fetch succeeded.
            let _ = send.send(the_end_of(reader));
        })?;
        Ok(Self { pipe, words })
    }

    /// The command of a shell, whose standard error comes here.
    pub(super) fn of(&self, command: &str) -> String {
        format!("{command} 2>/dev/fd/{}", self.pipe.as_raw_fd())
    }

    /// What ssh said, in one line. It has to have ended.
    pub(super) fn take(self) -> String {
        drop(self.pipe);
        let bytes = self.words.recv_timeout(LAST_WORDS).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let clean = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
        lines.map(clean).collect::<Vec<_>>().join("; ")
    }
}

/// Reads to the end, and keeps the last bytes.
fn the_end_of(mut reader: PipeReader) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 1024]);
    while let Ok(count @ 1..) = reader.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..count]);
        kept.drain(..kept.len().saturating_sub(MAX_BYTES));
    }
    kept
}
