//! Promise: the hooks of an agent are called once for what happened, and change nothing about it.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::world::{Running, World, until};

/// A fleet whose agent has these hooks. The activation of revision 2 fails, and every one fails while the file `broken` is there.
fn with_hooks(hooks: &str) -> World {
    let world = World::new();
    let script = format!(
        "activate = \"test ! -e {} || exit 9; test $CLAVEL_REVISION != 2 || {{ echo no room >&2; exit 8; }}; ",
        world.at("broken")
    );
    world.edit("hosts/web-1.nix", "activate = \"", &script);
    world.publish_from_memory(&["web-1"]);
    configure(&world, hooks);
    world
}

fn configure(world: &World, hooks: &str) {
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), &format!("[hooks]\n{hooks}"));
}

/// A hook that is a script of the shell.
fn sh(step: &str, script: &str) -> String {
    format!("{step} = ['/bin/sh', '-c', '''{script}''']\n")
}

/// Notes a call in the file `called`: its variables, and the first line that it reads.
fn noting(world: &World, step: &str) -> String {
    let values = "$0 $CLAVEL_STEP $CLAVEL_DEPLOYMENT $CLAVEL_UNIT $CLAVEL_UNIT_TYPE $CLAVEL_REVISION $CLAVEL_ATTEMPT \
                  $CLAVEL_ROLLBACK $(cat $CLAVEL_PATH/etc/motd)";
    let script = format!(
        "read -r first; echo {values} \"|$first|$CLAVEL_ERROR|$(basename $CLAVEL_PREVIOUS_PATH)\" >> {}",
        world.at("called")
    );
    format!("{step} = ['/bin/sh', '-c', '''{script}''', 'hook']\n")
}

fn all(world: &World) -> String {
    ["before", "after", "failure"].map(|step| noting(world, step)).concat()
}

/// The calls since this was asked last, without what differs from run to run.
fn calls(world: &World) -> Vec<String> {
    let called = std::fs::read_to_string(world.path("called")).unwrap_or_default();
    let _ = std::fs::remove_file(world.path("called"));
    let hash = |word: &str| word.len() > 33 && word.as_bytes()[32] == b'-';
    let plain = |line: &str| {
        let words = line.split_inclusive([' ', '/', '|', ':']);
        words.map(|word| if hash(word) { &word[33..] } else { word }).collect::<String>()
    };
    called.lines().map(plain).collect()
}

fn status(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()
}

fn start(world: &World) -> Running {
    world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")])
}

#[test]
fn each_hook_is_called_once_with_what_happened() {
    let world = with_hooks("");
    configure(&world, &all(&world));
    world.agent("web-1", &["once"]).good();
    let system = |revision: u64| {
        let profile = world.path("web-1/profile");
        let link = std::fs::read_link(profile.join(format!("system-{revision}-link"))).unwrap();
        link.file_name().unwrap().to_str().unwrap()[33..].to_owned()
    };
    let first = system(1);
    let motd = "Welcome to web-1";
    assert_eq!(
        calls(&world),
        [
            format!(
                "hook before web-1 web-1 nixos 1 1 {motd} |web-1: activating revision 1 (attempt 1): /nix/store/{first}||"
            ),
            format!("hook after web-1 web-1 nixos 1 1 {motd} |web-1: switched to revision 1: /nix/store/{first}||"),
        ]
    );
    // Nothing happens.
    world.agent("web-1", &["once"]).good();
    assert_eq!(calls(&world), [""; 0]);

    world.change_from_memory("Welcome", "Broken");
    world.agent("web-1", &["once"]).refused(7, "no room");
    let [before, failure] = &calls(&world)[..] else { panic!() };
    assert!(before.starts_with("hook before web-1 web-1 nixos 2 1 Broken to web-1 |"), "{before}");
    assert!(before.ends_with(&format!("||{first}")), "{before}");
    assert!(failure.starts_with("hook failure web-1 web-1 nixos 2 1 restored Broken to web-1 |"), "{failure}");
    let said = format!(
        "|web-1: revision 2 failed, and the unit runs again what ran before: /nix/store/{first}|the activation of"
    );
    assert!(failure.contains(&said) && failure.ends_with(&format!("|{first}")), "{failure}");
    world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    assert_eq!(calls(&world), [""; 0], "it is told once");

    // Now going back fails as well, for a while.
    world.write_file("broken", "");
    world.change_from_memory("Broken", "Third");
    world.agent("web-1", &["once"]).refused(7, "does not hold yet");
    let [before, failure] = &calls(&world)[..] else { panic!() };
    assert!(before.starts_with("hook before web-1 web-1 nixos 3 1"), "{before}");
    assert!(failure.starts_with("hook failure web-1 web-1 nixos 3 1 pending Third to web-1 |"), "{failure}");
    world.agent("web-1", &["once"]).refused(7, "does not hold yet");
    std::fs::remove_file(world.path("broken")).unwrap();
    world.agent("web-1", &["once"]).refused(7, "revision 3 failed to activate at");
    assert_eq!(calls(&world), [""; 0], "it was told");
    world.agent("web-1", &["retry"]).good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
    assert_eq!(calls(&world).len(), 2);
}

