//! Promise: an agent that is killed in an activation, while the next revision comes, is started anew, waits for that activation, and goes on
//! with the next revision.

use crate::fleet::{AGENT, Fleet, HOST};
use crate::support::world::until;

#[test]
fn a_revision_that_comes_while_the_agent_is_killed_follows_the_one_that_is_being_activated() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    machine.sh(&format!(
        "mkdir /run/systemd/system/{AGENT}.d; printf '[Service]\\nRestartSec=0\\n' > /run/systemd/system/{AGENT}.d/r.conf; \
         systemctl daemon-reload; touch /run/hold"
    ));
    let holds = "while test -e /run/hold; do touch /run/holding; sleep 0.05; done\n# Who";
    fleet.edit("activation.sh", "# Who", holds);
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    until("revision 2 is being activated", || machine.run(&["test", "-e", "/run/holding"]).code == Some(0));
    let killed = machine.property(AGENT, "MainPID");
    machine.sh(&format!("kill -KILL {killed}"));
    fleet.edit("units/greeter.service", "second", "third");
    let third = fleet.publish();

    machine.wait_until_said("still runs; waiting for it");
    let deployment = machine.status()["deployments"][HOST].clone();
    assert_eq!((&deployment["state"], &deployment["candidate"]["revision"]), (&"activating".into(), &2.into()));
    assert_eq!((&deployment["attempts"], &deployment["wayBack"]["path"]), (&1.into(), &first.clone().into()));
    machine.sh("rm /run/hold");
    machine.wait_for("confirmed", 3);
    machine.assert_runs(&third);
    assert_eq!(machine.activations(), [first, second, third]);
    machine.wait_until_said("web-1: switched to revision 2, by an activation that began before this agent");
    assert!(![killed, "0".to_owned()].contains(&machine.property(AGENT, "MainPID")));
    assert_eq!(machine.ways_back(), "");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}
