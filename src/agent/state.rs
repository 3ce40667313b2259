//! The agent's memory across restarts and power cuts.
//!
//! `state.json` must not be lost: it is replaced atomically and synced before the step that it announces begins.
//! `root.json` has the newest trusted root, and `last-pass.json` the result of the last pass. The folder's lock keeps a second
//! agent out. What a state means, and which one follows, belongs to `lifecycle` and `verify`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::freshness::Clocks;
use super::lifecycle::Lifecycle;
use super::mirrors::MirrorReport;
use super::probation::files::{ProbationFiles, ProbationReport};
use super::reserve::{self, RESERVE, replace_record};
use super::retries::Held;
use super::verify::Trusted;
use crate::disk::{self, Durability, FileLock};
use crate::git::CommitId;
use crate::model::json::{self, JsonError, StateVersion};
use crate::model::{Name, Sha256Digest, Timestamp};
use crate::trust::{Anchor, AnchorError, AnchorLocation, TrustedRoot};

/// The most bytes of a file of the state: 32 MiB. An agent has at most 1,024 deployments, and `lifecycle` bounds their texts, so
/// that their records take less.
const MAX_BYTES: u64 = 32 << 20;

/// The newest version of the files of the state that this Clavel knows.
const NEWEST: u64 = 1;

/// The file of the state.
const STATE: &str = "state.json";
/// The file of the newest trusted root.
const ROOT: &str = "root.json";
/// The file of the result of the last pass.
const LAST_PASS: &str = "last-pass.json";
/// The folder of the GC roots of paths that were not compared with their pins yet.
pub(super) const UNCHECKED: &str = "unchecked";
/// The folder of the GC roots of realised paths.
pub(super) const ROOTS: &str = "roots";
/// The folder of the ways back.
pub(super) const WAYS_BACK: &str = "way-back";
/// The folder of the GC roots of what they lead to.
pub(super) const ROOTS_OF_WAYS_BACK: &str = "roots-of-ways-back";

/// The agent's memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct State {
    /// The versions and revisions that were verified last, and must not go back.
    pub trusted: Trusted,
    /// The commit at which it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believed_at: Option<CommitId>,
    /// The commit of the branch at which nothing was left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Completion>,
    /// The state of each deployment on its unit.
    pub deployments: BTreeMap<Name, Lifecycle>,
    /// The version of the file.
    #[serde(default)]
    pub version: StateVersion<NEWEST>,
}

/// A commit at which everything was done, and for which request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Completion {
    /// The commit.
    pub commit: CommitId,
    /// The digest of the request: another configuration or root has to read the commit again.
    pub request: Sha256Digest,
    /// What was found about each deployment; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployments: Option<BTreeMap<Name, CompletedAs>>,
    /// The units that the deployments were for; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub units: Option<BTreeSet<Name>>,
}

/// What was found about a deployment with which nothing was left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompletedAs {
    /// It runs as the branch says.
    Runs,
    /// It was withdrawn.
    Withdrawn,
    /// It runs, and the agent does not ask for it any more.
    Dropped,
}

/// The result of a pass for one deployment, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecordedOutcome {
    /// The deployment.
    pub deployment: Name,
    /// The outcome in a word, as in `clavel-agent once --json`.
    pub outcome: String,
    /// The outcome in a sentence.
    pub message: String,
}

/// The status that was left on a medium, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeftStatus {
    /// The folder of the bundles.
    pub medium: String,
    /// When the status there was written; absent where the last attempt failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why it could not be written, for example because the medium is read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The result of the last pass, for people and monitoring. Losing the file costs one measurement of the clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
pub struct LastPass {
    /// When it ended.
    pub at: Timestamp,
    /// The readings by which the next pass measures this machine's clocks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_baseline: Option<Clocks>,
    /// The error of the clock, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trouble: Option<String>,
    /// Its result in one line.
    pub message: String,
    /// Whether the branch was believed, and no deployment failed, was withdrawn, was dropped, or has a profile that
    /// another tool moved.
    pub ok: bool,
    /// Since when the branch is stale; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Timestamp>,
    /// The result for each deployment; empty where the pass ended before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deployments: Vec<RecordedOutcome>,
    /// What is suspicious about the configuration, and which hooks failed, although no deployment failed by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The statuses that were left beside bundles, when there were some last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<LeftStatus>,
    /// The result for each mirror, in the order of the configuration.
    #[serde(default)]
    pub mirrors: Vec<MirrorReport>,
    /// The version of the file.
    #[serde(default)]
    pub version: StateVersion<NEWEST>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder or a file in it cannot be used.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// The action.
        act: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another agent is at work.
    #[error("cannot use the state in {}: another clavel-agent is at work there; wait for it, or stop it", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The file does not hold a state.
    #[error(
        "cannot understand the state in {} (without it the agent accepts older documents again: move it away only if you know \
         the cause)",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: JsonError,
    },
}

