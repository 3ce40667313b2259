//! Switching a unit to what was realised, by its type.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::realise::Realised;
use crate::config::UnitConfig;
use crate::model::{Name, Revision, StorePath, Unit, UnitType};
use crate::nix::{Nix, NixError};
use crate::process::{Invocation, ProcessError};

/// Why a unit did not switch.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The configuration has no command for a unit that needs one.
    #[error(
        "the unit `{unit}` is of type command, and the configuration names no command for it; add\n[units.{unit}]\ncommand = [\"…\"]"
    )]
    NoCommand {
        /// The unit.
        unit: Name,
    },
    /// The configuration has a command for a unit that has no use for one.
    #[error(
        "the configuration names a command for the unit `{unit}`, which is of type {unit_type} and never runs it; remove it"
    )]
    UnusedCommand {
        /// The unit.
        unit: Name,
        /// Its type.
        unit_type: UnitType,
    },
    /// This agent cannot activate units of that type.
    #[error("this agent cannot activate the unit `{unit}`, which is of type {unit_type}")]
    Unknown {
        /// The unit.
        unit: Name,
        /// Its type.
        unit_type: UnitType,
    },
    /// The profile could not be set.
    #[error(transparent)]
    Profile(#[from] NixError),
    /// The folder of a profile could not be made.
    #[error("cannot make the folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The activation itself failed.
    #[error("the activation of `{deployment}` failed: {source}")]
    Failed {
        /// The deployment.
        deployment: Name,
        /// How.
        source: ProcessError,
    },
}

impl ActivateError {
    /// Whether it was the deployment that failed, and would again; else it was this machine, and the next pass may do.
    pub(super) fn is_of_the_deployment(&self) -> bool {
        match self {
            Self::Failed { .. } => true,
            Self::NoCommand { .. }
            | Self::UnusedCommand { .. }
            | Self::Unknown { .. }
            | Self::Profile(_)
            | Self::Folder { .. } => false,
        }
    }
}

/// How one unit is switched: settled from its type and the configuration before anything is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Activation {
    unit: Name,
    profile: PathBuf,
    method: Method,
    deadline: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    /// `bin/switch-to-configuration switch` of what is activated.
    SwitchToConfiguration,
    /// The configuration's argv.
    Command(Vec<String>),
}

/// What is to be switched to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) deployment: &'a Name,
    pub(super) revision: Revision,
    pub(super) realised: &'a Realised,
    /// What runs until then.
    pub(super) previous: Option<&'a StorePath>,
}

impl Activation {
    /// How `unit` is switched, where the configuration says `config` and profiles of its own are in `profiles`.
    pub(super) fn settle(
        unit: &Unit,
        config: Option<&UnitConfig>,
        profiles: &Path,
        deadline: Duration,
    ) -> Result<Self, ActivateError> {
        let config = config.cloned().unwrap_or_default();
        let name = || unit.name.clone();
        let (method, default) = match (unit.specification.unit_type, config.command) {
            (UnitType::Nixos, None) => (Method::SwitchToConfiguration, PathBuf::from("/nix/var/nix/profiles/system")),
            (UnitType::Command, Some(argv)) => {
                (Method::Command(argv), profiles.join(unit.name.as_str()).join("profile"))
            }
            (UnitType::Command, None) => return Err(ActivateError::NoCommand { unit: name() }),
            (
                unit_type @ (UnitType::Darwin | UnitType::HomeManager | UnitType::SystemManager | UnitType::Container),
                _,
            ) => return Err(ActivateError::Unknown { unit: name(), unit_type }),
            (unit_type @ UnitType::Nixos, Some(_)) => {
                return Err(ActivateError::UnusedCommand { unit: name(), unit_type });
            }
        };
        Ok(Self { unit: name(), profile: config.profile.unwrap_or(default), method, deadline })
    }

    /// What the profile holds now, whoever put it there.
    pub(super) fn current(&self) -> Option<StorePath> {
        let mut link = self.profile.clone();
        // profile → profile-N-link → the store
        for _ in 0..4 {
            let to = std::fs::read_link(&link).ok()?;
            if let Some(path) = to.to_str().and_then(|text| text.parse().ok()) {
                return Some(path);
            }
            link = link.parent()?.join(to);
        }
        None
    }

    /// Makes `target` the newest generation of the profile, and activates it.
    pub(super) async fn run(&self, nix: &Nix, target: Target<'_>) -> Result<(), ActivateError> {
        if let Some(folder) = self.profile.parent() {
            let made = std::fs::create_dir_all(folder);
            made.map_err(|source| ActivateError::Folder { path: folder.to_owned(), source })?;
        }
        nix.set_profile(&self.profile, target.realised.path()).await?;
        let run = self.invocation(nix, target).within(self.deadline).passing_output_on().run();
        let failed = |source| ActivateError::Failed { deployment: target.deployment.clone(), source };
        run.await.map(drop).map_err(failed)
    }

    fn invocation(&self, nix: &Nix, target: Target<'_>) -> Invocation {
        let files = nix.files_of(target.realised.path());
        let invocation = match &self.method {
            Method::SwitchToConfiguration => Invocation::new(files.join("bin/switch-to-configuration")).arg("switch"),
            Method::Command(argv) => {
                let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
                Invocation::new(program).args(arguments)
            }
        };
        let previous = target.previous.map(|path| nix.files_of(path).into_os_string()).unwrap_or_default();
        invocation
            .outside_any_repository()
            .env("CLAVEL_DEPLOYMENT", target.deployment.as_str())
            .env("CLAVEL_REVISION", target.revision.to_string())
            .env("CLAVEL_UNIT", self.unit.as_str())
            .env("CLAVEL_STORE_PATH", target.realised.path().to_string())
            .env("CLAVEL_PATH", files)
            .env("CLAVEL_PREVIOUS_PATH", previous)
            .env("CLAVEL_PROFILE", self.profile.as_os_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Draft, Metadata, UnitSpecification};

    fn settled(unit_type: UnitType, config: Option<&UnitConfig>) -> Result<Activation, ActivateError> {
        let specification = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type };
        let unit = Draft::new("u".parse().unwrap(), Metadata::default(), specification).at(Revision::FIRST);
        Activation::settle(&unit, config, Path::new("/var/lib/clavel-agent/units"), Duration::from_secs(1))
    }

    #[test]
    fn the_type_says_how_and_the_configuration_where() {
        let nixos = settled(UnitType::Nixos, None).unwrap();
        assert_eq!(nixos.profile, Path::new("/nix/var/nix/profiles/system"));
        let argv = Some(vec!["/bin/apply".to_owned()]);
        let command = settled(UnitType::Command, Some(&UnitConfig { profile: None, command: argv.clone() })).unwrap();
        assert_eq!(command.profile, Path::new("/var/lib/clavel-agent/units/u/profile"));
        assert!(matches!(settled(UnitType::Command, None), Err(ActivateError::NoCommand { .. })));
        let unused = settled(UnitType::Nixos, Some(&UnitConfig { profile: None, command: argv }));
        assert!(matches!(unused, Err(ActivateError::UnusedCommand { .. })));
    }
}
