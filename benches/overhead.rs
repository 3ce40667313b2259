//! Compares the time that Clavel takes with the time of the same work without it, as ratios within one run: `make bench`.
//!
//! The rounds are interleaved, so that other load on the machine affects both sides. The figures are medians.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::io::Write as _;
use std::time::Duration;

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod support;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use measure::{format_time, median, ratio, timed};
use support::world::World;

const ROUNDS: usize = 21;

/// A measurement: its description, the medians, and the comparison with the goal.
struct Row {
    what: &'static str,
    ours: Duration,
    peer: Duration,
    verdict: String,
}

fn main() {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();
    let rows = [no_op_pass(&world), evaluation(&world), publication(&world), cage(&world)];
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:50} {:>9} {:>9}   beside", "", "ours", "peer").unwrap();
    for Row { what, ours, peer, verdict } in rows {
        writeln!(out, "{what:50} {:>9} {:>9}   {verdict}", format_time(ours), format_time(peer)).unwrap();
    }
}

/// Compares `claveld once` of three units with a bare `nix eval` of the same flake.
fn evaluation(world: &World) -> Row {
    beside_nix_eval(world, "claveld once, nothing changed / nix eval", || ())
}

/// Compares the same where each run finds a new revision with another web-1, which claveld also signs and commits.
fn publication(world: &World) -> Row {
    beside_nix_eval(world, "claveld once, one unit changed / nix eval", || {
        world.edit("hosts/web-1.nix", "Welcome to web-1", "Welcome to web-1!");
        world.push("web-1 greets louder");
    })
}

fn beside_nix_eval(world: &World, what: &'static str, before: impl Fn()) -> Row {
    let flake = format!("{}#nixosConfigurations", world.flake());
    let hosts = "builtins.mapAttrs (_: host: host.config.system.build.toplevel.drvPath)";
    // Both resolve the branch anew.
    let eval = ["eval", "--json", "--option", "tarball-ttl", "0", &flake, "--apply", hosts];
    let config = world.at("claveld.toml");
    let ours = || world.claveld(&["once", "--config", &config]).good();
    let (ours, peer) = interleaved(before, ours, || world.run("nix", &eval).good());
    let over = ours.saturating_sub(peer);
    let verdict = format!("{} over (goal: at most 100 ms), {:.2} times", format_time(over), ratio(ours, peer));
    Row { what, ours, peer, verdict }
}

/// Compares `clavel-agent once` without anything to do with `git ls-remote`.
fn no_op_pass(world: &World) -> Row {
    let url = format!("file://{}", world.at("fleet.git"));
    let (ours, peer) = interleaved(
        || (),
        || world.agent("web-1", &["once"]).good(),
        || world.run("git", &["ls-remote", &url, "refs/heads/deployments"]).good(),
    );
    let verdict = format!("{:.2} times (goal: at most 2)", ratio(ours, peer));
    Row { what: "clavel-agent once, nothing to do / git ls-remote", ours, peer, verdict }
}

/// Compares an evaluation of one host in the cage with the same outside of it.
fn cage(world: &World) -> Row {
    /// The programs that then run in it: one reads the lock, one lists the names, one evaluates the host. The time to try whether
    /// there is a cage at all is part of theirs.
    const EVALUATORS: u32 = 3;
    let flake = world.flake();
    let evaluate = |isolation: &str| {
        world.claveld(&["evaluate", &flake, "--include", "web-1", "--isolation", isolation, "--json"]).good()
    };
    let (ours, peer) = interleaved(|| (), || evaluate("cage"), || evaluate("none"));
    let each = ours.saturating_sub(peer) / EVALUATORS;
    let verdict = format!("{} for each evaluator (goal: at most 30 ms)", format_time(each));
    Row { what: "claveld evaluate, in the cage / without it", ours, peer, verdict }
}

/// The medians of both sides. The call of `before` ahead of each run is not timed.
fn interleaved(before: impl Fn(), ours: impl Fn() -> String, peer: impl Fn() -> String) -> (Duration, Duration) {
    let once = |run: &dyn Fn() -> String| {
        before();
        timed(|| drop(run()))
    };
    // The first run of each side fills the caches of the disk.
    let _ = (once(&ours), once(&peer));
    let (ours, peer) = (0..ROUNDS).map(|_| (once(&ours), once(&peer))).unzip();
    (median(ours), median(peer))
}
