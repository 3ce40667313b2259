//! Promise: claveld and its signer run under their own units on a Debian whose Nix daemon is for a group, as docs/runbooks.md sets them
//! up: a push is evaluated, signed and published by them, and the agent of the same machine switches to it.

use serde_json::{Value, json};

use crate::fleet::{AGENT, HOST};
use crate::machine::Machine;
use crate::support::runbook::{Step, is_seen, steps};
use crate::support::world::{World, until};

const CLAVELD: &str = "claveld.service";
const SIGNER: &str = "claveld-signer.service";
/// The names of the runbooks, as they are set on this machine.
const NAMES: &str =
    "export KEYS=/root FLAKE=/home/ada/fleet CACHE='file:///srv/cache?secret-key=/root/cache-1.secret'\n";
const SYSTEM: &str = "nixosConfigurations.web-1.config.system.build.toplevel";

/// A Debian with Nix, its daemon, the programs and units of Clavel, a user `ada` with a checkout of the flake, and a cache.
fn boot(world: &World) -> Machine<'_> {
    let files = |path: &str| format!("{HOST}/files/{path}");
    // Beside Debian's own line, the person who installed Nix has switched on what flakes need.
    world.write_file(
        &files("etc/nix/nix.conf"),
        "sandbox = false\nexperimental-features = nix-command flakes\nsubstituters =\n",
    );
    world.write_file(&files("etc/gitconfig"), "[user]\nname = Ada\nemail = ada@example.org\n");
    // A cage has a /proc of its own, which the kernel allows only where a whole one is seen. On a machine that is no container, /proc is.
    world.write_file(&files("etc/systemd/system/srv-proc.mount"), "[Mount]\nWhat=proc\nWhere=/srv/proc\nType=proc\n");
    world.write_file(&files("root/cache-1.secret"), &world.read_file("cache-1.secret"));
    let machine = Machine::boot(world, HOST, &[("work", "/mnt")]);
    machine.sh("systemctl start srv-proc.mount && chmod 600 /root/cache-1.secret && mkdir /srv/cache && \
         echo 'StoreDir: /nix/store' > /srv/cache/nix-cache-info && \
         useradd --create-home ada && cp -r /mnt /home/ada/fleet && chown -R ada: /home/ada/fleet");
    machine
}

/// Follows the runbook as root.
fn follow(machine: &Machine<'_>, runbook: &str) {
    let mut said = String::new();
    for step in steps(runbook) {
        match step {
            Step::Do(commands) | Step::DoOnSystemd(commands) => {
                said = machine.run(&["bash", "-euxc", &format!("{NAMES}{commands}")]).good();
            }
            Step::See(lines) => {
                for seen in lines.lines() {
                    assert!(said.lines().any(|line| is_seen(line, seen)), "`{seen}` is not in:\n{said}");
                }
            }
        }
    }
}

/// Changes the greeting, and pushes it as ada. Returns what she sees.
fn push(machine: &Machine<'_>, from: &str, to: &str) -> String {
    let fleet = "git -C /home/ada/fleet";
    machine.sh(&format!("sed -i s/{from}/{to}/ /home/ada/fleet/units/greeter.service"));
    machine.sh(&format!(
        "runuser -u ada -- {fleet} commit -qam {to} && runuser -u ada -- {fleet} push /srv/git/fleet.git main 2>&1"
    ))
}

/// What a person in CI does after a push.
fn build(machine: &Machine<'_>) {
    let fresh = "--option tarball-ttl 0";
    machine.sh(&format!("{NAMES}nix copy {fresh} --to \"$CACHE\" \"git+file:///srv/git/fleet.git?ref=main#{SYSTEM}\""));
}

#[test]
fn claveld_and_its_signer_publish_under_their_units_what_the_agent_switches_to() {
    let world = World::of("machines");
    world.use_cache("file:///srv/cache");
    world.push("With its cache");
    let mut machine = boot(&world);
    follow(&machine, "production");
    machine.wait_for("confirmed", 1);
    for unit in [CLAVELD, SIGNER, AGENT] {
        assert_eq!(machine.property(unit, "ActiveState"), "active", "{unit}");
    }
    // The agent looks each minute.
    machine.sh("echo 'interval = \"1s\"' | cat - /etc/clavel/clavel-agent.toml > /etc/new && mv /etc/new /etc/clavel/clavel-agent.toml");
    machine.sh(&format!("systemctl restart {AGENT}"));

    let seen = push(&machine, "first", "second");
    assert!(seen.contains("remote:"), "{seen}");
    build(&machine);
    machine.wait_for("confirmed", 2);
    assert_eq!(machine.sh("cat /run/greeting"), "second");
    assert!(
        machine.journal(CLAVELD).contains("deployments/web-1.json  revision 1 → 2"),
        "{}",
        machine.journal(CLAVELD)
    );

    // Neither claveld's user nor its process has the key.
    machine
        .run(&["runuser", "-u", "claveld", "--", "cat", "/etc/clavel/claveld-1.secret"])
        .refused(1, "Permission denied");
    let status: Value = machine.run(&["runuser", "-u", "claveld", "--", "claveld", "status", "--json"]).json();
    assert_eq!(status["keys"], json!([{ "kind": "signer", "socket": "/run/claveld-signer.sock" }]), "{status:#}");
    let user = |unit| machine.sh(&format!("stat --format=%u /proc/{}", machine.property(unit, "MainPID")));
    assert_eq!(user(CLAVELD), machine.sh("id --user claveld"));
    assert!(![user(CLAVELD), "0".to_owned()].contains(&user(SIGNER)), "{}", user(SIGNER));

    // They start with the machine, and their state outlives it.
    machine.restart();
    machine.sh("systemctl start srv-proc.mount");
    push(&machine, "second", "third");
    build(&machine);
    machine.wait_for("confirmed", 3);
    until("it has booted", || machine.sh("systemctl is-system-running || true") == "running");
    for unit in [CLAVELD, SIGNER, AGENT] {
        assert_eq!(machine.property(unit, "NRestarts"), "0", "{unit}");
    }
}
