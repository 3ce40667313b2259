//! Promise: systemd knows how the agent stands, and starts one anew that does nothing any more.

use crate::fleet::{AGENT, Fleet};
use crate::support::world::until;

#[test]
fn systemd_knows_how_the_agent_stands_and_ends_one_that_hangs() {
    let fleet = Fleet::new();
    fleet.publish();
    let machine = fleet.boot_switched();
    let is_up_to_date = || machine.property(AGENT, "StatusText").contains("web-1: up to date at revision 1");
    until("the agent is up to date", is_up_to_date);
    machine.sh(&format!(
        "mkdir /run/systemd/system/{AGENT}.d; printf '[Service]\\nWatchdogSec=2s\\nRestartSec=0\\n' > /run/systemd/system/{AGENT}.d/w.conf; \
         systemctl daemon-reload; systemctl restart {AGENT}"
    ));
    // It is ready once the command ends, and it lives longer than its watchdog waits.
    let agent = machine.property(AGENT, "MainPID");
    let watched = || machine.property(AGENT, "WatchdogTimestampMonotonic");
    let first = watched();
    until("the watchdog hears of the agent", || watched() != first);
    assert_eq!(
        (machine.property(AGENT, "MainPID"), machine.property(AGENT, "NRestarts")),
        (agent.clone(), "0".to_owned())
    );
    machine.sh(&format!("kill -STOP {agent}"));
    until("another agent runs", || {
        let now = machine.property(AGENT, "MainPID");
        now != agent && now != "0"
    });
    until("it is up to date", is_up_to_date);
    assert_eq!(machine.property(AGENT, "NRestarts"), "1");
}
