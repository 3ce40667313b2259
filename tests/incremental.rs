//! Promise: claveld evaluates the hosts that a push changes and no others, and the result is that of a full evaluation.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::wait_until;
use crate::support::world::{LOCAL_INPUTS, World, names, until};

/// A flake with one host for each way in which a host can depend on its source.
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

/// The text of each host, which decides what the host depends on.
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

/// The hosts that depend on the source as a whole, because they use its revision or its path.
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

    /// The hosts that are evaluated now. Checks that an evaluation of everything gives the same result.
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

    /// The result without metadata, and the work that was done.
    #[track_caller]
    fn found(&self, more: &[&str]) -> (Value, Value) {
        let flake = self.0.flake();
        let mut found = self.0.claveld(&[&["evaluate", &flake, "--json"], &LOCAL_INPUTS[..], more].concat()).json();
        let work = found.as_object_mut().unwrap().remove("work").unwrap();
        for deployment in found["deployments"].as_array_mut().unwrap() {
            // The path and revision of the source change with it, and are no part of the deployment.
            deployment["metadata"] = Value::Null;
        }
        found.as_object_mut().unwrap().retain(|kind, _| kind == "deployments" || kind == "failures");
        (found, work)
    }

    /// The hosts that are evaluated after this push, besides those that depend on the source as a whole.
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
fn a_changed_input_evaluates_the_hosts_that_use_it() {
    let fleet = Fleet::new();
    fleet.0.write_file("dep/text", "second");
    fleet.lock();
    assert_eq!(fleet.after("one input"), ["input", "lock"]);
    fleet.0.write_file("plain/text", "second");
    fleet.lock();
    assert_eq!(fleet.after("an input that is no flake"), ["lock", "plain-input"]);
}

