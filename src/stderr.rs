//! Standard error, which never holds up a daemon. Where it leads to systemd's journal, messages have fields and a priority there.
//!
//! A write blocks for as long as the reader of a full pipe does not read. A daemon that waits for its reader misses its deadlines, so
//! it hands the bytes to a thread ([`never_wait`]), which alone waits. What does not fit into the queue is dropped, and counted.
//! This is a room of its own because `process` and `cli` both write there. What is written belongs to them.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anstream::adapter::StripBytes;

use crate::model::printable_lines;

#[cfg(target_os = "linux")]
mod journal;
#[cfg(not(target_os = "linux"))]
#[path = "stderr/no_journal.rs"]
mod journal;
mod message;

pub use message::{Message, Severity};

use message::MAX_PIECE;

/// The most pieces in the queue.
const MAX_QUEUED: usize = 1024;

static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    sender: SyncSender<Piece>,
    dropped: Mutex<u64>,
}

enum Piece {
    Bytes(Vec<u8>),
    /// An entry of the journal.
    Entry(Message),
    /// Everything before was written.
    Mark(SyncSender<()>),
}

/// From now on, [`write()`] waits for no reader.
pub fn never_wait() {
    QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel(MAX_QUEUED);
        std::thread::spawn(move || write_all(&receiver));
        Queue { sender, dropped: Mutex::new(0) }
    });
}

/// Writes `bytes`. Where standard error is closed, nobody can read them.
pub fn write(bytes: &[u8]) {
    match QUEUE.get() {
        None => write_now(bytes),
        Some(queue) => bytes.chunks(MAX_PIECE).for_each(|piece| queue.push(Piece::Bytes(piece.to_owned()))),
    }
}

/// Tells messages that belong together: one by one in the journal where standard error leads there, and as `otherwise` elsewhere. An entry
/// that the journal does not take is written to standard error.
pub fn tell(messages: Vec<Message>, otherwise: &str) {
    if journal::journal().is_none() {
        return write(otherwise.as_bytes());
    }
    for entry in messages.into_iter().flat_map(journal::entries) {
        match QUEUE.get() {
            None => tell_now(&entry),
            Some(queue) => queue.push(Piece::Entry(entry)),
        }
    }
}

/// Whether messages are entries of the journal.
pub fn is_journal() -> bool {
    journal::journal().is_some()
}

/// Waits until everything was written, but no longer than this.
pub fn flush(within: Duration) {
    let Some(queue) = QUEUE.get() else { return };
    let (sender, written) = sync_channel(1);
    // A queue that is full has a reader that does not read.
    if queue.sender.try_send(Piece::Mark(sender)).is_ok() {
        let _ = written.recv_timeout(within);
    }
}

impl Queue {
    fn push(&self, piece: Piece) {
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if *dropped > 0 {
            let note = format!("({} pieces of output were dropped, because nobody read them)\n", *dropped);
            if self.sender.try_send(Piece::Bytes(note.into_bytes())).is_ok() {
                *dropped = 0;
            }
        }
        match self.sender.try_send(piece) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => *dropped += 1,
        }
    }
}

/// What another program writes, on its way to standard error: without its colours, and without what would steer the terminal.
#[derive(Debug, Default)]
pub struct Relay {
    escapes: StripBytes,
    /// The beginning of a character whose other bytes have not come yet.
    begun: Vec<u8>,
}

impl Relay {
    /// Passes on what came next.
    pub fn write(&mut self, bytes: &[u8]) {
        let text = self.text(bytes);
        if !text.is_empty() {
            write(text.as_bytes());
        }
    }

    fn text(&mut self, bytes: &[u8]) -> String {
        let mut plain = std::mem::take(&mut self.begun);
        for piece in self.escapes.strip_next(bytes) {
            plain.extend_from_slice(piece);
        }
        self.begun = plain
            .utf8_chunks()
            .last()
            .map(|last| last.invalid())
            .filter(|rest| is_begun(rest))
            .unwrap_or_default()
            .to_vec();
        plain.truncate(plain.len() - self.begun.len());
        // A line that is drawn anew becomes one of its own.
        printable_lines(&String::from_utf8_lossy(&plain).replace("\r\n", "\n").replace('\r', "\n"))
    }
}

/// Whether the bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

fn write_all(queue: &Receiver<Piece>) {
    while let Ok(piece) = queue.recv() {
        match piece {
            Piece::Bytes(bytes) => write_now(&bytes),
            Piece::Entry(entry) => tell_now(&entry),
            Piece::Mark(written) => drop(written.send(())),
        }
    }
}

fn tell_now(entry: &Message) {
    let sent = journal::journal().is_some_and(|journal| journal::send(journal, entry).is_ok());
    if !sent {
        write_now(format!("{}\n", entry.text).as_bytes());
    }
}

fn write_now(bytes: &[u8]) {
    // If the terminal was closed, the work has to go on all the same.
    let _ = std::io::stderr().write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_writes_does_not_steer_the_terminal() {
        let all = "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7}bell\u{7} gr\u{fc}n\u{202e}!\n".as_bytes();
        for at in 0..all.len() {
            let mut relay = Relay::default();
            let text = relay.text(&all[..at]) + &relay.text(&all[at..]);
            assert_eq!(text, "red bell gr\u{fc}n\u{fffd}!\n", "{at}");
        }
        assert_eq!(Relay::default().text(b"a\xff\xfeb"), "ab");
    }
}
