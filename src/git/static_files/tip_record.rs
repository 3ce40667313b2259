//! What is remembered of the tip that was read last, beside the commit that it became. With it the next poll is one conditional request.
//!
//! It is a cache: without it, the tip is read once more.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::git::address::CommitId;
use crate::git::noted::{read_note, replace_note};
use crate::model::{BranchPart, Sha256Digest, json};

/// The most bytes of the file.
const MAX_BYTES: u64 = 16 << 10;
/// The most characters of a validator that is remembered.
const MAX_VALIDATOR: usize = 512;

/// What a server says of a file, with which a client asks whether it has changed (RFC 9110, section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) last_modified: Option<String>,
}

impl Validators {
    /// The value of a header, where it can be sent back.
    pub(super) fn value(text: &str) -> Option<String> {
        let is_plain = |text: &&str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
        Some(text).filter(|text| (1..=MAX_VALIDATOR).contains(&text.len())).filter(is_plain).map(ToOwned::to_owned)
    }

    /// The header that asks for the file only if it has changed; none where the server gave nothing to ask with.
    pub(super) fn condition(&self) -> Option<String> {
        let by_time = || self.last_modified.as_ref().map(|time| format!("If-Modified-Since: {time}"));
        self.etag.as_ref().map(|etag| format!("If-None-Match: {etag}")).or_else(by_time)
    }
}

/// The tip that was read last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TipRecord {
    /// The URL of the folder.
    pub(super) url: String,
    /// The digest of the part that was read.
    pub(super) part: Sha256Digest,
    /// The commit that it became.
    pub(super) commit: CommitId,
    /// The digest of the tip.
    pub(super) tip: Sha256Digest,
    pub(super) validators: Validators,
}

impl TipRecord {
    /// The digest of a part.
    pub(super) fn part(part: &BranchPart) -> Sha256Digest {
        Sha256Digest::of(json::compact(part))
    }

    /// The record in the repository at `git_dir`, where there is one that can be read.
    pub(super) fn read(git_dir: &Path) -> Option<Self> {
        read_note(&Self::path(git_dir), MAX_BYTES)
    }

    /// Replaces the record.
    pub(super) fn write(&self, git_dir: &Path) -> std::io::Result<()> {
        replace_note(&Self::path(git_dir), &json::render(self))
    }

    fn path(git_dir: &Path) -> PathBuf {
        git_dir.join("clavel-static-tip.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_goes_before_a_time_and_no_header_is_smuggled_in() {
        let both = Validators { etag: Validators::value("W/\"a b\""), last_modified: Validators::value("Sun") };
        assert_eq!(both.condition().as_deref(), Some("If-None-Match: W/\"a b\""));
        let time = Validators { etag: None, ..both };
        assert_eq!(time.condition().as_deref(), Some("If-Modified-Since: Sun"));
        assert_eq!(Validators::default().condition(), None);
        for bad in ["", "a\r\nX: y", "é", &"x".repeat(513)] {
            assert_eq!(Validators::value(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_damage_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(TipRecord::read(folder.path()), None);
        let part = TipRecord::part(&BranchPart::Whole);
        let record = TipRecord {
            url: "static+https://h/x".to_owned(),
            part,
            commit: "a".repeat(40).parse().unwrap(),
            tip: Sha256Digest::of("tip"),
            validators: Validators { etag: Some("\"1\"".to_owned()), last_modified: None },
        };
        record.write(folder.path()).unwrap();
        assert_eq!(TipRecord::read(folder.path()), Some(record));
        std::fs::write(TipRecord::path(folder.path()), "{").unwrap();
        assert_eq!(TipRecord::read(folder.path()), None);
    }
}
