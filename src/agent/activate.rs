//! Switching a unit to a realised store path: moving the profile, and the programs of the activation.
//!
//! `Activation::resolve` derives the profile and the method from the unit's type and the configuration, before anything is
//! fetched. Which programs a method runs belongs to `method`, running them to `activating`, and the users to `account`. When to switch, and when to go back,
//! belongs to `lifecycle`.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::account::{Account, AccountError, RunAs, USER_VARIABLES, at_home_of, home_manager_profiles};
use super::activating::ActivationProgram;
use super::decide::ProfileTarget;
use super::lifecycle::{Rollout, UnitReference};
use super::method::{Method, MethodError, Program};
use super::realise::Realised;
use super::state::StateError;
use super::way_back::arming::WayBackError;
use crate::config::UnitConfig;
use crate::model::{ActivationMode, Name, Revision, StorePath, UnitType};
use crate::store::{Store, StoreError};

/// Why a unit did not switch.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The configuration has no command for a unit that needs one.
    #[error(
        "cannot activate the unit `{unit}`: it is of type command, and the configuration names no command for it; \
         add\n[units.{unit}]\ncommand = [\"…\"]"
    )]
    NoCommand {
        /// The unit.
        unit: Name,
    },
    /// The configuration has a key that a unit of this type does not use.
    #[error(
        "cannot activate the unit `{unit}`: its configuration has `{key}`, and a unit of type {unit_type} never uses it; \
         remove it"
    )]
    Unused {
        /// The unit.
        unit: Name,
        /// Its type.
        unit_type: UnitType,
        /// The key.
        key: &'static str,
    },
    /// The deployment has a mode, and a unit of this type has none.
    #[error(
        "cannot activate the unit `{unit}`: its deployment has `mode`, and a unit of type {unit_type} never uses it; remove it in the \
         flake"
    )]
    NoModes {
        /// The unit.
        unit: Name,
        /// Its type.
        unit_type: UnitType,
    },
    /// The unit's platform works with the machine's own store alone.
    #[error(
        "cannot activate the unit `{unit}`: `[nix] store` is {}, and the tools of a unit of type {unit_type} use the profile of the \
         machine's own store; remove `store`, or name in [units.\"{unit}\"] the `profile` that they use",
        store.display()
    )]
    OtherStore {
        /// The unit.
        unit: Name,
        /// Its type.
        unit_type: UnitType,
        /// The store.
        store: PathBuf,
    },
    /// The user for the activation is missing or not usable.
    #[error("cannot activate the unit `{unit}`")]
    Account {
        /// The unit.
        unit: Name,
        /// The reason.
        source: AccountError,
    },
    /// The profile could not be set.
    #[error(transparent)]
    Profile(#[from] StoreError),
    /// The folder of a profile could not be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another activation of the unit runs.
    #[error(
        "cannot activate the unit `{unit}`: an activation that began earlier still runs, although its time is over; end it, or wait"
    )]
    StillRuns {
        /// The unit.
        unit: Name,
    },
    /// A file of the activation cannot be used.
    #[error(transparent)]
    Files(#[from] StateError),
    /// The way back could not be armed, so the unit was not switched.
    #[error("cannot activate the unit without a way back")]
    WayBack(#[from] WayBackError),
    /// It was activated, and did not prove itself.
    #[error("`{deployment}` was activated, and {why}")]
    Unproven {
        /// The deployment.
        deployment: Name,
        /// What it did not prove.
        why: String,
    },
    /// The new system cannot be switched to, and has to be booted.
    #[error("`{deployment}` cannot be switched to while the machine runs, because {because}")]
    NeedsBoot {
        /// The deployment.
        deployment: Name,
        /// The reason.
        because: String,
    },
    /// The machine has booted something else.
    #[error("`{deployment}` was set for the next boot, and {why}")]
    NotBooted {
        /// The deployment.
        deployment: Name,
        /// What it booted.
        why: String,
    },
    /// The activation itself failed.
    #[error("the activation of `{deployment}` failed: {why}")]
    Failed {
        /// The deployment.
        deployment: Name,
        /// How it failed.
        why: String,
    },
}

impl ActivateError {
    /// Whether the deployment failed and would fail again. Otherwise this machine could not begin, and the next pass may.
    pub(super) fn is_of_the_deployment(&self) -> bool {
        match self {
            Self::Failed { .. } | Self::Unproven { .. } | Self::NeedsBoot { .. } | Self::NotBooted { .. } => true,
            Self::NoCommand { .. }
            | Self::Unused { .. }
            | Self::NoModes { .. }
            | Self::OtherStore { .. }
            | Self::Account { .. }
            | Self::Profile(_)
            | Self::StillRuns { .. }
            | Self::Files(_)
            | Self::WayBack(_)
            | Self::Folder { .. } => false,
        }
    }
}

/// How one unit is switched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Activation {
    unit: Name,
    profile: Profile,
    method: Method,
    deadline: Duration,
}

