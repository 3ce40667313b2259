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

#[test]
fn a_new_program_takes_over_by_itself_where_it_runs() {
    let fleet = Fleet::new();
    fleet.publish();
    let machine = fleet.boot_switched();
    machine.sh(&format!(
        "mkdir /run/systemd/system/{AGENT}.d; printf '[Service]\\nRestartSec=0\\n' > /run/systemd/system/{AGENT}.d/r.conf; \
         systemctl daemon-reload"
    ));
    let agent = machine.property(AGENT, "MainPID");
    let replace = |made: &str| {
        machine.sh(&format!("cd /usr/local/bin && {made} && chmod 755 new && mv new clavel-agent"));
    };
    replace("printf '#!/bin/sh\\nexit 1\\n' > new && cp clavel-agent good");
    machine.wait_until_said("/usr/local/bin/clavel-agent is new and does not run, so this agent goes on");
    assert_eq!(machine.property(AGENT, "MainPID"), agent);

    replace("cp good new");
    machine.wait_until_said("/usr/local/bin/clavel-agent is new; this agent ends, and the new one takes over");
    until("the new agent runs", || {
        let now = machine.property(AGENT, "MainPID");
        now != agent && now != "0" && machine.property(AGENT, "ActiveState") == "active"
    });
    assert_eq!(machine.property(AGENT, "NRestarts"), "1");
}
