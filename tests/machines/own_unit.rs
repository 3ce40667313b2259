//! Promise: a switch that stops or restarts the agent's own service goes on to its end, once, and the next agent takes its result.

use crate::fleet::{AGENT, Fleet};

/// The agent's unit of the project, with one more setting.
fn unit(setting: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(AGENT);
    let text = std::fs::read_to_string(path).unwrap();
    text.replace("[Service]\n", &format!("[Service]\n{setting}\n"))
}

/// Switches to a revision in which the agent's unit differs. `handling` says how NixOS treats a change of it.
fn switches_the_agent(handling: &str) {
    let fleet = Fleet::new();
    fleet.write_unit(AGENT, &unit(&format!("{handling}\nEnvironment=TURN=1")));
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    let before = machine.property(AGENT, "MainPID");

    fleet.write_unit(AGENT, &unit(&format!("{handling}\nEnvironment=TURN=2")));
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for("confirmed", 2);
    machine.assert_runs(&second);
    assert_eq!(machine.activations(), [first, second]);
    assert_eq!(machine.sh("cat /run/greeting"), "second");

    let after = machine.property(AGENT, "MainPID");
    assert_ne!(after, before);
    assert_eq!(machine.sh(&format!("tr '\\0' '\\n' < /proc/{after}/environ | grep TURN")), "TURN=2");
    let journal = machine.wait_until_said("web-1: up to date at revision 2");
    let switched = "web-1: switched to revision 2, by an activation that began before this agent";
    assert_eq!(journal.matches(switched).count(), 1, "{journal}");
    assert_eq!(machine.property(AGENT, "NRestarts"), "0");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn a_switch_that_stops_and_starts_the_agent_ends_well_once() {
    switches_the_agent("");
}

#[test]
fn a_switch_that_restarts_the_agent_ends_well_once() {
    switches_the_agent("X-StopIfChanged=false");
}