#[test]
fn the_reason_is_given_for_hosts_that_are_always_evaluated() {
    let fleet = Fleet::new();
    fleet.0.write("README.md", "read by nobody");
    fleet.0.push("A change");
    let said = fleet
        .0
        .claveld(&[&["evaluate", &fleet.0.flake(), "--records", &fleet.0.at("records")], &LOCAL_INPUTS[..]].concat())
        .also_good()
        .stderr;
    for expected in [
        "evaluated nixosConfigurations.revision: it uses self.rev",
        "evaluated nixosConfigurations.below-self, nixosConfigurations.whole: it uses self.outPath",
        "evaluated nixosConfigurations.cut-path, nixosConfigurations.hashed-path, nixosConfigurations.hidden-path and 1 more: \
         it depends on the store path of the source, which changes with the source",
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn a_new_host_and_a_removed_host_are_noticed() {
    let fleet = Fleet::new();
    fleet.0.write("hosts/fresh/default.nix", "_: \"fresh\"");
    // The flake reads the folder to list its hosts, so every host may depend on that list.
    assert_eq!(fleet.after("a host comes").len(), HOSTS.len() + 1 - ALWAYS.len());
    fleet.0.run("rm", &["-r", &fleet.0.at("work/hosts/plain")]).good();
    assert_eq!(fleet.after("a host goes").len(), HOSTS.len() - ALWAYS.len());
    fleet.0.write("hosts/fresh/default.nix", "_: throw \"broken\"");
    fleet.0.push("it breaks");
    let (found, work) = fleet.found(&["--records", &fleet.0.at("records")]);
    assert!(found["failures"].to_string().contains("broken"), "{found}");
    assert_eq!(work["evaluated"].as_array().unwrap().len(), 1 + ALWAYS.len());
    let (_, work) = fleet.found(&["--records", &fleet.0.at("records")]);
    assert_eq!(work["evaluated"][0]["reason"], "broken", "{work}");
    assert_eq!(work["evaluated"].as_array().unwrap().len(), 1, "nothing changed, and it is still broken");
    fleet.0.write("hosts/fresh/default.nix", "_: \"fresh\"");
    assert_eq!(fleet.after("it is repaired"), ["fresh"]);
}

#[test]
fn an_answer_of_which_it_was_not_learnt_what_it_depends_on_is_evaluated_anew_after_a_change() {
    let fleet = Fleet::new();
    let record = std::fs::read_dir(fleet.0.path("records")).unwrap().next().unwrap().unwrap().path();
    let interrupt = || {
        let mut record_of: Value = serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
        // An interruption leaves the record like this.
        let forget = |basis: &mut Value| assert_ne!(std::mem::replace(basis, "unlearnt".into()), "unlearnt");
        forget(&mut record_of["survey"]["basis"]);
        record_of["items"].as_array_mut().unwrap().iter_mut().for_each(|entry| forget(&mut entry[1]["basis"]));
        std::fs::write(&record, record_of.to_string()).unwrap();
    };
    interrupt();
    assert_eq!(fleet.evaluated(), BTreeSet::new(), "the source is the same");
    fleet.0.write("README.md", "read by nobody");
    assert_eq!(fleet.after("it changes after that was made up for"), [""; 0]);
    interrupt();
    fleet.0.write("README.md", "still read by nobody");
    assert_eq!(fleet.after("it changes before").len(), HOSTS.len() - ALWAYS.len());
    fleet.0.write("README.md", "read by nobody at all");
    assert_eq!(fleet.after("it changes again"), [""; 0]);
}

#[test]
fn a_lost_or_damaged_record_costs_only_time() {
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
fn a_wrong_record_is_found_by_an_evaluation_of_everything() {
    let fleet = Fleet::new();
    let record = std::fs::read_dir(fleet.0.path("records")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&record).unwrap();
    let mut lie: Value = serde_json::from_str(&text).unwrap();
    let entries = lie["items"].as_array_mut().unwrap();
    let place = |name: &str| {
        let key = serde_json::json!(["nixosConfigurations", name]);
        entries.iter().position(|entry| entry[0] == key).unwrap()
    };
    let (reads, plain) = (place("reads"), place("plain"));
    let other = entries[reads][1]["answer"].clone();
    entries[plain][1]["answer"] = other;
    std::fs::write(&record, lie.to_string()).unwrap();
    let records = fleet.0.at("records");
    let flake = fleet.0.flake();
    let full = [&["evaluate", &flake, "--records", &records, "--full"], &LOCAL_INPUTS[..]].concat();
    let ran = fleet.0.claveld(&full);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("nixosConfigurations.plain differs from its recorded value"), "{}", ran.stderr);
    // The new answers are recorded.
    fleet.0.claveld(&full).good();
}

#[test]
fn a_wrong_record_is_found_and_healed_by_claveld_itself_in_the_night() {
    let world = World::new();
    world.configure_claveld("");
    let config = world.at("claveld.toml");
    world.claveld(&["once", "--config", &config]).good();
    let published = || world.document("deployments/web-1.json")["specification"].clone();
    let right = published();
    let record = std::fs::read_dir(world.path("claveld/evaluations")).unwrap().next().unwrap().unwrap().path();
    let mut lie: Value = serde_json::from_str(&std::fs::read_to_string(&record).unwrap()).unwrap();
    let items = lie["items"].as_array_mut().unwrap();
    let place = |items: &[Value], name: &str| items.iter().position(|entry| entry[0][1] == name).unwrap();
    let (web_1, web_2) = (place(items, "web-1"), place(items, "web-2"));
    items[web_1][1]["answer"] = items[web_2][1]["answer"].clone();
    std::fs::write(&record, lie.to_string()).unwrap();
    world.claveld(&["once", "--config", &config]).good();
    assert_ne!(published(), right);

    let checked = world.path("claveld/self-check");
    let run = || world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &config]);
    let mut claveld = run();
    until("a new claveld counts from now on", || checked.exists());
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
    std::fs::write(&checked, "2026-01-01T00:00:00Z\n").unwrap();
    let mut claveld = run();
    until("the branch has the right answer", || published() == right);
    until("the check was noted", || !std::fs::read_to_string(&checked).unwrap().starts_with("2026-01-01"));
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
    let said = std::fs::read_to_string(world.path("running.log")).unwrap();
    assert!(said.contains("nixosConfigurations.web-1 differs from its recorded value"), "{said}");
}

