//! What the agent knows across restarts and power cuts: one file, replaced atomically and brought to the disk before
//! the step that it announces is begun.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::freshness::Clocks;
use super::mirrors::MirrorReport;
use super::verify::Trusted;
use crate::git::CommitId;
use crate::model::json::{self, JsonError};
use crate::model::{Name, Revision, Sha256Digest, StorePath, Timestamp};
use crate::trust::{Anchor, AnchorError, AnchorPlace, TrustedRoot};

/// The most bytes that are read of the state: 16 MiB.
const LARGEST: u64 = 16 << 20;

/// What the agent knows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// What was verified last, and must not go back.
    pub trusted: Trusted,
    /// The commit at which it was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub believed_at: Option<CommitId>,
    /// The commit of the branch at which nothing was left to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<SettledAt>,
    /// What runs.
    pub applied: BTreeMap<Name, Applied>,
    /// The last activation of each deployment that failed.
    pub failed: BTreeMap<Name, FailedActivation>,
    /// What the agent is at; after a restart, what it was at when it ended.
    pub step: Step,
}

/// A commit at which everything was done, and by which configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettledAt {
    /// The commit.
    pub commit: CommitId,
    /// The digest of who asked for what: another configuration has to look again.
    pub asker: Sha256Digest,
}

/// A deployment that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Its revision.
    pub revision: Revision,
    /// The digest of what its document says.
    pub content: Sha256Digest,
    /// What runs.
    pub nar_id: StorePath,
    /// Since when.
    pub since: Timestamp,
}

/// An activation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailedActivation {
    /// The revision.
    pub revision: Revision,
    /// The digest of what its document says.
    pub content: Sha256Digest,
    /// When.
    pub at: Timestamp,
    /// How.
    pub error: String,
}

/// A step that changes something, written down before it is begun.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "doing", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Nothing.
    #[default]
    Idle,
    /// Fetching a closure.
    Realising {
        /// The deployment.
        deployment: Name,
        /// Its revision.
        revision: Revision,
    },
    /// Switching to it.
    Activating {
        /// The deployment.
        deployment: Name,
        /// Its revision.
        revision: Revision,
    },
    /// Going back to what ran before.
    RollingBack {
        /// The deployment.
        deployment: Name,
        /// What ran before.
        to: StorePath,
    },
}

/// How the last pass ended, for people and monitoring. Losing it loses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[serde(rename_all = "camelCase")]
pub struct LastPass {
    /// When it ended.
    pub at: Timestamp,
    /// What this machine's clocks said when nothing was wrong with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// What is wrong with the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_trouble: Option<String>,
    /// What it said, in one line.
    pub message: String,
    /// Whether it left anything undone or refused.
    pub ok: bool,
    /// Since when what the branch shows is past its time; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Timestamp>,
    /// What became of each mirror, in the order of the configuration.
    #[serde(default)]
    pub mirrors: Vec<MirrorReport>,
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder or a file in it cannot be used.
    #[error("cannot {act} {}: {source}", path.display())]
    Io {
        /// What was being done.
        act: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent is at work.
    #[error("another clavel-agent is at work in {}; wait for it, or stop it", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The file does not hold a state.
    #[error(
        "cannot understand the state in {}: {source}; it was written by a newer Clavel, or damaged. Without it the agent \
         forgets what must not go back: move it away only if you know why it is so",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: JsonError,
    },
}

/// The folder that the agent keeps its state in.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    // Locked for as long as it is open.
    _lock: Option<File>,
}

impl StateDirectory {
    /// Makes the folder where it is not there, and takes its lock.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let lock_path = path.join("lock");
        fs::create_dir_all(path).map_err(|source| StateError::Io { act: "make", path: path.to_owned(), source })?;
        let io = |act, source| StateError::Io { act, path: lock_path.clone(), source };
        let lock = File::options().create(true).append(true).open(&lock_path).map_err(|source| io("open", source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: Some(lock) }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::Busy { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(io("lock", source)),
        }
    }

    /// The folder for somebody who only looks.
    pub fn for_reading(path: &Path) -> Self {
        Self { path: path.to_owned(), _lock: None }
    }

    /// A place in the folder.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What is known; of a new agent, nothing.
    pub fn load(&self) -> Result<State, StateError> {
        Ok(self.read("state.json")?.unwrap_or_default())
    }

    /// Replaces what is known, and returns once it is on the disk.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        self.replace("state.json", &json::render(state), Durability::Synced)
    }

    /// The newest root that was believed; none where there was none yet.
    pub fn root(&self) -> Result<Option<TrustedRoot>, AnchorError> {
        let path = self.join("root.json");
        if !path.exists() {
            return Ok(None);
        }
        match Anchor::read(&AnchorPlace::File(path))? {
            Anchor::Root(root) => Ok(Some(*root)),
            Anchor::Digest(_) => Ok(None),
        }
    }

    /// Replaces the newest root that was believed, and returns once it is on the disk.
    pub fn save_root(&self, root: &TrustedRoot) -> Result<(), StateError> {
        self.replace("root.json", root.file(), Durability::Synced)
    }

    /// How the last pass ended.
    pub fn last_pass(&self) -> Result<Option<LastPass>, StateError> {
        self.read("last-pass.json")
    }

    /// Notes how a pass ended.
    pub fn note_pass(&self, pass: &LastPass) -> Result<(), StateError> {
        self.replace("last-pass.json", &json::render(pass), Durability::Hoped)
    }

    fn read<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.join(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { act: "read", path, source }),
        };
        json::parse(&bytes, LARGEST).map(Some).map_err(|source| StateError::Malformed { path, source })
    }

    fn replace(&self, name: &str, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
        let path = self.join(name);
        let write = || -> io::Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
            file.write_all(bytes)?;
            if durability == Durability::Synced {
                file.as_file().sync_all()?;
            }
            file.persist(&path).map_err(|error| error.error)?;
            if durability == Durability::Synced {
                // The name is on the disk only when the folder is.
                File::open(&self.path)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|source| StateError::Io { act: "write", path: path.clone(), source })
    }
}

/// Whether a file has to outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Synced,
    Hoped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_a_second_agent_waits() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(&dir.path().join("a/b")).unwrap();
        assert_eq!(state_dir.load().unwrap(), State::default());
        let step = Step::Activating { deployment: "web-1".parse().unwrap(), revision: Revision::FIRST };
        let state = State { step, ..State::default() };
        state_dir.save(&state).unwrap();
        assert_eq!(state_dir.load().unwrap(), state);
        assert!(matches!(StateDirectory::open(&dir.path().join("a/b")), Err(StateError::Busy { .. })));
    }

    #[test]
    fn a_damaged_state_is_never_taken_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = StateDirectory::open(dir.path()).unwrap();
        for damaged in ["", "{", "{}", "[]", "{\"trusted\":{}}"] {
            fs::write(state_dir.join("state.json"), damaged).unwrap();
            assert!(matches!(state_dir.load(), Err(StateError::Malformed { .. })), "{damaged}");
        }
    }
}