/// The profile of a unit, and who moves it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Profile {
    /// Clavel moves it, before it activates.
    Ours(PathBuf),
    /// The activation moves it. It is the first of these that exists.
    Theirs(Vec<PathBuf>),
}

/// Where the profiles are that the configuration does not name.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProfileFolders<'a> {
    /// The folder of Clavel's own, with the machine's own store.
    pub(super) ours: &'a Path,
    /// The root of a store other than the machine's own, which has profiles of its own: those of the machine's store may lead to
    /// nothing that this store does not share.
    pub(super) other_store: Option<&'a Path>,
}

impl ProfileFolders<'_> {
    /// A profile that Nix keeps below this folder of its state.
    fn of_nix(self, profile: &str) -> PathBuf {
        self.other_store.unwrap_or(Path::new("/")).join("nix/var/nix/profiles").join(profile)
    }

    /// The profile of a unit that no platform has one for.
    fn of_unit(self, unit: &Name) -> PathBuf {
        match self.other_store {
            Some(_) => self.of_nix("clavel-agent").join(unit.as_str()).join("profile"),
            None => self.ours.join(unit.as_str()).join("profile"),
        }
    }
}

/// The store path that a unit is switched to, and what the activation is told about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct SwitchTarget<'a> {
    pub(super) deployment: &'a Name,
    pub(super) revision: Revision,
    pub(super) realised: &'a Realised,
    /// The store path that ran before.
    pub(super) previous: Option<&'a StorePath>,
}

