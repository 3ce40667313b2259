//! The inventory of a fleet: devices that Nix does not configure, declared below `clavel` from a JSON and a TOML file.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::seeded::Seeded;
use super::tree::{FileContent, Tree};

/// How a device is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum DeviceBreak {
    Throw,
    Abort,
    TypeError,
    /// The path that it runs is a number.
    WrongType,
    /// Its unit has a type that Clavel does not know.
    WrongUnit,
}

impl DeviceBreak {
    pub(crate) const ALL: [Self; 5] = [Self::Throw, Self::Abort, Self::TypeError, Self::WrongType, Self::WrongUnit];

    /// Its name in `fixtures/fleets/flake/inventory`, where the flake breaks the device.
    fn key(self) -> Option<&'static str> {
        match self {
            Self::Throw => Some("throw"),
            Self::Abort => Some("abort"),
            Self::TypeError => Some("type-error"),
            Self::WrongType | Self::WrongUnit => None,
        }
    }
}

/// A device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Counts the changes of what it runs.
    pub(crate) edition: u32,
    /// Counts the changes of its unit.
    pub(crate) unit: u32,
    pub(crate) broken: Option<DeviceBreak>,
}

/// A change of the inventory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceEdit {
    /// Adds a device.
    Add,
    /// Removes a device.
    Remove,
    /// Changes what a device runs.
    Change,
    /// Changes its unit.
    ChangeUnit,
    /// Breaks a device, or breaks a broken device in another way.
    Break(DeviceBreak),
    /// Repairs a broken device.
    Repair,
}

/// The devices of a fleet, by their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Inventory {
    pub(crate) devices: BTreeMap<u32, Device>,
    /// The number of the next device.
    next: u32,
}

impl Inventory {
    pub(super) fn new(devices: u32) -> Self {
        let new = Device { edition: 1, unit: 1, broken: None };
        Self { devices: (1..=devices).map(|number| (number, new.clone())).collect(), next: devices + 1 }
    }

    /// Whether it had a device at any time.
    pub(super) fn is_used(&self) -> bool {
        self.next > 1
    }

    /// Chooses a random edit of an inventory that is used.
    pub(super) fn choose(&self, chance: &mut Seeded) -> (u32, DeviceEdit) {
        let numbers: Vec<u32> = self.devices.keys().copied().collect();
        if numbers.is_empty() || chance.below(5) == 0 {
            return (self.next, DeviceEdit::Add);
        }
        let number = *chance.pick(&numbers);
        let edit = match chance.below(5) {
            0 => DeviceEdit::Remove,
            1 => DeviceEdit::ChangeUnit,
            2 if self.devices[&number].broken.is_some() => DeviceEdit::Repair,
            2 | 3 => DeviceEdit::Break(*chance.pick(&DeviceBreak::ALL)),
            _ => DeviceEdit::Change,
        };
        (number, edit)
    }

    /// Applies an edit to the device `number`. Panics where it is impossible.
    pub(super) fn apply(&mut self, number: u32, edit: DeviceEdit) {
        let new = Device { edition: 1, unit: 1, broken: None };
        match edit {
            DeviceEdit::Add => {
                assert!(self.devices.insert(number, new).is_none(), "the device {number} is there");
                self.next = self.next.max(number + 1);
            }
            DeviceEdit::Remove => drop(self.devices.remove(&number).unwrap()),
            DeviceEdit::Change => self.device(number).edition += 1,
            DeviceEdit::ChangeUnit => self.device(number).unit += 1,
            DeviceEdit::Break(how) => self.device(number).broken = Some(how),
            DeviceEdit::Repair => self.device(number).broken = None,
        }
    }

    fn device(&mut self, number: u32) -> &mut Device {
        self.devices.get_mut(&number).unwrap_or_else(|| panic!("there is no device {number}"))
    }

    /// The path that each device runs and the architecture of its unit, by its name; none where it is broken.
    pub(crate) fn essences(&self) -> BTreeMap<String, Option<(String, &'static str)>> {
        let of = |(number, device): (&u32, &Device)| {
            let essence = device.broken.is_none().then(|| (path(*number, device.edition), architecture(device.unit)));
            (device_name(*number), essence)
        };
        self.devices.iter().map(of).collect()
    }

    /// Its two files, in the folder `flake/inventory`.
    pub(super) fn write(&self, flake: &str, tree: &mut Tree) {
        let (mut deployments, mut units) = (serde_json::Map::new(), String::new());
        for (number, device) in &self.devices {
            let name = device_name(*number);
            let mut entry = serde_json::json!({ "path": path(*number, device.edition) });
            if let Some(key) = device.broken.and_then(DeviceBreak::key) {
                entry["broken"] = key.into();
            }
            if device.broken == Some(DeviceBreak::WrongType) {
                entry["path"] = device.edition.into();
            }
            let kind = if device.broken == Some(DeviceBreak::WrongUnit) { "toaster" } else { "command" };
            deployments.insert(name.clone(), entry);
            writeln!(units, "[{name}]\ntype = \"{kind}\"\narch = \"{}\"\n", architecture(device.unit)).unwrap();
        }
        let deployments = format!("{:#}\n", serde_json::Value::Object(deployments));
        tree.insert(format!("{flake}/inventory/deployments.json"), FileContent::File(deployments));
        tree.insert(format!("{flake}/inventory/units.toml"), FileContent::File(units));
    }
}

/// The name of the device with that number.
pub(crate) fn device_name(number: u32) -> String {
    format!("device-{number:05}")
}

fn path(number: u32, edition: u32) -> String {
    format!("/nix/store/{:032}-{}-{edition}", number, device_name(number))
}

fn architecture(unit: u32) -> &'static str {
    if unit.is_multiple_of(2) { "aarch64-linux" } else { "x86_64-linux" }
}
