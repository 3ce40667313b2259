//! Promise: a revision stays only once it has proved itself; otherwise the machine goes back.

use std::net::{SocketAddr, TcpListener};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::http::HttpServer;
use crate::support::world::{Running, World, until};

/// A fleet whose revisions have these checks and this probation, and whose `web-1` runs the first of them. The first one has none.
fn with_proof(checks: &Value, probation: &Value, more: &str) -> World {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), more);
    world.agent("web-1", &["once"]).good();
    world.write_file("proof.json", &json!({ "checks": checks, "probation": probation }).to_string());
    world
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn start(world: &World, command: &str) -> Running {
    world.start(env!("CARGO_BIN_EXE_clavel-agent"), &[command, "--config", &world.at("web-1.toml")])
}

fn status(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()
}

fn state(world: &World) -> Value {
    status(world)["deployments"]["web-1"].clone()
}

/// Quick checks, for a test that waits for them.
fn tcp(address: SocketAddr) -> Value {
    json!({ "port": { "tcp": address.to_string(), "interval": "50ms" } })
}

fn quick() -> Value {
    json!({ "settle": "200ms", "deadline": "2s" })
}

#[test]
fn a_revision_stays_where_its_checks_hold_and_goes_back_where_one_does_not() {
    let (listener, address) = listen();
    let world = with_proof(&tcp(address), &quick(), "");
    world.change_from_memory("Welcome", "Second");
    let ran = world.agent("web-1", &["once"]);
    assert!(ran.stderr.contains("web-1: on probation; it has one check"), "{}", ran.stderr);
    assert_eq!(ran.good(), "web-1: switched to revision 2\n");
    assert_eq!(status(&world)["probation"], Value::Null, "it is over");
    // What runs already is not proved again.
    drop(listener);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    world.change_from_memory("Second", "Third");
    let said =
        world.agent("web-1", &["once"]).refused(7, "it did not prove itself within 2s: the check `port` (tcp 127");
    assert!(said.contains("does not hold: Connection refused") && said.contains("going back to /nix/store/"), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Second to web-1"));
    let failed = state(&world);
    assert_eq!((&failed["state"], &failed["rollback"]), (&"rolled-back".into(), &"restored".into()));
    // It is held until there is a newer one.
    world.agent("web-1", &["once"]).refused(7, "did not prove itself");
    let _listener = TcpListener::bind(address).unwrap();
    world.change_from_memory("Third", "Fourth");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 4\n");
}

#[test]
fn a_service_that_dies_before_the_checks_have_settled_does_not_stay() {
    let (listener, address) = listen();
    let world = with_proof(&tcp(address), &json!({ "settle": "4s", "deadline": "5s" }), "");
    world.change_from_memory("Welcome", "Second");
    let agent = start(&world, "once");
    let holds = || status(&world)["probation"]["checks"][0]["standing"] == "holds";
    until("the check holds", holds);
    drop(listener);
    until("the check fails", || status(&world)["probation"]["checks"][0]["standing"] == "fails");
    let mut agent = agent;
    assert_eq!(agent.wait(), Some(7), "{}", agent.said());
    assert!(agent.said().contains("does not hold: Connection refused"), "{}", agent.said());
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn each_kind_of_check_is_asked_and_one_that_is_permissive_is_only_told() {
    let world = with_proof(&json!({}), &json!({}), "");
    let script = "test $CLAVEL_REVISION.$CLAVEL_UNIT = 2.web-1 && grep -q Second $CLAVEL_PATH/etc/motd";
    let http = HttpServer::answering_plainly(204);
    let checks = json!({
        "motd": { "exec": ["/bin/sh", "-c", script], "interval": "50ms" },
        "site": { "http": format!("{}/health", http.url()), "interval": "50ms" },
        "told": { "exec": ["/bin/false"], "mode": "permissive" },
    });
    world.write_file("proof.json", &json!({ "checks": checks, "probation": quick() }).to_string());
    world.change_from_memory("Welcome", "Second");
    let ran = world.agent("web-1", &["once"]);
    assert!(
        ran.stderr.contains("warning: it stays, and the check `told` (exec /bin/false) does not hold"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.good(), "web-1: switched to revision 2\n");
    let http = HttpServer::answering_plainly(503);
    let checks = json!({ "site": { "http": http.url(), "interval": "50ms" }, "told": { "exec": ["/bin/false"] } });
    world.write_file("proof.json", &json!({ "checks": checks, "probation": quick() }).to_string());
    world.change_from_memory("Second", "Third");
    let said = world.agent("web-1", &["once"]).refused(7, "it answered with HTTP status 503");
    assert!(said.contains("the check `told` (exec /bin/false) does not hold"), "{said}");
}

#[test]
fn a_machine_adds_checks_of_its_own() {
    let (listener, address) = listen();
    let own = format!(
        "[probation]\nsettle = \"100ms\"\ndeadline = \"2s\"\n[checks.own]\ntcp = \"{address}\"\ninterval = \"50ms\"\n"
    );
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), &own);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    drop(listener);
    world.change_from_memory("Welcome", "Second");
    world.agent("web-1", &["once"]).refused(7, "the check `own` of this machine (tcp");
    world.configure_agent("web-1", "/x", "[checks.own]\ntpc = \"x:1\"\n");
    world.agent("web-1", &["once"]).refused(3, "`tpc` is not a field of a check");
}

#[test]
fn a_switch_after_which_no_mirror_can_be_read_goes_back() {
    let world = with_proof(&json!({}), &json!({ "deadline": "2s" }), "");
    let (there, away) = (world.at("fleet.git"), world.at("away.git"));
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"test $CLAVEL_REVISION = 1 || mv {there} {away}; "),
    );
    world.change_from_memory("Welcome", "Second");
    let said = world.agent("web-1", &["once"]).refused(7, "no mirror that answered before the switch");
    assert!(said.contains("does not exist") && said.contains("going back to"), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_mirror_that_comes_back_in_time_is_enough_and_one_that_was_down_before_is_not_asked() {
    // The second mirror never answers.
    let more = format!("mirrors = [\"file://{}\"]", "/nonexistent/fleet.git");
    let world = with_proof(&json!({}), &json!({ "deadline": "1m" }), &more);
    let (there, away) = (world.at("fleet.git"), world.at("away.git"));
    world.edit("hosts/web-1.nix", "activate = \"", &format!("activate = \"mv {there} {away}; "));
    world.change_from_memory("Welcome", "Second");
    let mut agent = start(&world, "once");
    until("the mirror cannot be read", || status(&world)["probation"]["mirrorError"].is_string());
    std::fs::rename(&away, &there).unwrap();
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
    assert_eq!(state(&world)["running"]["revision"], 2);
}

#[test]
fn a_person_confirms_a_revision_or_it_goes_back() {
    let world = with_proof(&json!({}), &json!({ "confirm": "manual", "deadline": "1m" }), "");
    world.agent("web-1", &["confirm"]).refused(8, "no revision is on probation");
    let one_line = || world.agent("web-1", &["status", "--oneline"]).good();
    assert_eq!(one_line(), "web-1 runs revision 1\n");
    world.change_from_memory("Welcome", "Second");
    let mut agent = start(&world, "once");
    until("it waits for a person", || status(&world)["probation"]["awaitsPerson"] == true);
    assert!(agent.said().contains("confirm it with `clavel-agent confirm web-1`"), "{}", agent.said());
    let shown = world.agent("web-1", &["status"]).good();
    assert!(
        shown.contains("waits       for `clavel-agent confirm web-1`") && shown.contains("goes back to /nix/store/"),
        "{shown}"
    );
    assert_eq!(one_line(), "web-1 revision 2 is activated and on probation (attempt 1)\n");
    world.agent("web-1", &["confirm", "web-2"]).refused(8, "revision 2 of `web-1` is");
    assert_eq!(world.agent("web-1", &["confirm"]).good(), "web-1: revision 2 is confirmed\n");
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
    assert_eq!(state(&world)["running"]["revision"], 2);
    // The confirmation of one revision is none of the next.
    world.write_file(
        "proof.json",
        &json!({ "checks": {}, "probation": { "confirm": "manual", "deadline": "2s" } }).to_string(),
    );
    world.change_from_memory("Second", "Third");
    world.agent("web-1", &["once"]).refused(7, "nobody confirmed it with `clavel-agent confirm`");
    assert_eq!(one_line(), "web-1 revision 3 failed, and 2 runs\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Second to web-1"));
}

