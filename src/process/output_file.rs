//! The file that a program writes its output to: its end, a bound on its length, and showing it while it grows.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use crate::stderr::Relay;

/// The most bytes of such a file. One that grows longer is emptied.
const MAX_BYTES: u64 = 64 << 20;
/// How often its length is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How many bytes are shown at once.
const PIECE: usize = 16 << 10;
/// The most bytes that are shown of what is left when the program has ended.
const MAX_REST: u64 = 1 << 20;
/// How often a follower looks for more.
const FOLLOW: Duration = Duration::from_millis(100);

/// The file that one program writes to, after what others wrote to it.
pub(super) struct OutputFile<'a> {
    file: &'a File,
    begins_at: u64,
}

impl<'a> OutputFile<'a> {
    /// The file before the program starts.
    pub(super) fn begin(file: &'a File) -> Self {
        Self { file, begins_at: length(file) }
    }

    /// The last bytes that the program wrote.
    pub(super) fn tail(&self, most: usize) -> Vec<u8> {
        let length = length(self.file);
        let begins_at = if self.begins_at > length { 0 } else { self.begins_at };
        let from = begins_at.max(length.saturating_sub(most as u64));
        let mut tail = vec![0; usize::try_from(length - from).unwrap_or(most)];
        // What cannot be read is missing in an error message, and changes nothing else.
        let count = self.file.read_at(&mut tail, from).unwrap_or(0);
        tail.truncate(count);
        tail
    }

    /// Empties the file whenever it is too long. Programs append to it, so they go on at its new end.
    pub(super) async fn keep_short(this: Option<&Self>) -> Infallible {
        let Some(Self { file, .. }) = this else { return std::future::pending().await };
        loop {
            tokio::time::sleep(LOOK).await;
            if length(file) > MAX_BYTES
                && let Err(error) = file.set_len(0)
            {
                tracing::warn!(%error, "cannot empty a file of output that is too long");
            }
        }
    }
}

fn length(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

/// Shows on standard error what is added to a file of output.
#[derive(Debug)]
pub struct Follower {
    file: File,
    shown: u64,
    relay: Relay,
}

impl Follower {
    /// Begins at the present end of the file.
    pub fn at_the_end(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { shown: length(&file), file, relay: Relay::default() })
    }

    /// Shows what is added, until this is dropped. However fast that comes, other work goes on between two pieces.
    pub async fn follow(&mut self) -> Infallible {
        let mut buffer = vec![0; PIECE];
        loop {
            if self.show_piece(&mut buffer) {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(FOLLOW).await;
            }
        }
    }

    /// Shows what was added since the last call, or the end of it where that is long.
    pub fn show_rest(&mut self) {
        let length = length(&self.file);
        let shown = if length < self.shown { 0 } else { self.shown };
        self.shown = shown.max(length.saturating_sub(MAX_REST));
        let mut buffer = vec![0; PIECE];
        while self.show_piece(&mut buffer) {}
    }

    /// Shows the next piece. Returns whether there was one.
    fn show_piece(&mut self, buffer: &mut [u8]) -> bool {
        if length(&self.file) < self.shown {
            self.shown = 0;
        }
        let Ok(count @ 1..) = self.file.read_at(buffer, self.shown) else { return false };
        self.relay.write(&buffer[..count]);
        self.shown += count as u64;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_tail_is_of_this_program_alone_and_survives_an_emptied_file() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let mut file = File::options().read(true).append(true).open(path.path()).unwrap();
        file.write_all(b"before").unwrap();
        let reader = file.try_clone().unwrap();
        let output = OutputFile::begin(&reader);
        assert_eq!(output.tail(10), b"");
        file.write_all(b"0123456789").unwrap();
        assert_eq!(output.tail(4), b"6789");
        assert_eq!(output.tail(100), b"0123456789");
        file.set_len(0).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(output.tail(100), b"new");
    }
}
