//! Promise: a push evaluates what it changed and nothing else, and the result is the one that a full evaluation gives.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::world::{World, until};

/// A flake with one host for each way in which a host may depend on its source.
const FLAKE: &str = r#"{
  inputs.dep.url = "path:WORLD/dep";
  inputs.plain = { url = "path:WORLD/plain"; flake = false; };
  outputs = { self, dep, plain }: let
    host = file: import ./host.nix (import file { inherit self dep plain; });
  in {
    nixosConfigurations = builtins.mapAttrs (name: _: host (./hosts + "/${name}")) (builtins.readDir ./hosts);
  };
}"#;

const HOST: &str = r#"text: { config.system.build.toplevel = derivation {
  name = "nixos-system-x"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ text ]; }; }"#;

/// What each host's text is, and so what it depends on.
const HOSTS: [(&str, &str); 18] = [
    ("plain", r#"_: "nothing""#),
    ("imports", "_: import ../../shared.nix"),
    ("reads", "_: builtins.readFile ../../data/text"),
    ("tests", r#"_: if builtins.pathExists ../../data/maybe then "there" else "not there""#),
    ("lists", "_: toString (builtins.attrNames (builtins.readDir ../../data/folder))"),
    ("copies", r#"_: "${../../data/folder}""#),
    (
        "filters",
        r#"_: "${builtins.path { path = ../../data/folder; name = "f"; filter = path: type: baseNameOf path != "b"; }}""#,
    ),
    ("hashes", r#"_: builtins.hashFile "sha256" ../../data/text"#),
    ("revision", r#"{ self, ... }: self.rev or "dirty""#),
    ("whole", r#"{ self, ... }: "${self}""#),
    ("below-self", r#"{ self, ... }: builtins.readFile (self + "/data/text")"#),
    ("own-path", "_: toString ../../data"),
    ("hidden-path", r#"_: builtins.toFile "t" (toString ../../data)"#),
    ("hashed-path", r#"_: builtins.hashString "sha256" (toString ../../data)"#),
    ("cut-path", "_: builtins.substring 20 1 (toString ../../data)"),
    ("input", "{ dep, ... }: dep.text"),
    ("plain-input", r#"{ plain, ... }: builtins.unsafeDiscardStringContext "${plain}""#),
    ("lock", "_: builtins.readFile ../../flake.lock"),
];

/// Those that depend on the source as a whole, since they use its revision or its path.
const ALWAYS: [&str; 7] = ["below-self", "cut-path", "hashed-path", "hidden-path", "own-path", "revision", "whole"];

struct Fleet(World);

impl Fleet {
    fn new() -> Self {
        let world = World::new();
        world.git(&["-C", &world.at("work"), "rm", "-rq", "."]);
        world.write_file("dep/flake.nix", "{ outputs = { self }: { text = builtins.readFile ./text; }; }");
        world.write_file("dep/text", "first");
        world.write_file("plain/text", "first");
        world.write("flake.nix", &FLAKE.replace("WORLD", world.path("dep").parent().unwrap().to_str().unwrap()));
        world.write("host.nix", HOST);
        for (name, text) in HOSTS {
            world.write(&format!("hosts/{name}/default.nix"), text);
        }
        world.write("shared.nix", "\"shared\"");
        world.write("data/text", "first");
        world.write("data/folder/a", "a");
        world.write("data/folder/b", "b");
        let fleet = Self(world);
        fleet.lock();
        fleet.0.push("The hosts");
        let all: BTreeSet<String> = HOSTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(fleet.evaluated(), all);
        assert_eq!(fleet.evaluated(), BTreeSet::new(), "nothing changed");
        fleet
    }

    fn lock(&self) {
        let work = self.0.at("work");
        self.0.git(&["-C", &work, "add", "-A"]);
        self.0.run("nix", &["flake", "lock", &work, "--update-input", "dep", "--update-input", "plain"]).good();
    }

    /// The hosts that are evaluated now. What comes of it is what an evaluation of everything gives.
    #[track_caller]
    fn evaluated(&self) -> BTreeSet<String> {
        let (partly, work) = self.found(&["--records", &self.0.at("records")]);
        let (all, _) = self.found(&[]);
        assert_eq!(partly, all, "an evaluation of everything gives something else");
        let evaluated = work["evaluated"].as_array().unwrap().iter();
        evaluated
            .map(|one| one["attribute"].as_str().unwrap().trim_start_matches("nixosConfigurations.").to_owned())
            .collect()
    }

    /// What is found, without the time of it, and what was done for it.
    #[track_caller]
    fn found(&self, more: &[&str]) -> (Value, Value) {
        let flake = self.0.flake();
        let mut found = self.0.claveld(&[&["evaluate", &flake, "--json"], more].concat()).json();
        let work = found.as_object_mut().unwrap().remove("work").unwrap();
        for deployment in found["deployments"].as_array_mut().unwrap() {
            // Where the source is moves with each change of it, and is no part of what is deployed.
            deployment["metadata"] = Value::Null;
        }
        found.as_object_mut().unwrap().retain(|kind, _| kind == "deployments" || kind == "failures");
        (found, work)
    }

    /// The hosts that have to be evaluated after this push, beside those that every change of the source concerns.
    #[track_caller]
    fn after(&self, message: &str) -> Vec<String> {
        self.0.push(message);
        let evaluated = self.evaluated();
        let always: BTreeSet<String> = ALWAYS.iter().map(|name| (*name).to_owned()).collect();
        assert!(evaluated.is_superset(&always), "{evaluated:?}");
        evaluated.difference(&always).cloned().collect()
    }
}

#[test]
fn only_the_hosts_that_depend_on_a_change_are_evaluated() {
    let fleet = Fleet::new();
    let write = |path: &str, text: &str| fleet.0.write(path, text);

    write("README.md", "read by nobody");
    assert_eq!(fleet.after("a file that nobody reads"), [""; 0]);
    write("hosts/plain/default.nix", "_: \"something\"");
    assert_eq!(fleet.after("one host's file"), ["plain"]);
    write("shared.nix", "\"more\"");
    assert_eq!(fleet.after("a file that is imported"), ["imports"]);
    write("data/text", "second");
    assert_eq!(fleet.after("a file that is read and hashed"), ["hashes", "reads"]);
    write("data/maybe", "");
    assert_eq!(fleet.after("a file that was not there"), ["tests"]);
    write("data/maybe", "now with text");
    assert_eq!(fleet.after("the text of a file that is only looked for"), [""; 0]);
    write("data/folder/c", "c");
    assert_eq!(fleet.after("a file in a folder"), ["copies", "filters", "lists"]);
    write("data/folder/b", "B");
    assert_eq!(fleet.after("the text of a file in a folder that is copied"), ["copies"]);
    fleet.0.run("chmod", &["+x", &fleet.0.at("work/data/folder/a")]).good();
    assert_eq!(fleet.after("a file may be run"), ["copies", "filters", "lists"]);
    fleet.0.run("rm", &[&fleet.0.at("work/data/folder/a")]).good();
    fleet.0.run("ln", &["-s", "b", &fleet.0.at("work/data/folder/a")]).good();
    assert_eq!(fleet.after("a file becomes a link"), ["copies", "filters", "lists"]);
}

#[test]
fn an_input_that_is_another_concerns_those_that_use_it() {
    let fleet = Fleet::new();
    fleet.0.write_file("dep/text", "second");
    fleet.lock();
    assert_eq!(fleet.after("one input"), ["input", "lock"]);
    fleet.0.write_file("plain/text", "second");
    fleet.lock();
    assert_eq!(fleet.after("an input that is no flake"), ["lock", "plain-input"]);
}

#[test]
fn what_is_always_evaluated_is_told_why() {
    let fleet = Fleet::new();
    fleet.0.write("README.md", "read by nobody");
    fleet.0.push("A change");
    let said = fleet.0.claveld(&["evaluate", &fleet.0.flake(), "--records", &fleet.0.at("records")]).also_good().stderr;
    for expected in [
        "evaluated nixosConfigurations.revision: it uses self.rev",
        "evaluated nixosConfigurations.below-self, nixosConfigurations.whole: it uses self.outPath",
        "evaluated nixosConfigurations.cut-path, nixosConfigurations.hashed-path, nixosConfigurations.hidden-path and 1 more: \
         it depends on where the source is in the store, and each change moves that",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn hosts_come_and_go() {
    let fleet = Fleet::new();
    fleet.0.write("hosts/fresh/default.nix", "_: \"fresh\"");
    // The flake lists the folder to know its hosts, so each of them may depend on who else is there.
    assert_eq!(fleet.after("a host comes").len(), HOSTS.len() + 1 - ALWAYS.len());
    fleet.0.run("rm", &["-r", &fleet.0.at("work/hosts/plain")]).good();
    assert_eq!(fleet.after("a host goes").len(), HOSTS.len() - ALWAYS.len());
    fleet.0.write("hosts/fresh/default.nix", "_: throw \"broken\"");
    fleet.0.push("it breaks");
    let (found, work) = fleet.found(&["--records", &fleet.0.at("records")]);
    assert!(found["failures"].to_string().contains("broken"), "{found}");
    assert_eq!(work["evaluated"].as_array().unwrap().len(), 1 + ALWAYS.len());
    let (_, work) = fleet.found(&["--records", &fleet.0.at("records")]);
    assert_eq!(work["evaluated"][0]["why"], "broken", "{work}");
    assert_eq!(work["evaluated"].as_array().unwrap().len(), 1, "nothing changed, and it is still broken");
    fleet.0.write("hosts/fresh/default.nix", "_: \"fresh\"");
    assert_eq!(fleet.after("it is mended"), ["fresh"]);
}

#[test]
fn what_was_seen_at_one_place_alone_holds_there_and_is_evaluated_anew_after_a_change() {
    let fleet = Fleet::new();
    let record = std::fs::read_dir(fleet.0.path("records")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&record).unwrap();
    // As whoever is interrupted leaves it.
    let interrupted = text.replace(r#""second_look":"same""#, r#""second_look":"pending""#);
    assert_ne!(text, interrupted);
    std::fs::write(&record, &interrupted).unwrap();
    assert_eq!(fleet.evaluated(), BTreeSet::new(), "the source is where it was");
    fleet.0.write("README.md", "read by nobody");
    assert_eq!(fleet.after("it moves, and what was left out was made up for"), [""; 0]);

    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace(r#""second_look":"same""#, r#""second_look":"pending""#)).unwrap();
    fleet.0.write("README.md", "still read by nobody");
    assert_eq!(fleet.after("it moves before that").len(), HOSTS.len() - ALWAYS.len());
    fleet.0.write("README.md", "read by nobody at all");
    assert_eq!(fleet.after("it moves again"), [""; 0]);
}

#[test]
fn a_record_that_is_lost_or_damaged_costs_time_alone() {
    let fleet = Fleet::new();
    let records = fleet.0.path("records");
    let record = std::fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    for damage in ["", "{}", "{\"environment\":7}"] {
        std::fs::write(&record, damage).unwrap();
        assert_eq!(fleet.evaluated().len(), HOSTS.len());
        assert_eq!(fleet.evaluated().len(), 0);
    }
    std::fs::remove_dir_all(&records).unwrap();
    assert_eq!(fleet.evaluated().len(), HOSTS.len());
}

#[test]
fn a_record_that_lies_is_found_out_by_an_evaluation_of_everything() {
    let fleet = Fleet::new();
    let record = std::fs::read_dir(fleet.0.path("records")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&record).unwrap();
    let mut lie: Value = serde_json::from_str(&text).unwrap();
    let other = lie["entries"]["nixosConfigurations.reads"]["answer"].clone();
    lie["entries"]["nixosConfigurations.plain"]["answer"] = other;
    std::fs::write(&record, lie.to_string()).unwrap();
    let records = fleet.0.at("records");
    let full = ["evaluate", &fleet.0.flake(), "--records", &records, "--full"];
    let ran = fleet.0.claveld(&full);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("nixosConfigurations.plain came out differently than was remembered"),
        "{}",
        ran.stderr
    );
    // What was evaluated counts from now on.
    fleet.0.claveld(&full).good();
}

/// How many answers were seen to be the same at two places, and how many were seen at one alone.
fn looks(world: &World) -> (usize, usize) {
    let records = std::fs::read_dir(world.path("claveld/evaluations")).into_iter().flatten();
    let texts = records.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
    let text = texts.collect::<String>();
    (text.matches(r#""second_look":"same""#).count(), text.matches(r#""second_look":"pending""#).count())
}

#[test]
fn whoever_evaluates_looks_twice() {
    let world = World::new();
    world.configure_claveld("");
    let all_twice = || matches!(looks(&world), (same, 0) if same > 0);
    let forget = || std::fs::remove_dir_all(world.path("claveld/evaluations")).unwrap();
    world.claveld(&["once", "--config", &world.at("claveld.toml")]).good();
    assert!(all_twice(), "once: {:?}", looks(&world));
    for hook in ["pre-receive", "post-receive"] {
        forget();
        if hook == "pre-receive" {
            world.install_gate();
        } else {
            world.install_hook();
        }
        world.write("README.md", hook);
        world.push(hook);
        assert!(all_twice(), "{hook}: {:?}", looks(&world));
        std::fs::remove_file(world.path(&format!("fleet.git/hooks/{hook}"))).unwrap();
    }
    forget();
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("claveld looks again while it waits for a push", all_twice);
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}
