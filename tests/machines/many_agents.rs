//! Promise: fifty machines' agents follow one branch on one host, each with a deployment of its own, and one publication reaches them all.

#![expect(clippy::print_stdout, reason = "cargo shows it with --nocapture")]

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Deserializer, Value};

use crate::fleet::{HOST, agent_text};
use crate::machine::Machine;
use crate::support::world::{World, until};

const AGENTS: usize = 50;

/// A flake with a deployment for each agent. `release` is in the content of all of them.
const FLAKE: &str = r#"{
  outputs =
    { self }:
    let
      system = import ./system.nix;
      caches = import ./caches.nix;
      each = make: builtins.listToAttrs (builtins.genList (at: rec { name = "node-${toString (at + 1)}"; value = make name; }) AGENTS);
      content = name: derivation {
        inherit name system;
        builder = "/bin/sh";
        args = [ "-c" "echo ${name} runs RELEASE > $out" ];
      };
    in
    {
      # It needs the content of each of them.
      all = derivation {
        name = "all";
        inherit system;
        builder = "/bin/sh";
        args = [ "-c" "echo $contents > $out" ];
        contents = builtins.attrValues (each content);
      };
      clavel.deployments = each (name: { template = { narId = content name; inherit (caches) substituters substituters-public-keys; }; });
      clavel.units = each (_: { type = "command"; arch = system; });
    };
}
"#;

fn names() -> Vec<String> {
    (1..=AGENTS).map(|number| format!("node-{number}")).collect()
}

/// Publishes a release of all deployments, once the cache has it.
fn publish(world: &World, release: &str) {
    world.write("flake.nix", &FLAKE.replace("AGENTS", &AGENTS.to_string()).replace("RELEASE", release));
    world.push(release);
    world.build_attributes(&["all".to_owned()]);
    world.publish().good();
}

/// The agent's unit of the project as a template: each instance has its own configuration, state folder and cache.
fn template() -> String {
    let text = agent_text();
    let replaced = [
        ("/etc/clavel/clavel-agent.toml", "/etc/clavel/%i.toml"),
        ("clavel-agent run", "clavel-agent run --config /etc/clavel/%i.toml"),
        ("Directory=clavel-agent", "Directory=clavel-agent/%i"),
        ("%C/clavel-agent", "%C/clavel-agent/%i"),
    ];
    replaced.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{text}");
        text.replace(from, to)
    })
}

fn boot(world: &World) -> Machine<'_> {
    world.write_file(&format!("{HOST}/files/etc/systemd/system/clavel-agent@.service"), &template());
    let (fleet, mut nodes) = (world.fleet(), String::new());
    for name in names() {
        let text = format!(
            "name = \"{name}\"\nrepository = \"file:///srv/fleet.git\"\nroot = \"{fleet}\"\ninterval = \"2s\"\n\
             state-directory = \"/var/lib/clavel-agent/{name}\"\n[units.{name}]\n\
             command = [\"/bin/sh\", \"-c\", \"cp --remove-destination $CLAVEL_PATH /run/nodes/$CLAVEL_UNIT\"]\n"
        );
        world.write_file(&format!("{HOST}/files/etc/clavel/{name}.toml"), &text);
        write!(nodes, " clavel-agent@{name}.service").unwrap();
    }
    let machine = Machine::boot(world, HOST, &[("fleet.git", "/srv/fleet.git"), ("cache", "/srv/cache")]);
    machine.sh(&format!("mkdir /run/nodes && systemctl start{nodes}"));
    machine
}

/// Waits until each of the agents has switched to a release, and has recorded that. Returns the seconds since `begin`.
fn wait_until_all_run(machine: &Machine<'_>, release: &str, begin: Instant) -> f32 {
    let count = |line: &str| machine.sh(line).parse::<usize>().unwrap_or_default();
    // Each node runs what is for it.
    let switched = format!(
        "cd /run/nodes && for name in *; do echo \"$name runs {release}\" | cmp -s - \"$name\" && echo; done | wc -l"
    );
    until("all run it", || count(&switched) == AGENTS);
    let confirmed = "grep -l '\"state\": \"confirmed\"' /var/lib/clavel-agent/*/state.json | wc -l";
    until("all have confirmed it", || count(confirmed) == AGENTS);
    begin.elapsed().as_secs_f32()
}

#[test]
fn one_publication_reaches_fifty_agents_on_one_host() {
    let world = World::of("machines");
    world.use_cache("file:///srv/cache");
    publish(&world, "one");
    let begin = Instant::now();
    let machine = boot(&world);
    let first = wait_until_all_run(&machine, "one", begin);
    publish(&world, "two");
    let second = wait_until_all_run(&machine, "two", Instant::now());
    let sum = |field: &str| {
        machine.sh(&format!(
            "for pid in $(systemctl show --value --property=MainPID 'clavel-agent@*'); do cat /proc/$pid/smaps_rollup; done | \
             awk '$1 == \"{field}:\" {{ sum += $2 }} END {{ print int(sum / 1024) }}'"
        ))
    };
    println!(
        "{AGENTS} agents: {first:.1} s to the first release, {second:.1} s from a publication to the last switch; resident {} MiB, {} MiB \
         with what they share counted once",
        sum("Rss"),
        sum("Pss")
    );
    let told =
        machine.sh("for name in $(ls /run/nodes); do clavel-agent status --json --config /etc/clavel/$name.toml; done");
    let statuses: Vec<Value> = Deserializer::from_str(&told).into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses.len(), AGENTS);
    for status in statuses {
        let deployments = status["deployments"].as_object().unwrap();
        let [(name, deployment)] = deployments.iter().collect::<Vec<_>>()[..] else { panic!("{status:#}") };
        assert_eq!(status["agent"], **name);
        assert_eq!(
            (&deployment["state"], &deployment["running"]["revision"]),
            (&"confirmed".into(), &2.into()),
            "{name}"
        );
    }
    assert_eq!(machine.sh("systemctl show --value --property=NRestarts 'clavel-agent@*' | sort -u | xargs"), "0");
    assert_eq!(machine.sh("systemctl list-timers --all --no-legend 'clavel-way-back-*'"), "");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}
