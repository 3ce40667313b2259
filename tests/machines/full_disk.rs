//! Promise: a machine whose disk is full goes on with what it runs, says so, and follows the branch again by itself once there is room.
//!
//! The disk is a file system in memory, of a size of its own, for what Clavel and Nix write: `/nix` and the agent's state folder.

#![expect(clippy::print_stdout, reason = "cargo shows it with --nocapture")]

use std::time::Instant;

use crate::fleet::{AGENT, Fleet, HOST};
use crate::machine::Machine;

/// Boots a machine with such a disk, and waits until it runs what is published as revision 1.
fn boot_switched_on_a_disk(fleet: &Fleet) -> Machine<'_> {
    let machine = fleet.boot();
    machine.sh(
        "mkdir /disk && mount -t tmpfs -o size=48m,mode=755 tmpfs /disk && cp -a /nix /disk/nix && mkdir /disk/state && \
         mkdir -p /var/lib/clavel-agent && mount --bind /disk/nix /nix && mount --bind /disk/state /var/lib/clavel-agent",
    );
    machine.switch_first();
    machine
}

/// Fills the disk to its last page.
fn fill(machine: &Machine<'_>) {
    machine.sh(
        "! head -c 1G /dev/zero >> /disk/filler 2> /dev/null; test \"$(df --output=avail /disk | tail -n 1)\" -eq 0",
    );
}

fn make_room(machine: &Machine<'_>) {
    machine.sh("rm /disk/filler");
}

#[test]
fn a_revision_without_room_waits_for_room() {
    let fleet = Fleet::new();
    let first = fleet.publish();
    let machine = boot_switched_on_a_disk(&fleet);
    // Less than has to stay free for the store's own needs.
    machine.sh("head -c 24M /dev/zero > /disk/filler");
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    machine.wait_for_status(&["the disk of /nix/store has"]);
    machine.assert_runs(&first);
    // Then nothing can be written but what the agent keeps room for.
    fill(&machine);
    machine.wait_for_status(&["the disk of /nix/store has 0 B free"]);
    machine.assert_runs(&first);
    assert_eq!(machine.property(AGENT, "ActiveState"), "active");
    assert_eq!(machine.property(AGENT, "NRestarts"), "0");
    let room = Instant::now();
    make_room(&machine);
    machine.wait_for("confirmed", 2);
    println!("full disk: switched {:.1} s after there was room", room.elapsed().as_secs_f32());
    machine.assert_runs(&second);
    assert_eq!(machine.activations(), [first, second]);
}

#[test]
fn a_switch_that_fills_the_disk_goes_back() {
    let fleet = Fleet::on_probation("settle = \"100ms\"; deadline = \"3s\";");
    let first = fleet.publish();
    let machine = boot_switched_on_a_disk(&fleet);
    let whole = "# Who";
    let fills = "cat /dev/zero > /disk/filler\n# Who";
    fleet.edit("activation.sh", whole, fills);
    fleet.edit("units/greeter.service", "first", "second");
    let second = fleet.publish();
    println!("full disk: back after {:.1} s", machine.wait_until_back());
    assert_eq!(machine.activations(), [&first, &second, &first].map(String::clone));
    machine.assert_runs(&first);
    // It is recorded, although the disk is still full.
    machine.wait_for("rolled-back", 1);
    let status = machine.status();
    assert_eq!(status["deployments"][HOST]["rollback"], "restored");
    assert_eq!(status["deployments"][HOST]["failure"]["attempts"], 1, "{status:#}");
    machine.wait_until_said("cat: write error: No space left on device");
    make_room(&machine);
    fleet.edit("activation.sh", fills, whole);
    fleet.edit("units/greeter.service", "second", "third");
    let third = fleet.publish();
    machine.wait_for("confirmed", 3);
    machine.assert_runs(&third);
    assert_eq!(machine.ways_back(), "");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}