impl Activation {
    /// Derives how `unit` is switched from its type and from `config`, its part of the configuration. A profile that this does not
    /// name is in one of `folders`.
    pub(super) fn resolve(
        unit: &UnitReference,
        config: Option<&UnitConfig>,
        folders: ProfileFolders<'_>,
        deadline: Duration,
    ) -> Result<Self, ActivateError> {
        let UnitConfig { unit_type: _, profile, command, user, mode } = config.cloned().unwrap_or_default();
        let unit_type = unit.unit_type;
        let name = || unit.name.clone();
        if command.is_some() && unit_type != UnitType::Command {
            return Err(ActivateError::Unused { unit: name(), unit_type, key: "command" });
        }
        if user.is_some() && !matches!(unit_type, UnitType::HomeManager | UnitType::Darwin) {
            return Err(ActivateError::Unused { unit: name(), unit_type, key: "user" });
        }
        if mode.is_some() && !unit_type.has_modes() {
            return Err(ActivateError::Unused { unit: name(), unit_type, key: "mode" });
        }
        let at_home = || -> Result<(Account, RunAs), AccountError> {
            at_home_of(Account::own()?, user.as_ref().map(Account::named).transpose()?)
        };
        let of_account = |source| ActivateError::Account { unit: name(), source };
        let system = || Profile::Ours(folders.of_nix("system"));
        let (method, default) = match unit_type {
            UnitType::Nixos => (Method::SwitchToConfiguration, system()),
            UnitType::Darwin => {
                let run_as = user.as_ref().map(|_| at_home()).transpose().map_err(of_account)?;
                (Method::Darwin(run_as.map(|(_, run_as)| run_as)), system())
            }
            UnitType::HomeManager => {
                let (account, run_as) = at_home().map_err(of_account)?;
                (Method::HomeManager(run_as), Profile::Theirs(home_manager_profiles(&account)))
            }
            UnitType::SystemManager => {
                let theirs = folders.of_nix("system-manager-profiles/system-manager");
                (Method::SystemManager, Profile::Theirs(vec![theirs]))
            }
            UnitType::Container => {
                let folder = folders.of_nix("per-container").join(unit.name.as_str());
                (Method::Container(unit.name.to_string()), Profile::Ours(folder.join("system")))
            }
            UnitType::Command => {
                let argv = command.ok_or_else(|| ActivateError::NoCommand { unit: name() })?;
                (Method::Command(argv), Profile::Ours(folders.of_unit(&unit.name)))
            }
        };
        // Their activation moves the profile itself, or a service reads it, and both know the machine's own store alone.
        let needs_own_store =
            matches!(unit_type, UnitType::HomeManager | UnitType::SystemManager | UnitType::Container);
        if let (Some(store), None, true) = (folders.other_store, &profile, needs_own_store) {
            return Err(ActivateError::OtherStore { unit: name(), unit_type, store: store.to_owned() });
        }
        let profile = match (profile, default) {
            (None, default) => default,
            (Some(named), Profile::Ours(_)) => Profile::Ours(named),
            (Some(named), Profile::Theirs(_)) => Profile::Theirs(vec![named]),
        };
        Ok(Self { unit: name(), profile, method, deadline })
    }

    /// The profile that this agent moves; none where the activation does that.
    pub(super) fn own_profile(&self) -> Option<&Path> {
        match &self.profile {
            Profile::Ours(profile) => Some(profile),
            Profile::Theirs(_) => None,
        }
    }

    /// The folder that this agent makes the profile in; none where the activation does that.
    pub(super) fn profile_folder(&self) -> Option<&Path> {
        self.own_profile()?.parent()
    }

    /// The store path that the profile leads to now, whichever tool moved it.
    pub(super) fn current(&self) -> Option<StorePath> {
        match &self.profile {
            Profile::Ours(profile) => read_profile(profile),
            Profile::Theirs(profiles) => profiles.iter().find_map(|profile| read_profile(profile)),
        }
    }

    /// Where the profile leads to now, for the decision whether the unit runs what a record says.
    pub(super) fn profile_target(&self) -> ProfileTarget {
        match (self.current(), &self.profile) {
            (Some(path), _) => ProfileTarget::Path(path),
            (None, Profile::Ours(_)) => ProfileTarget::Nowhere,
            (None, Profile::Theirs(_)) => ProfileTarget::Unknown,
        }
    }

    /// The words before a program that make it run as the user whose home the unit is.
    pub(super) fn run_as(&self) -> Vec<OsString> {
        match &self.method {
            Method::HomeManager(run_as) => run_as.prefix(std::env::consts::OS),
            Method::SwitchToConfiguration
            | Method::Darwin(_)
            | Method::SystemManager
            | Method::Container(_)
            | Method::Command(_) => Vec::new(),
        }
    }

    /// The variables of a program that checks `rollout`: those of the activation.
    pub(super) fn check_environment(
        &self,
        store: &dyn Store,
        deployment: &Name,
        rollout: &Rollout,
    ) -> Vec<(OsString, Option<OsString>)> {
        let Rollout { candidate, way_back, .. } = rollout;
        let realised = Realised::from_record(candidate.nar_id.clone());
        let (revision, previous) = (candidate.revision, way_back.path());
        let mut environment =
            self.environment(store, SwitchTarget { deployment, revision, realised: &realised, previous });
        if !self.run_as().is_empty() {
            environment.extend(USER_VARIABLES.map(|name| (name.into(), None)));
        }
        environment
    }

