//! Promise: after any change of a fleet, evaluating what changed gives the same result as evaluating everything.
//!
//! Two fleets that together have a host of each kind go through random edits, and both results are compared after each
//! edit. Each fleet has an inventory too, and the hosts of the second share most of their evaluation. A failure prints
//! its seed and step, so that it can be repeated. `.ci/run` runs this on the oldest Nix and on the newest.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::command::{NIX_CONFIG, hermetic_git, program};
use crate::support::fleet::{Fleet, Mix, Options, Seeded, Sharing, Weight};
use crate::support::world::LOCAL_INPUTS;

/// The hosts of one fleet. Two fleets have one host of each kind, and one for each fact about the source.
const HOSTS: u32 = 11;
/// The devices in the inventory of each, which come from a JSON and a TOML file.
const DEVICES: u32 = 5;
/// The edits of each of the two histories. `CLAVEL_HISTORY_STEPS` overrides the number: `.ci/run` sets it to 75.
const STEPS: u32 = 40;
/// After how many edits the result is compared with Nix itself.
const ASK_NIX: u32 = 10;

/// The kinds of hosts that a fleet begins with.
#[derive(Clone, Copy)]
enum Half {
    Even,
    Odd,
}

/// A fleet with a history.
struct RandomHistory {
    fleet: Fleet,
    folder: tempfile::TempDir,
}

impl RandomHistory {
    fn begin(half: Half) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mix = Mix::EverySecondKind(half as usize);
        let sharing = match half {
            Half::Even => Sharing::Nothing,
            Half::Odd => Sharing::Packages,
        };
        let options =
            Options { hosts: HOSTS, weight: Weight::Light, sharing, mix, devices: DEVICES, below: String::new() };
        let fleet = Fleet::create(&folder.path().join("a"), options);
        Self { fleet, folder }
    }

    /// Runs a program and returns its standard output.
    fn run(&self, name: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
        let mut command = program(name);
        hermetic_git(&mut command, self.folder.path()).env("NIX_CONFIG", NIX_CONFIG).args(arguments);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    fn found(&self, more: &[&str]) -> Value {
        let flake = self.fleet.reference();
        let arguments = [&["evaluate", &flake, "--json"], &LOCAL_INPUTS[..], more].concat();
        serde_json::from_str(&self.run(env!("CARGO_BIN_EXE_claveld"), &arguments)).unwrap()
    }

    /// Compares an evaluation of what changed with one of everything. Returns how many of how many items were evaluated.
    fn compare(&self, when: &str) -> (usize, usize) {
        let mut partly = self.found(&["--records", self.folder.path().join("records").to_str().unwrap()]);
        let mut all = self.found(&[]);
        let work = partly["work"].take();
        for found in [&mut partly, &mut all] {
            only_what_matters(found);
        }
        assert_eq!(partly, all, "{when}: an evaluation of everything gives something else; {work:#}");
        self.compare_devices(&partly, when);
        let evaluated = work["evaluated"].as_array().unwrap().len();
        (evaluated, evaluated + usize::try_from(work["unchanged"].as_u64().unwrap()).unwrap())
    }

    /// Compares what is found about the inventory with what its files say.
    fn compare_devices(&self, found: &Value, when: &str) {
        for (name, essence) in self.fleet.model().inventory.essences() {
            let of = |kind: &str| found[kind].as_array().unwrap().iter().find(|document| document["name"] == name);
            let ours = of("deployments").zip(of("units")).map(|(deployment, unit)| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let path = text(&deployment["specification"]["template"]["narId"]);
                (path, text(&unit["specification"]["arch"]))
            });
            let expected = essence.map(|(path, architecture)| (path, architecture.to_owned()));
            assert_eq!(ours, expected, "{when}: {name}");
            assert_eq!(of("failures").is_some(), expected.is_none(), "{when}: {name}");
        }
    }

    /// Compares the derivation of each healthy host with the one that Nix gives.
    fn compare_with_nix(&self, when: &str) {
        let found = self.found(&["--records", self.folder.path().join("records").to_str().unwrap()]);
        let documents = found["deployments"].as_array().unwrap();
        // A device has no derivation.
        let hosts =
            || documents.iter().filter_map(|found| Some((&found["name"], found["metadata"]["drvPath"].as_str()?)));
        let ours: BTreeSet<String> = hosts().map(|(_, derivation)| derivation.to_owned()).collect();
        let healthy: Vec<String> = hosts().map(|(name, _)| name.to_string()).collect();
        let ask = format!(
            "hosts: map (name: hosts.${{name}}.config.system.build.toplevel.drvPath) [ {} ]",
            healthy.join(" ")
        );
        let flake = format!("{}#nixosConfigurations", self.fleet.reference());
        let said = self.run("nix", &["eval", "--json", "--option", "tarball-ttl", "0", &flake, "--apply", &ask]);
        let by_nix: BTreeSet<String> = serde_json::from_str(&said).unwrap();
        assert_eq!(ours, by_nix, "{when}: nix gives something else");
    }
}

/// Removes the work and the messages of failures, which contain the path of the source.
fn only_what_matters(found: &mut Value) {
    found.as_object_mut().unwrap().remove("work");
    for kind in ["deployments", "units", "agents"] {
        for document in found[kind].as_array_mut().unwrap() {
            document["metadata"] = document["metadata"]["drvPath"].take();
        }
    }
    for failure in found["failures"].as_array_mut().unwrap() {
        failure["error"] = Value::Null;
    }
}

fn steps() -> u32 {
    let steps = std::env::var("CLAVEL_HISTORY_STEPS").ok();
    steps.map_or(STEPS, |steps| steps.parse().expect("CLAVEL_HISTORY_STEPS is a number"))
}

/// Runs a history of random edits.
fn live(half: Half, seed: u64) {
    let mut history = RandomHistory::begin(half);
    let mut chance = Seeded::new(seed);
    let first = history.compare("at first");
    assert_eq!(first.0, first.1);
    let (mut evaluated, mut all) = (0, 0);
    for step in 1..=steps() {
        let edit = history.fleet.choose(&mut chance);
        history.fleet.edit(&edit);
        let when = format!("seed {seed}, step {step}, {edit:?}");
        let (some, of) = history.compare(&when);
        evaluated += some;
        all += of;
        if step % ASK_NIX == 0 {
            history.compare_with_nix(&when);
        }
    }
    // Many random edits concern every host, such as a change of a shared module. Others do not.
    assert!(10 * evaluated < 9 * all, "{evaluated} of {all} were evaluated");
}

#[test]
fn evaluating_changes_gives_the_result_of_evaluating_everything() {
    std::thread::scope(|both| {
        both.spawn(|| live(Half::Even, 1));
        both.spawn(|| live(Half::Odd, 2));
    });
}
