//! Promise: the commands of docs/runbooks.md do what they say, and print what they say.

use std::path::Path;

use serde_json::json;

use crate::support::attacker::{ForgedBranch, MAX_INTEGER, Onto, StolenKey};
use crate::support::command::NIX_CONFIG;
use crate::support::runbook::{Step, is_seen, steps};
use crate::support::world::World;

/// Follows a runbook in `world`, with its names set as the runbook says.
fn follow(world: &World, runbook: &str) {
    follow_on("web-1", world, runbook);
}

/// Follows a runbook that is about the machine `unit`.
fn follow_on(unit: &str, world: &World, runbook: &str) {
    let mut said = String::new();
    let steps = steps(runbook);
    assert!(!steps.is_empty(), "docs/runbooks.md has no blocks of {runbook}");
    for step in steps {
        match step {
            Step::Do(commands) => {
                let mut shell = world.command("sh", &["-eux", "-c", &commands]);
                let agent = format!("{unit}.toml");
                let state = format!("{unit}/state");
                for (name, place) in [
                    ("REPOSITORY", "fleet.git"),
                    ("KEYS", ""),
                    ("CLAVELD", ""),
                    ("CLAVELD_STATE", "claveld"),
                    ("AGENT", &agent),
                    ("AGENT_STATE", &state),
                    ("FLAKE", "work"),
                ] {
                    shell.env(name, world.at(place));
                }
                shell.env("CACHE", format!("file://{}?secret-key={}", world.at("cache"), world.at("cache-1.secret")));
                let output = shell.current_dir(world.path("")).output().unwrap();
                let (stdout, stderr) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{commands}\n{stdout}\n{stderr}");
                said = stdout.into_owned();
            }
            Step::DoOnSystemd(commands) => panic!("it takes systemd: {commands}"),
            Step::See(lines) => {
                for seen in lines.lines() {
                    assert!(said.lines().any(|line| is_seen(line, seen)), "`{seen}` is not in:\n{said}");
                }
            }
        }
    }
}

