//! Promise of the test support: after each edit, the hosts of a generated fleet change as `support::fleet` predicts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::support::command::NIX_CONFIG;
use crate::support::fleet::{
    Break, DeviceEdit, Edit, Fact, Fleet, HostKind, HostRole, Input, Mix, Module, Options, Seeded, Sharing, Weight,
};
use crate::support::{hermetic_git, program, run};

/// The number of hosts that gives one of each kind, and one for each fact about the source.
const ONE_OF_EACH: u32 = 22;

fn options(hosts: u32, below: &str) -> Options {
    let (weight, sharing, mix) = (Weight::Light, Sharing::Packages, Mix::EveryKind);
    Options { hosts, weight, sharing, mix, devices: 1, below: below.to_owned() }
}

/// The derivation of each of `hosts`, evaluated in one process. Fails where one of them fails.
fn evaluated(fleet: &Fleet, hosts: &[&String], home: &Path) -> Result<BTreeMap<String, String>, String> {
    let names = hosts.iter().fold(String::new(), |mut names, name| {
        write!(names, " \"{name}\"").unwrap();
        names
    });
    let ask = format!(
        "hosts: builtins.listToAttrs (map (name: {{ inherit name; \
         value = hosts.${{name}}.config.system.build.toplevel.drvPath; }}) [{names} ])"
    );
    let mut nix = program("nix");
    nix.args(["eval", "--json", "--option", "tarball-ttl", "0", "--option", "eval-cache", "false"]).args([
        &format!("{}#nixosConfigurations", fleet.reference()),
        "--apply",
        &ask,
    ]);
    let output = hermetic_git(&mut nix, home).env("NIX_CONFIG", NIX_CONFIG).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(serde_json::from_slice(&output.stdout).unwrap()) } else { Err(said) }
}

/// A fleet, and the derivations of its hosts when they were evaluated last.
struct Watched {
    fleet: Fleet,
    folder: tempfile::TempDir,
    derivations: BTreeMap<String, Option<String>>,
}

impl Watched {
    fn new(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::create(&folder.path().join("a"), options);
        let mut watched = Self { fleet, folder, derivations: BTreeMap::new() };
        watched.evaluate("at first");
        assert!(watched.derivations.values().all(Option::is_some));
        watched
    }

    /// Evaluates every host. Asserts that exactly the hosts that are predicted to be broken fail.
    fn evaluate(&mut self, when: &str) {
        let essences = self.fleet.essences();
        let (whole, broken): (Vec<_>, Vec<_>) = essences.keys().partition(|name| essences[*name].is_some());
        let found = evaluated(&self.fleet, &whole, self.folder.path()).unwrap_or_else(|said| panic!("{when}: {said}"));
        self.derivations = found.into_iter().map(|(name, derivation)| (name, Some(derivation))).collect();
        for name in broken {
            let answer = evaluated(&self.fleet, &[name], self.folder.path());
            assert!(answer.is_err(), "{when}: {name} is broken, and evaluates to {answer:?}");
            self.derivations.insert(name.clone(), None);
        }
    }

    /// Applies `edit` and asserts that exactly the predicted hosts have another derivation. Returns how many.
    fn edit(&mut self, edit: &Edit, when: &str) -> usize {
        let (essences, derivations) = (self.fleet.essences(), self.derivations.clone());
        self.fleet.edit(edit);
        self.evaluate(&format!("{when}, {edit:?}"));
        let mut reached = 0;
        for (name, essence) in self.fleet.essences() {
            let (is, was) = (&self.derivations[&name], derivations.get(&name));
            let differs = essences.get(&name) != Some(&essence);
            reached += usize::from(differs);
            assert_eq!(was != Some(is), differs, "{when}, {edit:?}: {name} was {was:?} and is {is:?}: {essence:?}");
        }
        reached
    }

    /// The first host of that kind without a fact about its source.
    fn host(&self, kind: HostKind) -> String {
        let mut hosts = self.fleet.model().hosts.iter();
        let found = hosts.find(|(_, host)| host.kind == kind && host.stamp.is_none());
        found.unwrap().0.clone()
    }
}

/// The number of hosts that every edit changes, because they use the source as a whole: the path of the folder as text, its
/// digest, and the facts.
const ALWAYS: usize = 2 + Fact::ALL.len();

