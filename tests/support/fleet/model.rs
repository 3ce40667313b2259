//! A fleet as data: its hosts, how often each file has changed, and what the derivation of a host depends on.

use std::collections::{BTreeMap, BTreeSet};

use super::host::{Fact, FleetHost, Form, HostKind, HostRole, Module, Presence};
use super::inventory::Inventory;
use super::tree::{FileContent, Templates, Tree};
use super::{Edit, Input, Mix, Options, Sharing, Weight};

/// A fleet as data.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(crate) hosts: BTreeMap<String, FleetHost>,
    pub(super) inputs: BTreeMap<Input, u32>,
    modules: BTreeMap<Module, u32>,
    roles: BTreeMap<HostRole, u32>,
    /// The users with a file in `shared/users`.
    pub(super) users: BTreeSet<u32>,
    pub(crate) inventory: Inventory,
    /// Counts the changes of the packages that hosts share.
    packages: u32,
    pub(super) notes: u32,
    unread: u32,
    /// Counts the edits.
    pub(super) step: u32,
    /// The number of the next host.
    pub(super) next: u32,
    weight: Weight,
    pub(super) sharing: Sharing,
}

impl Model {
    pub(super) fn new(options: &Options) -> Self {
        let names: Vec<String> = (1..=options.hosts).map(host_name).collect();
        let hosts = (1..).zip(&names).enumerate().map(|(at, (number, name))| {
            let (kind, stamp) = match options.mix {
                Mix::Plain => (HostKind::Plain, None),
                Mix::EveryKind => every_kind(at),
                Mix::EverySecondKind(from) => every_kind(2 * at + from),
            };
            let neighbour = names[(at + 1) % names.len()].clone();
            let role = HostRole::ALL[at % HostRole::ALL.len()];
            (name.clone(), FleetHost { stamp, ..FleetHost::new(number, kind, role, neighbour) })
        });
        Self {
            hosts: hosts.collect(),
            inputs: Input::ALL.map(|input| (input, 1)).into(),
            modules: Module::ALL.map(|module| (module, 1)).into(),
            roles: HostRole::ALL.map(|role| (role, 1)).into(),
            users: BTreeSet::new(),
            inventory: Inventory::new(options.devices),
            packages: 1,
            notes: 1,
            unread: 1,
            step: 0,
            next: options.hosts + 1,
            weight: options.weight,
            sharing: options.sharing,
        }
    }

    /// How often the content of an input was changed, counted from one.
    pub(super) fn edition_of(&self, input: Input) -> u32 {
        self.inputs[&input]
    }

    /// Everything that the derivation of a host depends on, and nothing else: equal essences give equal derivations. `None`
    /// where the host is broken.
    ///
    /// The essence of a host that uses the source as a whole contains the number of edits. Its derivation changes with each,
    /// but may be the same as before where an edit is taken back.
    pub(crate) fn essence(&self, name: &str) -> Option<String> {
        let host = &self.hosts[name];
        if host.broken.is_some() || self.has_broken_neighbour(host) {
            return None;
        }
        let modules: Vec<_> = host.role.modules().iter().map(|module| (module, self.modules[module])).collect();
        let stamp = host.stamp.map(|fact| (fact, self.step));
        let packages = (self.sharing == Sharing::Packages).then_some(self.packages);
        let shared =
            (self.edition_of(Input::Platform), packages, &self.users, host.role, self.roles[&host.role], modules);
        Some(format!("{name} {} {} {shared:?} {stamp:?} {}", host.number, host.edition, host.essence(self)))
    }

    fn has_broken_neighbour(&self, host: &FleetHost) -> bool {
        let neighbour = self.hosts.get(&host.neighbour).and_then(|neighbour| neighbour.broken);
        host.kind == HostKind::SeesNeighbour && neighbour.is_some_and(super::Break::is_of_the_whole)
    }

