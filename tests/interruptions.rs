//! Promise: an activation outlives its agent, and no unit has two activations at once.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::world::{Running, World, until};

/// A fleet whose `web-1` notes in the file `ran` that its activation begins and ends, and waits between them while the file `shut` is
/// there. `more` is what the activation does at the end.
fn with_a_slow_activation(more: &str) -> World {
    let world = World::new();
    let (ran, shut) = (world.at("ran"), world.at("shut"));
    let script = format!(
        "activate = \"echo begin >> {ran}; while test -e {shut}; do sleep 0.02; done; echo end >> {ran}; {more}"
    );
    world.edit("hosts/web-1.nix", "activate = \"", &script);
    world.write_file("shut", "");
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "interval = \"100ms\"");
    world
}

fn ran(world: &World) -> Vec<String> {
    let ran = std::fs::read_to_string(world.path("ran")).unwrap_or_default();
    ran.lines().map(ToOwned::to_owned).collect()
}

fn start(world: &World, command: &str) -> Running {
    world.start(env!("CARGO_BIN_EXE_clavel-agent"), &[command, "--config", &world.at("web-1.toml")])
}

/// Starts the agent, and returns once the activation is at work.
fn start_until_it_activates(world: &World, command: &str) -> Running {
    let agent = start(world, command);
    until("the activation is at work", || ran(world) == ["begin"]);
    agent
}

fn open(world: &World) {
    std::fs::remove_file(world.path("shut")).unwrap();
}

fn state(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone()
}

#[test]
fn a_signal_ends_the_agent_and_not_its_activation() {
    for (command, signal, code) in [
        ("once", Signal::INT, 8),
        ("once", Signal::TERM, 8),
        ("once", Signal::HUP, 8),
        ("run", Signal::INT, 0),
        ("run", Signal::TERM, 0),
    ] {
        let world = with_a_slow_activation("");
        let mut agent = start_until_it_activates(&world, command);
        agent.signal(signal);
        assert_eq!(agent.wait(), Some(code), "{command} {signal:?}: {}", agent.said());
        assert!(agent.said().contains("leaves the activation running"), "{}", agent.said());
        assert_eq!((ran(&world), &state(&world)["state"]), (vec!["begin".to_owned()], &"activating".into()));
        open(&world);
        until("the activation ends by itself", || ran(&world) == ["begin", "end"]);
        let next = world.agent("web-1", &["once"]).also_good();
        assert_eq!(next.stdout, "web-1: up to date at revision 1\n");
        let switched = "web-1: switched to revision 1, by an activation that began before this agent";
        assert_eq!(next.stderr.matches(switched).count(), 1, "{}", next.stderr);
        assert_eq!(ran(&world), ["begin", "end"], "it was not done again");
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    }
}

#[test]
fn the_next_agent_waits_for_the_activation_of_one_that_was_killed() {
    let world = with_a_slow_activation("");
    let mut agent = start_until_it_activates(&world, "run");
    agent.signal(Signal::KILL);
    agent.wait();
    let mut next = start(&world, "once");
    until("it waits", || next.said().contains("still runs; waiting for it"));
    // Another one that is killed while it waits changes nothing.
    next.signal(Signal::KILL);
    next.wait();
    let mut next = start(&world, "once");
    until("it waits", || next.said().contains("still runs; waiting for it"));
    assert_eq!((ran(&world), &state(&world)["attempts"]), (vec!["begin".to_owned()], &1.into()));
    open(&world);
    assert_eq!(next.wait(), Some(0), "{}", next.said());
    assert_eq!(ran(&world), ["begin", "end"], "there was one activation");
    assert_eq!(state(&world)["running"]["revision"], 1);
}

#[test]
fn the_next_agent_takes_the_failure_that_no_agent_saw() {
    let world = with_a_slow_activation("test $CLAVEL_REVISION != 2 || { echo no room; exit 3; }; ");
    open(&world);
    world.agent("web-1", &["once"]).good();
    world.change_from_memory("Welcome", "Broken");
    std::fs::remove_file(world.path("ran")).unwrap();
    world.write_file("shut", "");
    let mut agent = start_until_it_activates(&world, "once");
    agent.signal(Signal::KILL);
    agent.wait();
    open(&world);
    until("the activation ends by itself", || ran(&world) == ["begin", "end"]);
    let said = world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate");
    assert!(said.contains("going back to /nix/store/"), "{said}");
    let state = state(&world);
    assert_eq!((&state["failure"]["attempts"], &state["rollback"]), (&1.into(), &"restored".into()), "{state}");
    assert!(state["failure"]["error"].as_str().unwrap().contains("no room"), "{state}");
    assert_eq!(ran(&world), ["begin", "end", "begin", "end"], "once each way");
}

