//! Promise: the systems of these tests handle each mode of `switch-to-configuration` as NixOS does, so that the other tests stand on
//! something.

use crate::fleet::{AGENT, Fleet};
use crate::machine::Machine;

const GREETER: &str = "greeter.service";

/// The greeting, the system that runs, and the one that a boot starts.
fn state(machine: &Machine<'_>) -> [String; 3] {
    ["cat /run/greeting", "readlink -f /run/current-system", "readlink -f /boot/default"].map(|line| machine.sh(line))
}

#[test]
fn each_mode_changes_what_it_changes_on_nixos() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    machine.sh(&format!("systemctl disable --now {AGENT}"));
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    let copy = "nix --extra-experimental-features nix-command copy --no-check-sigs --from file:///srv/cache";
    machine.sh(&format!("{copy} {second}"));
    let switch = |machine: &Machine<'_>, system: &str, mode: &str| {
        machine.run(&[&format!("{system}/bin/switch-to-configuration"), mode]).also_good().stderr
    };
    let expected = |greeting: &str, runs: &str, boots: &str| [greeting, runs, boots].map(str::to_owned);

    let said = switch(&machine, &second, "dry-activate");
    assert!(said.contains(&format!("would stop the following units: {GREETER}")), "{said}");
    assert!(said.contains(&format!("would start the following units: {GREETER}")), "{said}");
    assert_eq!(state(&machine), expected("first", &first, &first));
    switch(&machine, &second, "boot");
    assert_eq!(state(&machine), expected("first", &first, &second));
    machine.restart();
    assert_eq!(state(&machine), expected("second", &second, &second));
    switch(&machine, &first, "test");
    assert_eq!(state(&machine), expected("first", &first, &second));
    machine.run(&[&format!("{first}/bin/switch-to-configuration"), "sideways"]).refused(1, "Usage:");
}