/// Of how many answers it was learnt what they depend on, and of how many not.
fn learnt(world: &World) -> (usize, usize) {
    let records = std::fs::read_dir(world.path("claveld/evaluations")).into_iter().flatten();
    let texts = records.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
    let text = texts.collect::<String>();
    (text.matches(KNOWN).count(), text.matches(UNLEARNT).count())
}

/// What the record says of an answer of which it was learnt what it depends on, and of another.
const KNOWN: &str = r#""basis":{"known""#;
const UNLEARNT: &str = r#""basis":"unlearnt""#;

/// Whether a process learns for the claveld of this configuration.
fn is_learning(config: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut commands = processes.filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok());
    commands.any(|command| command.contains("\0learn\0") && command.contains(config))
}

#[test]
fn every_command_that_evaluates_learns_what_the_answers_depend_on() {
    let world = World::new();
    world.configure_claveld("");
    let all_learnt = || matches!(learnt(&world), (known, 0) if known > 0);
    let forget = || std::fs::remove_dir_all(world.path("claveld/evaluations")).unwrap();
    world.claveld(&["once", "--config", &world.at("claveld.toml")]).good();
    assert!(all_learnt(), "once: {:?}", learnt(&world));
    for hook in ["pre-receive", "post-receive"] {
        forget();
        if hook == "pre-receive" {
            world.install_gate();
        } else {
            world.install_hook();
        }
        world.write("README.md", hook);
        // The pusher waits for the answer alone: here somebody else keeps claveld from learning.
        let lock = std::fs::File::create(world.path("claveld/learning.lock")).unwrap();
        lock.lock().unwrap();
        world.push(hook);
        let (_, unlearnt) = learnt(&world);
        assert!(unlearnt > 0, "{hook}: {:?}", learnt(&world));
        drop(lock);
        let config = world.at("claveld.toml");
        // The process that the hook left behind may learn at the same time.
        wait_until("it is learnt afterwards", Duration::from_mins(10), || {
            world.claveld(&["learn", "--config", &config]).good();
            all_learnt()
        });
        forget();
        world.write("README.md", &format!("{hook} again"));
        world.push(hook);
        until("the hook leaves a process behind", || is_learning(&config) || all_learnt());
        std::fs::remove_file(world.path(&format!("fleet.git/hooks/{hook}"))).unwrap();
    }
    forget();
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("claveld learns while it waits for a push", all_learnt);
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}

#[test]
fn a_name_that_is_no_text_is_recorded_as_any_other() {
    use std::os::unix::ffi::OsStringExt as _;
    let fleet = Fleet::new();
    let name = std::ffi::OsString::from_vec(b"work/data/folder/\xff\xfe".to_vec());
    let odd = fleet.0.path("").join(name);
    let changed = |content: &str, hosts: &[&str]| {
        std::fs::write(&odd, content).unwrap();
        fleet.0.push("An odd name");
        let expected: BTreeSet<String> = ALWAYS.iter().chain(hosts).map(ToString::to_string).collect();
        assert_eq!(fleet.evaluated(), expected);
        assert_eq!(fleet.evaluated(), BTreeSet::new(), "nothing changed");
    };
    changed("new", &["copies", "filters", "lists"]);
    changed("changed", &["copies", "filters"]);
}

