//! The files of a new set-up, for `clavel init`: the configurations of claveld and of an agent, a snippet for NixOS, and the hooks of
//! the flake's repository. A file that is there already is never written over.

use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::exit::{Code, Exit};
use crate::git::Remote;
use crate::model::{FlakeReference, FleetId};
use crate::process::Invocation;

/// The complete configurations, with a comment for each setting.
const CLAVELD: &str = include_str!("../../../examples/claveld.toml");
const AGENT: &str = include_str!("../../../examples/clavel-agent.toml");
/// The hooks of the flake's repository.
const HOOKS: [(&str, &str); 2] = [
    ("post-receive", include_str!("../../../hooks/post-receive")),
    ("pre-receive", include_str!("../../../hooks/pre-receive")),
];

#[derive(Debug, clap::Args)]
pub(super) struct SetupArguments {
    /// The git repository that will carry the branch, for the configurations.
    #[arg(long, value_name = "URL", default_value = "/srv/git/fleet.git")]
    repository: Remote,
    /// The flake, for claveld's configuration. The default is the branch main of a repository on this machine.
    #[arg(long, value_name = "FLAKE")]
    source: Option<FlakeReference>,
    /// The bare repository of the flake on this machine: install the hooks there that check and publish each push.
    #[arg(long, value_name = "FOLDER")]
    hooks: Option<PathBuf>,
}

/// A file of the set-up.
#[derive(Debug)]
pub(super) struct SetupFile {
    pub(super) path: PathBuf,
    /// What it is, for people.
    pub(super) about: &'static str,
}

/// What the files are about.
struct Fleet<'a> {
    repository: String,
    source: String,
    /// None where the first root is not signed by enough keys yet.
    id: Option<FleetId>,
    /// The file of claveld's key, where `clavel init` made it.
    key: Option<&'a str>,
}

impl SetupArguments {
    /// Writes the files into `folder`. `key` is the name of claveld's key file there, where it was made. Returns what it wrote.
    pub(super) async fn write(
        &self,
        folder: &Path,
        id: Option<FleetId>,
        key: Option<&str>,
    ) -> Result<Vec<SetupFile>, Exit> {
        if self.repository.bundle().is_some() {
            let why = "cannot publish to a bundle, which is only read: name a git repository with --repository";
            return Err(Exit::new(Code::Configuration, why));
        }
        let repository = self.repository.to_string();
        let source = match (&self.source, self.repository.local_path()) {
            (Some(source), _) => source.to_string(),
            (None, Some(path)) => format!("git+file://{}?ref=main", path.display()),
            (None, None) => "git+file:///srv/git/fleet.git?ref=main".to_owned(),
        };
        let fleet = Fleet { repository, source, id, key };
        let mut written = Vec::new();
        for (name, text, about) in [
            ("claveld.toml", claveld_toml(&fleet), "claveld's configuration, with every setting"),
            ("clavel-agent.toml", agent_toml(&fleet), "the configuration of an agent, for each machine: set its name"),
            ("clavel.nix", nixos_snippet(&fleet), "the same for machines of NixOS"),
        ] {
            let path = folder.join(name);
            if write_new(&path, &text, 0o644).map_err(|error| cannot_write(&path, &error))? {
                written.push(SetupFile { path, about });
            }
        }
        if let Some(repository) = &self.hooks {
            written.extend(install_hooks(repository, &folder.join("claveld.toml")).await?);
        }
        Ok(written)
    }
}

/// Installs the hooks in a bare repository, and tells them the configuration.
async fn install_hooks(repository: &Path, config: &Path) -> Result<Vec<SetupFile>, Exit> {
    let hooks = repository.join("hooks");
    if !repository.join("HEAD").is_file() {
        let message = format!("cannot install hooks in {}: it is no bare git repository", repository.display());
        return Err(Exit::new(Code::Configuration, message));
    }
    let config = fs::canonicalize(config).map_err(|error| cannot_write(config, &error))?;
    let run = Invocation::new("git").args(["config", "clavel.config"]).arg(&config).outside_any_repository();
    let told = run.env("GIT_DIR", repository).run().await;
    told.map_err(|error| Exit::machine(format!("cannot tell the hooks where {} is: {error}", config.display())))?;
    fs::create_dir_all(&hooks).map_err(|error| cannot_write(&hooks, &error))?;
    let mut written = Vec::new();
    for (name, text) in HOOKS {
        let path = hooks.join(name);
        if write_new(&path, text, 0o755).map_err(|error| cannot_write(&path, &error))? {
            written.push(SetupFile { path, about: "a hook of git, which runs at each push" });
        } else if fs::read_to_string(&path).is_ok_and(|there| there != text) {
            let message = format!("{} is another hook; run claveld's from it, as hooks/{name} shows", path.display());
            return Err(Exit::new(Code::Configuration, message));
        }
    }
    Ok(written)
}