#[test]
fn no_hook_changes_what_becomes_of_a_deployment() {
    let world = with_hooks("");
    // It fails with words of its own, and the other one is not there.
    let failing = sh("before", "echo no route; echo to the chat >&2; exit 3");
    configure(&world, &format!("{failing}after = ['no-such-program', 's3cret']\n"));
    let ran = world.agent("web-1", &["once", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let failed =
        "the hook `before` failed at revision 1 of `web-1`: `sh` failed with exit code 3: no route to the chat";
    let missing = "the hook `after` failed at revision 1 of `web-1`: cannot run `no-such-program`";
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&found[0]["outcome"], &found[1]["outcome"]), (&"switched".into(), &"warning".into()));
    assert_eq!(found[1]["message"], failed);
    assert!(found[2]["message"].as_str().unwrap().starts_with(missing), "{found}");
    assert_eq!(ran.stderr.matches(failed).count(), 1, "{}", ran.stderr);
    assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
    let last = status(&world)["lastPass"].clone();
    assert_eq!((&last["ok"], &last["warnings"][0]), (&true.into(), &failed.into()));
    // What cannot be called is told before it is needed.
    let again = world.agent("web-1", &["once"]).also_good();
    assert!(again.stderr.contains("warning: the hook `after` cannot be called: `no-such-program` is in no folder of"));
    assert!(!again.stderr.contains("hook `before`"), "{}", again.stderr);
    assert!(world.agent("web-1", &["status"]).good().contains("warning     the hook `after` cannot be called"));
    let check = world.agent("web-1", &["check", "--json"]);
    assert_eq!(check.code, Some(1), "{}", check.stderr);
    let check: Value = serde_json::from_str(&check.stdout).unwrap();
    let finding =
        |subject: &str| check["findings"].as_array().unwrap().iter().find(|f| f["subject"] == subject).cloned();
    assert_eq!(finding("hook before").unwrap()["outcome"], "ok");
    assert_eq!(finding("hook after").unwrap()["outcome"], "problem");
    assert_eq!(finding("hook failure"), None);
}

#[test]
fn a_hook_that_hangs_is_ended_and_what_it_leaves_is_not_waited_for() {
    let world = with_hooks("");
    // Both daemons have the output open; the second one is in a session of its own.
    let (left, hangs) = (world.at("left"), world.at("hangs"));
    let leaving = sh("before", &format!("sleep 600 & echo $! > {left}; setsid sleep 60 & exit 0"));
    let hanging = sh("after", &format!("sleep 600 & echo $! > {hangs}; echo hello; wait"));
    configure(&world, &format!("{leaving}{hanging}"));
    let begun = std::time::Instant::now();
    let ran = world.agent("web-1", &["once"]).also_good();
    let took = begun.elapsed().as_secs();
    assert!((30..50).contains(&took), "only the second one is waited for: {took} s");
    assert_eq!(ran.stdout, "web-1: switched to revision 1\n");
    let ended = "the hook `after` failed at revision 1 of `web-1`: `sh` did not finish within 30s and was ended: hello";
    assert!(ran.stderr.contains(ended) && !ran.stderr.contains("hook `before`"), "{}", ran.stderr);
    for process in [world.read_file("left"), world.read_file("hangs")] {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.trim())).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[test]
fn an_agent_that_ends_in_a_hook_calls_none_for_what_did_not_happen() {
    let world = with_hooks("");
    let (called, shut) = (world.at("called"), world.at("shut"));
    let waiting = |step: &str| {
        sh(step, &format!("echo $CLAVEL_STEP $CLAVEL_ATTEMPT >> {called}; while test -e {shut}; do sleep 0.02; done"))
    };
    configure(&world, &format!("{}{}", waiting("before"), waiting("after")));
    let is_called = |calls: &str| std::fs::read_to_string(&called).unwrap_or_default() == calls;
    // One that is told to end has not begun the attempt.
    for (calls, signal) in [("before 1\n", Signal::TERM), ("before 1\nbefore 1\n", Signal::INT)] {
        world.write_file("shut", "");
        let mut agent = start(&world);
        until("the hook runs", || is_called(calls));
        assert_eq!(status(&world)["deployments"]["web-1"]["state"], "activating");
        agent.signal(signal);
        assert_eq!(agent.wait(), Some(8), "{}", agent.said());
        let state = status(&world)["deployments"]["web-1"].clone();
        assert_eq!((&state["state"], &state["attempts"]), (&"known".into(), &0.into()));
        assert_eq!(world.motd("web-1"), None);
    }
    // One that is killed has, and the last hook is lost with it.
    let mut agent = start(&world);
    until("the hook runs", || is_called("before 1\nbefore 1\nbefore 1\n"));
    agent.signal(Signal::KILL);
    agent.wait();
    std::fs::remove_file(&shut).unwrap();
    std::fs::remove_file(&called).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    assert!(is_called("before 2\nafter 2\n"), "{}", world.read_file("called"));
    // It is killed in the hook after the switch, which is not called again.
    configure(&world, &waiting("after"));
    world.edit("hosts/web-1.nix", "$CLAVEL_REVISION != 2", "$CLAVEL_REVISION != 0");
    std::fs::remove_file(&called).unwrap();
    world.write_file("shut", "");
    world.change_from_memory("Welcome", "Second");
    let mut agent = start(&world);
    until("the hook runs", || is_called("after 1\n"));
    agent.signal(Signal::KILL);
    agent.wait();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    assert!(is_called("after 1\n"), "{}", world.read_file("called"));
}