#[test]
fn an_inventory_costs_a_few_processes_and_a_change_of_one_entry_is_that_of_one() {
    let world = World::new();
    let entry = |number: usize| match number {
        // One throws, and one ends the process of Nix.
        7 => "host-7 = throw \"seven\";".to_owned(),
        11 => "host-11 = abort \"eleven\";".to_owned(),
        _ => format!("host-{number} = {{ version = \"1\"; }};"),
    };
    let inventory = (0..200).map(entry).collect::<Vec<_>>().join("\n");
    world.write("inventory.nix", &format!("{{ {inventory} }}"));
    world.write(
        "flake.nix",
        "{ outputs = { self }: { clavel.deployments = builtins.mapAttrs (name: host: {
            template.narId = \"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-${name}-${host.version}\";
        }) (import ./inventory.nix); clavel.units = builtins.mapAttrs (_: _: { arch = \"x86_64-linux\"; }) (import ./inventory.nix); }; }",
    );
    let (path, records) = (format!("path:{}", world.at("work")), world.at("records"));
    let evaluate = || {
        let ran = world.claveld(&["evaluate", &path, "--json", "-v", "--records", &records]);
        let processes = ran.stderr.lines().filter(|line| line.contains("--eval") && line.contains("bwrap")).count();
        (ran.json(), processes)
    };
    let (first, processes) = evaluate();
    assert_eq!(names(&first, "deployments").len(), 198, "{first:#}");
    let failures: Vec<String> = first["failures"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(failures.len(), 2, "{failures:#?}");
    assert!(
        failures.iter().any(|f| f.contains("seven")) && failures.iter().any(|f| f.contains("eleven")),
        "{failures:#?}"
    );
    // Nix reads the lock, surveys the flake up to the entry that ends it and behind it, and says twice what is wrong.
    assert!(processes <= 8, "{processes}");

    world.edit("inventory.nix", "host-3 = { version = \"1\"", "host-3 = { version = \"2\"");
    let (second, processes) = evaluate();
    assert!(processes <= 8, "{processes}");
    let evaluated: Vec<&str> =
        second["work"]["evaluated"].as_array().unwrap().iter().map(|e| e["attribute"].as_str().unwrap()).collect();
    assert_eq!(
        evaluated,
        ["clavel.deployments.host-11", "clavel.deployments.host-3", "clavel.deployments.host-7"],
        "{:#}",
        second["work"]
    );
    assert_eq!(second["work"]["evaluated"][1]["reason"]["changed"], "inventory.nix");
}

#[test]
fn each_error_is_that_of_its_own_deployment_also_where_several_are_told_at_once() {
    let world = World::new();
    let flake = |deployments: &str| {
        world.write(
            "flake.nix",
            &format!(
                "{{ outputs = {{ self }}: let
                    of = name: {{
                        template.narId = derivation {{ inherit name; system = \"x86_64-linux\"; builder = \"/bin/sh\"; }};
                    }};
                in {{
                    clavel.deployments = {{ {deployments} }};
                    clavel.units = builtins.mapAttrs (_: _: {{ type = \"command\"; arch = \"x86_64-linux\"; }}) self.clavel.deployments;
                }}; }}"
            ),
        );
    };
    let (path, records) = (format!("path:{}", world.at("work")), world.at("records"));
    let evaluate = || world.claveld(&["evaluate", &path, "--json", "--records", &records]).json();
    flake("a = of \"a\"; b = of \"b\"; c = of \"c\"; d = of \"d\";");
    assert_eq!(names(&evaluate(), "deployments"), ["a", "b", "c", "d"]);
    // By now it is known that these are no plain data, and all of them are told anew.
    // Each in a file of its own, because Nix quotes the lines around an error.
    for (file, broken) in [("1.nix", "abort \"bee\""), ("2.nix", "throw \"sea\""), ("3.nix", "throw \"dee\"")] {
        world.write(file, broken);
    }
    flake("a = of \"a\"; b = import ./1.nix; c = import ./2.nix; d = import ./3.nix; e = of \"e\";");
    let found = evaluate();
    assert_eq!(names(&found, "deployments"), ["a", "e"]);
    let errors: Vec<(&str, &str)> = found["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|failure| (failure["name"].as_str().unwrap(), failure["error"].as_str().unwrap()))
        .collect();
    assert_eq!(errors.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["b", "c", "d"], "{errors:#?}");
    for ((_, error), word) in errors.iter().zip(["bee", "sea", "dee"]) {
        assert!(error.contains(word), "{errors:#?}");
        assert!(["bee", "sea", "dee"].iter().filter(|other| error.contains(**other)).count() == 1, "{errors:#?}");
    }
}