#[test]
fn an_edit_changes_exactly_the_predicted_hosts() {
    let mut watched = Watched::new(options(ONE_OF_EACH, ""));
    let everybody = usize::try_from(ONE_OF_EACH).unwrap();
    let roles = |watched: &Watched, of: fn(HostRole) -> bool| {
        let mut hosts: Vec<_> = watched.fleet.model().hosts.values().collect();
        hosts.retain(|host| {
            host.stamp.is_some() || matches!(host.kind, HostKind::FolderAsText | HostKind::HashesPath) || of(host.role)
        });
        hosts.len()
    };
    let backup = roles(&watched, |role| role.modules().contains(&Module::Backup));
    let web = roles(&watched, |role| role == HostRole::Web);
    let own = |kind: HostKind, edit: fn(String) -> Edit| (kind, edit);
    for (edit, reached) in [
        (Edit::ChangeModule(Module::Base), everybody),
        (Edit::ChangeModule(Module::Backup), backup),
        (Edit::ChangePackages, everybody),
        (Edit::ChangeRole(HostRole::Web), web),
        (Edit::AddUser(1), everybody),
        (Edit::RemoveUser(1), everybody),
        (Edit::BumpInput(Input::Platform), everybody),
        // The hosts that use a file of it, its revision, and the lock.
        (Edit::BumpInput(Input::Site), ALWAYS + 3),
        (Edit::BumpInput(Input::Tables), ALWAYS + 2),
        (Edit::BumpInput(Input::Shelf), ALWAYS + 2),
        (Edit::ChangeNotes, ALWAYS + 1),
        (Edit::ChangeUnread, ALWAYS),
        (Edit::ChangeDevice(1, DeviceEdit::Change), ALWAYS),
    ] {
        assert_eq!(watched.edit(&edit, "of the fleet"), reached, "{edit:?}");
    }
    for ((kind, edit), reached) in [
        (own(HostKind::Plain, Edit::ChangeHost), 1),
        (own(HostKind::Plain, |name| Edit::AssignRole(name, HostRole::Builder)), 1),
        (own(HostKind::ReadsFolder, |name| Edit::AddEntry(name, 9)), 1),
        (own(HostKind::ReadsFolder, |name| Edit::RemoveEntry(name, 1)), 1),
        (own(HostKind::ReadsFolder, Edit::ReplaceByLink), 0),
        (own(HostKind::ListsFolder, |name| Edit::AddEntry(name, 9)), 1),
        (own(HostKind::ListsFolder, Edit::MakeExecutable), 0),
        (own(HostKind::ListsFolder, Edit::ReplaceByLink), 1),
        (own(HostKind::ReadsFile, Edit::ChangeData), 1),
        (own(HostKind::ReadsFile, Edit::MakeExecutable), 0),
        (own(HostKind::ReadsFile, Edit::ReplaceByLink), 0),
        (own(HostKind::ReadsFile, Edit::ChangeData), 1),
        (own(HostKind::HashesFile, Edit::ChangeData), 1),
        (own(HostKind::HashesFile, Edit::ReplaceByLink), 0),
        (own(HostKind::CopiesFolder, Edit::ChangeData), 1),
        (own(HostKind::CopiesFolder, Edit::MakeExecutable), 1),
        (own(HostKind::CopiesFolder, Edit::ReplaceByLink), 1),
        (own(HostKind::CopiesFolder, Edit::ChangeData), 0),
        (own(HostKind::CopiesFolder, Edit::MakePlain), 1),
        (own(HostKind::FiltersFolder, Edit::ChangeData), 1),
        (own(HostKind::FiltersFolder, Edit::ChangeFilteredOut), 0),
        (own(HostKind::AsksPath, Edit::CreateLookedFor), 1),
        (own(HostKind::AsksPath, Edit::ChangeData), 0),
        (own(HostKind::AsksPath, Edit::DeleteLookedFor), 1),
    ] {
        let edit = edit(watched.host(kind));
        assert_eq!(watched.edit(&edit, "of a host"), ALWAYS + reached, "{edit:?}");
    }
}

