//! The settings of an agent, from `clavel-agent.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::credentials::{CredentialsTable, access_rules, with_ssh_command};
use super::hooks::Hooks;
use super::mirrors::{MAX_MIRRORS, check_mirrors};
use super::{ConfigError, ConfigFile, WrittenAnchor};
use crate::git::Remote;
use crate::model::{
    ActivationMode, BranchName, Checks, IndexAge, Invalid, List, MAX_CHECKS, Map, Name, Probation, Span, System,
    UnitType, WrittenCheck, WrittenProbation,
};
use crate::trust::AnchorLocation;

/// The settings of an agent.
#[derive(Debug)]
pub struct AgentConfig {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The agent's name on the branch.
    pub name: Name,
    /// The repositories that carry the branch: at least one, and at most 16.
    pub mirrors: Vec<Remote>,
    /// The branch.
    pub branch: BranchName,
    /// The trust anchor: a file with a root, or the digest of the fleet's first root.
    pub root: AnchorLocation,
    /// The Deployments to take, of those that the agent may ask for. The default is all of them.
    pub deployments: Option<List<Name, 1024>>,
    /// The units that the agent serves, and the settings of each. Where there is none, it serves the unit of its own name.
    pub units: BTreeMap<Name, UnitConfig>,
    /// The system that this machine counts as. Without it, the machine itself says so.
    pub system: Option<System>,
    /// The folder of the agent's state.
    pub state_directory: PathBuf,
    /// The file of metrics that each pass writes.
    pub metrics_file: Option<PathBuf>,
    /// Whether a pass leaves this machine's status beside the bundles that it finds.
    pub leaves_status: bool,
    /// How long to wait between two passes.
    pub interval: Duration,
    /// How long the fetch of the branch from one mirror may take.
    pub fetch_deadline: Duration,
    /// How old an index may be at most. Without it, the index and the root alone say so.
    pub max_index_age: Option<IndexAge>,
    /// How long the fetch of a closure may take.
    pub realise_deadline: Duration,
    /// How long an activation may take.
    pub activation_deadline: Duration,
    /// How often a revision is attempted where the agent or the machine ends during it.
    pub attempts: u32,
    /// What has to hold after each switch, beside the checks of the deployment.
    pub checks: Checks,
    /// How a revision proves itself, where the deployment does not say so.
    pub probation: Probation,
    /// The programs that are called before and after an activation.
    pub hooks: Hooks,
    /// A Nix store other than the machine's own: the folder that contains `nix/store`.
    pub store: Option<PathBuf>,
}

/// The settings of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitConfig {
    /// The only type that the unit may be of. Without it, the type that the agent sees first counts.
    pub unit_type: Option<UnitType>,
    /// The profile of the unit. The default depends on its type.
    pub profile: Option<PathBuf>,
    /// The command that activates a unit of the type `command`, with its arguments.
    pub command: Option<Vec<String>>,
    /// The user whose home a unit of the type `home-manager` is.
    pub user: Option<UserName>,
    /// How a unit of the type `nixos` is activated, whatever its deployment says.
    pub mode: Option<ActivationMode>,
}

/// The name of a user. It is well-formed; whether the user exists on this machine is not checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct UserName(String);

