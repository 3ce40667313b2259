//! Promise: a machine whose activation fails goes back to what it ran before.

use crate::fleet::Fleet;

/// Publishes a second revision that fails, which `spoil` makes of the first one, and sees the machine go back.
fn goes_back(spoil: impl FnOnce(&Fleet), words: &str) {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    fleet.edit("units/greeter.service", "first", "second");
    spoil(&fleet);
    let second = fleet.publish();
    machine.wait_for("rolled-back", 1);

    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [first.clone(), second, first]);
    assert_eq!(machine.sh("cat /run/greeting"), "first");
    assert_eq!(machine.property("broken.service", "LoadState"), "not-found");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
    machine.wait_until_said(&format!("error: web-1: the activation of `web-1` failed: {words}"));
}

#[test]
fn a_machine_with_a_failed_service_goes_back() {
    let broken = "[Service]\nType=oneshot\nExecStart=/bin/false\n[Install]\nWantedBy=multi-user.target\n";
    goes_back(
        |fleet| fleet.write_unit("broken.service", broken),
        "units failed to start or to reload (exit code 4): broken.service",
    );
}

#[test]
fn a_machine_whose_activation_script_fails_goes_back() {
    goes_back(
        |fleet| fleet.edit("activation.sh", "# Who", "ls /nowhere\n# Who"),
        "its script `activate` failed (exit code 2)",
    );
}
