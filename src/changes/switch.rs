//! The forecast for a switch between two systems whose derivations are in one graph. Pure.
//!
//! A reboot is foreseen for NixOS alone, by what its system links to. Units are those of the system on NixOS, and those of the user
//! with home-manager: only there do units go to the place that the switch looks at, and by the rules of `unit_file`.

use std::collections::{BTreeMap, HashSet};

use super::boot::NIXOS;
use super::derivation::DerivationNode;
use super::forecast::{Forecast, RebootPart, UnitForecast};
use super::graph::Graph;
use super::text;
use super::unit_file::UnitFile;
use crate::model::StorePath;

/// The folder of the units of a NixOS system.
const SYSTEM_UNITS: &str = "system-units";
/// The system of a home.
const HOME: &str = "home-manager-generation";
/// The folder of the files of a home.
const HOME_FILES: &str = "home-manager-files";
/// The unit of the other implementation of D-Bus.
const DBUS_BROKER: &str = "dbus-broker.service";

/// The forecast for a switch from the system at `old` to the one at `new`. `graph` has read both.
pub(super) fn forecast(graph: &Graph, old: &StorePath, new: &StorePath) -> Forecast {
    let Some((from, to)) = graph.node(old).zip(graph.node(new)) else { return Forecast::default() };
    let (old_units, new_units) = (units(graph, old, from), units(graph, new, to));
    let mut reboot = changed_parts(from, to);
    let has_broker = |units: &BTreeMap<&str, &UnitFile>| units.contains_key(DBUS_BROKER);
    let are_read = !old_units.is_empty() && !new_units.is_empty();
    if boots(from) && boots(to) && are_read && has_broker(&old_units) != has_broker(&new_units) {
        reboot.push(RebootPart::Dbus);
    }
    let both = new_units.iter().filter_map(|(name, new)| Some((*name, old_units.get(name)?, new)));
    let units = both.filter_map(|(name, old, new)| {
        let action = old.forecast(new)?;
        Some(UnitForecast { name: text::printable(name), action })
    });
    Forecast { reboot, units: units.collect() }
}

/// Whether the system is a NixOS with a kernel of its own.
fn boots(node: &DerivationNode) -> bool {
    node.inside.as_ref().is_some_and(|inside| !inside.boot.is_empty())
}

/// The parts that both systems have, and that differ.
fn changed_parts(from: &DerivationNode, to: &DerivationNode) -> Vec<RebootPart> {
    let Some((from, to)) = from.inside.as_ref().zip(to.inside.as_ref()) else { return Vec::new() };
    let both = to.boot.iter().filter_map(|(part, new)| Some((*part, from.boot.get(part)?, new)));
    both.filter(|(_, old, new)| old != new).map(|(part, ..)| part).collect()
}

/// The units of the system at `root` by name: those that its folder of units mentions.
fn units<'a>(graph: &'a Graph, root: &'a StorePath, node: &DerivationNode) -> BTreeMap<&'a str, &'a UnitFile> {
    let folder = match node.name.as_str() {
        name if name.starts_with(NIXOS) => SYSTEM_UNITS,
        HOME => HOME_FILES,
        _ => return BTreeMap::new(),
    };
    let (mut open, mut seen, mut units) = (vec![root], HashSet::from([root]), BTreeMap::new());
    while let Some(path) = open.pop() {
        let inputs = graph.inputs(path).filter_map(|input| Some((input, graph.node(input)?)));
        let is_folder = graph.node(path).is_some_and(|node| node.name == folder);
        for (input, node) in inputs {
            let unit = node.inside.as_ref().and_then(|inside| inside.unit.as_ref());
            if let Some(unit) = unit.filter(|_| is_folder) {
                units.insert(unit.name.as_str(), unit);
            }
            // A system within the system is another one: a specialisation, or a container.
            if node.package.is_none() && !node.name.starts_with(NIXOS) && seen.insert(input) {
                open.push(input);
            }
        }
    }
    units
}