#[test]
fn hosts_are_added_renamed_removed_broken_and_repaired() {
    let mut watched = Watched::new(options(ONE_OF_EACH, "infrastructure/nix"));
    let plain = watched.host(HostKind::Plain);
    let new = || Edit::AddHost {
        name: "host-0100".into(),
        kind: HostKind::AsksPath,
        role: HostRole::Web,
        neighbour: "host-0001".into(),
    };
    // The new host, and the host that lists all names.
    assert_eq!(watched.edit(&new(), "adding"), ALWAYS + 2);
    let neighbour = watched.fleet.model().hosts[&watched.host(HostKind::SeesNeighbour)].neighbour.clone();
    let rename = |from: &str, to: &str| Edit::RenameHost { from: from.into(), to: to.into() };
    // The host that lists all names is the neighbour of the host before it.
    assert_eq!(watched.edit(&rename(&neighbour, "other"), "renaming"), ALWAYS + 2);
    assert_eq!(watched.edit(&rename("other", &neighbour), "renaming it back"), ALWAYS + 2);
    assert_eq!(watched.edit(&Edit::RemoveHost("host-0100".into()), "removing"), ALWAYS + 1);
    let whole = watched.derivations[&plain].clone();
    for how in Break::ALL {
        watched.edit(&Edit::Break(plain.clone(), how), "breaking");
        assert_eq!(watched.derivations[&plain], None);
    }
    watched.edit(&Edit::Repair(plain.clone()), "repairing");
    assert_eq!(watched.derivations[&plain], whole);
    // A host that is broken as a whole breaks the host that reads its address too.
    assert_eq!(watched.edit(&Edit::Break(neighbour.clone(), Break::Throw), "breaking"), ALWAYS + 1);
    assert_eq!(watched.edit(&Edit::Break(neighbour, Break::Syntax), "breaking"), ALWAYS + 1);
    watched.edit(&Edit::Stamp(plain.clone(), Fact::Revision), "stamping");
    assert_ne!(watched.derivations[&plain], whole);
    watched.edit(&Edit::Unstamp(plain.clone()), "taking the stamp off");
    assert_eq!(watched.derivations[&plain], whole);
}

#[test]
fn random_edits_change_the_predicted_hosts_and_can_be_repeated() {
    const SEED: u64 = 2026;
    let mut watched = Watched::new(options(8, ""));
    let mut chance = Seeded::new(SEED);
    let mut edits = Vec::new();
    for step in 0..20 {
        let edit = watched.fleet.choose(&mut chance);
        watched.edit(&edit, &format!("seed {SEED}, step {step}"));
        edits.push(edit);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut again = Fleet::create(&folder.path().join("a"), options(8, ""));
    let mut chance = Seeded::new(SEED);
    for edit in edits {
        assert_eq!(again.choose(&mut chance), edit);
        again.edit(&edit);
    }
    assert_eq!(again.essences(), watched.fleet.essences());
}

#[test]
fn a_heavier_host_has_more_to_evaluate() {
    let services = |weight: Weight| {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::create(&folder.path().join("a"), Options { weight, mix: Mix::Plain, ..options(1, "") });
        let mut nix = program("nix");
        let asked = format!("{}#nixosConfigurations.host-0001.config.services", fleet.reference());
        nix.args(["eval", &asked, "--apply", "services: builtins.length (builtins.attrNames services)"]);
        let count = run(hermetic_git(&mut nix, folder.path()).env("NIX_CONFIG", NIX_CONFIG));
        count.trim().parse::<u32>().unwrap()
    };
    let counts = [Weight::Light, Weight::Normal, Weight::Heavy].map(services);
    assert_eq!(counts, [30, 480, 1440]);
}

#[test]
fn a_host_of_a_generated_fleet_can_be_built() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::create(&folder.path().join("a"), options(1, ""));
    let mut nix = program("nix");
    let host = format!("{}#nixosConfigurations.host-0001.config.system.build.toplevel", fleet.reference());
    nix.args(["build", "--json", "--no-link", &host]);
    let built = run(hermetic_git(&mut nix, folder.path()).env("NIX_CONFIG", NIX_CONFIG));
    let built: serde_json::Value = serde_json::from_str(&built).unwrap();
    let out = Path::new(built[0]["outputs"]["out"].as_str().unwrap()).to_owned();
    assert!(out.join("bin/switch-to-configuration").is_file());
    assert_eq!(std::fs::read_to_string(out.join("etc/role")).unwrap(), "0444\nweb, edition 1\n");
    assert!(std::fs::read_to_string(out.join("units/service-004")).unwrap().contains("ExecStart=/nix/store/"));
}

#[test]
fn a_fleet_may_have_a_thousand_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let fleet = Fleet::create(&folder.path().join("a"), options(1000, ""));
    let names: Vec<&String> = fleet.model().hosts.keys().collect();
    assert_eq!(names.len(), 1000);
    let some: Vec<&String> = names.iter().step_by(250).copied().collect();
    assert_eq!(evaluated(&fleet, &some, folder.path()).unwrap().len(), some.len());
}