/// The folder that the agent keeps its state in.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    _lock: Option<FileLock>,
}

impl StateDirectory {
    /// Makes the folder where it does not exist, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let lock_path = path.join("lock");
        fs::create_dir_all(path).map_err(|source| StateError::Io { act: "make", path: path.to_owned(), source })?;
        match FileLock::try_take(&lock_path) {
            Ok(lock) => {
                let directory = Self { path: path.to_owned(), _lock: Some(lock) };
                directory.remove_leftovers()?;
                Ok(directory)
            }
            Err(TryLockError::WouldBlock) => Err(StateError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(StateError::Io { act: "lock", path: lock_path, source }),
        }
    }

    /// Removes what an agent left that was killed. The lock says that no other is at work.
    fn remove_leftovers(&self) -> Result<(), StateError> {
        for name in [STATE, ROOT, LAST_PASS, RESERVE] {
            let path = self.join(name);
            disk::remove_unfinished(&path).map_err(|source| StateError::Io {
                act: "clear the folder of",
                path,
                source,
            })?;
        }
        // A link in it is of use only while its path is compared with the pins.
        let path = self.join(UNCHECKED);
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { act: "clear", path, source })
            }
            _ => Ok(()),
        }
    }

    /// The folder for a reader, without the lock.
    pub fn for_reading(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    /// A path in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Keeps room for records on its disk, as far as there is any.
    pub(super) fn keep_reserve(&self) {
        if let Err(error) = reserve::keep(&self.path) {
            tracing::warn!(%error, "cannot keep room in the state folder for records on a full disk");
        }
    }

    /// Makes room for a step that the machine needs, where its disk is full.
    pub(super) fn release_reserve_if_needed(&self) {
        reserve::release_if_needed(&self.path);
    }

    /// The files of a probation.
    pub(super) fn probation(&self) -> ProbationFiles {
        ProbationFiles::below(&self.path)
    }

    /// How the probation stands that is under way, in the state that was loaded; `None` where there is none.
    pub fn probation_report(&self, state: &State) -> Result<Option<ProbationReport>, StateError> {
        let files = self.probation();
        let read = files.read_report();
        let report = read.map_err(|source| StateError::Io { act: "read", path: self.join("probation"), source })?;
        // An agent that was killed leaves its report.
        let is_of = |report: &ProbationReport| match state.deployments.get(&report.deployment) {
            Some(Lifecycle::Probation(rollout)) => rollout.candidate.revision == report.revision,
            _ => false,
        };
        Ok(report.filter(is_of))
    }

    /// Notes for the agent, which may be running, that a person confirms the revision that is on probation.
    pub fn confirm(&self, on_probation: &ProbationReport) -> Result<(), StateError> {
        let written = self.probation().write_confirmation(&on_probation.deployment, on_probation.revision);
        written.map_err(|source| StateError::Io { act: "write to", path: self.join("probation"), source })
    }

    /// Asks the agent, which may be running, to try these revisions again.
    pub fn ask_for_retries(&self, held: &Held) -> Result<(), StateError> {
        let path = self.retries();
        held.ask(&path).map_err(|source| StateError::Io { act: "write", path, source })
    }

    /// Takes the revisions that somebody asked to try again, and forgets them.
    pub(super) fn take_retries(&self) -> Result<Held, StateError> {
        let path = self.retries();
        Held::take(&path).map_err(|source| StateError::Io { act: "take", path, source })
    }

    /// The file that asks for revisions to be tried again.
    pub(super) fn retries(&self) -> PathBuf {
        self.join("retries.json")
    }

    /// Removes the files of an earlier probation, above all its confirmation.
    pub(super) fn forget_probation(&self) -> Result<(), StateError> {
        let removed = self.probation().clear();
        removed.map_err(|source| StateError::Io { act: "remove the files in", path: self.join("probation"), source })
    }

    /// Reads the state; a new agent has an empty one.
    pub fn load(&self) -> Result<State, StateError> {
        Ok(self.read(STATE)?.unwrap_or_default())
    }

    /// Replaces the state, and returns once it is on the disk.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        self.replace(STATE, &json::render(state), Durability::Synced)
    }

    /// Reads the newest trusted root; `None` for a new agent.
    pub fn root(&self) -> Result<Option<TrustedRoot>, AnchorError> {
        let path = self.join(ROOT);
        if !path.exists() {
            return Ok(None);
        }
        match Anchor::read(&AnchorLocation::File(path))? {
            Anchor::Root(root) => Ok(Some(*root)),
            Anchor::Digest(_) => Ok(None),
        }
    }

    /// Replaces the newest trusted root, and returns once it is on the disk.
    pub fn save_root(&self, root: &TrustedRoot) -> Result<(), StateError> {
        self.replace(ROOT, root.file(), Durability::Synced)
    }

    /// Reads the result of the last pass.
    pub fn last_pass(&self) -> Result<Option<LastPass>, StateError> {
        self.read(LAST_PASS)
    }

    /// Replaces the result of the last pass.
    pub(super) fn save_last_pass(&self, pass: &LastPass) -> Result<(), StateError> {
        self.replace(LAST_PASS, &json::render(pass), Durability::Unsynced)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.join(name);
        let bytes = match disk::read(&path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { act: "read", path, source }),
        };
        json::parse_state(&bytes, MAX_BYTES, NEWEST).map(Some).map_err(|source| StateError::Malformed { path, source })
    }

    fn replace(&self, name: &str, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
        let path = self.join(name);
        // A file that could not be read again must not replace one that can.
        disk::check_length(bytes, MAX_BYTES)
            .and_then(|()| replace_record(&self.path, &path, bytes, durability))
            .map_err(|source| StateError::Io { act: "write", path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::super::lifecycle::{Candidate, Proof, UnitReference};
    use super::*;
    use crate::model::{UnitType, describe_error};

    #[test]
    fn a_saved_state_is_loaded_and_a_second_agent_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(state_dir.load().unwrap(), State::default());
        let content_digest = crate::trust::digest(b"");
        let nar_id = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-a".parse().unwrap();
        let candidate = Candidate { revision: crate::model::Revision::FIRST, content_digest, nar_id };
        let unit = UnitReference { name: "web-1".parse().unwrap(), unit_type: UnitType::Nixos };
        let confirmed = Lifecycle::adopt(unit, candidate, "2026-01-01T00:00:00Z".parse().unwrap());
        let state = State { deployments: [("web-1".parse().unwrap(), confirmed)].into(), ..State::default() };
        state_dir.save(&state).unwrap();
        assert_eq!(state_dir.load().unwrap(), state);
        let written = fs::read_to_string(state_dir.join("state.json")).unwrap();
        assert!(written.contains("\"content\": "), "{written}");
        assert!(matches!(StateDirectory::open(&dir.path().join("a/b")), Err(StateError::Busy { .. })));
    }

    #[test]
    fn the_longest_state_is_read_again_and_a_longer_one_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(dir.path()).unwrap();
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let path = |name: char| -> crate::model::StorePath {
            let name = name.to_string().repeat(200);
            format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
        };
        let of = |revision: u64, name| Candidate {
            revision: revision.try_into().unwrap(),
            content_digest: crate::trust::digest(b""),
            nar_id: path(name),
        };
        let unit = UnitReference { name: "u".repeat(64).parse().unwrap(), unit_type: UnitType::Nixos };
        // JSON escapes every character of it.
        let error = || "\"\n".repeat(100_000);
        let begun = Lifecycle::begin(Some(Lifecycle::adopt(unit.clone(), of(1, 'a'), now)), unit, of(2, 'b')).unwrap();
        let failing = begun
            .realise()
            .unwrap()
            .activate(Some(path('a')), None, Proof::default())
            .unwrap()
            .fail(&error(), now)
            .unwrap();
        let failed = failing.roll_back().unwrap().rolled_back(Err(error()), now).unwrap();
        let deployments = (0..1024).map(|n| (format!("{n:064}").parse().unwrap(), failed.clone())).collect();
        let state = State { deployments, ..State::default() };
        state_dir.save(&state).unwrap();
        assert_eq!(state_dir.load().unwrap(), state);

        let deployments = (0..3000).map(|n| (format!("{n:064}").parse().unwrap(), failed.clone())).collect();
        let longer = state_dir.save(&State { deployments, ..State::default() });
        assert!(matches!(longer, Err(StateError::Io { act: "write", .. })), "{longer:?}");
        assert_eq!(state_dir.load().unwrap(), state);
    }

    #[test]
    fn a_damaged_state_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(dir.path()).unwrap();
        for damaged in ["", "{", "{}", "[]", "{\"trusted\":{}}"] {
            fs::write(state_dir.join("state.json"), damaged).unwrap();
            assert!(matches!(state_dir.load(), Err(StateError::Malformed { .. })), "{damaged}");
        }
    }

    #[test]
    fn a_newer_state_is_refused_and_kept_and_an_older_one_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(dir.path()).unwrap();
        let newer = "{\"new\": 1, \"version\": 2}";
        fs::write(state_dir.join("state.json"), newer).unwrap();
        let error = describe_error(&state_dir.load().unwrap_err());
        assert!(error.contains("it is of version 2") && error.contains("upgrade this program"), "{error}");
        assert_eq!(fs::read_to_string(state_dir.join("state.json")).unwrap(), newer);
        state_dir.save(&State::default()).unwrap();
        let written = fs::read_to_string(state_dir.join("state.json")).unwrap();
        assert!(written.contains("\"version\": 1"), "{written}");
        let unversioned = written.replace(",\n  \"version\": 1", "");
        fs::write(state_dir.join("state.json"), unversioned).unwrap();
        assert_eq!(state_dir.load().unwrap(), State::default());
    }
}
