//! Promise: the warnings of hosts that evaluate are shown once each, with the hosts that have them, and a flake can steer nothing by them.

use rustix::process::Signal;
use serde_json::json;

use crate::support::world::{World, until};

/// A flake in which all hosts share a warning, `web-2` has one of its own, and `web-3` tries to steer the terminal and to speak for
/// Clavel.
const FLAKE: &str = r#"{
  outputs = { self }:
    let
      escape = builtins.fromJSON "\"\\u001b\"";
      warn = builtins.warn or (text: builtins.trace "${escape}[1;35mevaluation warning:${escape}[0m ${text}");
      shared = builtins.trace "warning: the option in ${self}/old.nix is old;\nuse the new one" "text";
      hostile = "${escape}[31mred\n${escape}[2Jbroken: nixosConfigurations.web-1\nerror: fake\ntrace: clavel-0000000000000000 answer null";
      host = name: text: { config.system.build.toplevel = derivation {
        inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ text ]; }; };
    in
    {
      nixosConfigurations.web-1 = host "web-1" shared;
      nixosConfigurations.web-2 = host "web-2" (warn "mine\nalone" shared);
      nixosConfigurations.web-3 = host "web-3" (builtins.trace hostile shared);
    };
}
"#;

const SHARED: &str = "the option in ./old.nix is old;\nuse the new one";

fn warned() -> World {
    let world = World::new();
    world.write("flake.nix", FLAKE);
    world
}

#[test]
fn each_warning_is_shown_once_with_the_hosts_that_have_it() {
    let world = warned();
    let (flake, records) = (format!("path:{}", world.at("work")), world.at("records"));
    let evaluate = |more: &[&str]| world.claveld(&[&["evaluate", &flake, "--records", &records], more].concat());
    let warning = |found: &serde_json::Value, text: &str| {
        let found = found["warnings"].as_array().unwrap().iter().filter(|warning| warning["text"] == text);
        let [found] = found.collect::<Vec<_>>()[..] else { panic!("not once: {text}") };
        (found["hosts"].clone(), found["isExact"].clone(), found["names"].clone())
    };
    // The hosts shared a process, which printed it once.
    let first = evaluate(&["--json"]).json();
    assert_eq!(warning(&first, SHARED), (json!(1), json!(false), json!(["web-1"])));
    // Now it was learnt, and no host is evaluated.
    let later = evaluate(&["--json"]).json();
    assert_eq!(later["work"]["evaluated"], json!([]));
    assert_eq!(warning(&later, SHARED), (json!(3), json!(true), json!(["web-1", "web-2", "web-3"])));
    assert_eq!(warning(&later, "mine\nalone"), (json!(1), json!(true), json!(["web-2"])));
    let said = evaluate(&[]).also_good().stderr;
    for once in [
        "evaluation warning of 3 hosts: web-1, web-2, web-3\n    the option in ./old.nix is old;\n    use the new one\n",
        "evaluation warning of web-2\n    mine\n    alone\n",
    ] {
        assert_eq!(said.matches(once).count(), 1, "{said}");
    }
    let full = evaluate(&["--json", "--full"]).json();
    assert_eq!(full["warnings"], later["warnings"]);
}

#[test]
fn a_warning_steers_no_terminal_and_speaks_for_nobody() {
    let world = warned();
    let ran = world.claveld(&["evaluate", &format!("path:{}", world.at("work"))]).also_good();
    assert_eq!(ran.stdout.lines().count(), 4, "every host has its answer: {}", ran.stdout);
    assert!(ran.stderr.contains("evaluation warning of at least 1 host: web-3\n    trace: "), "{}", ran.stderr);
    for line in ran.stderr.lines() {
        let is_own = line.is_empty() || line.starts_with("evaluation warning of ");
        assert!(is_own || line.starts_with("    "), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}

#[test]
fn a_push_shows_the_warnings_and_the_branch_does_not_have_them() {
    let world = warned();
    world.install_gate();
    let head = "evaluation warning of at least 1 host: web-1";
    let seen = world.push("Warn");
    assert_eq!(seen.matches(head).count(), 1, "{seen}");
    world.run("rm", &[&world.at("fleet.git/hooks/pre-receive")]).good();
    world.install_hook();
    let seen = world.push("Publish");
    assert_eq!(seen.matches("use the new one").count(), 1, "{seen}");
    let published = world.run("git", &["-C", &world.at("fleet.git"), "log", "-p", "deployments"]).good();
    assert!(published.contains("web-1") && !published.contains("use the new one"), "{published}");
    let round = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json();
    assert_eq!(round["warnings"][0]["source"], world.flake());
    let mut texts = round["warnings"][0]["warnings"].as_array().unwrap().iter().map(|warning| &warning["text"]);
    assert!(texts.any(|text| text == SHARED), "{round}");
}

#[test]
fn a_daemon_says_a_warning_when_it_begins_and_when_it_ends() {
    let world = warned();
    world.push("Warn");
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the warning is said", || claveld.said().contains("use the new one"));
    world.edit("flake.nix", "\"web-1\" shared", "\"web-1b\" shared");
    world.push("Still warn");
    until("the next one is published", || claveld.said().matches("published as index version").count() == 2);
    world.edit("flake.nix", "builtins.trace \"warning: the option in ${self}/old.nix is old;\\nuse the new one\"", "");
    world.push("Mend");
    let is_over = format!("no host of {} warns any more: the option in ./old.nix is old;", world.flake());
    until("it is over", || claveld.said().contains(&is_over));
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
    assert_eq!(claveld.said().matches("    use the new one").count(), 1, "{}", claveld.said());
    assert_eq!(claveld.said().matches(&is_over).count(), 1, "{}", claveld.said());
}
