//! Promise: a machine whose store has no room goes on with what it runs, says so, and follows the branch again by itself once there is room.
//!
//! The store is a file system in memory, of a size of its own. The agent's records are on another disk.

#![expect(clippy::print_stdout, reason = "cargo shows it with --nocapture")]

use std::time::Instant;

use crate::fleet::{AGENT, Fleet};
use crate::machine::Machine;

/// What fills the store to its last page. It fails, as it has to.
const FILL: &str = "head -c 1G /dev/zero > /nix/filler";

/// Boots a machine with such a store, and waits until it runs what is published as revision 1.
fn boot_switched(fleet: &Fleet) -> Machine<'_> {
    let machine = fleet.boot();
    machine.sh(
        "mkdir /store && mount -t tmpfs -o size=64m,mode=755 tmpfs /store && cp -a /nix/. /store && mount --bind /store /nix",
    );
    machine.switch_first();
    machine
}

/// Makes room, and waits until the machine runs `system`, which is that revision.
fn goes_on_with_room(machine: &Machine<'_>, revision: u64, system: &str) {
    let begin = Instant::now();
    machine.sh("rm /nix/filler");
    machine.wait_for("confirmed", revision);
    println!("switched {:.1} s after there was room", begin.elapsed().as_secs_f32());
    machine.assert_runs(system);
    assert_eq!(machine.property(AGENT, "NRestarts"), "0");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn a_revision_without_room_waits_for_room() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let machine = boot_switched(&fleet);
    machine.sh(&format!("! {FILL} 2> /dev/null"));
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for_status(&[&format!("cannot fetch {second}"), "the disk of /nix/store has 0"]);
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), std::slice::from_ref(&first));
    assert_eq!(machine.sh("cat /run/greeting"), "first");
    assert_eq!(machine.property(AGENT, "ActiveState"), "active");
    goes_on_with_room(&machine, 2, &second);
    assert_eq!(machine.activations(), [first, second]);
}

#[test]
fn a_switch_that_fills_the_store_goes_back() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let machine = boot_switched(&fleet);
    fleet.edit("activation.sh", "# Who", &format!("{FILL}\n# Who"));
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    println!("full store: back after {:.1} s", machine.wait_until_back());
    machine.wait_for("rolled-back", 1);
    // The agent needs Nix to go back, and Nix cannot open its database. The timer needs no database.
    machine.wait_until_said("web-1: going back failed as well");
    let timers = machine.journal("clavel-way-back-*");
    assert!(timers.contains("goes back from revision 2 of web-1"), "{timers}");
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [&first, &second, &first].map(String::clone));
    assert_eq!(machine.sh("df --output=avail /nix | tail -n 1").trim(), "0");
    fleet.edit("activation.sh", &format!("{FILL}\n"), "");
    fleet.edit("units/greeter.service", "second", "third");
    let third = fleet.publish();
    goes_on_with_room(&machine, 3, &third);
}
