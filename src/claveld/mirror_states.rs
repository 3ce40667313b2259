//! The file with what claveld remembers of each mirror that it pushes on to: `mirrors.json` in the state folder.
//!
//! Several processes push on: `claveld run`, and what a hook leaves behind. So a change reads the file and writes it under a lock. A lost
//! file costs one push for each mirror.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::mirror_state::{MirrorReport, MirrorState};
use crate::config::PublishConfig;
use crate::disk::{self, Access, Durability, FileLock};
use crate::git::{CommitId, Remote};
use crate::model::Timestamp;
use crate::model::json::{self, StateVersion};

/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;
/// The most bytes that the file may have.
const MAX_BYTES: u64 = 1 << 20;

/// All that is remembered.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorStatesFile {
    mirrors: BTreeMap<String, MirrorState>,
    /// The tip of the branch after the last publication.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tip: Option<CommitId>,
    version: StateVersion<NEWEST>,
}

/// The file with the state of each mirror.
#[derive(Debug, Clone)]
pub(super) struct MirrorStates {
    folder: PathBuf,
}

impl MirrorStates {
    /// The file in the state folder.
    pub(super) fn of(state_directory: &Path) -> Self {
        Self { folder: state_directory.to_owned() }
    }

    /// How these mirrors are, in their order; without those of which nothing is known.
    pub(super) fn reports(&self, mirrors: &[Remote]) -> Vec<MirrorReport> {
        if mirrors.is_empty() {
            return Vec::new();
        }
        let mut known = self.file().mirrors;
        let report = |mirror: &Remote| {
            let mirror = mirror.to_string();
            known.remove(&mirror).map(|state| MirrorReport { mirror, state })
        };
        mirrors.iter().filter_map(report).collect()
    }

    /// The tip of the branch after the last publication.
    pub(super) fn tip(&self) -> Option<CommitId> {
        self.file().tip
    }

    /// Notes that the branch is at `tip`. Mirrors that are not configured any more are forgotten.
    pub(super) fn note_tip(&self, tip: CommitId, mirrors: &[Remote], now: Timestamp) -> io::Result<()> {
        self.change(|file| {
            file.tip = Some(tip);
            let mut known = std::mem::take(&mut file.mirrors);
            let names = mirrors.iter().map(ToString::to_string);
            file.mirrors = names
                .map(|mirror| {
                    let state = MirrorState::aimed_at(known.remove(&mirror), tip, now);
                    (mirror, state)
                })
                .collect();
        })
    }

    /// Notes that another claveld published `tip`.
    pub(super) fn set_tip(&self, tip: CommitId) -> io::Result<()> {
        self.change(|file| file.tip = Some(tip))
    }

    /// Changes the state of one mirror, and returns the new one.
    pub(super) fn update(
        &self,
        mirror: &Remote,
        change: impl FnOnce(Option<MirrorState>) -> MirrorState,
    ) -> io::Result<MirrorState> {
        let mut new = None;
        self.change(|file| {
            let mirror = mirror.to_string();
            let state = change(file.mirrors.remove(&mirror));
            file.mirrors.insert(mirror, state.clone());
            new = Some(state);
        })?;
        new.ok_or_else(|| io::Error::other("the state of the mirror was not changed"))
    }

    fn change(&self, change: impl FnOnce(&mut MirrorStatesFile)) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let _lock = FileLock::take(&self.folder.join("mirrors.lock"))?;
        let mut file = self.file();
        let before = json::render(&file);
        change(&mut file);
        let bytes = json::render(&file);
        if bytes == before {
            return Ok(());
        }
        disk::check_length(&bytes, MAX_BYTES)?;
        disk::replace(&self.path(), &bytes, Access::Everyone, Durability::Unsynced)
    }

    fn file(&self) -> MirrorStatesFile {
        let bytes = disk::read(&self.path(), MAX_BYTES).unwrap_or_default();
        json::parse_state(&bytes, MAX_BYTES, NEWEST).unwrap_or_default()
    }

    fn path(&self) -> PathBuf {
        self.folder.join("mirrors.json")
    }
}

/// Notes what was published, so that it is pushed on.
pub(super) fn note_published(config: &PublishConfig, tip: Option<&str>) {
    let Some(tip) = tip.and_then(|tip| tip.parse::<CommitId>().ok()).filter(|_| !config.mirrors.is_empty()) else {
        return;
    };
    let states = MirrorStates::of(&config.state_directory);
    let now = SystemTime::now().into();
    let noted = states.note_tip(tip, &config.mirrors, now);
    if let Err(error) = noted {
        tracing::warn!(%error, "cannot note that the mirrors are behind");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_keeps_the_configured_mirrors_alone() {
        let folder = tempfile::tempdir().unwrap();
        let states = MirrorStates::of(&folder.path().join("not/yet/there"));
        let [a, b]: [Remote; 2] = ["https://h/a", "/srv/b.git"].map(|text| text.parse().unwrap());
        let tip: CommitId = "a".repeat(40).parse().unwrap();
        let now = Timestamp::from_seconds(7).unwrap();
        let note = |mirrors: &[Remote]| {
            states.note_tip(tip, mirrors, now).unwrap();
        };
        note(&[a.clone(), b.clone()]);
        let level = MirrorState::Level { pushed: tip, at: now };
        assert_eq!(states.update(&b, |_| level.clone()).unwrap(), level);
        let statuses = |mirrors: &[Remote]| {
            states.reports(mirrors).iter().map(|report| report.state.behind_since()).collect::<Vec<_>>()
        };
        assert_eq!(statuses(&[b.clone(), a.clone()]), [None, Some(now)]);
        note(std::slice::from_ref(&b));
        assert_eq!((statuses(&[a, b.clone()]), states.tip()), (vec![None], Some(tip)));
        std::fs::write(folder.path().join("not/yet/there/mirrors.json"), "{").unwrap();
        assert_eq!((statuses(&[b]), states.tip()), (Vec::new(), None));
    }
}
