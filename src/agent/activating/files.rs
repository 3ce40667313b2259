//! The files of a unit's activation: the lock, the request, the result, the process that runs, and the output.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::lifecycle::Lifecycle;
use super::super::reserve::{replace_record, state_of};
use super::super::state::StateError;
use super::super::way_back::arming::Arming;
use crate::disk::{self, Durability, FileLock};
use crate::model::json::{self, StateVersion};
use crate::model::{Name, Revision, StorePath};
use crate::process::{Invocation, ProcessMark};

/// The most bytes of a file.
const MAX_BYTES: u64 = 4 << 20;
/// The most bytes of the output that are read again.
const MAX_SAID: u64 = 256 << 10;
/// The newest version of the files that this Clavel knows.
const NEWEST: u64 = 1;

/// Which activation a request and a result are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in super::super) struct ActivationId {
    /// The deployment.
    pub(in super::super) deployment: Name,
    /// The revision that is tried, or that failed.
    pub(in super::super) revision: Revision,
    /// The store path that is activated.
    pub(in super::super) path: StorePath,
    /// What it is for.
    pub(in super::super) step: ActivationStep,
}

/// What an activation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in super::super) enum ActivationStep {
    /// This attempt at a revision.
    Attempt(u32),
    /// This try of a rollback.
    Rollback(u32),
}

impl ActivationId {
    /// The activation that is under way in this state, or was when its agent ended.
    pub(in super::super) fn of(deployment: &Name, state: &Lifecycle) -> Option<Self> {
        let deployment = deployment.clone();
        match state {
            Lifecycle::Activating(rollout) => Some(Self {
                deployment,
                revision: rollout.candidate.revision,
                path: rollout.candidate.nar_id.clone(),
                step: ActivationStep::Attempt(rollout.attempts),
            }),
            Lifecycle::RollingBack(rollback) if rollback.interruptions() > 0 => Some(Self {
                deployment,
                revision: rollback.candidate.revision,
                path: rollback.to.clone(),
                step: ActivationStep::Rollback(rollback.tries),
            }),
            Lifecycle::Known(_)
            | Lifecycle::Realised(_)
            | Lifecycle::AwaitingReboot(_)
            | Lifecycle::Probation(_)
            | Lifecycle::RollingBack(_)
            | Lifecycle::Confirmed { .. }
            | Lifecycle::RolledBack(_) => None,
        }
    }
}

/// A program of an activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct ActivationProgram {
    pub(in super::super) program: OsString,
    pub(in super::super) arguments: Vec<OsString>,
    /// The variables to set, and those to remove. The others are the agent's.
    pub(in super::super) environment: Vec<(OsString, Option<OsString>)>,
    /// The folder to run in; the agent's where there is none.
    pub(in super::super) directory: Option<OsString>,
    /// Whether it runs what follows as another user.
    pub(in super::super) is_of_another_user: bool,
}

impl ActivationProgram {
    /// The same program with these variables, where it does not set or remove them itself.
    pub(super) fn after(self, environment: &[(OsString, OsString)]) -> Self {
        let before = environment.iter().cloned().map(|(name, value)| (name, Some(value)));
        Self { environment: before.chain(self.environment).collect(), ..self }
    }

    /// A run of the program, with the environment of this process.
    pub(in super::super) fn invocation(self) -> Invocation {
        let run = Invocation::new(self.program).args(self.arguments).outside_any_repository();
        let run = self.environment.into_iter().fold(run, |run, (variable, value)| match value {
            Some(value) => run.env(variable, value),
            None => run.env_remove(variable),
        });
        let run = match self.directory {
            Some(directory) => run.current_dir(directory),
            None => run,
        };
        // Elsewhere sudo(8) runs it, which has `use_pty` for the terminal.
        if self.is_of_another_user && cfg!(target_os = "linux") { run.without_a_terminal() } else { run }
    }
}

/// What the process is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivationRequest {
    pub(super) of: ActivationId,
    pub(super) folder: OsString,
    pub(super) programs: Vec<ActivationProgram>,
    /// The variables of the agent, which the programs have as well.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The time for all of them.
    pub(super) milliseconds: u64,
    /// The timer to start once they have ended.
    pub(super) then_arm: Option<Arming>,
    #[serde(default)]
    pub(super) version: StateVersion<NEWEST>,
}