#[test]
fn a_fleet_whose_key_was_stolen_is_brought_back() {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();

    // The thief makes a machine run another system, and raises every number to the largest.
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    world.build(&["web-2"]);
    let mut stolen = ForgedBranch::of(&world);
    let other = stolen.signed("deployments/web-2.json")["specification"]["template"].clone();
    stolen.edit("deployments/web-1.json", &[&thief], |signed| {
        signed["specification"]["template"] = other;
        signed["revision"] = json!(MAX_INTEGER);
    });
    stolen.reindex(&[&thief], |index| index["version"] = json!(MAX_INTEGER));
    stolen.push(Onto::Tip);
    assert_eq!(world.agent("web-1", &["once"]).good(), format!("web-1: switched to revision {MAX_INTEGER}\n"));
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-2"));

    follow(&world, "stolen-key");

    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // An agent that gets the thief's branch again refuses it, and so does claveld.
    stolen.push(Onto::Nothing);
    world.agent("web-1", &["once"]).refused(5, "the root went back from version 2 to 1");
    world.publish().refused(5, "epoch");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

/// A fleet whose `web-1` runs what is published.
fn running() -> World {
    let world = World::published_with_nix(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();
    world
}

/// Gives the flake a host beside `web-2`, which is like it.
fn add_host(world: &World, name: &str) {
    let host = world.read_file("work/hosts/web-2.nix").replace("web-2", name);
    world.write(&format!("hosts/{name}.nix"), &host);
    let line = "nixosConfigurations.web-2 = host ./hosts/web-2.nix;";
    world.edit("flake.nix", line, &format!("{line}\n{}", line.replace("web-2", name)));
}

/// Takes a host out of the flake.
fn remove_host(world: &World, name: &str) {
    world.edit("flake.nix", &format!("nixosConfigurations.{name} = host ./hosts/{name}.nix;"), "");
}

#[test]
fn a_machine_is_added() {
    let world = World::new();
    world.publish().good();
    add_host(&world, "web-3");
    world.configure_agent("web-3", &format!("file://{}", world.at("fleet.git")), "");
    let text = world.read_file("web-3.toml").replace("root.json", &world.fleet());
    world.write_file("web-3.toml", &text);
    follow_on("web-3", &world, "new-machine");
    assert_eq!(world.motd("web-3").as_deref(), Some("Welcome to web-3"));
}

#[test]
fn a_machine_gets_another_name() {
    let world = running();
    add_host(&world, "shop-1");
    follow(&world, "rename-1");
    let text = world.read_file("web-1.toml");
    world.write_file(
        "web-1.toml",
        &text.replace("name = \"web-1\"", "name = \"shop-1\"").replace("[units.web-1]", "[units.shop-1]"),
    );
    follow(&world, "rename-2");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to shop-1"));
    remove_host(&world, "web-1");
    follow(&world, "rename-3");
    world.verify().good();
}

#[test]
fn a_machine_is_removed() {
    let world = running();
    remove_host(&world, "web-1");
    follow(&world, "remove-machine");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    world.verify().good();
}

#[test]
fn a_lost_state_folder_of_claveld_or_of_an_agent_does_no_harm() {
    let world = running();
    world.clavel(&["hold", "web-2", "--config", &world.at("claveld.toml")]).good();
    std::fs::remove_dir_all(world.path("claveld")).unwrap();
    let tip = world.tip();
    follow(&world, "lost-claveld-state");
    assert_eq!(world.tip(), tip);
    std::fs::remove_dir_all(world.path("web-1/state")).unwrap();
    follow(&world, "lost-agent-state");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn ci_fills_the_cache_before_claveld_publishes() {
    let world = running();
    let text = world.read_file("claveld.toml").replace("[publish]", "[publish]\nwait-for-cache = true");
    world.write_file("claveld.toml", &text);
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    follow(&world, "cache");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

/// The machine that a set-up begins with: `/etc`, `/srv`, `/run`, the state folders and the profiles are the world's, a daemon of Nix
/// runs, and there is a user `ada` with a checkout of the flake. It ends with the shell.
const NEW_MACHINE: &str = r#"
    cp -a /etc etc; mount --bind etc /etc; rm -rf /etc/clavel
    for folder in /srv /run /var/lib /usr/local/lib /usr/local/share /nix/var/nix/profiles /nix/var/nix/daemon-socket; do
      mount -t tmpfs none "$folder"
    done
    mkdir -p /usr/local/lib/sysusers.d /usr/local/share/clavel
    cp "$CRATE/systemd/claveld.sysusers" /usr/local/lib/sysusers.d/claveld.conf
    cp -r "$CRATE/hooks" /usr/local/share/clavel/hooks
    chmod a+rx . "$PROGRAMS"
    useradd --create-home --home-dir /srv/ada ada
    cp -a work /srv/ada/fleet; chown -R ada: /srv/ada
    printf '[user]\nname = Ada\nemail = ada@example.org\n' > /etc/gitconfig
    nix-daemon 2> nix-daemon.log & daemon=$!
    signer=
    trap 'kill $daemon $signer' EXIT
    until [ -S /nix/var/nix/daemon-socket/socket ]; do kill -0 $daemon; sleep 0.02; done
"#;

/// What systemd does when `claveld-signer.socket` is enabled and asked.
const SIGNER: &str = r#"
    mkdir credentials; install -m 400 -o nobody /etc/clavel/claveld-1.secret credentials/key; chown nobody credentials
    systemd-socket-activate --setenv=CREDENTIALS_DIRECTORY="$PWD/credentials" --listen=/run/claveld-signer.sock \
      setpriv --reuid nobody --clear-groups "$PROGRAMS/claveld" signer --secret-key-credential key 2> signer.log & signer=$!
    until [ -S /run/claveld-signer.sock ]; do kill -0 $signer; sleep 0.02; done
    chown claveld: /run/claveld-signer.sock; chmod 600 /run/claveld-signer.sock
"#;

#[test]
fn a_first_set_up_for_production_has_no_problem() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = World::new();
    let mut script = format!("set -eu\n{NEW_MACHINE}\nset -x\n");
    let mut seen = Vec::new();
    for step in steps("production") {
        match step {
            Step::Do(commands) => script.push_str(&commands),
            Step::DoOnSystemd(commands) if commands.contains("claveld-signer.socket") => {
                script.extend(["{ set +x; } 2> /dev/null\n", SIGNER, "set -x\n"]);
            }
            // tests/machines/claveld_unit.rs follows the runbook on a booted machine.
            Step::DoOnSystemd(_) => {}
            Step::See(lines) => seen.extend(lines.lines().map(ToOwned::to_owned).collect::<Vec<_>>()),
        }
    }
    assert!(!seen.is_empty());
    let programs = Path::new(env!("CARGO_BIN_EXE_claveld")).parent().unwrap();
    let mut shell = world.command("unshare", &["--mount", "--propagation", "private", "bash", "-c", &script]);
    // A person at this machine: no setting of the tests' git.
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    shell.env_clear().envs([("PATH", path.as_str()), ("HOME", "/root"), ("NIX_CONFIG", NIX_CONFIG)]);
    // Git's own place for it may be outside of /etc, where the set-up would change this machine.
    shell.env("GIT_CONFIG_SYSTEM", "/etc/gitconfig");
    shell.env("PROGRAMS", programs).env("CRATE", env!("CARGO_MANIFEST_DIR")).env("KEYS", world.at(""));
    shell.env("FLAKE", "/srv/ada/fleet");
    shell.env("CACHE", format!("file://{}?secret-key={}", world.at("cache"), world.at("cache-1.secret")));
    let output = shell.current_dir(world.path("")).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    for seen in seen {
        assert!(stdout.lines().any(|line| is_seen(line, &seen)), "`{seen}` is not in:\n{stdout}");
    }
    let checks = stdout.lines().filter(|line| line.contains(" 0 problems"));
    assert_eq!(checks.count(), 3, "{stdout}");
    assert!(stderr.contains("hook") || stderr.contains("remote:"), "{stderr}");
}
