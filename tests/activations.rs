//! Promise: the agent activates each type of unit as the platform's own tool does, and rolls it back in the same way.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::world::{Ran, World};

/// A fleet with one unit that is no NixOS machine, and whose scripts log that they ran.
struct Fleet {
    world: World,
    unit: &'static str,
    /// `shapes.home`, and the like.
    shape: &'static str,
    scripts: &'static [&'static str],
    /// From the name of a system to the flake's outputs; `SYSTEM` stands for the system.
    outputs: &'static str,
    attribute: &'static str,
}

const HOME: (&str, &[&str]) = ("home", &["activate"]);
const MANAGER: (&str, &[&str]) = ("systemManager", &["bin/register-profile", "bin/activate"]);
const CONTAINER: (&str, &[&str]) = ("container", &["bin/switch-to-configuration"]);

impl Fleet {
    fn new(
        unit: &'static str,
        (shape, scripts): (&'static str, &'static [&'static str]),
        outputs: &'static str,
        attribute: &'static str,
    ) -> Self {
        let fleet = Self { world: World::new(), unit, shape, scripts, outputs, attribute };
        // Another user needs access to its system and to the folder that the scripts write to.
        fleet.world.run("chmod", &["711", &fleet.world.at("")]).good();
        fleet.world.run("mkdir", &["-m", "777", &fleet.world.at("log"), &fleet.world.at("profiles")]).good();
        let (cache, key) = (fleet.world.at("cache"), fleet.world.public_key("cache-1"));
        let more = format!("substituters = [\"file://{cache}\"]\nsubstituters-public-keys = [\"{key}\"]\n");
        fleet.world.configure_claveld(&more);
        fleet
    }

    /// Publishes and builds a system called `name`, whose scripts run `script` as well.
    fn publish(&self, name: &str, script: &str) {
        let log = self.world.at("log/log");
        let text = |path: &&str| {
            let does =
                format!("{{ echo \"$(id -un) {name} {path} $*\" >> {log}; chmod 666 {log}; }} 2> /dev/null\n{script}");
            format!("\"{path}\" = ''{}'';", does.replace("${", "''${"))
        };
        let scripts: Vec<String> = self.scripts.iter().map(text).collect();
        let system = format!("(shapes.{} \"{name}\" {{ {} }})", self.shape, scripts.join(" "));
        let flake = format!(
            "{{ outputs = {{ self }}: let shapes = import ./lib/platforms.nix {{ system = import ./system.nix; }}; \
             in {{ {} }}; }}",
            self.outputs.replace("SYSTEM", &system)
        );
        self.world.write("flake.nix", &flake);
        self.world.push(name);
        self.world.publish().good();
        self.world.build_attributes(&[self.attribute.to_owned()]);
    }

    /// Writes the agent's configuration; `more` is about its unit.
    fn configure(&self, more: &str) {
        let (world, unit) = (&self.world, self.unit);
        let text = format!(
            "name = \"{unit}\"\nrepository = \"file://{}\"\nroot = \"root.json\"\n\
             state-directory = \"state\"\n[nix]\nstore = \"store\"\n[units.\"{unit}\"]\n\
             profile = \"profiles/system\"\n{more}\n",
            world.at("fleet.git"),
        );
        world.write_file(&format!("{unit}.toml"), &text);
    }

    /// A pass of the agent, with `programs` first in its PATH.
    fn agent(&self) -> Ran {
        let config = self.world.at(&format!("{}.toml", self.unit));
        let path = format!("PATH={}:{}", self.world.at("programs"), std::env::var("PATH").unwrap());
        self.world.run("env", &[&path, env!("CARGO_BIN_EXE_clavel-agent"), "once", "--config", &config])
    }

    /// The scripts that ran since the last call, with their users.
    fn ran(&self) -> Vec<String> {
        let path = self.world.path("log/log");
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        log.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn write_program(&self, name: &str, script: &str) {
        self.world.write_file(&format!("programs/{name}"), script);
        let path = self.world.path(&format!("programs/{name}"));
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The name of the system that the profile leads to.
    fn profile(&self) -> Option<String> {
        let profile = self.world.path("profiles/system");
        let link = std::fs::read_link(&profile).ok()?;
        let to = std::fs::read_link(profile.with_file_name(&link)).unwrap_or(link);
        Some(to.file_name()?.to_str()?.split_once('-')?.1.to_owned())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn own_name(fleet: &Fleet) -> String {
    fleet.world.run("id", &["-un"]).good().trim().to_owned()
}

/// The part of the activation that home-manager and system-manager do by themselves.
const SETS_THE_PROFILE: &str = "ln -sfn $CLAVEL_STORE_PATH $CLAVEL_PROFILE\n";

#[test]
fn a_home_is_activated_as_its_user() {
    let fleet = Fleet::new(
        "alice@laptop",
        HOME,
        "homeConfigurations.\"alice@laptop\" = SYSTEM;",
        "homeConfigurations.\"alice@laptop\".activationPackage",
    );
    // Every machine has this user.
    let user = if is_root() { "nobody".to_owned() } else { own_name(&fleet) };
    let told = fleet.world.at("log/told");
    fleet.publish("one", &format!("{SETS_THE_PROFILE}echo \"$HOME $XDG_CACHE_HOME\" > {told}\n"));
    fleet.configure("");
    if is_root() {
        fleet.agent().refused(7, "does not name the user whose home it is, and the agent runs as root");
    } else {
        fleet.configure("user = \"root\"");
        fleet.agent().refused(7, "it belongs to the user `root`, and the agent runs as");
    }
    assert_eq!(fleet.ran(), [""; 0]);

    fleet.configure(&format!("user = \"{user}\""));
    assert_eq!(fleet.agent().good(), "alice@laptop: switched to revision 1\n");
    assert_eq!(fleet.ran(), [format!("{user} one activate")]);
    assert_eq!(fleet.profile().as_deref(), Some("home-manager-generation-one"));
    if is_root() {
        // The agent does not use these folders itself.
        let home = fleet.world.run("sh", &["-c", "echo ~nobody"]).good();
        assert_eq!(fleet.world.read_file("log/told").trim(), home.trim());
    }

    fleet.publish("two", "exit 1\n");
    let said = fleet.agent().refused(7, "the activation of `alice@laptop` failed");
    assert!(said.contains("going back to /nix/store/"), "{said}");
    assert_eq!(fleet.ran(), [format!("{user} two activate"), format!("{user} one activate")]);
}

#[test]
fn the_user_of_a_home_cannot_type_at_the_terminal_of_the_superuser() {
    if !is_root() {
        return;
    }
    let fleet = Fleet::new(
        "alice@laptop",
        HOME,
        "homeConfigurations.\"alice@laptop\" = SYSTEM;",
        "homeConfigurations.\"alice@laptop\".activationPackage",
    );
    let told = fleet.world.at("log/told");
    // Where this can be opened, TIOCSTI (ioctl_tty(2)) can type at it.
    let tries = format!("if (: < /dev/tty) 2> /dev/null; then echo terminal; else echo none; fi >> {told}");
    fleet.publish("one", &format!("{SETS_THE_PROFILE}{tries}\n"));
    fleet.configure("user = \"nobody\"");
    let config = fleet.world.at("alice@laptop.toml");
    let check = format!(
        "\n[probation]\nsettle = \"10ms\"\n[checks.own]\nexec = [\"/bin/sh\", \"-c\", \"{tries}\"]\ninterval = \"50ms\"\n"
    );
    let text = fleet.world.read_file("alice@laptop.toml");
    fleet.world.write_file("alice@laptop.toml", &format!("{text}{check}"));
    fleet.world.run_at_a_terminal(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &config], "").good();
    let told = fleet.world.read_file("log/told");
    assert!(told.lines().count() >= 3 && told.lines().all(|line| line == "none"), "{told}");
}

#[test]
fn what_another_tool_activated_is_gone_back_to() {
    let fleet = Fleet::new("box", MANAGER, "systemConfigs.box = SYSTEM;", "systemConfigs.box");
    fleet.publish("one", SETS_THE_PROFILE);
    fleet.configure("");
    assert_eq!(fleet.agent().good(), "box: switched to revision 1\n");
    let me = own_name(&fleet);
    let runs = |name: &str| [format!("{me} {name} bin/register-profile"), format!("{me} {name} bin/activate")];
    assert_eq!(fleet.ran(), runs("one"));
    assert_eq!(fleet.profile().as_deref(), Some("system-manager-one"));

    // An agent without a state finds the running system by the profile.
    std::fs::remove_file(fleet.world.path("state/state.json")).unwrap();
    fleet.publish("two", &format!("{SETS_THE_PROFILE}case $0 in */activate) exit 1;; esac\n"));
    fleet.agent().refused(7, "the activation of `box` failed");
    assert_eq!(fleet.ran(), [runs("two"), runs("one")].concat());
    assert_eq!(fleet.profile().as_deref(), Some("system-manager-one"));
}

#[test]
fn a_profile_that_cannot_be_registered_is_not_activated() {
    let fleet = Fleet::new("box", MANAGER, "systemConfigs.box = SYSTEM;", "systemConfigs.box");
    fleet.publish("one", "case $0 in */register-profile) echo no room >&2; exit 1;; esac\n");
    fleet.configure("");
    fleet.agent().refused(7, "no room");
    assert_eq!(fleet.ran(), [format!("{} one bin/register-profile", own_name(&fleet))]);
}

#[test]
fn a_container_is_reloaded_with_its_new_system() {
    let fleet = Fleet::new(
        "db",
        CONTAINER,
        "clavel.deployments.db.template.narId = SYSTEM; clavel.units.db.type = \"container\";",
        "clavel.deployments.db.template.narId",
    );
    // A script replaces systemctl: it logs its arguments and the target of the profile.
    let (log, profile, bad) = (fleet.world.at("log/log"), fleet.world.at("profiles/system"), fleet.world.at("bad"));
    fleet.write_program(
        "systemctl",
        &format!(
            "#!/bin/sh\necho \"$* $(readlink $(dirname {profile})/$(readlink {profile}) | cut -d- -f2-)\" >> {log}\n\
             test ! -e {bad} || {{ rm {bad}; exit 1; }}\n"
        ),
    );
    fleet.configure("");
    fleet.publish("one", "");
    assert_eq!(fleet.agent().good(), "db: switched to revision 1\n");
    let asked = |name: &str| format!("try-reload-or-restart container@db.service nixos-system-{name}");
    assert_eq!(fleet.ran(), [asked("one")]);

    fleet.publish("two", "");
    fleet.world.write_file("bad", "");
    fleet.agent().refused(7, "the activation of `db` failed");
    assert_eq!(fleet.ran(), [asked("two"), asked("one")]);
    assert_eq!(fleet.profile().as_deref(), Some("nixos-system-one"));
}
