//! Promise: what is set for the next boot of a machine runs and proves itself after it, and not before.

use crate::fleet::{AGENT, Fleet, HOST};
use crate::machine::Machine;
use crate::support::world::until;

/// Adds this `clavel.deployments.web-1` to the next revision.
fn declare(fleet: &Fleet, deployment: &str) {
    let host = "nixosConfigurations.web-1";
    fleet.edit("flake.nix", host, &format!("clavel.deployments.web-1 = {{ {deployment} }};\n      {host}"));
}

/// Where the machine is: its greeting, what it runs, and what it boots next.
fn place(machine: &Machine<'_>) -> [String; 4] {
    [
        "cat /run/greeting",
        "readlink -f /run/current-system",
        "readlink -f /nix/var/nix/profiles/system",
        "readlink -f /boot/default",
    ]
    .map(|line| machine.sh(line))
}

fn wait_for_rollback(machine: &Machine<'_>, expected: &serde_json::Value) {
    until(&format!("the rollback is {expected}"), || {
        let ran = machine.run(&["clavel-agent", "status", "--json"]);
        let status = serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap_or_default();
        status["deployments"][HOST]["rollback"] == *expected
    });
}

#[test]
fn a_revision_in_the_mode_boot_is_confirmed_after_the_machine_restarts() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    declare(&fleet, "mode = \"boot\"; probation.settle = \"1s\"; checks.greeter.systemd = [ \"greeter.service\" ];");
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("awaiting-reboot", 1);
    assert_eq!(place(&machine), ["first", &first, &second, &second].map(str::to_owned));
    machine.wait_until_said("web-1: revision 2 is set for the next boot, and waits for a reboot");

    machine.restart();
    machine.wait_for("confirmed", 2);
    machine.assert_runs(&second);
    assert_eq!(machine.sh("readlink -f /run/booted-system"), second);
    assert_eq!(machine.sh("cat /run/greeting"), "second");
    assert_eq!(machine.activations(), [first, "boot".to_owned()]);
    let journal = machine.journal(AGENT);
    let (booted, proved) =
        ("web-1: the machine runs revision 2 since it booted", "web-1: on probation; it has one check");
    assert!(journal.find(booted).unwrap() < journal.find(proved).unwrap(), "{journal}");
}

#[test]
fn a_machine_that_boots_into_what_ran_before_goes_back_to_it() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    declare(&fleet, "mode = \"boot\";");
    fleet.edit("units/greeter.service", "first", "second");
    fleet.publish();
    machine.wait_for("awaiting-reboot", 1);
    // As a person does in the menu of a boot loader.
    machine.sh(&format!("ln -sfn {first} /boot/default"));
    machine.restart();
    machine.wait_for("rolled-back", 1);
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [first.clone(), "boot".to_owned()]);
    let status = machine.status();
    let error = &status["deployments"][HOST]["failure"]["error"];
    assert_eq!(error, &format!("the machine did not boot into it, but into {first}"));
    assert_eq!(status["deployments"][HOST]["rollback"], "restored");
}

#[test]
fn a_change_of_dbus_takes_the_next_boot_by_itself_and_so_does_the_way_back() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    declare(&fleet, "checks.no = { exec = [ \"/bin/false\" ]; interval = \"100ms\"; }; probation.deadline = \"2s\";");
    fleet.edit("inhibitors.json", "\"dbus\"", "\"broker\"");
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("awaiting-reboot", 1);
    let line = machine.sh("clavel-agent status --oneline");
    assert!(line.ends_with("waits for a reboot, because dbus-implementation: dbus → broker"), "{line}");
    assert_eq!(place(&machine)[..2], ["first", &first].map(str::to_owned));

    machine.restart();
    wait_for_rollback(&machine, &serde_json::json!({ "after-reboot": first }));
    assert_eq!(place(&machine), ["second", &second, &first, &first].map(str::to_owned));
    machine.restart();
    wait_for_rollback(&machine, &"restored".into());
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [first, "boot".to_owned(), "boot".to_owned()]);
}

#[test]
fn a_switch_that_ends_with_100_goes_on_as_an_activation_for_the_next_boot() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    let exit = "[[ $action != boot ]] || exit 0";
    fleet.edit("lib/switch-to-configuration.sh", exit, &format!("{exit}\n[[ $action != switch ]] || exit 100"));
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("awaiting-reboot", 1);
    assert_eq!(place(&machine), ["first", &first, &second, &second].map(str::to_owned));
    machine.restart();
    machine.wait_for("confirmed", 2);
    machine.assert_runs(&second);
}
