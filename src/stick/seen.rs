//! What the maker of bundles has seen of each machine, and whether a status counts by that.
//!
//! A key counts as the machine's because it came first under its name, as with SSH. The memory is a file on the operator's machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, Access, Durability};
use crate::model::json::{self, JsonError, StateVersion};
use crate::model::{AgentStatus, Epoch, FleetId, IndexVersion, Name, PublicKey, Timestamp};
use crate::trust::{StatusError, Verified, verify_status};

/// The most bytes of the memory: 16 MiB, some 60,000 machines.
const MAX_BYTES: u64 = 16 << 20;
/// The newest version of the file.
const NEWEST: u64 = 1;

/// The machines of each fleet, as their statuses showed them last.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenMachines {
    fleets: BTreeMap<FleetId, BTreeMap<Name, SeenMachine>>,
    #[serde(default)]
    version: StateVersion<NEWEST>,
}

/// What is remembered of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SeenMachine {
    /// When its newest status was written, by its clock.
    pub at: Timestamp,
    /// The index that it believed then.
    pub index: Option<(Epoch, IndexVersion)>,
    /// The key that signed its first status.
    pub key: PublicKey,
}

/// Why the memory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// The file cannot be read or written.
    #[error("cannot {act} {}, which has the keys of the machines", path.display())]
    Io {
        /// `read` or `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is damaged.
    #[error(
        "cannot understand {}, which has the keys of the machines; move it away to begin anew with the keys that come first",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: JsonError,
    },
}

/// How far a status counts.
#[derive(Debug)]
pub enum Finding {
    /// It counts.
    Good(Verified<AgentStatus>),
    /// It counts, and it is the first of this machine.
    First(Verified<AgentStatus>),
    /// It counts, and the machine believes an older index than before: it was restored from a backup.
    WentBack(Verified<AgentStatus>, (Epoch, IndexVersion)),
    /// It does not count.
    Rejected(Rejection),
}

/// Why a status does not count.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is damaged, or its own key did not sign it.
    #[error("it is damaged or forged")]
    Invalid(#[source] StatusError),
    /// It is of another agent than the name of its file says.
    #[error("it is the status of the agent `{0}`")]
    OtherAgent(Name),
    /// It is of another fleet.
    #[error("it is of another fleet: {0}")]
    OtherFleet(FleetId),
    /// Another key signed the first status of this name.
    #[error(
        "another key signed it than the first status of this name, so somebody forged it, or the machine was installed anew; if it \
         was, delete its entry in the file of --seen"
    )]
    OtherKey,
    /// A newer one was seen.
    #[error("it is a copy of an older status, or the machine's clock went back: one of {0} was seen already")]
    Older(Timestamp),
}

impl SeenMachines {
    /// Reads the memory; an empty one where there is no file.
    pub fn read(path: &Path) -> Result<Self, SeenError> {
        let bytes = match disk::read(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(SeenError::Io { act: "read", path: path.to_owned(), source }),
        };
        json::parse_state(&bytes, MAX_BYTES, NEWEST)
            .map_err(|source| SeenError::Malformed { path: path.to_owned(), source })
    }

    /// Replaces the file.
    pub fn write(&self, path: &Path) -> Result<(), SeenError> {
        let failed = |source| SeenError::Io { act: "write", path: path.to_owned(), source };
        let bytes = json::render(self);
        disk::check_length(&bytes, MAX_BYTES).map_err(failed)?;
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        disk::replace(path, &bytes, Access::Owner, Durability::Synced).map_err(failed)
    }

    /// What is remembered of a machine.
    pub fn of(&self, fleet: FleetId, agent: &Name) -> Option<&SeenMachine> {
        self.fleets.get(&fleet)?.get(agent)
    }

    /// Remembers what a status that counts says.
    pub fn note(&mut self, finding: &Finding) {
        let (Finding::Good(status) | Finding::First(status) | Finding::WentBack(status, _)) = finding else { return };
        let seen = SeenMachine { at: status.at, index: index_of(status), key: status.key.clone() };
        self.fleets.entry(status.fleet).or_default().insert(status.agent.clone(), seen);
    }
}

impl Finding {
    /// The status, if it counts.
    pub fn status(&self) -> Option<&AgentStatus> {
        match self {
            Self::Good(status) | Self::First(status) | Self::WentBack(status, _) => Some(status),
            Self::Rejected(_) => None,
        }
    }
}

fn index_of(status: &AgentStatus) -> Option<(Epoch, IndexVersion)> {
    Some((status.epoch?, status.index_version?))
}