/// How an activation ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActivationResult {
    pub(super) of: ActivationId,
    /// Why it failed; `None` where it succeeded.
    pub(super) error: Option<String>,
    /// The exit code of the program that failed, where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) code: Option<i32>,
    #[serde(default)]
    pub(super) version: StateVersion<NEWEST>,
}

/// How an activation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct ActivationFailed {
    /// Why, for people.
    pub(in super::super) why: String,
    /// The exit code of the program that failed, where it ended by itself.
    pub(in super::super) code: Option<i32>,
}

impl From<String> for ActivationFailed {
    fn from(why: String) -> Self {
        Self { why, code: None }
    }
}

/// The folder with the files of a unit's activation.
#[derive(Debug, Clone)]
pub(in super::super) struct ActivationFolder(PathBuf);

impl ActivationFolder {
    /// The folder of `unit` below `all`, the folder of all units.
    pub(in super::super) fn of(all: &Path, unit: &Name) -> Self {
        Self(all.join(unit.as_str()))
    }

    pub(super) fn at(path: OsString) -> Self {
        Self(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Takes the lock of the unit, and clears what a process left that was killed while it had it; `None` while an activation runs.
    pub(in super::super) fn try_lock(&self) -> Result<Option<FileLock>, StateError> {
        fs::create_dir_all(&self.0).map_err(|source| StateError::Io { act: "make", path: self.0.clone(), source })?;
        let path = self.lock();
        match FileLock::try_take(&path) {
            Ok(lock) => {
                for path in [self.request(), self.result(), self.program()] {
                    disk::remove_unfinished(&path).map_err(|source| StateError::Io {
                        act: "clear the folder of",
                        path,
                        source,
                    })?;
                }
                Ok(Some(lock))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StateError::Io { act: "lock", path, source }),
        }
    }

    /// The file of the lock of the unit.
    pub(in super::super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Forgets the request of an activation that nobody has taken on. A process that is late finds nothing to do.
    pub(super) fn forget_request(&self) -> Result<(), StateError> {
        let path = self.request();
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { act: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Forgets the result of an earlier activation, and returns once that is on the disk.
    pub(in super::super) fn forget_result(&self) -> Result<(), StateError> {
        let path = self.result();
        let removed = match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| File::open(&self.0)?.sync_all()),
        };
        removed.map_err(|source| StateError::Io { act: "remove", path, source })
    }

    pub(super) fn write_request(&self, request: &ActivationRequest) -> Result<File, StateError> {
        let path = self.request();
        replace(&self.0, &path, &json::render(request), Durability::Unsynced)?;
        File::open(&path).map_err(|source| StateError::Io { act: "open", path, source })
    }

    /// Takes the request on, in the process that carries it out. It is there for one alone.
    pub(super) fn take_on(&self) -> Result<(), StateError> {
        let path = self.request();
        fs::remove_file(&path).map_err(|source| StateError::Io { act: "take on", path, source })
    }

    /// Whether a process has taken the request on.
    pub(super) fn is_taken_on(&self) -> bool {
        !self.request().exists()
    }

    fn request(&self) -> PathBuf {
        self.0.join("request.json")
    }

    pub(super) fn read_result(&self, of: &ActivationId) -> Result<Option<Result<(), ActivationFailed>>, StateError> {
        let result: Option<ActivationResult> = read(&self.result())?;
        let ended = |result: ActivationResult| match result.error {
            None => Ok(()),
            Some(why) => Err(ActivationFailed { why, code: result.code }),
        };
        Ok(result.filter(|result| result.of == *of).map(ended))
    }

    pub(super) fn write_result(&self, result: &ActivationResult) -> Result<(), StateError> {
        replace(&self.0, &self.result(), &json::render(result), Durability::Synced)
    }

    /// The program of an activation that ran last.
    pub(super) fn read_program(&self) -> Result<Option<ProcessMark>, StateError> {
        read(&self.program())
    }

    pub(super) fn write_program(&self, program: ProcessMark) -> Result<(), StateError> {
        replace(&self.0, &self.program(), &json::render(&program), Durability::Unsynced)
    }

    fn program(&self) -> PathBuf {
        self.0.join("program.json")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The end of the output of the last activation; empty where it cannot be read.
    pub(in super::super) fn said(&self) -> String {
        let mut said = Vec::new();
        let read = File::open(self.log()).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(io::SeekFrom::Start(length.saturating_sub(MAX_SAID)))?;
            log.take(MAX_SAID).read_to_end(&mut said)
        });
        if read.is_ok() { String::from_utf8_lossy(&said).into_owned() } else { String::new() }
    }

    /// Begins a new file for the output. What an earlier activation left running writes on to the earlier file.
    pub(super) fn new_log(&self) -> Result<File, StateError> {
        match fs::remove_file(self.log()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { act: "remove", path: self.log(), source: error })
            }
            _ => self.open_log(),
        }
    }

