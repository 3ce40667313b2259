//! Promise: a power cut at any point of a switch never leaves a machine worse. It boots into the old or the new system, its store and the
//! agent's records are whole, and the agent goes on by itself.

#![expect(clippy::print_stdout, reason = "the points and what was seen, for the reader of a run with --nocapture")]

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::{Fleet, HOST};
use crate::guest::{Guest, Powered, SLOW};
use crate::points::{Phase, Point, Scenario, Writeback, points};
use crate::support::wait_until;

/// How many cuts a plain run makes.
const POINTS: usize = 12;

/// How long the agent's journal is waited for until its status is asked for anew.
const LOOK: Duration = Duration::from_secs(5);

/// The number in a variable of the environment, where it is set.
fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// A revision and its store path.
type System = (u64, String);

/// The tests share the points, so that two guests run at once: each of them keeps one processor busy.
#[test]
fn a_power_cut_never_leaves_the_machine_worse_at_odd_points() {
    cut_at_each(0);
}

#[test]
fn a_power_cut_never_leaves_the_machine_worse_at_even_points() {
    cut_at_each(1);
}

/// Cuts the power of one machine at every other point, beginning with the one at index `first`.
fn cut_at_each(first: usize) {
    let count = from_environment("CLAVEL_POWER_POINTS").map_or(POINTS, |count| usize::try_from(count).unwrap());
    let seed = from_environment("CLAVEL_POWER_SEED").unwrap_or(1);
    println!("CLAVEL_POWER_SEED={seed} CLAVEL_POWER_POINTS={count}");
    let mine: Vec<(usize, Point)> = points(seed, count).into_iter().enumerate().skip(first).step_by(2).collect();
    let mut fleet = Fleet::new();
    let mut old = fleet.publish(Scenario::Good);
    let guest = Guest::install(fleet.world.path(HOST), &fleet.configuration());
    let mut machine = guest.start(Writeback::Late);
    machine.wait_for_shell();
    converge(&mut machine, Scenario::Good, &old, &old);
    for (index, point) in mine {
        let (number, started) = (index + 1, Instant::now());
        println!("point {number}: {point:?}");
        let new = fleet.publish(point.scenario);
        let last = cut(machine, &point);
        if let Some(delay) = point.second {
            let second = guest.start(point.writeback);
            std::thread::sleep(delay);
            second.cut();
        }
        machine = guest.start(point.writeback);
        machine.wait_for_shell();
        let booted = machine.sh("readlink -f /run/booted-system");
        let which = if booted == old.1 { "old" } else { "new" };
        assert!([&old.1, &new.1].contains(&&booted), "{booted} is neither {old:?} nor {new:?}");
        let runs = converge(&mut machine, point.scenario, &old, &new);
        assert_whole(&mut machine, &runs.1);
        let (seconds, revision) = (started.elapsed().as_secs(), runs.0);
        println!("point {number}: cut after {last}; booted the {which} system, runs revision {revision}; {seconds} s");
        old = runs;
    }
}

/// Cuts the power at this point of the way to the revision that has just been published. Returns the last that the machine said.
fn cut(machine: Powered<'_>, point: &Point) -> Value {
    let before = machine.journal().len();
    if point.phase != Phase::Fetch {
        wait_until(&format!("{:?}", point.phase), SLOW, || {
            machine.journal()[before..].iter().any(|entry| begins(point.phase, entry))
        });
    }
    std::thread::sleep(point.delay);
    let last = machine.journal().pop().unwrap_or_default();
    machine.cut();
    last.get("MESSAGE").or_else(|| last.get("MARK")).unwrap_or(&last).clone()
}

/// Whether a line of the third serial port says that this phase begins.
fn begins(phase: Phase, entry: &Value) -> bool {
    let (step, mark) = (entry["CLAVEL_STEP"].as_str(), entry["MARK"].as_str());
    match phase {
        Phase::Fetch => false,
        Phase::Realise => step == Some("realise"),
        Phase::Profile => step == Some("activate"),
        Phase::BootLoader => mark == Some("boot-loader"),
        Phase::Activation => mark == Some("activation"),
        Phase::Probation => step == Some("probation"),
        Phase::GoingBack => step == Some("rollback"),
        Phase::Done => step.is_some_and(|step| ["switched", "awaiting-reboot"].contains(&step)),
    }
}

/// Waits until the agent has brought the machine to where the newest revision leads. Returns what it runs then.
fn converge(machine: &mut Powered<'_>, scenario: Scenario, old: &System, new: &System) -> System {
    let (state, runs) = match scenario {
        Scenario::Good | Scenario::NextBoot => ("confirmed", new),
        Scenario::Bad => ("rolled-back", old),
    };
    let arrived = |status: &Value, state: &str, runs: u64| {
        let deployment = &status["deployments"][HOST];
        // Where two revisions fail one after the other, the state is the same before the second one is seen.
        let is_newest = state == "confirmed" || deployment["candidate"]["revision"] == new.0;
        is_newest && deployment["state"] == state && deployment["running"]["revision"] == runs
    };
    let mut started = Instant::now();
    loop {
        let heard = machine.journal().len();
        let status = machine.status();
        if arrived(&status, state, runs.0) {
            break;
        }
        if scenario == Scenario::NextBoot && arrived(&status, "awaiting-reboot", old.0) {
            machine.restart();
            started = Instant::now();
        }
        assert!(started.elapsed() < SLOW, "the machine is not {state} at revision {}:\n{status:#}", runs.0);
        // The agent needs the processor more than its status does.
        let asked = Instant::now();
        wait_until("the next look", SLOW, || machine.journal().len() != heard || asked.elapsed() > LOOK);
    }
    runs.clone()
}

/// Asserts that the machine runs `system` in every place that says so, and that nothing on it is broken.
fn assert_whole(machine: &mut Powered<'_>, system: &str) {
    for place in ["/nix/var/nix/profiles/system", "/run/current-system"] {
        assert_eq!(machine.sh(&format!("readlink -f {place}")), system, "{place}");
    }
    let entries = machine.sh("cat /boot/extlinux/extlinux.conf");
    assert!(entries.starts_with(&format!("DEFAULT {system}\n")) && entries.ends_with("# whole"), "{entries}");
    machine.sh("nix-store --verify --check-contents");
    // So that this does not take longer with each system.
    machine.sh("nix-store --gc");
    let errors = machine.sh("journalctl --boot --dmesg --no-pager --priority=err --output=cat --grep=EXT4 || true");
    assert!(!errors.contains("EXT4"), "{errors}");
}