#[test]
fn a_probation_that_kills_the_agent_is_a_counted_attempt_and_one_that_it_leaves_in_order_is_none() {
    let world = with_proof(&json!({}), &json!({ "confirm": "manual", "deadline": "1m" }), "");
    world.change_from_memory("Welcome", "Second");
    let on_probation = || status(&world)["probation"]["awaitsPerson"] == true;
    for (signal, attempts) in
        [(Signal::TERM, 1), (Signal::INT, 1), (Signal::KILL, 1), (Signal::TERM, 2), (Signal::KILL, 2)]
    {
        let mut agent = start(&world, "run");
        until("it is on probation", || {
            on_probation() && state(&world)["isPaused"].is_null() && agent.said().contains("confirm it with")
        });
        assert_eq!(state(&world)["attempts"], attempts, "{signal:?}");
        agent.signal(signal);
        agent.wait();
        assert_eq!(state(&world)["state"], "probation");
    }
    let said = world.agent("web-1", &["once"]).refused(7, "going back to /nix/store/");
    assert!(said.contains("ended during each of 2 attempts"), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn checks_come_from_the_flake_and_from_a_host_of_it() {
    let world = World::new();
    let host = "config.services.clavel-agent = { checks.ssh = { tcp = \"127.0.0.1:22\"; mode = \"permissive\"; }; probation.settle = \"5s\"; };";
    world.edit("lib/host.nix", "config.nix.settings", &format!("{host}\n config.nix.settings"));
    let declared =
        "clavel.deployments.web-1.checks = { ssh.tcp = \"localhost:22\"; site.http = \"http://localhost/\"; };";
    world.edit("flake.nix", "clavel.units.router-1", &format!("{declared}\n clavel.units.router-1"));
    world.push("Checks");
    world.publish_with_nix(&["web-1"]);
    let of = |name: &str| world.document(&format!("deployments/{name}.json"))["specification"].clone();
    assert_eq!(
        (&of("web-1")["checks"], &of("web-1")["probation"]),
        (
            &json!({ "ssh": { "tcp": "localhost:22" }, "site": { "http": "http://localhost/" } }),
            &json!({ "settle": "5s" })
        )
    );
    assert_eq!(of("web-2")["checks"], json!({ "ssh": { "mode": "permissive", "tcp": "127.0.0.1:22" } }));
    assert_eq!((&of("router-1")["checks"], &of("router-1")["probation"]), (&Value::Null, &Value::Null));
    world.edit("flake.nix", "ssh.tcp", "ssh.tpc");
    world.push("A typo");
    let said = world.publish().stderr;
    assert!(said.contains("`tpc` is not a field of a check"), "{said}");
}

/// A fleet whose revision 2 has these checks and asks a person, and the agent that has it on probation.
fn asking_a_person(checks: &Value, deadline: &str) -> (World, Running) {
    let terms = json!({ "confirm": "manual", "settle": "100ms", "deadline": deadline });
    let world = with_proof(checks, &terms, "");
    world.change_from_memory("Welcome", "Second");
    let agent = start(&world, "once");
    until("it waits for a person", || status(&world)["probation"]["awaitsPerson"] == true);
    (world, agent)
}

#[test]
fn a_person_is_heard_beside_checks_that_are_looked_at_all_the_time() {
    let always = json!({ "quick": { "exec": ["/bin/true"], "interval": "10ms" } });
    let (world, mut agent) = asking_a_person(&always, "1h");
    assert_eq!(world.agent("web-1", &["confirm"]).good(), "web-1: revision 2 is confirmed\n");
    until("it is heard", || agent.has_ended());
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
    assert_eq!(state(&world)["running"]["revision"], 2);
}

#[test]
fn a_revision_whose_checks_broke_waits_for_no_person_any_more() {
    let (listener, address) = listen();
    let (world, mut agent) = asking_a_person(&tcp(address), "1m");
    drop(listener);
    until("the check fails", || status(&world)["probation"]["checks"][0]["standing"] == "fails");
    assert_eq!(status(&world)["probation"]["awaitsPerson"], false);
    let said = world.agent("web-1", &["confirm"]).good();
    assert_eq!(said, "web-1: revision 2 is confirmed, and stays once its checks hold\n");
    let _listener = TcpListener::bind(address).unwrap();
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
}

#[test]
fn a_confirmation_outlives_the_agent_and_counts_for_no_other_try() {
    let (world, mut agent) = asking_a_person(&json!({}), "1m");
    agent.signal(Signal::KILL);
    agent.wait();
    // Nobody is there to take note of it yet.
    assert_eq!(world.agent("web-1", &["confirm"]).good(), "web-1: revision 2 is confirmed\n");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    let terms = json!({ "confirm": "manual", "deadline": "5s" });
    world.write_file("proof.json", &json!({ "checks": {}, "probation": terms }).to_string());
    world.change_from_memory("Second", "Third");
    for attempt in 1..=2 {
        let mut agent = start(&world, "once");
        until("it is on probation", || {
            let report = &status(&world)["probation"];
            report["attempt"] == attempt && report["awaitsPerson"] == true
        });
        agent.signal(Signal::KILL);
        agent.wait();
    }
    // All attempts are over, so this confirmation comes too late, and is none of the next try.
    world.agent("web-1", &["confirm"]).good();
    world.agent("web-1", &["once"]).refused(7, "ended during each of 2 attempts");
    world.agent("web-1", &["retry"]).good();
    world.agent("web-1", &["once"]).refused(7, "nobody confirmed it");
}

#[test]
fn a_mirror_that_lagged_behind_a_stick_before_the_switch_is_not_asked() {
    let fresh = |world: &World| {
        let (file, fleet) = (world.at("media/fleet.bundle"), world.at("fleet.git"));
        std::fs::create_dir_all(world.path("media")).unwrap();
        let _ = std::fs::remove_file(&file);
        world.clavel(&["bundle", "create", &file, "--repository", &fleet]).good();
    };
    let world = with_proof(&json!({}), &json!({ "deadline": "2s" }), "");
    world.git(&["clone", "-q", "--mirror", &world.at("fleet.git"), &world.at("lagging.git")]);
    world.change_from_memory("Welcome", "Second");
    fresh(&world);
    let more = format!("mirrors = [\"file://{}\"]", world.at("lagging.git"));
    world.configure_agent("web-1", &world.at("media/*.bundle"), &more);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}
