//! Promise: evaluations stay within the memory they are given, and one that needs more is tried alone before it is broken.

use serde_json::Value;

use crate::support::world::{Ran, World};

/// A fleet of two hosts beside one that holds about so many MiB of a list while it is evaluated.
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

fn names(found: &Value) -> Vec<&str> {
    found["deployments"].as_array().unwrap().iter().map(|document| document["name"].as_str().unwrap()).collect()
}

#[test]
fn one_that_does_not_fit_into_its_share_is_evaluated_alone() {
    let world = World::new();
    // It fits into all of the memory, and not into half of it.
    let found = evaluate(&world, 250, &["--memory", "800MiB"]).json();
    assert_eq!(names(&found), ["hungry", "web-1", "web-2"], "{found:#}");
}

#[test]
fn one_that_does_not_fit_at_all_is_broken_and_hides_no_other() {
    let world = World::new();
    let ran = evaluate(&world, 250, &["--memory", "300MiB"]);
    assert_eq!(ran.code, Some(1));
    let found = ran.json();
    assert_eq!(names(&found), ["web-1", "web-2"]);
    let failure = &found["failures"][0];
    assert_eq!(failure["name"], "hungry");
    assert!(
        failure["error"].as_str().unwrap().contains("needed more than 300.0 MiB of memory and was ended"),
        "{failure}"
    );
}

#[test]
fn what_needed_much_the_last_time_gets_it_at_once() {
    let world = World::new();
    let records = world.at("records");
    let arguments = ["--memory", "800MiB", "--records", &records];
    evaluate(&world, 250, &arguments).good();
    // Had it begun beside the others, it would have been ended and begun once more.
    let ran = evaluate(&world, 251, &[&arguments[..], &["-v"]].concat());
    let is_first_look = |line: &&str| line.contains("strace") && line.contains("nix-instantiate");
    let processes = ran.stderr.lines().filter(is_first_look).count();
    assert_eq!(processes, 4, "the names and three hosts: {}", ran.stderr);
}