#[test]
fn the_next_agent_waits_for_a_rollback_of_one_that_was_killed() {
    let world = with_a_slow_activation("test $CLAVEL_REVISION != 2; ");
    open(&world);
    world.agent("web-1", &["once"]).good();
    world.change_from_memory("Welcome", "Broken");
    // The first revision waits once it is gone back to.
    let profile = world.path("web-1/profile");
    let first = std::fs::read_link(profile.join("system-1-link")).unwrap();
    let script = world.path(&format!("web-1/store{}/bin/switch-to-configuration", first.display()));
    world.run("chmod", &["-R", "u+w", script.parent().unwrap().to_str().unwrap()]).good();
    let (back, shut) = (world.at("back"), world.at("shut"));
    let text =
        format!("#!/bin/sh\necho begin >> {back}; while test -e {shut}; do sleep 0.02; done; echo end >> {back}\n");
    std::fs::write(&script, text).unwrap();
    let went_back = || std::fs::read_to_string(world.path("back")).unwrap_or_default();
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")]);
    // The second revision does not wait.
    until("the rollback is over", || went_back() == "begin\nend\n");
    assert_eq!(agent.wait(), Some(7));
    std::fs::remove_file(world.path("back")).unwrap();
    world.write_file("shut", "");
    world.agent("web-1", &["retry"]).good();
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")]);
    until("revision 2 is tried", || ran(&world).len() > 4);
    open(&world);
    until("the rollback has begun", || went_back().starts_with("begin\n"));
    agent.signal(Signal::KILL);
    agent.wait();
    world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate");
    assert_eq!(state(&world)["rollback"], "restored");
    assert_eq!(went_back(), "begin\nend\n", "there was one rollback");
}

#[test]
fn an_activation_whose_process_was_killed_is_waited_for() {
    let world = with_a_slow_activation("");
    world.edit("hosts/web-1.nix", "activate = \"", "activate = \"kill -KILL $PPID; ");
    world.publish_from_memory(&["web-1"]);
    let mut agent = start_until_it_activates(&world, "once");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), Some(8), "{}", agent.said());
    let mut next = start(&world, "once");
    world.agent("web-1", &["status"]).good();
    assert!(!next.has_ended());
    assert_eq!(ran(&world), ["begin"]);
    open(&world);
    next.wait();
    // How it ended is not known, so each attempt is done again, one after another.
    let ran = ran(&world);
    assert!(ran.chunks(2).all(|one| one == ["begin", "end"]), "{ran:?}");
}

#[test]
fn what_an_activation_leaves_running_is_let_alone_and_not_waited_for() {
    let world = World::new();
    let (left, end) = (world.at("left"), world.at("end"));
    let daemon = format!(
        "activate = \"( while ! test -e {end}; do echo noise; echo noise >> {left}; sleep 0.02; done; echo end >> {left} ) & "
    );
    world.edit("hosts/web-1.nix", "activate = \"", &daemon);
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    let length = || std::fs::metadata(world.path("left")).map_or(0, |metadata| metadata.len());
    let before = length();
    until("the daemon goes on", || length() > before + 60);
    world.write_file("end", "");
    until("the daemon ends by itself", || world.read_file("left").ends_with("end\n"));
}

#[test]
fn a_reader_that_does_not_read_stops_no_deadline() {
    for command in ["once", "run"] {
        let world = World::new();
        // More than a pipe and the queue before it hold.
        let noise = "activate = \"head -c 50000000 /dev/zero | tr '\\\\0' 'x'; sleep 600; ";
        world.edit("hosts/web-1.nix", "activate = \"", noise);
        world.publish_from_memory(&["web-1"]);
        let more = "interval = \"100ms\"\n[activate]\ntimeout = \"3s\"\n";
        world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), more);
        let mut agent =
            world.command(env!("CARGO_BIN_EXE_clavel-agent"), &[command, "--config", &world.at("web-1.toml")]);
        let mut agent = agent.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        until("the activation is given up", || state(&world)["state"] == "rolled-back");
        let error = state(&world)["failure"]["error"].as_str().unwrap().to_owned();
        assert!(error.contains("did not finish within"), "{error}");
        let pid = rustix::process::Pid::from_raw(i32::try_from(agent.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        agent.wait().unwrap();
    }
}

