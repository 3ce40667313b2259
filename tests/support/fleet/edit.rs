//! The edits of a fleet between two evaluations, and the random choice among them.

use super::Sharing;
use super::host::{Break, Fact, FleetHost, Form, HostKind, HostRole, Module, Presence};
use super::inventory::DeviceEdit;
use super::model::{Model, host_name};
use super::seeded::Seeded;

/// An input of the fleet's flake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Input {
    /// The module system and the packages that every host uses.
    Platform,
    /// A flake that follows the fleet's platform.
    Site,
    /// An input that is no flake.
    Tables,
    /// A flake in a folder that is in no repository.
    Shelf,
}

impl Input {
    pub(crate) const ALL: [Self; 4] = [Self::Platform, Self::Site, Self::Tables, Self::Shelf];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Platform => "platform",
            Self::Site => "site",
            Self::Tables => "tables",
            Self::Shelf => "shelf",
        }
    }
}

/// One change of a fleet. Hosts are given by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Changes the host's own file.
    ChangeHost(String),
    /// Changes a module that hosts share.
    ChangeModule(Module),
    /// Changes the packages that all hosts share.
    ChangePackages,
    /// Changes the device with this number.
    ChangeDevice(u32, DeviceEdit),
    /// Changes the file of a role.
    ChangeRole(HostRole),
    /// Gives a host another role.
    AssignRole(String, HostRole),
    /// Adds a file to a folder that a shared module reads.
    AddUser(u32),
    /// Removes a file from that folder.
    RemoveUser(u32),
    /// Adds a file to a folder that the host reads.
    AddEntry(String, u32),
    /// Removes a file from that folder.
    RemoveEntry(String, u32),
    /// Changes the content of an input, and locks it.
    BumpInput(Input),
    /// Changes the file that the host reads or copies.
    ChangeData(String),
    /// Changes the file that the host's filter leaves out.
    ChangeFilteredOut(String),
    /// Creates the file whose `pathExists` the host evaluates.
    CreateLookedFor(String),
    /// Deletes that file.
    DeleteLookedFor(String),
    /// Makes the host's data, or the first of its entries, executable.
    MakeExecutable(String),
    /// Replaces it by a link to a file with the same content.
    ReplaceByLink(String),
    /// Makes it a plain file again.
    MakePlain(String),
    /// Changes the file that hosts read through a link.
    ChangeNotes,
    /// Changes a file that no host reads.
    ChangeUnread,
    /// Renames a host, with all its files.
    RenameHost { from: String, to: String },
    /// Adds a host.
    AddHost { name: String, kind: HostKind, role: HostRole, neighbour: String },
    /// Removes a host.
    RemoveHost(String),
    /// Breaks a host, or breaks a broken host in another way.
    Break(String, Break),
    /// Repairs a broken host.
    Repair(String),
    /// Makes a host depend on a fact about its source.
    Stamp(String, Fact),
    /// Removes that dependency.
    Unstamp(String),
}

/// Chooses a random edit that can be applied to `model`.
pub(super) fn choose(model: &Model, chance: &mut Seeded) -> Edit {
    loop {
        // The choice may be impossible for the chosen host. Another attempt finds another.
        if let Some(edit) = try_choose(model, chance) {
            return edit;
        }
    }
}

fn try_choose(model: &Model, chance: &mut Seeded) -> Option<Edit> {
    if model.inventory.is_used() && chance.below(4) == 0 {
        let (number, edit) = model.inventory.choose(chance);
        return Some(Edit::ChangeDevice(number, edit));
    }
    let hosts: Vec<_> = model.hosts.iter().collect();
    let of_fleet = hosts.is_empty() || chance.below(3) == 0;
    if of_fleet {
        return of_the_fleet(model, &hosts, chance);
    }
    let (name, host) = *chance.pick(&hosts);
    of_a_host(name.clone(), host, chance)
}

fn of_the_fleet(model: &Model, hosts: &[(&String, &FleetHost)], chance: &mut Seeded) -> Option<Edit> {
    let new = host_name(model.next);
    let any = |chance: &mut Seeded| (!hosts.is_empty()).then(|| chance.pick(hosts).0.clone());
    let users: Vec<u32> = model.users.iter().copied().collect();
    let edit = match chance.below(if model.sharing == Sharing::Packages { 11 } else { 10 }) {
        0 => Edit::ChangeModule(*chance.pick(&Module::ALL)),
        1 => Edit::ChangeRole(*chance.pick(&HostRole::ALL)),
        3 if !users.is_empty() => Edit::RemoveUser(*chance.pick(&users)),
        2 | 3 => Edit::AddUser(users.last().map_or(1, |last| last + 1)),
        4 => Edit::BumpInput(*chance.pick(&Input::ALL)),
        5 => Edit::ChangeNotes,
        6 => Edit::ChangeUnread,
        7 => {
            let (kind, role) = (*chance.pick(&HostKind::ALL), *chance.pick(&HostRole::ALL));
            Edit::AddHost { name: new.clone(), kind, role, neighbour: any(chance).unwrap_or(new) }
        }
        8 => Edit::RenameHost { from: any(chance)?, to: format!("renamed-{:04}", model.step) },
        9 => Edit::RemoveHost(any(chance)?),
        _ => Edit::ChangePackages,
    };
    Some(edit)
}

fn of_a_host(name: String, host: &FleetHost, chance: &mut Seeded) -> Option<Edit> {
    let has_form = host.kind.data().is_some() || host.kind.has_entries();
    let edit = match chance.below(10) {
        0 => Edit::ChangeHost(name),
        1 => Edit::AssignRole(name, *chance.pick_other(&HostRole::ALL, &host.role)),
        2 | 3 if host.broken.is_some() => Edit::Repair(name),
        2 => Edit::Break(name, *chance.pick(&Break::ALL)),
        3 if host.stamp.is_some() => Edit::Unstamp(name),
        3 => Edit::Stamp(name, *chance.pick(&Fact::ALL)),
        4 if host.kind.has_entries() => Edit::AddEntry(name, host.entries.last().map_or(1, |last| last + 1)),
        5 if host.kind.has_entries() => Edit::RemoveEntry(name, *host.entries.first()?),
        6 if host.kind.data().is_some() => Edit::ChangeData(name),
        7 if host.kind == HostKind::AsksPath && host.looked_for == Presence::There => Edit::DeleteLookedFor(name),
        7 if host.kind == HostKind::AsksPath => Edit::CreateLookedFor(name),
        8 if host.kind == HostKind::FiltersFolder => Edit::ChangeFilteredOut(name),
        9 if has_form => match chance.pick_other(&[Form::Plain, Form::Executable, Form::Link], &host.form) {
            Form::Plain => Edit::MakePlain(name),
            Form::Executable => Edit::MakeExecutable(name),
            Form::Link => Edit::ReplaceByLink(name),
        },
        _ => return None,
    };
    Some(edit)
}
