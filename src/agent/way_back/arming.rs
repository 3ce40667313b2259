//! Arming a way back: the timer of systemd, and the file that says what counts.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::reserve::{replace_record, state_of};
use super::super::service_manager::{Manager, UnitName};
use super::super::state::StateError;
use crate::disk::{self, Durability};
use crate::model::{Name, Revision};
use crate::process::ProcessError;

/// The most bytes of a file.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The file that says what is armed.
pub(in crate::agent) const ARMED: &str = "armed";

/// How long the agent has to begin to go back, in milliseconds.
const SOON: u64 = 15_000;

/// Why a way back could not be armed. Then the unit is not switched.
#[derive(Debug, thiserror::Error)]
pub enum WayBackError {
    /// A file of it could not be written.
    #[error(transparent)]
    Files(#[from] StateError),
    /// What ran before could not be kept in the store.
    #[error("cannot keep what the unit would go back to: {0}")]
    Root(String),
    /// systemd did not take up the timer.
    #[error(
        "cannot start the timer that goes back where nobody confirms the switch; see whether systemd answers (`systemctl status`)"
    )]
    Timer(#[source] ProcessError),
}

/// A timer that is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::agent) struct Arming {
    pub(super) manager: Manager,
    pub(super) unit: Name,
    pub(super) deployment: Name,
    pub(super) revision: Revision,
    pub(super) folder: OsString,
    pub(super) shell: OsString,
    pub(super) milliseconds: u64,
}

impl Arming {
    /// The same for an activation that failed: the agent goes back at once, if it is there.
    pub(in crate::agent) fn soon(self) -> Self {
        Self { milliseconds: SOON, ..self }
    }

    /// Arms the way back for the next start of the machine alone.
    pub(in crate::agent) async fn arm_after_boot(&self) -> Result<(), WayBackError> {
        let token = format!("{}{}", UnitName::of("way-back", &self.unit), token_end(&self.deployment, self.revision));
        self.replace_armed(&token).await
    }

    /// Starts the timer in place of an earlier one.
    pub(in crate::agent) async fn arm(&self) -> Result<(), WayBackError> {
        let folder = Path::new(&self.folder);
        // No other timer of this start of the machine has this name.
        let moment = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let word = format!("{}{:03}", moment.tv_sec, moment.tv_nsec / 1_000_000);
        let unit = UnitName::of("way-back", &self.unit).with(&word);
        let token = format!("{unit}{}", token_end(&self.deployment, self.revision));
        let seconds = Duration::from_millis(self.milliseconds).as_secs().max(1);
        let options = [
            format!(
                "--description=Goes back from revision {} of {} unless it is confirmed",
                self.revision, self.deployment
            ),
            format!("--on-active={seconds}s"),
            "--timer-property=AccuracySec=1s".to_owned(),
            "--property=Type=oneshot".to_owned(),
            // What the activation leaves running is let alone.
            "--property=KillMode=process".to_owned(),
            "--working-directory=/".to_owned(),
        ];
        let command = [self.shell.clone(), folder.join("script").into_os_string(), OsString::from(&token)];
        let run = self.manager.run_unit(&unit, options.map(OsString::from), command);
        run.run().await.map_err(WayBackError::Timer)?;
        let armed = self.replace_armed(&token).await;
        if armed.is_err() {
            stop(self.manager, &token).await;
        }
        armed
    }

    /// Writes what is armed, and stops the timer of what was armed before.
    async fn replace_armed(&self, token: &str) -> Result<(), WayBackError> {
        let folder = Path::new(&self.folder);
        let before = read_armed(folder);
        let path = folder.join(ARMED);
        replace_record(&state_of(folder), &path, format!("{token}\n").as_bytes(), Durability::Synced)
            .map_err(|source| StateError::Io { act: "write", path, source })?;
        if let Some(before) = before {
            stop(self.manager, &before).await;
        }
        // What was taken before is recorded by now.
        let path = folder.join("taken");
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { act: "remove", path, source }.into())
            }
            _ => Ok(()),
        }
    }
}

/// The end of the word of a way back from this revision. The word begins with the name of its unit.
pub(super) fn token_end(deployment: &Name, revision: Revision) -> String {
    format!(" {deployment} {revision}")
}

/// The word that is armed.
pub(super) fn read_armed(folder: &Path) -> Option<String> {
    first_line(&folder.join(ARMED))
}

pub(super) fn first_line(path: &Path) -> Option<String> {
    disk::read_text(path, MAX_BYTES).ok()?.lines().next().map(ToOwned::to_owned)
}

/// Stops the timer of this word. It does nothing any more where that fails.
pub(super) async fn stop(manager: Manager, token: &str) {
    let Some(unit) = token.split(' ').next() else { return };
    let timer = format!("{unit}.timer");
    if let Err(error) = manager.systemctl(["stop", &timer]).run().await {
        tracing::debug!(%error, "cannot stop a timer that does nothing any more");
    }
}