/// Judges the status that stands under the name of `agent`, by what was seen of that machine. No fleet is expected where none is known.
pub fn judge(agent: &Name, bytes: io::Result<Vec<u8>>, fleet: Option<FleetId>, seen: &SeenMachines) -> Finding {
    let verified =
        bytes.map_err(Rejection::Unreadable).and_then(|bytes| verify_status(&bytes).map_err(Rejection::Invalid));
    let status = match verified {
        Ok(status) => status,
        Err(rejection) => return Finding::Rejected(rejection),
    };
    if status.agent != *agent {
        return Finding::Rejected(Rejection::OtherAgent(status.agent.clone()));
    }
    if fleet.is_some_and(|fleet| fleet != status.fleet) {
        return Finding::Rejected(Rejection::OtherFleet(status.fleet));
    }
    let Some(before) = seen.of(status.fleet, agent) else { return Finding::First(status) };
    if before.key.bytes() != status.key.bytes() {
        return Finding::Rejected(Rejection::OtherKey);
    }
    if status.at < before.at {
        return Finding::Rejected(Rejection::Older(before.at));
    }
    match before.index {
        Some(index) if index_of(&status) < Some(index) => Finding::WentBack(status, index),
        _ => Finding::Good(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, List, Schema};
    use crate::trust::{SecretKey, Signed, digest};

    fn status(key: &SecretKey, at: &str, version: u64) -> AgentStatus {
        AgentStatus {
            agent: "web-1".parse().unwrap(),
            at: at.parse().unwrap(),
            commit: None,
            deployments: List::default(),
            epoch: Some(serde_json::from_str("1").unwrap()),
            error: None,
            fleet: FleetId::of(digest(b"fleet")),
            index_version: Some(serde_json::from_value(version.into()).unwrap()),
            key: key.public(),
            kind: Kind::THIS,
            schema: Schema::V1,
        }
    }

    #[test]
    fn a_status_counts_by_the_first_key_and_by_what_was_seen_last() {
        let key = || SecretKey::generate("web-1".parse().unwrap()).unwrap();
        let (ours, other) = (key(), key());
        let mut seen = SeenMachines::default();
        let fleet = FleetId::of(digest(b"fleet"));
        let judged = |seen: &SeenMachines, key: &SecretKey, at, version, agent: &str, fleet| {
            let bytes = Signed::sign(status(key, at, version), key).render();
            judge(&agent.parse().unwrap(), Ok(bytes), fleet, seen)
        };
        let (first, second, third) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z");
        let found = judged(&seen, &ours, second, 5, "web-1", Some(fleet));
        assert!(matches!(found, Finding::First(_)));
        seen.note(&found);
        let mut judge_next = |key, at, version| {
            let found = judged(&seen, key, at, version, "web-1", None);
            seen.note(&found);
            found
        };
        assert!(matches!(judge_next(&ours, second, 5), Finding::Good(_)));
        assert!(matches!(judge_next(&other, third, 6), Finding::Rejected(Rejection::OtherKey)));
        assert!(matches!(judge_next(&ours, first, 4), Finding::Rejected(Rejection::Older(_))));
        assert!(matches!(judge_next(&ours, third, 4), Finding::WentBack(..)));
        assert!(matches!(judge_next(&ours, third, 4), Finding::Good(_)));
        let elsewhere = Some(FleetId::of(digest(b"other")));
        let found = judged(&seen, &ours, third, 6, "web-1", elsewhere);
        assert!(matches!(found, Finding::Rejected(Rejection::OtherFleet(_))));
        let found = judged(&seen, &ours, third, 6, "web-2", None);
        assert!(matches!(found, Finding::Rejected(Rejection::OtherAgent(_))));
        let damaged = judge(&"web-1".parse().unwrap(), Ok(b"{".to_vec()), None, &seen);
        assert!(matches!(damaged, Finding::Rejected(Rejection::Invalid(_))) && damaged.status().is_none());
    }

    #[test]
    fn the_memory_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clavel/seen.json");
        assert_eq!(SeenMachines::read(&path).unwrap(), SeenMachines::default());
        let key = SecretKey::generate("web-1".parse().unwrap()).unwrap();
        let bytes = Signed::sign(status(&key, "2026-01-01T00:00:00Z", 5), &key).render();
        let mut seen = SeenMachines::default();
        seen.note(&judge(&"web-1".parse().unwrap(), Ok(bytes), None, &seen));
        seen.write(&path).unwrap();
        assert_eq!(SeenMachines::read(&path).unwrap(), seen);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(SeenMachines::read(&path), Err(SeenError::Malformed { .. })));
    }
}