/// Writes a file that is not there yet. Returns whether it did.
fn write_new(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    match File::options().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.set_permissions(Permissions::from_mode(mode))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn cannot_write(path: &Path, error: &io::Error) -> Exit {
    Exit::machine(format!("cannot write {}: {error}", path.display()))
}

/// The text as a string of TOML or of JSON, which are the same for what stands here.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Replaces the value of a setting that is not commented out, in the first line that sets it.
fn set(text: &str, setting: &str, value: &str) -> String {
    let prefix = format!("{setting} = ");
    let mut is_open = true;
    let lines = text.lines().map(|line| {
        if is_open && line.starts_with(&prefix) {
            is_open = false;
            format!("{prefix}{}\n", quoted(value))
        } else {
            format!("{line}\n")
        }
    });
    lines.collect()
}

fn claveld_toml(fleet: &Fleet<'_>) -> String {
    let text = set(CLAVELD, "repository", &fleet.repository);
    let text = set(&set(&text, "root", "root.json"), "flake", &fleet.source);
    match fleet.key {
        Some(key) => set(&text, "secret-key-file", key),
        None => text,
    }
}

fn agent_toml(fleet: &Fleet<'_>) -> String {
    let text = set(AGENT, "repository", &for_agents(&fleet.repository));
    // The digest needs no copy of the root on the machine.
    let text = fleet.id.map_or(text.clone(), |id| set(&text, "root", &id.to_string()));
    // The settings of a router are an example.
    let (front, router) = text.split_at(text.find("[units.router-1]").unwrap_or(text.len()));
    let commented = router.lines().map(|line| format!("# {line}\n"));
    front.to_owned() + &commented.collect::<String>()
}

fn nixos_snippet(fleet: &Fleet<'_>) -> String {
    let repository = quoted(&for_agents(&fleet.repository));
    let root = fleet.id.map_or("./root.json".to_owned(), |id| quoted(&id.to_string()));
    format!(
        "# For each machine of NixOS, with the module of Clavel's flake: nixosModules.clavel-agent.\n\
         # The name of the agent is that of the machine.\n{{\n  services.clavel-agent = {{\n    enable = true;\n    settings = \
         {{\n      repository = {repository};\n      root = {root};\n    }};\n  }};\n}}\n"
    )
}

/// The repository as an agent names it. A path would be one of each machine's own.
fn for_agents(repository: &str) -> String {
    if repository.starts_with('/') { "https://git.example.org/fleet.git".to_owned() } else { repository.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(repository: &str) -> Fleet<'static> {
        let source = "git+https://git.example.org/\"x\"?ref=main".to_owned();
        let id = Some(FleetId::of(crate::trust::digest(b"fleet")));
        Fleet { repository: repository.to_owned(), source, id, key: Some("claveld-1.secret") }
    }

    #[test]
    fn the_configurations_name_the_fleet_and_keep_every_comment() {
        let fleet = fleet("ssh://git@git.example.org/fleet.git");
        for (text, original, set) in [
            (
                claveld_toml(&fleet),
                CLAVELD,
                vec![
                    "repository = \"ssh://git@git.example.org/fleet.git\"",
                    "root = \"root.json\"",
                    "secret-key-file = \"claveld-1.secret\"",
                    r#"flake = "git+https://git.example.org/\"x\"?ref=main""#,
                ],
            ),
            (
                agent_toml(&fleet),
                AGENT,
                vec!["repository = \"ssh://git@git.example.org/fleet.git\"", "# [units.router-1]"],
            ),
        ] {
            assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
            for line in set {
                assert!(text.lines().any(|found| found == line), "{line}\n{text}");
            }
            assert!(original.lines().filter(|line| line.starts_with('#')).all(|line| text.contains(line)));
        }
        assert!(nixos_snippet(&fleet).contains("repository = \"ssh://git@git.example.org/fleet.git\";"));
    }
}