    pub(super) fn open_log(&self) -> Result<File, StateError> {
        let opened = File::options().read(true).append(true).create(true).mode(0o600).open(self.log());
        opened.map_err(|source| StateError::Io { act: "open", path: self.log(), source })
    }

    fn result(&self) -> PathBuf {
        self.0.join("result.json")
    }
}

fn replace(folder: &Path, path: &Path, bytes: &[u8], durability: Durability) -> Result<(), StateError> {
    disk::check_length(bytes, MAX_BYTES)
        .and_then(|()| replace_record(&state_of(folder), path, bytes, durability))
        .map_err(|source| StateError::Io { act: "write", path: path.to_owned(), source })
}

/// Parses the request that the process reads.
pub(super) fn parse_request(bytes: &[u8]) -> Result<ActivationRequest, json::JsonError> {
    json::parse_state(bytes, MAX_BYTES, NEWEST)
}

/// Reads one of the files. One that a power cut or a newer agent left unreadable counts as missing: it says only how an activation
/// ended, which is then done again.
fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    match disk::read(path, MAX_BYTES) {
        Ok(bytes) => Ok(json::parse_state(&bytes, MAX_BYTES, NEWEST).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StateError::Io { act: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::lifecycle::{Candidate, Proof, UnitReference};
    use super::*;
    use crate::model::{Timestamp, UnitType};

    #[test]
    fn a_result_counts_for_its_own_activation_alone() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let path = |name: &str| -> StorePath {
            format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
        };
        let (name, unit): (Name, Name) = ("web".parse().unwrap(), "web-1".parse().unwrap());
        let candidate =
            Candidate { revision: Revision::FIRST, content_digest: crate::trust::digest(b""), nar_id: path("new") };
        let reference = UnitReference { name: unit.clone(), unit_type: UnitType::Nixos };
        let known = Lifecycle::begin(None, reference, candidate).unwrap();
        assert_eq!(ActivationId::of(&name, &known), None);
        let first = known.realise().unwrap().activate(Some(path("old")), None, Proof::default()).unwrap();
        let second = first.clone().resume(3, now).unwrap();
        let failed = second.clone().fail("why", now).unwrap();
        assert_eq!(ActivationId::of(&name, &failed), None, "no try of the rollback has begun");
        let back = failed.roll_back().unwrap();
        let ended = back.clone().rolled_back(Err("why".into()), now).unwrap();
        assert_eq!(ActivationId::of(&name, &ended), None, "the try has ended");
        let ids: Vec<_> = [&first, &second, &back].map(|state| ActivationId::of(&name, state).unwrap()).into();
        assert_eq!((&ids[0].path, &ids[2].path), (&path("new"), &path("old")));

        let all = tempfile::tempdir().unwrap();
        let folder = ActivationFolder::of(all.path(), &unit);
        assert!(folder.try_lock().unwrap().is_some());
        for id in &ids {
            let error = (id.step == ActivationStep::Attempt(2)).then(|| "no".to_owned());
            let code = error.is_some().then_some(4);
            let result = ActivationResult { of: id.clone(), error: error.clone(), code, version: StateVersion };
            folder.write_result(&result).unwrap();
            for other in &ids {
                let expected =
                    (other == id).then(|| error.clone().map_or(Ok(()), |why| Err(ActivationFailed { why, code })));
                assert_eq!(folder.read_result(other).unwrap(), expected);
            }
        }
        folder.forget_result().unwrap();
        folder.forget_result().unwrap();
        assert_eq!(folder.read_result(&ids[2]).unwrap(), None);
        fs::write(folder.result(), "{").unwrap();
        assert_eq!(folder.read_result(&ids[2]).unwrap(), None);
    }
}