impl UserName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let bad = |why| Err(Invalid::new("the name of a user", text, why));
        if !(1..=256).contains(&text.len()) || text.starts_with('-') {
            return bad("it has to be 1 to 256 bytes long, and may not begin with `-`");
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':' || c == '/') {
            return bad("it may not contain white space, control characters, `:` or `/`");
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for UserName {
    type Error = Invalid;
    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct AgentFile {
    name: Name,
    repository: Remote,
    #[serde(default)]
    mirrors: List<Remote, MAX_MIRRORS>,
    branch: Option<BranchName>,
    root: WrittenAnchor,
    deployments: Option<List<Name, 1024>>,
    system: Option<System>,
    state_directory: Option<PathBuf>,
    metrics_file: Option<PathBuf>,
    leave_status: Option<bool>,
    interval: Option<Span>,
    ssh_command: Option<String>,
    #[serde(default)]
    credentials: Vec<CredentialsTable>,
    #[serde(default)]
    fetch: FetchTable,
    #[serde(default)]
    nix: NixTable,
    #[serde(default)]
    activate: ActivateTable,
    #[serde(default)]
    checks: Map<Name, WrittenCheck, MAX_CHECKS>,
    #[serde(default)]
    probation: WrittenProbation,
    #[serde(default)]
    hooks: Hooks,
    #[serde(default)]
    units: BTreeMap<Name, UnitTable>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct FetchTable {
    timeout: Option<Span>,
    max_index_age: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct NixTable {
    store: Option<PathBuf>,
    timeout: Option<Span>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ActivateTable {
    timeout: Option<Span>,
    attempts: Option<NonZeroU32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct UnitTable {
    #[serde(rename = "type")]
    unit_type: Option<UnitType>,
    profile: Option<PathBuf>,
    command: Option<Vec<String>>,
    user: Option<UserName>,
    mode: Option<ActivationMode>,
}

impl AgentConfig {
    /// The default path of the file.
    pub const DEFAULT_PATH: &'static str = "/etc/clavel/clavel-agent.toml";

    /// Reads the file at `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Ok(Self { file: path.to_owned(), ..super::read::<AgentFile>(path)? })
    }
}

impl ConfigFile for AgentFile {
    type Settings = AgentConfig;

    fn into_settings(self, directory: &Path) -> Result<AgentConfig, (&'static str, String)> {
        const HOUR: Duration = Duration::from_hours(1);
        let mut units = BTreeMap::new();
        for (name, unit) in self.units {
            if unit.command.as_ref().is_some_and(Vec::is_empty) {
                return Err(("units.NAME.command", format!("the command of the unit `{name}` is empty")));
            }
            let profile = unit.profile.map(|profile| directory.join(profile));
            // A command activates units of this type alone, so it says the type as well.
            let implied = unit.command.as_ref().map(|_| UnitType::Command);
            if let (Some(UnitType::Command), Some(other)) = (implied, unit.unit_type)
                && other != UnitType::Command
            {
                let why = format!("the unit `{name}` has a command, so its type is command, and not {other}");
                return Err(("units.NAME.type", why));
            }
            let unit_type = unit.unit_type.or(implied);
            if let (Some(known), Some(_)) = (unit_type, &unit.user)
                && !matches!(known, UnitType::HomeManager | UnitType::Darwin)
            {
                let why = format!("the unit `{name}` is of type {known}, which never uses `user`; remove it");
                return Err(("units.NAME.user", why));
            }
            if let (Some(known), Some(_)) = (unit_type, unit.mode)
                && !known.has_modes()
            {
                let why = format!("the unit `{name}` is of type {known}, which never uses `mode`; remove it");
                return Err(("units.NAME.mode", why));
            }
            let UnitTable { command, user, mode, .. } = unit;
            units.insert(name, UnitConfig { unit_type, profile, command, user, mode });
        }
        let max_index_age = self.fetch.max_index_age.map(|age| IndexAge::try_from(age.get().as_secs())).transpose();
        let max_index_age = max_index_age.map_err(|invalid| ("fetch.max-index-age", invalid.to_string()))?;
        let access = access_rules(self.credentials, with_ssh_command(self.ssh_command), directory)?;
        check_mirrors(&self.repository, &self.mirrors).map_err(|why| ("mirrors", why))?;
        let mirrors = std::iter::once(self.repository).chain(self.mirrors.iter().cloned());
        Ok(AgentConfig {
            // `read` knows its name.
            file: directory.to_owned(),
            name: self.name,
            mirrors: mirrors.map(|mirror| access.apply_to(mirror)).collect(),
            branch: self.branch.map_or_else(super::claveld::default_branch, Ok)?,
            root: self.root.0.below(directory),
            deployments: self.deployments,
            system: self.system,
            units,
            state_directory: directory.join(self.state_directory.unwrap_or_else(|| "/var/lib/clavel-agent".into())),
            metrics_file: self.metrics_file.map(|file| directory.join(file)),
            leaves_status: self.leave_status.unwrap_or(true),
            interval: self.interval.map_or(Duration::from_mins(1), Span::get),
            max_index_age,
            fetch_deadline: self.fetch.timeout.map_or(Duration::from_mins(2), Span::get),
            realise_deadline: self.nix.timeout.map_or(HOUR, Span::get),
            activation_deadline: self.activate.timeout.map_or(HOUR / 2, Span::get),
            attempts: self.activate.attempts.map_or(2, NonZeroU32::get),
            checks: self.checks.map(|check| check.0),
            probation: self
                .probation
                .try_into()
                .map_err(|invalid: Invalid| ("probation.settle", invalid.to_string()))?,
            hooks: self.hooks,
            store: self.nix.store.map(|store| directory.join(store)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::credentials::CREDENTIALS_KEYS;
    use super::*;

    fn read(text: &str) -> Result<AgentConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("clavel-agent.toml");
        std::fs::write(&path, text).unwrap();
        AgentConfig::read(&path)
    }

    #[test]
    fn a_minimal_file_is_valid() {
        let minimal = "name = \"web-1\"\nrepository = \"/srv/fleet.git\"\nroot = \"root.json\"\n";
        let config = read(minimal).unwrap();
        assert_eq!(config.interval, Duration::from_mins(1));
        let system = |text: &str| read(&format!("system = \"{text}\"\n{minimal}")).map(|config| config.system);
        assert_eq!(system("armv6l-linux").unwrap(), Some("armv6l-linux".parse().unwrap()));
        assert!(system("arm").unwrap_err().to_string().contains("is not a system"));
        assert!(matches!(config.root, AnchorLocation::File(path) if path.is_absolute()));
        let digest = "0123456789abcdef".repeat(4);
        let by_digest = read(&minimal.replace("root.json", &digest)).unwrap();
        assert_eq!(by_digest.root, AnchorLocation::Digest(digest.parse().unwrap()));
        for (from, to, expected) in [
            ("root = ", "rot = ", "unknown field `rot`"),
            ("root.json", "", "`root`"),
            ("name", "nmae", "unknown field `nmae`"),
            ("\"web-1\"", "\"../x\"", "is not a name"),
            ("name", "interval = \"0s\"\nname", "longer than zero"),
            ("name", "[units.web-1]\ncommand = []\n[x]\nname", "unknown field"),
        ] {
            let error = read(&minimal.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mirrors = |list: &str| read(&format!("{minimal}mirrors = [{list}]\n"));
        let mirrors_of = |config: AgentConfig| config.mirrors.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(mirrors_of(read(minimal).unwrap()), ["/srv/fleet.git"]);
        let both = mirrors("\"https://b.example/fleet.git\"").unwrap();
        assert_eq!(mirrors_of(both), ["/srv/fleet.git", "https://b.example/fleet.git"]);
        for secret in ["me:s3cret", "s3cret"] {
            let error = mirrors(&format!("\"https://{secret}@b.example/fleet.git\"")).unwrap_err().to_string();
            assert!(error.contains("[[credentials]]") && !error.contains("s3cret"), "{error}");
        }
        let error = mirrors("\"/srv/fleet.git\"").unwrap_err().to_string();
        assert!(error.contains("`mirrors`: /srv/fleet.git is named twice"), "{error}");
        let sixteen = (0..16).map(|n| format!("\"/srv/{n}.git\",")).collect::<Vec<_>>().concat();
        assert!(mirrors(&sixteen).unwrap_err().to_string().contains("at most 15"));
        assert_eq!(read(&format!("{minimal}[fetch]\ntimeout = \"3s\"\n")).unwrap().fetch_deadline.as_secs(), 3);
        let error = read(&format!("{minimal}[units.r]\ncommand = []\n")).unwrap_err().to_string();
        assert!(error.contains("the command of the unit `r` is empty"), "{error}");
        let type_of = |text: &str| {
            read(&format!("{minimal}[units.r]\n{text}"))
                .map(|config| config.units[&"r".parse::<Name>().unwrap()].unit_type)
        };
        assert_eq!(type_of("").unwrap(), None);
        assert_eq!(type_of("type = \"system-manager\"").unwrap(), Some(UnitType::SystemManager));
        assert_eq!(type_of("command = [\"/x\"]").unwrap(), Some(UnitType::Command));
        let error = type_of("command = [\"/x\"]\ntype = \"nixos\"").unwrap_err().to_string();
        assert!(error.contains("`units.NAME.type`") && error.contains("and not nixos"), "{error}");
        let error = type_of("user = \"alice\"\ntype = \"nixos\"").unwrap_err().to_string();
        assert!(error.contains("`units.NAME.user`") && error.contains("never uses `user`"), "{error}");
        let error = type_of("mode = \"boot\"\ncommand = [\"/x\"]").unwrap_err().to_string();
        assert!(error.contains("`units.NAME.mode`") && error.contains("never uses `mode`"), "{error}");
        let error = type_of("mode = \"sideways\"").unwrap_err().to_string();
        assert!(error.contains("expected `switch` or `boot`"), "{error}");
        assert_eq!(type_of("mode = \"boot\"").unwrap(), None);
        assert_eq!(type_of("user = \"alice\"").unwrap(), None);
        let error = read(&format!("{minimal}[units.r]\nuser = \"-x\"\n")).unwrap_err().to_string();
        assert!(error.contains("is not the name of a user"), "{error}");
    }

    #[test]
    fn the_example_is_valid_and_has_every_setting() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clavel-agent.toml");
        AgentConfig::read(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let own = [
            "name",
            "repository",
            "mirrors",
            "branch",
            "root",
            "deployments",
            "system",
            "state-directory",
            "metrics-file",
            "leave-status",
            "interval",
            "ssh-command",
            "store",
            "timeout",
            "attempts",
            "http",
            "exec",
            "tcp",
            "systemd",
            "mode",
            "settle",
            "before",
            "after",
            "failure",
            "deadline",
            "confirm",
            "type",
            "profile",
            "command",
            "user",
        ];
        for key in own.into_iter().chain(CREDENTIALS_KEYS) {
            assert!(text.contains(&format!("{key} = ")), "the example lacks {key}");
        }
    }
}
