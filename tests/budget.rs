//! Promise: evaluations stay within their memory and their time: a host that needs more memory is tried alone before it counts as broken,
//! and hosts that never end take no more than the time of their source, and never twice that of others.

use serde_json::Value;

use crate::support::world::{Ran, World, names};

/// Evaluates two hosts, and one that holds a list of about `hungry` MiB while it is evaluated.
fn evaluate(world: &World, hungry: u32, arguments: &[&str]) -> Ran {
    let outputs = format!(
        "{{ outputs = {{ self }}: let sys = import ./lib/host.nix {{ system = \"x86_64-linux\"; }}; in {{
            nixosConfigurations.web-1 = sys ./hosts/web-1.nix;
            nixosConfigurations.web-2 = sys ./hosts/web-2.nix;
            nixosConfigurations.hungry = builtins.deepSeq (builtins.genList (n: {{ inherit n; }}) ({hungry} * 10000)) (sys ./hosts/router-1.nix);
        }}; }}"
    );
    world.write("flake.nix", &outputs);
    let path = format!("path:{}", world.at("work"));
    world.claveld(&[&["evaluate", &path, "--json", "--processes", "2"], arguments].concat())
}

#[test]
fn a_host_that_needs_more_than_its_share_is_evaluated_alone() {
    let world = World::new();
    // It needs more than half of the memory, and less than all of it.
    let found = evaluate(&world, 250, &["--memory", "800MiB"]).json();
    assert_eq!(names(&found, "deployments"), ["hungry", "web-1", "web-2"], "{found:#}");
}

#[test]
fn a_host_that_needs_more_than_all_memory_is_a_failure_and_the_others_are_evaluated() {
    let world = World::new();
    let ran = evaluate(&world, 250, &["--memory", "300MiB"]);
    assert_eq!(ran.code, Some(1));
    let found = ran.json();
    assert_eq!(names(&found, "deployments"), ["web-1", "web-2"]);
    let failure = &found["failures"][0];
    assert_eq!(failure["name"], "hungry");
    assert!(
        failure["error"].as_str().unwrap().contains("needed more than 300.0 MiB of memory and was ended"),
        "{failure}"
    );
}

#[test]
fn a_host_that_needed_more_than_a_share_the_last_time_runs_alone_at_once() {
    let world = World::new();
    let records = world.at("records");
    let arguments = ["--memory", "800MiB", "--records", &records];
    evaluate(&world, 250, &arguments).good();
    // If it had started beside the others, claveld would have ended it and started it again.
    let ran = evaluate(&world, 251, &[&arguments[..], &["-v"]].concat());
    let is_watched = |line: &&str| line.contains("--follow-forks") && line.contains("--eval");
    let processes = ran.stderr.lines().filter(is_watched).count();
    assert_eq!(processes, 4, "the names and three hosts: {}", ran.stderr);
}

#[test]
fn hosts_that_never_end_take_the_time_of_their_source_and_come_last_the_next_time() {
    let world = World::new();
    world.write(
        "flake.nix",
        "{ outputs = { self }: let
            sys = import ./lib/host.nix { system = \"x86_64-linux\"; };
            many = builtins.genList (n: n) 10000;
            endless = builtins.foldl' (a: _: builtins.foldl' (a: _: builtins.foldl' (a: _: a) a many) a many) 0 many;
        in { nixosConfigurations = {
            web-1 = sys ./hosts/web-1.nix;
            web-2 = sys ./hosts/web-2.nix;
        } // builtins.listToAttrs (builtins.genList (n: {
            name = \"endless-${toString n}\";
            value = builtins.seq endless (sys ./hosts/router-1.nix);
        }) 4); }; }",
    );
    let (path, records) = (format!("path:{}", world.at("work")), world.at("records"));
    let arguments = ["evaluate", &path, "--json", "--processes", "2", "--timeout", "4s", "--records", &records];
    let evaluate = |time: &str| world.claveld(&[&arguments[..], &["--source-timeout", time]].concat()).json();
    let check = |evaluated: &Value, why: &str| {
        assert_eq!(names(evaluated, "deployments"), ["web-1", "web-2"], "{evaluated:#}");
        assert_eq!(evaluated["failures"].as_array().unwrap().len(), 4, "{evaluated:#}");
        let told = evaluated["failures"].to_string();
        assert!(told.contains(why), "{told}");
    };
    check(&evaluate("1h"), "did not finish within 4s and was ended");
    world.edit("hosts/web-1.nix", "Welcome to", "Hello from");
    // Two at once with four seconds each: the four that never end need eight.
    check(&evaluate("7s"), "took 7s in all (`source-timeout` below [evaluate])");
}
