//! Promise: a machine comes back from a switch that breaks what it is reached and repaired by, alone, and goes on with the next revision.
//!
//! docs/machines.md has the table of these tests with the seconds that they print.

#![expect(clippy::print_stdout, reason = "cargo shows it with --nocapture")]

use crate::fleet::{AGENT, Fleet, agent_unit};
use crate::machine::Machine;
use crate::network::{SET_NAME, SET_ROUTE, SET_TRUST};

const PROBATION: &str = "settle = \"100ms\"; deadline = \"3s\";";

/// A part of the configuration, and whether the next revision breaks it.
type Part<'a> = &'a dyn Fn(&Fleet, Standing);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Whole,
    Broken,
}

/// What brings the machine back.
#[derive(Debug, Clone, Copy)]
enum Rescuer {
    Agent,
    Timer,
}

/// A unit that runs a line of shell when it is started.
fn setting(line: &str) -> String {
    format!(
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c '{line}'\n[Install]\nWantedBy=multi-user.target\n"
    )
}

/// A part that a unit sets up with one line of shell, and breaks with another one.
fn set_by(fleet: &Fleet, standing: Standing, whole: &str, broken: &str) {
    let line = if standing == Standing::Whole { whole } else { broken };
    fleet.write_unit("setting.service", &setting(line));
}

/// Switches a machine to a revision in which a part is broken, and does nothing until it is back. Asserts that it says why, and that it goes
/// on with a third revision, in which the part is whole.
fn comes_back(what: &str, fleet: &Fleet, by: Rescuer, why: &str, part: Part<'_>) {
    part(fleet, Standing::Whole);
    let first = fleet.publish();
    let machine = fleet.boot_switched();
    part(fleet, Standing::Broken);
    let second = fleet.publish();
    println!("{what}: back after {:.1} s, by {by:?}", machine.wait_until_back());
    machine.wait_for("rolled-back", 1);
    machine.assert_runs(&first);
    assert_eq!(machine.activations(), [&first, &second, &first].map(String::clone));
    machine.wait_until_said(why);
    let timers = machine.journal("clavel-way-back-*");
    assert_eq!(timers.contains("goes back from revision 2 of web-1"), matches!(by, Rescuer::Timer), "{timers}");
    goes_on(fleet, &machine, part);
}

/// Asserts that the machine switches to a revision in which the part is whole.
fn goes_on(fleet: &Fleet, machine: &Machine<'_>, part: Part<'_>) {
    part(fleet, Standing::Whole);
    fleet.edit("units/greeter.service", "first", "third");
    let third = fleet.publish();
    machine.wait_for("confirmed", 3);
    machine.assert_runs(&third);
    assert_eq!(machine.sh("cat /run/greeting"), "third");
    assert_eq!(machine.ways_back(), "");
    assert_eq!(machine.property(AGENT, "ActiveState"), "active");
    assert_eq!(machine.sh("systemctl is-system-running"), "running");
}

#[test]
fn the_default_route() {
    let fleet = Fleet::with_host(PROBATION);
    comes_back(
        "default route",
        &fleet,
        Rescuer::Agent,
        "no mirror that answered before the switch shows a branch that is believed",
        &|fleet, standing| {
            set_by(fleet, standing, SET_ROUTE, "ip route delete default");
        },
    );
}

#[test]
fn the_name_of_the_mirror() {
    let fleet = Fleet::with_host(PROBATION);
    comes_back(
        "DNS",
        &fleet,
        Rescuer::Agent,
        "no mirror that answered before the switch shows a branch that is believed",
        &|fleet, standing| {
            set_by(fleet, standing, SET_NAME, "echo 127.0.0.1 localhost > /etc/hosts");
        },
    );
}

#[test]
fn the_firewall() {
    let fleet = Fleet::with_host(PROBATION);
    comes_back(
        "firewall",
        &fleet,
        Rescuer::Agent,
        "no mirror that answered before the switch shows a branch that is believed",
        &|fleet, standing| {
            let drops = "nft add table inet f && nft add chain inet f out { type filter hook output priority 0 \\; policy drop \\; }";
            set_by(fleet, standing, "nft flush ruleset", drops);
        },
    );
}

#[test]
fn the_authorities() {
    let fleet = Fleet::with_host(PROBATION);
    comes_back(
        "CA bundle",
        &fleet,
        Rescuer::Agent,
        "no mirror that answered before the switch shows a branch that is believed",
        &|fleet, standing| {
            set_by(fleet, standing, SET_TRUST, "truncate --size=0 /etc/ssl/certs/ca-certificates.crt");
        },
    );
}

/// The clock of the agent alone: machines share the kernel's clock.
#[test]
fn the_clock() {
    let fleet = Fleet::on_probation(PROBATION);
    comes_back(
        "clock",
        &fleet,
        Rescuer::Agent,
        "no mirror that answered before the switch shows a branch that is believed",
        &|fleet, standing| {
            let clock = "Environment=LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 FAKETIME=+400d \
                     FAKETIME_DONT_FAKE_MONOTONIC=1";
            let line = if standing == Standing::Whole { "Environment=TURN=1" } else { clock };
            fleet.write_unit(AGENT, &agent_unit("[Service]\n", &format!("[Service]\n{line}\n")));
        },
    );
}

/// The agent owns the store, so there is nothing to come back from.
#[test]
fn the_nix_daemon() {
    let fleet = Fleet::on_probation(PROBATION);
    fleet.publish();
    let machine = fleet.boot_switched();
    let masks = |fleet: &Fleet, _: Standing| {
        // A unit without a line is a masked one.
        fleet.write_unit("nix-daemon.socket", "");
        fleet.write_unit("nix-daemon.service", "");
        fleet.write_unit("setting.service", &setting("systemctl stop nix-daemon.socket nix-daemon.service"));
    };
    masks(&fleet, Standing::Broken);
    let second = fleet.publish();
    machine.wait_for("confirmed", 2);
    machine.assert_runs(&second);
    assert_eq!(machine.property("nix-daemon.socket", "LoadState"), "masked");
    goes_on(&fleet, &machine, &masks);
}

#[test]
fn the_configuration_of_a_restarted_agent() {
    let fleet = Fleet::on_probation(PROBATION);
    comes_back("configuration", &fleet, Rescuer::Timer, "failed to activate", &|fleet, standing| {
        let whole = standing == Standing::Whole;
        let turn = format!("[Service]\nEnvironment=TURN={}\n", u8::from(whole));
        fleet.write_unit(AGENT, &agent_unit("[Service]\n", &turn));
        let text = if whole { fleet.configuration() } else { "name = \n".to_owned() };
        fleet.write_etc("clavel/clavel-agent.toml", &text);
    });
}

#[test]
fn the_configuration_of_an_agent_that_goes_on() {
    let fleet = Fleet::on_probation(PROBATION);
    comes_back(
        "configuration, unread",
        &fleet,
        Rescuer::Agent,
        "the agent could not start anew",
        &|fleet, standing| {
            let text = if standing == Standing::Whole { fleet.configuration() } else { "name = \n".to_owned() };
            fleet.write_etc("clavel/clavel-agent.toml", &text);
        },
    );
}

#[test]
fn the_path_of_the_agent() {
    let fleet = Fleet::on_probation(PROBATION);
    comes_back("PATH", &fleet, Rescuer::Timer, "cannot run `nix-store`", &|fleet, standing| {
        let path = if standing == Standing::Whole { "/usr/bin:/bin" } else { "/nowhere" };
        fleet.write_unit(AGENT, &agent_unit("[Service]\n", &format!("[Service]\nEnvironment=PATH={path}\n")));
    });
}
