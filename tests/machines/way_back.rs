//! Promise: a switch that takes the agent away is taken back by a timer of systemd, which needs nothing of Clavel.

use crate::fleet::{AGENT, Fleet, agent_unit};
use crate::machine::Machine;

const PROBATION: &str = "settle = \"100ms\"; deadline = \"2s\";";

/// Asserts that the machine got back from `second` to `first` by its timer, and that its agent works again and says so.
fn assert_taken_back(machine: &Machine<'_>, first: &str, second: &str) {
    machine.wait_for("rolled-back", 1);
    machine.assert_runs(first);
    assert_eq!(machine.activations(), [first, second, first]);
    assert_eq!(machine.property(AGENT, "ActiveState"), "active");
    machine.wait_until_said("its way back was taken by the timer, because nothing confirmed it in time");
    assert_eq!(machine.ways_back(), "");
    assert_eq!(machine.sh("ls /var/lib/clavel-agent/way-back/web-1"), "script");
}

#[test]
fn a_system_whose_agent_does_not_start_is_taken_back() {
    let fleet = Fleet::on_probation(PROBATION);
    fleet.write_unit(AGENT, &agent_unit("[Service]\n", "[Service]\nEnvironment=TURN=1\n"));
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    assert_eq!(machine.ways_back(), "");
    fleet.write_unit(AGENT, &agent_unit("ExecStart=/usr/local/bin/clavel-agent", "ExecStart=/nowhere/clavel-agent"));
    let second = fleet.publish();
    assert_taken_back(&machine, &first, &second);
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn a_system_that_leaves_the_agent_out_is_taken_back() {
    let fleet = Fleet::on_probation(PROBATION);
    fleet.write_unit(AGENT, &agent_unit("[Service]\n", "[Service]\nEnvironment=TURN=1\n"));
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    fleet.remove_unit(AGENT);
    let second = fleet.publish();
    assert_taken_back(&machine, &first, &second);
}

#[test]
fn a_system_that_does_not_start_as_far_as_its_agent_is_taken_back() {
    let fleet = Fleet::on_probation("confirm = \"manual\"; deadline = \"10s\";");
    fleet.write_unit(AGENT, &agent_unit("[Service]\n", "[Service]\nEnvironment=TURN=1\n"));
    let first = fleet.publish();
    let mut machine = fleet.boot_awaiting_person();
    machine.sh("clavel-agent confirm");
    machine.wait_for("confirmed", 1);
    // It ends at once at the switch, and never at a start of the machine.
    let stuck = "[Unit]\nConditionPathExists=!/run/switching\nBefore=clavel-agent.service multi-user.target\n[Service]\n\
        Type=oneshot\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    fleet.write_unit("stuck.service", stuck);
    machine.sh("touch /run/switching");
    let second = fleet.publish();
    machine.wait_until_awaiting_person(2);
    machine.assert_runs(&second);
    machine.restart();
    machine.wait_for("rolled-back", 1);
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [&first, &second, "boot", &first]);
    machine.wait_until_said("its way back was taken by the timer, because nothing confirmed it in time");
    assert_eq!(machine.property("multi-user.target", "ActiveState"), "active");
}

#[test]
fn an_activation_is_a_unit_of_its_own_with_its_words_in_the_journal() {
    let fleet = Fleet::on_probation(PROBATION);
    fleet.publish();
    let machine = fleet.boot_switched();
    let journal = machine.journal("clavel-activation-web-1.service");
    assert!(journal.contains("Activates revision 1 of web-1"), "{journal}");
    let said =
        machine.sh("journalctl --quiet --output=cat CLAVEL_DEPLOYMENT=web-1 CLAVEL_REVISION=1 CLAVEL_UNIT=web-1");
    assert!(said.contains("activating the configuration..."), "{said}");
    // The agent does not say the same once more.
    assert!(!machine.journal(AGENT).contains("activating the configuration"));
}

#[test]
fn a_system_that_was_booted_and_has_no_agent_is_taken_back() {
    let fleet = Fleet::new();
    let host = "nixosConfigurations.web-1";
    let deployment = "mode = \"boot\"; probation = { settle = \"100ms\"; deadline = \"2s\"; };";
    fleet.write_unit(AGENT, &agent_unit("[Service]\n", "[Service]\nEnvironment=TURN=1\n"));
    let first = fleet.publish();
    let mut machine = fleet.boot_switched();
    fleet.edit("flake.nix", host, &format!("clavel.deployments.web-1 = {{ {deployment} }};\n      {host}"));
    fleet.write_unit(AGENT, &agent_unit("ExecStart=/usr/local/bin/clavel-agent", "ExecStart=/nowhere/clavel-agent"));
    fleet.publish();
    machine.wait_for("awaiting-reboot", 1);
    assert_eq!(machine.ways_back(), "");
    machine.restart();
    machine.wait_for("rolled-back", 1);
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [&first, "boot", &first]);
    machine.wait_until_said("its way back was taken by the timer, because nothing confirmed it in time");
}
