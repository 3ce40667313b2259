//! The revisions that are held because they failed, and the file by which a person asks the agent to try some of them again.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::decide::Retry;
use super::lifecycle::Lifecycle;
use crate::disk::{self, Access, Durability};
use crate::model::json::{self, StateVersion};
use crate::model::{Name, Revision};

/// The most bytes of the file.
const MAX_BYTES: u64 = 1 << 20;
/// The newest version of the file that this Clavel knows.
const NEWEST: u64 = 1;

/// Revisions that failed, each by its deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Held {
    /// The revision of each deployment.
    pub deployments: BTreeMap<Name, Revision>,
    /// The version of the file.
    #[serde(default)]
    version: StateVersion<NEWEST>,
}

impl Held {
    /// The revisions that the agent holds, by the state of its deployments.
    pub fn of(deployments: &BTreeMap<Name, Lifecycle>) -> Self {
        let held = |(name, known): (&Name, &Lifecycle)| match known {
            Lifecycle::RolledBack(failed) => Some((name.clone(), failed.candidate.revision)),
            Lifecycle::RollingBack(rollback) => Some((name.clone(), rollback.candidate.revision)),
            Lifecycle::Known(_)
            | Lifecycle::Realised(_)
            | Lifecycle::Activating(_)
            | Lifecycle::AwaitingReboot(_)
            | Lifecycle::Probation(_)
            | Lifecycle::Confirmed { .. } => None,
        };
        Self { deployments: deployments.iter().filter_map(held).collect(), version: StateVersion }
    }

    /// Whether this revision is tried again.
    pub(super) fn retry_of(&self, deployment: &Name, revision: Revision) -> Retry {
        if self.deployments.get(deployment) == Some(&revision) { Retry::AsAsked } else { Retry::NewRevisions }
    }

    /// Asks for these, beside what was asked for before.
    pub(super) fn ask(&self, path: &Path) -> io::Result<()> {
        let mut all = read(path)?;
        all.deployments.extend(self.deployments.clone());
        let bytes = json::render(&all);
        disk::check_length(&bytes, MAX_BYTES)?;
        disk::replace(path, &bytes, Access::Owner, Durability::Synced)
    }

    /// Takes what was asked for, and forgets it. A file that cannot be understood asks for nothing.
    pub(super) fn take(path: &Path) -> io::Result<Self> {
        let asked = read(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(asked),
        }
    }
}

fn read(path: &Path) -> io::Result<Held> {
    match disk::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(json::parse_state(&bytes, MAX_BYTES, NEWEST).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Held::default()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("retries.json");
        let one = |name: &str, revision: u64| Held {
            deployments: [(name.parse().unwrap(), revision.try_into().unwrap())].into(),
            version: StateVersion,
        };
        assert_eq!(Held::take(&path).unwrap(), Held::default());
        one("a", 2).ask(&path).unwrap();
        one("b", 3).ask(&path).unwrap();
        one("a", 4).ask(&path).unwrap();
        let taken = Held::take(&path).unwrap();
        let retry = |name: &str, revision: u64| taken.retry_of(&name.parse().unwrap(), revision.try_into().unwrap());
        assert_eq!([retry("a", 4), retry("b", 3)], [Retry::AsAsked; 2]);
        assert_eq!([retry("a", 2), retry("c", 3)], [Retry::NewRevisions; 2]);
        assert_eq!(Held::take(&path).unwrap(), Held::default());
        fs::write(&path, "{").unwrap();
        assert_eq!(Held::take(&path).unwrap(), Held::default());
        assert!(!path.exists());
    }
}