    /// The time that an activation may take.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The programs that activate `target`, in this order. Only a NixOS has the `mode`.
    pub(super) fn programs(
        &self,
        store: &dyn Store,
        target: SwitchTarget<'_>,
        mode: ActivationMode,
    ) -> Result<Vec<ActivationProgram>, ActivateError> {
        let files = store.files_of(target.realised.path());
        let programs = self.method.programs(&files, mode, &second_line).map_err(|MethodError::NoUser| {
            ActivateError::Account { unit: self.unit.clone(), source: AccountError::Unnamed }
        })?;
        let environment = self.environment(store, target);
        Ok(programs.into_iter().map(|program| activation_program(program, environment.clone())).collect())
    }

    /// Makes `target` the newest generation of the profile, unless the activation does so itself.
    pub(super) async fn move_profile(&self, store: &dyn Store, target: SwitchTarget<'_>) -> Result<(), ActivateError> {
        let Profile::Ours(profile) = &self.profile else { return Ok(()) };
        if let Some(folder) = profile.parent() {
            let made = std::fs::create_dir_all(folder);
            made.map_err(|source| ActivateError::Folder { path: folder.to_owned(), source })?;
        }
        Ok(store.set_profile(profile, target.realised.path()).await?)
    }

    /// The variables that tell the activation what it is for.
    fn environment(&self, store: &dyn Store, target: SwitchTarget<'_>) -> Vec<(OsString, Option<OsString>)> {
        let profile = match &self.profile {
            Profile::Ours(profile) => Some(profile),
            Profile::Theirs(profiles) => profiles.first(),
        };
        let profile = profile.map(|profile| profile.as_os_str().to_owned()).unwrap_or_default();
        let variables = target_variables(store, &self.unit, target).into_iter();
        variables.chain([("CLAVEL_PROFILE".into(), profile)]).map(|(name, value)| (name, Some(value))).collect()
    }
}

/// The variables about `target`, which `unit` is switched to.
pub(super) fn target_variables(store: &dyn Store, unit: &Name, target: SwitchTarget<'_>) -> [(OsString, OsString); 6] {
    let previous = target.previous.map(|path| store.files_of(path).into_os_string()).unwrap_or_default();
    [
        ("CLAVEL_DEPLOYMENT".into(), target.deployment.as_str().into()),
        ("CLAVEL_REVISION".into(), target.revision.to_string().into()),
        ("CLAVEL_UNIT".into(), unit.as_str().into()),
        ("CLAVEL_STORE_PATH".into(), target.realised.path().to_string().into()),
        ("CLAVEL_PATH".into(), store.files_of(target.realised.path()).into_os_string()),
        ("CLAVEL_PREVIOUS_PATH".into(), previous),
    ]
}

fn activation_program(program: Program, environment: Vec<(OsString, Option<OsString>)>) -> ActivationProgram {
    let Program { path, arguments, run_as } = program;
    let arguments = arguments.into_iter().map(OsString::from);
    let mut prefix = run_as.prefix(std::env::consts::OS).into_iter();
    match prefix.next() {
        None => ActivationProgram {
            program: path,
            arguments: arguments.collect(),
            environment,
            directory: None,
            is_of_another_user: false,
        },
        Some(first) => ActivationProgram {
            program: first,
            arguments: prefix.chain([path]).chain(arguments).collect(),
            environment: environment.into_iter().chain(USER_VARIABLES.map(|name| (name.into(), None))).collect(),
            // That user may have no access to the agent's current folder.
            directory: Some("/".into()),
            is_of_another_user: true,
        },
    }
}

