//! The way back that needs nobody: before a switch, a timer of systemd is armed that activates what ran before, unless the agent
//! disarms it.
//!
//! In the state folder, each unit has a folder with a script (`script`), with what is armed (`armed`), and, once the script has run, with
//! how that ended (`taken`). What counts is `armed`, under the lock of the unit's activations: a timer is only a clock, and the script does
//! nothing where its own word is not in `armed`. So a timer that could not be stopped harms nothing, and a later one replaces an
//! earlier one without a moment in which none is there. No timer outlives a start of the machine; after one, `clavel-way-back.service`
//! runs the scripts.
//!
//! When to go back, and what follows from it, belongs to `lifecycle`. `arming` starts timers and says what counts, and `script` is what they run.

pub(super) mod arming;
mod script;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::activate::Activation;
use super::activating::ActivationProgram;
use super::reserve::{RESERVE, replace_record, state_of};
use super::service_manager::{Manager, UnitName};
use super::state::StateError;
use crate::disk::{self, Durability};
use crate::model::{Name, Revision, StorePath};
use crate::process::find_program;
use arming::{ARMED, Arming, MAX_BYTES, first_line, read_armed, stop, token_end};
use script::{ProfileMove, Script, search_path};

/// What a way back leads from and to.
#[derive(Debug)]
pub(super) struct Journey<'a> {
    pub(super) deployment: &'a Name,
    pub(super) revision: Revision,
    pub(super) to: &'a StorePath,
    /// The files of `to`.
    pub(super) files: PathBuf,
    pub(super) activation: &'a Activation,
    /// The programs that activate it.
    pub(super) programs: Vec<ActivationProgram>,
    /// How long the revision has after a start of the machine.
    pub(super) after_start: Duration,
    /// Whether the machine restarts after it: what runs cannot be left in another way.
    pub(super) reboots: bool,
}

/// The way back of one unit.
#[derive(Debug)]
pub(super) struct WayBackTimer {
    manager: Manager,
    unit: UnitName,
    /// The unit of the activations.
    activation: UnitName,
    folder: PathBuf,
    /// The lock of the activations.
    lock: PathBuf,
}

impl WayBackTimer {
    /// The way back of `unit` below the folder of all units; none without a service manager.
    pub(super) fn of(all: &Path, unit: &Name, lock: PathBuf) -> Option<Self> {
        Some(Self {
            manager: Manager::find()?,
            unit: UnitName::of("way-back", unit),
            activation: UnitName::of("activation", unit),
            folder: all.join(unit.as_str()),
            lock,
        })
    }

    /// Writes the script. It is run by what [`Arming::arm`] starts.
    pub(super) fn prepare(&self, journey: Journey<'_>) -> Result<(), StateError> {
        let Journey { deployment, revision, to, files, activation, programs, after_start, reboots } = journey;
        let io = |act, source| StateError::Io { act, path: self.folder.clone(), source };
        fs::create_dir_all(&self.folder).map_err(|source| io("make", source))?;
        for name in ["script", ARMED] {
            disk::remove_unfinished(&self.folder.join(name)).map_err(|source| io("clear", source))?;
        }
        let own = std::env::var_os("PATH").unwrap_or_default();
        let own: Vec<PathBuf> = std::env::split_paths(&own).filter_map(|folder| folder.canonicalize().ok()).collect();
        let of_system = ["sw/bin", "sw/sbin"].map(|folder| files.join(folder));
        let usual = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
        let folders = own.into_iter().chain(of_system).chain(usual).filter(|folder| folder.is_dir());
        let profile = activation.own_profile().map(|profile| ProfileMove {
            profile: profile.to_owned(),
            generation: fs::read_link(profile)
                .ok()
                .filter(|link| is_generation(link, profile))
                .map(PathBuf::into_os_string),
            target: to.clone(),
        });
        let state = state_of(&self.folder);
        let script = Script {
            title: format!("goes back from revision {revision} of {deployment} to {to}"),
            folder: &self.folder,
            lock: &self.lock,
            reserve: state.join(RESERVE),
            kill: self.manager.kill_command(&self.activation),
            search_path: search_path(folders),
            home: std::env::var_os("HOME"),
            profile,
            programs,
            after_start,
            then: if reboots { ["systemctl", "reboot"].map(Into::into).into() } else { Vec::new() },
        };
        let bytes = script.render();
        let path = self.folder.join("script");
        disk::check_length(&bytes, MAX_BYTES)
            .and_then(|()| replace_record(&state, &path, &bytes, Durability::Synced))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o700)))
            .map_err(|source| StateError::Io { act: "write", path, source })
    }

    /// A timer for the way back from this revision, after this time.
    pub(super) fn arming(&self, unit: &Name, deployment: &Name, revision: Revision, after: Duration) -> Arming {
        Arming {
            manager: self.manager,
            unit: unit.clone(),
            deployment: deployment.clone(),
            revision,
            folder: self.folder.clone().into_os_string(),
            shell: find_program("sh").unwrap_or_else(|| "/bin/sh".into()).into_os_string(),
            milliseconds: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whether one from this revision is armed or was taken.
    pub(super) fn is_of(&self, deployment: &Name, revision: Revision) -> bool {
        let of = |name| first_line(&self.folder.join(name));
        let end = token_end(deployment, revision);
        [of(ARMED), of("taken")].into_iter().flatten().any(|token| token.ends_with(&end))
    }

    /// How the way back from this revision ended, where it was taken. The lock of the unit's activations must be held.
    pub(super) fn taken(
        &self,
        deployment: &Name,
        revision: Revision,
    ) -> Result<Option<Result<(), String>>, StateError> {
        let path = self.folder.join("taken");
        let text = match disk::read_text(&path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { act: "read", path, source }),
        };
        let mut lines = text.lines();
        // An operator may have restored an older state folder.
        if lines.next().is_none_or(|token| !token.ends_with(&token_end(deployment, revision))) {
            return Ok(None);
        }
        Ok(Some(match lines.next() {
            Some("0") => Ok(()),
            other => Err(format!(
                "the way back was taken by its timer, and ended with exit code {}; the journal of {}* has its output",
                other.unwrap_or("unknown"),
                self.unit
            )),
        }))
    }

    /// Disarms it, and forgets that it was taken. The lock of the unit's activations must be held.
    pub(super) async fn disarm(&self) -> Result<(), StateError> {
        let armed = read_armed(&self.folder);
        for name in [ARMED, "taken"] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StateError::Io { act: "remove", path, source: error });
                }
                _ => {}
            }
        }
        if let Some(token) = armed {
            // What was removed has to stay so where the power goes.
            let synced = fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
            synced.map_err(|source| StateError::Io { act: "sync", path: self.folder.clone(), source })?;
            stop(self.manager, &token).await;
        }
        Ok(())
    }
}

/// Whether the profile's link leads to a generation beside it.
fn is_generation(link: &Path, profile: &Path) -> bool {
    let Some(name) = profile.file_name() else { return false };
    let begin = [name.as_bytes(), b"-"].concat();
    link.parent().is_some_and(|parent| parent.as_os_str().is_empty()) && link.as_os_str().as_bytes().starts_with(&begin)
}
