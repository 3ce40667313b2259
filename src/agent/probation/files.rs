//! The files of a probation in the agent's state folder: its report, which `clavel-agent status` reads, and the confirmation of a
//! person, which `clavel-agent confirm` writes while the agent runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Access, Durability};
use crate::model::json::{self, StateVersion};
use crate::model::{CheckMode, Confirmation, Name, Revision, StorePath, Timestamp};

/// The most bytes of a file.
const MAX_BYTES: u64 = 4 << 20;
/// The newest version of the files that this Clavel knows.
const NEWEST: u64 = 1;

/// How a probation stands, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProbationReport {
    /// The deployment.
    pub deployment: Name,
    /// The revision that is on probation.
    pub revision: Revision,
    /// How often its activation was begun.
    pub attempt: u32,
    /// When the machine goes back if the revision is not confirmed.
    pub deadline: Timestamp,
    /// What the machine goes back to; absent where nothing ran before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<StorePath>,
    /// Who confirms the revision.
    pub confirm: Confirmation,
    /// Whether all of it holds, so that only a person's confirmation is missing.
    pub awaits_person: bool,
    /// Whether a mirror was read since the switch; absent where none has to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_is_read: Option<bool>,
    /// Why no mirror was read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror_error: Option<String>,
    /// Each check.
    pub checks: Vec<CheckReport>,
    /// The version of the file.
    #[serde(default)]
    pub version: StateVersion<NEWEST>,
}

/// How a check stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CheckReport {
    /// Its name.
    pub name: Name,
    /// Whether the configuration of this machine asks for it, and not the deployment.
    pub is_of_machine: bool,
    /// What it looks at, in words.
    pub looks_at: String,
    /// What follows where it does not hold.
    pub mode: CheckMode,
    /// What the last look found.
    pub standing: CheckStanding,
    /// Why it did not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the last look at a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStanding {
    /// There was none yet.
    Pending,
    /// It holds.
    Holds,
    /// It does not hold.
    Fails,
}

/// The confirmation of a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PersonalConfirmation {
    deployment: Name,
    revision: Revision,
    #[serde(default)]
    version: StateVersion<NEWEST>,
}

/// The folder of these files, below the state folder.
#[derive(Debug, Clone)]
pub(in crate::agent) struct ProbationFiles(PathBuf);

impl ProbationFiles {
    pub(in crate::agent) fn below(state: &Path) -> Self {
        Self(state.join("probation"))
    }

    /// Writes how the probation stands. It needs to outlive no power cut.
    pub(in crate::agent) fn write_report(&self, report: &ProbationReport) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let bytes = json::render(report);
        disk::check_length(&bytes, MAX_BYTES)?;
        disk::replace(&self.report(), &bytes, Access::Owner, Durability::Unsynced)
    }

    /// How the probation stands that is under way.
    pub(in crate::agent) fn read_report(&self) -> io::Result<Option<ProbationReport>> {
        read(&self.report())
    }

    /// Notes that a person confirms this revision.
    pub(in crate::agent) fn write_confirmation(&self, deployment: &Name, revision: Revision) -> io::Result<()> {
        let confirmation = PersonalConfirmation { deployment: deployment.clone(), revision, version: StateVersion };
        disk::replace(&self.confirmation(), &json::render(&confirmation), Access::Owner, Durability::Synced)
    }

    /// Whether a person has confirmed this revision. What cannot be read confirms nothing.
    pub(in crate::agent) fn is_confirmed(&self, deployment: &Name, revision: Revision) -> bool {
        let found: Option<PersonalConfirmation> = read(&self.confirmation()).ok().flatten();
        found.is_some_and(|found| found.deployment == *deployment && found.revision == revision)
    }

    /// Removes both files, and what a killed process left of them.
    pub(in crate::agent) fn clear(&self) -> io::Result<()> {
        for path in [self.report(), self.confirmation()] {
            disk::remove_unfinished(&path)?;
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    fn report(&self) -> PathBuf {
        self.0.join("report.json")
    }

    fn confirmation(&self) -> PathBuf {
        self.0.join("confirmation.json")
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match disk::read(path, MAX_BYTES) {
        Ok(bytes) => json::parse_state(&bytes, MAX_BYTES, NEWEST).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