/// The store path that `profile` leads to.
fn read_profile(profile: &Path) -> Option<StorePath> {
    let mut link = profile.to_owned();
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

/// The second line of a file, without the line break; `None` where the file does not exist.
fn second_line(path: &Path) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let line = BufReader::new(file).split(b'\n').nth(1);
    Some(line.and_then(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::str::FromStr as _;

    use super::*;
    use crate::config::UserName;
    use crate::model::describe_error;
    use crate::process::Invocation;

    fn resolved(unit_type: UnitType, config: Option<&UnitConfig>) -> Result<Activation, ActivateError> {
        let unit = UnitReference { name: "u".parse().unwrap(), unit_type };
        resolved_in(None, &unit, config)
    }

    fn resolved_in(
        other_store: Option<&Path>,
        unit: &UnitReference,
        config: Option<&UnitConfig>,
    ) -> Result<Activation, ActivateError> {
        let folders = ProfileFolders { ours: Path::new("/var/lib/clavel-agent/units"), other_store };
        Activation::resolve(unit, config, folders, Duration::from_mins(1))
    }

    #[test]
    fn a_store_of_its_own_has_profiles_of_its_own() {
        let store = Path::new("/x");
        let own = UserName::from_str(&Account::own().unwrap().name).unwrap();
        let config = |unit_type| UnitConfig {
            command: (unit_type == UnitType::Command).then(|| vec!["/bin/apply".to_owned()]),
            user: (unit_type == UnitType::HomeManager).then(|| own.clone()),
            ..UnitConfig::default()
        };
        for (unit_type, profile) in [
            (UnitType::Nixos, Some("/x/nix/var/nix/profiles/system")),
            (UnitType::Darwin, Some("/x/nix/var/nix/profiles/system")),
            (UnitType::Command, Some("/x/nix/var/nix/profiles/clavel-agent/u/profile")),
            (UnitType::HomeManager, None),
            (UnitType::SystemManager, None),
            (UnitType::Container, None),
        ] {
            let unit = UnitReference { name: "u".parse().unwrap(), unit_type };
            let resolved = resolved_in(Some(store), &unit, Some(&config(unit_type)));
            match (profile, resolved) {
                (Some(profile), Ok(resolved)) => assert_eq!(resolved.profile, Profile::Ours(profile.into())),
                (None, Err(error @ ActivateError::OtherStore { .. })) => {
                    assert!(error.to_string().contains("`[nix] store` is /x"), "{error}");
                }
                (_, other) => panic!("{unit_type}: {other:?}"),
            }
            // What the operator names counts.
            let named = UnitConfig { profile: Some("/p".into()), ..config(unit_type) };
            assert!(resolved_in(Some(store), &unit, Some(&named)).is_ok(), "{unit_type}");
        }
    }

    #[test]
    fn the_type_decides_the_method_and_the_configuration_the_profile() {
        let ours = |path: &str| Profile::Ours(path.into());
        let theirs = |path: &str| Profile::Theirs(vec![path.into()]);
        let command = UnitConfig { command: Some(vec!["/bin/apply".to_owned()]), ..UnitConfig::default() };
        for (unit_type, config, profile) in [
            (UnitType::Nixos, None, ours("/nix/var/nix/profiles/system")),
            (UnitType::Darwin, None, ours("/nix/var/nix/profiles/system")),
            (UnitType::SystemManager, None, theirs("/nix/var/nix/profiles/system-manager-profiles/system-manager")),
            (UnitType::Container, None, ours("/nix/var/nix/profiles/per-container/u/system")),
            (UnitType::Command, Some(&command), ours("/var/lib/clavel-agent/units/u/profile")),
        ] {
            assert_eq!(resolved(unit_type, config).unwrap().profile, profile, "{unit_type}");
        }
        let named = UnitConfig { profile: Some("/p".into()), ..UnitConfig::default() };
        assert_eq!(resolved(UnitType::Container, Some(&named)).unwrap().profile, ours("/p"));
        assert_eq!(resolved(UnitType::SystemManager, Some(&named)).unwrap().profile, theirs("/p"));
        let own = Account::own().unwrap();
        let at_home = UnitConfig { user: Some(own.name.parse().unwrap()), ..UnitConfig::default() };
        let home = resolved(UnitType::HomeManager, Some(&at_home)).unwrap();
        assert_eq!(home.method, Method::HomeManager(RunAs::Agent));
        assert_eq!(home.profile, Profile::Theirs(home_manager_profiles(&own)));
    }

    #[test]
    fn a_configuration_that_does_not_fit_the_unit_is_an_error() {
        let message = |unit_type, config: &UnitConfig| describe_error(&resolved(unit_type, Some(config)).unwrap_err());
        assert!(message(UnitType::Command, &UnitConfig::default()).contains("names no command"));
        let command = UnitConfig { command: Some(vec!["/bin/apply".to_owned()]), ..UnitConfig::default() };
        assert!(message(UnitType::Nixos, &command).contains("has `command`, and a unit of type nixos never uses it"));
        let mode = UnitConfig { mode: Some(ActivationMode::Boot), ..UnitConfig::default() };
        assert!(message(UnitType::Container, &mode).contains("has `mode`, and a unit of type container never uses it"));
        let user = UnitConfig { user: Some("no-such-user".parse().unwrap()), ..UnitConfig::default() };
        assert!(message(UnitType::Container, &user).contains("has `user`, and a unit of type container"));
        assert!(message(UnitType::HomeManager, &user).contains("this machine has no user `no-such-user`"));
    }

    /// This needs no Apple machine: a folder with the files of a nix-darwin stands in a store of its own, with real Nix.
    #[tokio::test(flavor = "current_thread")]
    async fn on_a_darwin_the_profile_moves_before_the_activation() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("darwin-system");
        std::fs::create_dir(&files).unwrap();
        for (name, script) in [
            ("activate", "#!/bin/sh\nreadlink -m $CLAVEL_PROFILE >> $CLAVEL_PROFILE.log\n"),
            ("activate-user", "#!/bin/sh\n# nix-darwin: deprecated\nexit 1\n"),
        ] {
            std::fs::write(files.join(name), script).unwrap();
            std::fs::set_permissions(files.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let root = dir.path().join("store");
        let add = Invocation::new("nix-store").arg("--store").arg(&root).arg("--add").arg(&files);
        let added = add.args(["--option", "build-users-group", ""]).run().await.unwrap().stdout;
        let realised = Realised::from_record(String::from_utf8(added).unwrap().trim().parse().unwrap());
        let store = crate::store::open(Some(root), Duration::from_mins(1), crate::store::Output::Capture);

        let profile = dir.path().join("profile/system");
        let config = UnitConfig { profile: Some(profile.clone()), ..UnitConfig::default() };
        let activation = resolved(UnitType::Darwin, Some(&config)).unwrap();
        let deployment = "air".parse().unwrap();
        let target =
            SwitchTarget { deployment: &deployment, revision: Revision::FIRST, realised: &realised, previous: None };
        let programs = activation.programs(&*store, target, ActivationMode::Switch).unwrap();
        activation.move_profile(&*store, target).await.unwrap();
        for program in programs {
            program.invocation().run().await.unwrap();
        }
        assert_eq!(activation.current().as_ref(), Some(realised.path()));
        let log = std::fs::read_to_string(profile.with_file_name("system.log")).unwrap();
        assert_eq!(log.trim(), realised.path().to_string(), "the profile was there before the activation");
    }

    #[test]
    fn the_second_line_of_a_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("activate-user");
        assert_eq!(second_line(&path), None);
        for (text, line) in
            [("", ""), ("#!/bin/sh\n", ""), ("#!/bin/sh\n# nix-darwin: deprecated\nx", "# nix-darwin: deprecated")]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(second_line(&path).as_deref(), Some(line));
        }
    }
}
