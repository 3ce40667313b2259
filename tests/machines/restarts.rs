//! Promise: a machine that restarts after a switch runs what it was switched to, and its agent has nothing to do.

use crate::fleet::{AGENT, Fleet, HOST};
use crate::support::world::until;

#[test]
fn a_restarted_machine_is_up_to_date() {
    let fleet = Fleet::new();
    let system = fleet.publish();
    let mut machine = fleet.boot_switched();
    machine.run(&["rm", "/run/greeting"]).good();
    machine.restart();

    until("a pass after the restart", || {
        let boot = machine.run(&["journalctl", "--quiet", "--boot", "--output=cat", "--unit", AGENT]).stdout;
        boot.contains("web-1: up to date at revision 1")
    });
    machine.assert_runs(&system);
    assert_eq!(machine.sh("readlink -f /run/booted-system"), system);
    assert_eq!(machine.activations(), [system, "boot".to_owned()]);
    assert_eq!(machine.sh("cat /run/greeting"), "first");
    let status = machine.status();
    assert_eq!(status["deployments"][HOST]["state"], "confirmed");
    assert_eq!(status["lastPass"]["ok"], true);
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}
