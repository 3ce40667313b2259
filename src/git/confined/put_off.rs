//! A server that said for how long it wants to be left alone, remembered beside the copy of its repository. Every fetch into that copy
//! keeps to it, also after a restart.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ConfinedFetchError;
use super::limits::MAX_MESSAGE_CHARACTERS;
use crate::git::http::retry_after::MAX_RETRY_AFTER;
use crate::git::noted::{read_note, replace_note};
use crate::git::remote::Remote;
use crate::model::{Timestamp, json};

/// The most bytes of the file.
const MAX_BYTES: u64 = 32 << 10;

/// A server that is not asked before a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PutOff {
    /// The repository.
    remote: String,
    /// When it may be asked again.
    until: Timestamp,
    /// The error with which the server said so, without secrets.
    why: String,
}

impl PutOff {
    pub(super) fn new(remote: &Remote, until: Timestamp, why: String) -> Self {
        Self { remote: remote.to_string(), until, why }
    }

    /// What is remembered beside `copy` of `remote`, where it counts at `now`.
    pub(super) fn of(copy: &Path, remote: &Remote, now: Timestamp) -> Option<Self> {
        // One that cannot be read puts nothing off.
        let found: Self = read_note(&file_of(copy), MAX_BYTES)?;
        found.counts(&remote.to_string(), now).then_some(found)
    }

    /// Whether it is about `remote`, and its time is not over. A clock that was put back must not put a fetch off for longer than a server
    /// can.
    fn counts(&self, remote: &str, now: Timestamp) -> bool {
        self.remote == remote && now < self.until && self.until <= now.plus(MAX_RETRY_AFTER)
    }

    /// Writes it beside `copy`.
    pub(super) fn write(&self, copy: &Path) -> io::Result<()> {
        replace_note(&file_of(copy), &json::compact(self))
    }
}

impl From<PutOff> for ConfinedFetchError {
    fn from(put_off: PutOff) -> Self {
        Self::PutOff { until: put_off.until, why: put_off.why.chars().take(MAX_MESSAGE_CHARACTERS).collect() }
    }
}

fn file_of(copy: &Path) -> PathBuf {
    copy.with_extension("put-off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_until_its_time_and_no_other_is() {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("0123.git");
        let remote = |url: &str| url.parse::<Remote>().unwrap();
        let at = |seconds: u64| Timestamp::from_seconds(1_000_000 + seconds).unwrap();
        assert_eq!(PutOff::of(&copy, &remote("https://h/x"), at(0)), None);
        let put_off = PutOff::new(&remote("https://h/x"), at(100), "HTTP status 429".to_owned());
        put_off.write(&copy).unwrap();
        assert_eq!(PutOff::of(&copy, &remote("https://h/x"), at(99)), Some(put_off));
        assert_eq!(PutOff::of(&copy, &remote("https://h/x"), at(100)), None);
        assert_eq!(PutOff::of(&copy, &remote("https://h/y"), at(0)), None);
        let early = Timestamp::from_seconds(1000).unwrap();
        assert_eq!(PutOff::of(&copy, &remote("https://h/x"), early), None);
        std::fs::write(file_of(&copy), "{").unwrap();
        assert_eq!(PutOff::of(&copy, &remote("https://h/x"), at(0)), None);
    }
}