/// A unit whose agent was killed while it activated revision 2, and for which revision 3 was published at once.
struct Superseded {
    world: World,
    /// The next agent, which waits for the activation.
    agent: Running,
    /// The store paths of revisions 1 and 2.
    paths: [Value; 2],
}

/// `second` is what the activation of revision 2 does at its end.
fn superseded_while_no_agent_looks(second: &str) -> Superseded {
    let world = with_a_slow_activation(second);
    let path = || world.document("deployments/web-1.json")["specification"]["template"]["narId"].clone();
    open(&world);
    world.agent("web-1", &["once"]).good();
    let first = path();
    std::fs::remove_file(world.path("ran")).unwrap();
    world.write_file("shut", "");
    world.change_from_memory("Welcome", "Second");
    let paths = [first, path()];
    let mut agent = start_until_it_activates(&world, "run");
    agent.signal(Signal::KILL);
    agent.wait();
    // Revision 3 waits for a file of its own.
    world.edit("hosts/web-1.nix", &world.at("shut"), &world.at("third"));
    world.write_file("third", "");
    world.change_from_memory("Second", "Third");

    let agent = start(&world, "run");
    until("it waits", || agent.said().contains("still runs; waiting for it"));
    let state = state(&world);
    assert_eq!((&state["state"], &state["candidate"]["revision"]), (&"activating".into(), &2.into()), "{state}");
    assert_eq!((ran(&world), &state["attempts"]), (vec!["begin".to_owned()], &1.into()), "{state}");
    Superseded { world, agent, paths }
}

impl Superseded {
    /// Lets revision 2 end. Asserts that the agent activates revision 3 after `activations` others, one at a time, as its first attempt and with
    /// `way_back`, and switches to it.
    fn goes_on(&self, activations: usize, way_back: &Value) {
        let world = &self.world;
        open(world);
        until("revision 3 is being activated", || ran(world).len() == 2 * activations + 1);
        let before = state(world);
        assert_eq!((&before["state"], &before["candidate"]["revision"]), (&"activating".into(), &3.into()), "{before}");
        assert_eq!((&before["attempts"], &before["wayBack"]["path"]), (&1.into(), way_back), "{before}");
        std::fs::remove_file(world.path("third")).unwrap();
        until("revision 3 runs", || state(world)["state"] == "confirmed");
        assert_eq!(state(world)["running"]["revision"], 3);
        assert_eq!(world.motd("web-1").as_deref(), Some("Third to web-1"));
        let ran = ran(world);
        assert!(ran.chunks(2).all(|one| one == ["begin", "end"]), "{ran:?}");
        assert_eq!(ran.len(), 2 * (activations + 1), "{}", self.agent.said());
    }
}

#[test]
fn a_revision_that_comes_while_no_agent_looks_follows_the_one_that_is_being_activated() {
    let superseded = superseded_while_no_agent_looks("");
    superseded.goes_on(1, &superseded.paths[1]);
    let switched = "web-1: switched to revision 2, by an activation that began before this agent";
    assert!(superseded.agent.said().contains(switched), "{}", superseded.agent.said());
}

#[test]
fn a_revision_that_comes_while_no_agent_looks_follows_the_way_back_of_one_that_fails() {
    let superseded = superseded_while_no_agent_looks("test $CLAVEL_REVISION != 2; ");
    superseded.goes_on(2, &superseded.paths[0]);
}

#[test]
fn a_revision_that_comes_while_no_agent_looks_follows_the_last_attempt_of_one_that_is_killed() {
    // Its process is killed, so nobody knows how it ended.
    let superseded = superseded_while_no_agent_looks("test $CLAVEL_REVISION != 2 || kill -KILL $PPID; ");
    // It is tried twice, as often as an agent tries, and then the first revision comes back.
    superseded.goes_on(3, &superseded.paths[0]);
    let said = superseded.agent.said();
    assert!(said.contains("activating again (attempt 2)") && !said.contains("(attempt 3)"), "{said}");
}