    /// Applies `edit`. Panics where it names what is not there.
    pub(super) fn apply(&mut self, edit: &Edit) {
        self.step += 1;
        match edit {
            Edit::ChangeHost(name) => self.host(name).edition += 1,
            Edit::ChangeModule(module) => *self.modules.get_mut(module).unwrap() += 1,
            Edit::ChangePackages => self.packages += 1,
            Edit::ChangeDevice(number, edit) => self.inventory.apply(*number, *edit),
            Edit::ChangeRole(role) => *self.roles.get_mut(role).unwrap() += 1,
            Edit::AssignRole(name, role) => self.host(name).role = *role,
            Edit::AddUser(user) => assert!(self.users.insert(*user), "{edit:?}: is there"),
            Edit::RemoveUser(user) => assert!(self.users.remove(user), "{edit:?}: is not there"),
            Edit::AddEntry(name, entry) => assert!(self.host(name).entries.insert(*entry), "{edit:?}: is there"),
            Edit::RemoveEntry(name, entry) => assert!(self.host(name).entries.remove(entry), "{edit:?}: is not there"),
            Edit::BumpInput(input) => *self.inputs.get_mut(input).unwrap() += 1,
            Edit::ChangeData(name) => self.host(name).data += 1,
            Edit::ChangeFilteredOut(name) => self.host(name).filtered_out += 1,
            Edit::CreateLookedFor(name) => self.host(name).looked_for = Presence::There,
            Edit::DeleteLookedFor(name) => self.host(name).looked_for = Presence::Gone,
            Edit::MakePlain(name) => self.host(name).form = Form::Plain,
            Edit::MakeExecutable(name) => self.host(name).form = Form::Executable,
            Edit::ReplaceByLink(name) => self.host(name).form = Form::Link,
            Edit::ChangeNotes => self.notes += 1,
            Edit::ChangeUnread => self.unread += 1,
            Edit::RenameHost { from, to } => {
                let host = self.hosts.remove(from).unwrap();
                assert!(self.hosts.insert(to.clone(), host).is_none(), "{edit:?}: is there");
            }
            Edit::AddHost { name, kind, role, neighbour } => {
                let host = FleetHost::new(self.next, *kind, *role, neighbour.clone());
                self.next += 1;
                assert!(self.hosts.insert(name.clone(), host).is_none(), "{edit:?}: is there");
            }
            Edit::RemoveHost(name) => drop(self.hosts.remove(name).unwrap()),
            Edit::Break(name, how) => self.host(name).broken = Some(*how),
            Edit::Repair(name) => self.host(name).broken = None,
            Edit::Stamp(name, fact) => self.host(name).stamp = Some(*fact),
            Edit::Unstamp(name) => self.host(name).stamp = None,
        }
    }

    fn host(&mut self, name: &str) -> &mut FleetHost {
        self.hosts.get_mut(name).unwrap_or_else(|| panic!("there is no host {name}"))
    }

    /// Every file of the flake, which is in the folder `flake`, and of its inputs, which have the URLs `inputs/…`.
    pub(super) fn tree(&self, templates: &Templates, flake: &str, inputs: &str) -> Tree {
        let mut tree = Tree::new();
        self.write_flake(templates, flake, inputs, &mut tree);
        for (name, host) in &self.hosts {
            host.write(name, templates, flake, &mut tree);
        }
        for (input, edition) in &self.inputs {
            let folder = input.name();
            let edition = edition.to_string();
            for file in templates.below(folder) {
                let text =
                    templates.rendered(&format!("{folder}/{file}"), &[("inputs", inputs), ("edition", &edition)]);
                tree.insert(format!("inputs/{folder}/{file}"), FileContent::File(text));
            }
        }
        for (file, scale) in [("scale", self.weight.scale()), ("shared", self.sharing.scale(self.weight))] {
            tree.insert(format!("inputs/platform/{file}.nix"), FileContent::File(format!("{scale}\n")));
        }
        tree
    }

    fn write_flake(&self, templates: &Templates, flake: &str, inputs: &str, tree: &mut Tree) {
        for file in templates.below("flake") {
            let edition = match file.rsplit_once('/') {
                Some(("modules", name)) => self.modules.iter().find(|(m, _)| is_file_of(name, m.name())).unwrap().1,
                Some(("roles", name)) => self.roles.iter().find(|(r, _)| is_file_of(name, r.name())).unwrap().1,
                Some(("shared", "notes.txt")) => &self.notes,
                Some(("shared", "packages.nix")) => &self.packages,
                _ => &self.unread,
            };
            let values = [("inputs", inputs), ("edition", &edition.to_string())];
            let text = templates.rendered(&format!("flake/{file}"), &values);
            tree.insert(format!("{flake}/{file}"), FileContent::File(text));
        }
        let system = format!("\"{}\"\n", clavel::model::System::this().unwrap());
        tree.insert(format!("{flake}/system.nix"), FileContent::File(system));
        self.inventory.write(flake, tree);
        for user in &self.users {
            let text = format!("{{ users.user-{user}.keys = [ \"ssh-ed25519 AAAA {user}\" ]; }}\n");
            tree.insert(format!("{flake}/shared/users/user-{user}.nix"), FileContent::File(text));
        }
    }
}

/// The first name of the host with that number.
pub(super) fn host_name(number: u32) -> String {
    format!("host-{number:04}")
}

/// Each kind in turn, then plain hosts that depend on a fact about their source, and so on.
fn every_kind(at: usize) -> (HostKind, Option<Fact>) {
    match at % (HostKind::ALL.len() + Fact::ALL.len()) {
        at if at < HostKind::ALL.len() => (HostKind::ALL[at], None),
        at => (HostKind::Plain, Some(Fact::ALL[at - HostKind::ALL.len()])),
    }
}

fn is_file_of(file: &str, name: &str) -> bool {
    file.strip_suffix(".nix") == Some(name)
}
