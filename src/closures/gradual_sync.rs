//! Brings a file to the disk while it is written.

use std::fs::File;
use std::io;
use std::thread::{self, JoinHandle};

/// How many bytes are written before the disk is asked for them: 32 MiB. Twice as many at most are not on the disk, so a slow stick does
/// not fill the machine's memory with what it has not written yet.
const SYNC_AFTER: usize = 32 << 20;

/// What is not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct GradualSync {
    unsynced: usize,
    /// The thread that waits for the disk, beside which the next bytes are made.
    running: Option<JoinHandle<io::Result<()>>>,
}

impl GradualSync {
    /// Takes note that so many bytes more were written to `file`. Waits while the disk is too far behind.
    pub(super) fn wrote(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.unsynced += bytes;
        if self.unsynced >= SYNC_AFTER {
            self.unsynced = 0;
            self.wait()?;
            let file = file.try_clone()?;
            let sync = thread::Builder::new().name("sync".to_owned()).spawn(move || file.sync_data())?;
            self.running = Some(sync);
        }
        Ok(())
    }

    /// Waits until the disk has what it was asked for.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        let ended = self.running.take().map_or(Ok(Ok(())), JoinHandle::join);
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that syncs the file panicked")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_disk_is_told_with_what_is_written_next() {
        // A pipe cannot be synced (fsync(2)).
        let (_reader, writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(writer));
        let mut sync = GradualSync::default();
        sync.wrote(&pipe, SYNC_AFTER - 1).unwrap();
        assert!(sync.running.is_none());
        sync.wrote(&pipe, 1).unwrap();
        sync.wrote(&pipe, SYNC_AFTER - 1).unwrap();
        assert!(sync.wrote(&pipe, 1).is_err());
        sync.wait().unwrap();
        sync.wrote(&pipe, SYNC_AFTER).unwrap();
        assert!(sync.wait().is_err());
    }
}
