//! Promise: a machine whose services do not hold after a switch goes back, by itself.

use crate::fleet::Fleet;
use crate::machine::Machine;

/// A fleet whose next revisions have this `clavel.deployments.web-1`.
fn with_proof(deployment: &str) -> Fleet {
    let fleet = Fleet::new();
    let host = "nixosConfigurations.web-1";
    fleet.edit("flake.nix", host, &format!("clavel.deployments.web-1 = {{ {deployment} }};\n      {host}"));
    fleet
}

/// A service that ends after a second with this exit code.
fn short_lived(code: u8) -> String {
    format!("[Service]\nExecStart=/bin/sh -c 'sleep 1; exit {code}'\n[Install]\nWantedBy=multi-user.target\n")
}

fn assert_went_back(machine: &Machine<'_>, first: &str, second: &str) {
    machine.assert_runs(first);
    assert_eq!(machine.activations(), [first, second, first]);
    assert_eq!(machine.sh("cat /run/greeting"), "first");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn a_service_that_dies_after_the_switch_takes_the_machine_back() {
    let fleet = with_proof(
        "checks.services = { systemd = [ ]; interval = \"200ms\"; }; probation = { settle = \"4s\"; deadline = \"6s\"; };",
    );
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    fleet.edit("units/greeter.service", "first", "second");
    fleet.write_unit("short.service", &short_lived(1));
    let second = fleet.publish();
    machine.wait_for("rolled-back", 1);
    assert_went_back(&machine, &first, &second);
    machine.wait_until_said("the check `services` (no unit of systemd that failed since the switch) does not hold: failed since the switch: short.service");
    // The same without the failure stays.
    fleet.write_unit("short.service", &short_lived(0));
    let third = fleet.publish();
    machine.wait_for("confirmed", 3);
    machine.assert_runs(&third);
}

#[test]
fn a_unit_that_has_to_be_active_and_is_not_takes_the_machine_back() {
    let checks =
        "checks = { greeter = { systemd = [ \"greeter.service\" ]; }; web = { systemd = [ \"web.service\" ]; }; };";
    let fleet = with_proof("");
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    fleet.edit(
        "flake.nix",
        "web-1 = {  }",
        &format!("web-1 = {{ {checks} probation = {{ settle = \"100ms\"; deadline = \"2s\"; }}; }}"),
    );
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("rolled-back", 1);
    assert_went_back(&machine, &first, &second);
    let journal =
        machine.wait_until_said("the check `web` (systemd web.service) does not hold: web.service is not there");
    assert!(!journal.contains("the check `greeter`"), "{journal}");
}

#[test]
fn a_confirmation_that_does_not_come_takes_the_machine_back() {
    let fleet = with_proof("probation = { confirm = \"manual\"; deadline = \"4s\"; };");
    let world = fleet.publish();
    let machine = fleet.boot_awaiting_person();
    assert_eq!(machine.sh("clavel-agent confirm"), "web-1: revision 1 is confirmed");
    machine.wait_for("confirmed", 1);
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("rolled-back", 1);
    assert_went_back(&machine, &world, &second);
    machine.wait_until_said("nobody confirmed it with `clavel-agent confirm`");
}
