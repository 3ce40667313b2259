//! Promise: an agent switches only to deployments that are signed for it, and after every failure a working system runs.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::world::{ENDS_EVERYTHING, World, until};

/// A published fleet whose systems are in the cache, and the agent of `unit`.
fn ready(unit: &str) -> World {
    let world = World::published_with_nix(&[unit]);
    world.configure_agent(unit, &format!("file://{}", world.at("fleet.git")), "");
    world
}

#[test]
fn a_path_that_no_cache_has_yet_is_waited_for() {
    let world = World::new();
    world.publish().good();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let said = world.agent("web-1", &["once"]).good();
    assert!(said.contains("is not in any of its caches yet"), "{said}");
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["deployments"]["web-1"]["state"], "confirmed");
    assert_eq!(status["deployments"]["web-1"]["running"]["revision"], 1);
    assert_eq!(status["lastPass"]["ok"], true);
}

#[test]
fn a_deployment_that_names_no_cache_is_not_waited_for() {
    let world = World::new();
    world.write("caches.nix", "{ substituters = [ ]; substituters-public-keys = [ ]; }\n");
    world.push("No caches");
    world.publish().good();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    world
        .agent("web-1", &["once"])
        .refused(6, "its deployment names no cache to fetch it from; name `substituters` for it");
    assert_eq!(world.motd("web-1"), None);
}

#[test]
fn a_cache_that_another_key_signed_is_not_believed() {
    let world = World::new();
    // The hosts name the first key; another key of the same name signs the cache.
    world.publish().good();
    std::fs::remove_file(world.path("cache-1.secret")).unwrap();
    world.clavel(&["key", "generate", "cache-1", "--output", &world.at("cache-1.secret")]).good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).refused(6, "but not signed by any key that the deployment names (cache-1)");
    assert_eq!(world.motd("web-1"), None);
}

#[test]
fn a_cache_out_of_reach_is_an_error_and_what_runs_goes_on() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.use_cache("http://127.0.0.1:9");
    world.change_with_nix("Welcome", "Hello");
    world.agent("web-1", &["once"]).refused(6, "127.0.0.1:9");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn an_activation_that_fails_is_rolled_back_and_not_tried_again_by_itself() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    let good = std::fs::read_link(world.path("web-1/profile/system-1-link")).unwrap();
    // The activation installs the new message and fails afterwards.
    world.edit("hosts/web-1.nix", "/motd\\\"\";", "/motd\\\"; test -e $CLAVEL_PROFILE.allowed\";");
    world.change_with_nix("Welcome", "Broken");
    let said = world.agent("web-1", &["once"]).refused(7, "the activation of `web-1` failed");
    assert!(said.contains(&format!("going back to {}", good.display())), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    let profile = world.path("web-1/profile");
    let current = std::fs::read_link(profile.join(std::fs::read_link(profile.join("system")).unwrap())).unwrap();
    assert_eq!(current, good);

    let again = world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    assert!(!again.contains("activating"), "{again}");
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains("web-1: revision 2 failed at"), "{status}");
    // What the activation printed stands in the record.
    let state = world.read_file("web-1/state/state.json");
    world
        .write_file("web-1/state/state.json", &state.replace("\"error\": \"", "\"error\": \"\\u001b[2J\\u202e\\u009b"));
    let steers = ['\u{1b}', '\u{202e}', '\u{9b}'];
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains("\u{fffd}[2J\u{fffd}\u{fffd}") && !status.contains(steers), "{status}");
    let status = world.agent("web-1", &["status", "--json"]).good();
    assert!(status.contains("\\u001b[2J\\u202e\\u009b") && !status.contains(steers), "{status}");

    let status = world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone();
    assert_eq!((&status["state"], &status["rollback"]), (&"rolled-back".into(), &"restored".into()));
    assert_eq!((&status["candidate"]["revision"], &status["running"]["revision"]), (&2.into(), &1.into()));
    // The operator repairs what the activation needs.
    world.write_file("web-1/profile/system.allowed", "");
    world.agent("web-1", &["once"]).refused(7, "or for `clavel-agent retry`");
    world.agent("web-1", &["retry", "web-2"]).refused(8, "no revision of `web-2` is held");
    let said = world.agent("web-1", &["retry", "web-1"]).good();
    assert_eq!(said, "web-1: the next pass tries revision 2 again\n");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    world.agent("web-1", &["retry"]).refused(8, "no revision is held");
    assert_eq!(world.motd("web-1").as_deref(), Some("Broken to web-1"));
}

#[test]
fn a_profile_that_cannot_be_set_is_tried_again_by_itself() {
    let world = ready("web-1");
    // A file stands in the place of the profile's folder.
    world.write_file("web-1/profile", "in the way");
    world.agent("web-1", &["once"]).refused(7, "web-1/profile");
    std::fs::remove_file(world.path("web-1/profile")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn an_altered_branch_is_refused_in_one_line() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    let original = world.on_branch("deployments/web-1.json").unwrap();
    let other = world.on_branch("deployments/web-2.json").unwrap();
    let unsigned = {
        let mut document: serde_json::Value = serde_json::from_str(&original).unwrap();
        document["signatures"] = serde_json::json!([]);
        serde_json::to_string_pretty(&document).unwrap() + "\n"
    };
    let cases = [
        ("deployments/web-1.json", Some(original.replace("web-1-1", "evil-1")), "somebody altered it"),
        ("deployments/web-1.json", Some(unsigned), "somebody altered it"),
        ("deployments/web-1.json", Some(other), "somebody altered it"),
        ("deployments/web-1.json", None, "is in the index and not on the branch"),
        ("index.json", None, "this is not a branch of Clavel"),
        ("index.json", Some("{}\n".to_owned()), "the index cannot be trusted"),
        ("index.json", Some("{\"\\u001b[2J\": 1}\n".to_owned()), "`\u{fffd}[2J` is not a key of a file"),
    ];
    let good = world.tip();
    for (path, text, why) in cases {
        world.tamper(&BTreeMap::from([(path, text)]));
        let said = world.agent("web-1", &["once"]).refused(5, why);
        assert_eq!(said.lines().filter(|line| line.starts_with("error:")).count(), 1, "{said}");
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
        world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
    }
    // The agent accepts the good branch again at its next pass.
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn what_does_not_belong_on_the_branch_is_refused_by_its_path() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    let good = world.tip();
    for (path, why) in [
        ("evil.sh", "`evil.sh` does not belong"),
        ("deployments/WEB-1.json", "only the documents that the index lists belong there"),
        ("units/web-1/web-1.json", "it is a folder, and only the documents that the index lists belong there"),
    ] {
        world.tamper(&BTreeMap::from([(path, Some("{}\n".to_owned()))]));
        world.agent("web-1", &["once"]).refused(5, why);
        let verify = ["verify", "--repository", &world.at("fleet.git"), "--root", &world.root()];
        world.clavel(&verify).refused(5, "does not belong on the branch");
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
        world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
    }
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn a_whole_old_branch_is_refused() {
    let world = ready("web-1");
    let old = world.tip();
    world.change_with_nix("Welcome", "Hello");
    world.agent("web-1", &["once"]).good();
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &old]);
    world.agent("web-1", &["once"]).refused(5, "the index went back from version 2 to 1");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn only_the_agents_own_root_counts() {
    let world = ready("web-1");
    let config = world.read_file("web-1.toml");
    world.clavel(&["init", &world.at("others")]).good();
    world.write_file("web-1.toml", &config.replace("root.json", "others/root.json"));
    world.agent("web-1", &["once"]).refused(5, "is of the fleet");
    assert_eq!(world.motd("web-1"), None);
}

#[test]
fn a_unit_of_another_arch_is_refused() {
    let world = World::new();
    world.write("system.nix", "\"riscv64-linux\"\n");
    world.push("Another machine");
    world.publish().good();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).refused(5, "of arch riscv64-linux, and this machine is");
}

#[test]
fn a_unit_of_type_command_needs_its_command() {
    let world = ready("router-1");
    let config = world.read_file("router-1.toml");
    world.write_file("router-1.toml", config.split("command =").next().unwrap());
    world.agent("router-1", &["once"]).refused(7, "the configuration names no command for it");
    world.write_file("router-1.toml", &config);
    assert_eq!(world.agent("router-1", &["once"]).good(), "router-1: switched to revision 1\n");
    assert_eq!(world.motd("router-1").as_deref(), Some("10 routes"));
}

#[test]
fn a_withdrawn_deployment_goes_on_running() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.edit(
        "flake.nix",
        "nixosConfigurations.web-1 = host ./hosts/web-1.nix;",
        "clavel.agents.web-1.deployments = [ ];",
    );
    world.push("Without web-1");
    world.publish().good();
    let said = world.agent("web-1", &["once"]).good();
    assert!(said.starts_with("web-1: is no deployment of this agent any more"), "{said}");
    assert_eq!(world.agent("web-1", &["once"]).good(), said, "it is said at every pass");
    world.edit("flake.nix", "clavel.agents.web-1.deployments = [ ];", "");
    world.push("And without its agent");
    world.publish().good();
    for _ in 0..2 {
        let said = world.agent("web-1", &["once"]).good();
        assert!(said.starts_with("web-1: was withdrawn; what runs goes on running (if it was renamed,"), "{said}");
        let last = world.agent("web-1", &["status", "--json"]).json()["lastPass"]["deployments"].clone();
        assert_eq!((&last[0]["deployment"], &last[0]["outcome"]), (&"web-1".into(), &"withdrawn".into()), "{last}");
        assert_eq!(world.agent("web-1", &["status", "--json"]).json()["lastPass"]["ok"], false);
    }
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_profile_that_another_tool_moved_is_told_and_the_next_revision_takes_it_back() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.change_with_nix("Welcome", "Hello");
    world.agent("web-1", &["once"]).good();
    let profile = world.path("web-1/profile");
    let link = |target: &str| {
        std::fs::remove_file(profile.join("system")).unwrap();
        std::os::unix::fs::symlink(target, profile.join("system")).unwrap();
    };
    let [first, second] = [1, 2].map(|n| std::fs::read_link(profile.join(format!("system-{n}-link"))).unwrap());
    link("system-1-link");
    for _ in 0..2 {
        let said = world.agent("web-1", &["once"]).good();
        let [first, second] = [&first, &second].map(|path| path.to_str().unwrap());
        assert!(said.contains(&format!("moved the profile to {first}")) && said.contains(second), "{said}");
        let last = world.agent("web-1", &["status", "--json"]).json()["lastPass"].clone();
        assert_eq!((&last["ok"], &last["deployments"][0]["outcome"]), (&false.into(), &"moved".into()), "{last}");
    }
    link("system-2-link");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    link("system-1-link");
    world.change_with_nix("Hello", "Good day");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Good day to web-1"));
}

#[test]
fn an_agent_killed_in_the_middle_of_an_activation_finishes_it_later() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    let gate = world.at("gate");
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"touch {gate}; while test -e {gate}.shut; do sleep 0.05; done; "),
    );
    world.write_file("gate.shut", "");
    world.change_with_nix("Welcome", "Hello");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")]);
    until("the activation is at work", || world.path("gate").exists());
    assert_eq!(world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"]["state"], "activating");
    world.agent("web-1", &["once"]).refused(8, "another clavel-agent is at work");
    agent.signal(rustix::process::Signal::KILL);
    agent.wait();
    std::fs::remove_file(world.path("gate.shut")).unwrap();
    until("nobody holds the lock", || {
        let ran = world.agent("web-1", &["once"]);
        ran.code != Some(8)
    });
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
}

/// A fleet whose `web-1` runs its first revision, and whose second one kills the agent during its activation.
fn with_a_revision_that_kills_the_agent() -> World {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"test $CLAVEL_REVISION != 2 || {{ {ENDS_EVERYTHING}}}; "),
    );
    world.change_with_nix("Welcome", "Deadly");
    world
}

fn lifecycle(world: &World) -> serde_json::Value {
    world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone()
}

#[test]
fn the_second_activation_that_kills_the_agent_is_the_last() {
    let world = with_a_revision_that_kills_the_agent();
    for attempts in 1..=2 {
        assert_eq!(world.agent("web-1", &["once"]).code, None, "SIGKILL ends the agent");
        let state = lifecycle(&world);
        assert_eq!((&state["state"], &state["attempts"]), (&"activating".into(), &attempts.into()), "{state}");
    }
    let path = lifecycle(&world)["running"]["narId"].clone();
    world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    let state = lifecycle(&world);
    assert_eq!((&state["state"], &state["rollback"]), (&"rolled-back".into(), &"restored".into()), "{state}");
    assert_eq!(state["failure"]["attempts"], 2);
    assert_eq!(state["running"]["narId"], path);
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // The agent does not try it again by itself, and a new revision runs.
    world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    world.change_with_nix("Deadly", "Good");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}

#[test]
fn an_agent_without_its_branch_still_goes_back() {
    let world = with_a_revision_that_kills_the_agent();
    for _ in 1..=2 {
        assert_eq!(world.agent("web-1", &["once"]).code, None);
        // The activation may have cut this machine off.
        let _ = std::fs::rename(world.path("fleet.git"), world.path("moved.git"));
    }
    world.agent("web-1", &["once"]).refused(4, "cannot fetch branch `deployments`");
    assert_eq!(lifecycle(&world)["state"], "rolled-back");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_rollback_that_is_interrupted_is_finished() {
    let world = ready("web-1");
    let gate = world.at("gate");
    // Revision 1 activates well, and kills the agent once when revision 2 goes back to it.
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"test ! -e {gate} || {{ rm {gate}; {ENDS_EVERYTHING}}}; "),
    );
    world.change_with_nix("Welcome", "First");
    world.agent("web-1", &["once"]).good();
    world.edit("hosts/web-1.nix", "activate = \"", &format!("activate = \"touch {gate}; exit 1; "));
    world.change_with_nix("First", "Broken");
    assert_eq!(world.agent("web-1", &["once"]).code, None);
    assert_eq!(lifecycle(&world)["state"], "rolling-back");
    world.agent("web-1", &["once"]).refused(7, "failed to activate at");
    assert_eq!(lifecycle(&world)["rollback"], "restored");
    assert_eq!(world.motd("web-1").as_deref(), Some("First to web-1"));
}

#[test]
fn a_damaged_state_is_never_taken_for_a_new_agent() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.write_file("web-1/state/state.json", "{ \"trusted\": ");
    world.agent("web-1", &["once"]).refused(8, "cannot understand the state in");
    // A damaged copy of the branch is fetched again.
    std::fs::remove_file(world.path("web-1/state/state.json")).unwrap();
    let copy = world.copies("web-1").remove(0);
    std::fs::remove_dir_all(copy.join("objects")).unwrap();
    std::fs::create_dir(copy.join("objects")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn a_missing_repository_is_reported_and_the_running_system_stays() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    std::fs::rename(world.path("fleet.git"), world.path("moved.git")).unwrap();
    world.agent("web-1", &["once"]).refused(4, "cannot fetch branch `deployments`");
    std::fs::rename(world.path("moved.git"), world.path("fleet.git")).unwrap();
    world.git(&["-C", &world.at("fleet.git"), "branch", "-D", "deployments"]);
    world.agent("web-1", &["once"]).refused(4, "it has no branch `deployments`; has claveld published there yet?");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_full_or_read_only_disk_leaves_what_runs() {
    let world = ready("web-1");
    world.agent("web-1", &["once"]).good();
    world.change_with_nix("Welcome", "Hello");
    // Permissions do not stop root, but a file in the place of a folder does.
    std::fs::remove_dir_all(world.path("web-1/state/roots")).unwrap();
    world.write_file("web-1/state/roots", "in the way");
    world.agent("web-1", &["once"]).refused(8, "cannot make");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    std::fs::remove_file(world.path("web-1/state/roots")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    let mode = std::fs::metadata(world.path("web-1/state/state.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "the state is its owner's alone");
}

#[test]
fn a_folder_that_is_no_cache_is_not_asked() {
    let world = World::new();
    std::fs::create_dir(world.path("unmounted")).unwrap();
    for cache in [world.at("unmounted"), format!("file://{}", world.at("unmounted"))] {
        world.use_cache(&cache);
        world.push("A cache that is not mounted");
        world.publish().good();
        world.configure_agent("web-1", &world.at("fleet.git"), "");
        let said = world.agent("web-1", &["once"]).stderr;
        assert!(said.contains("there is no cache at"), "{said}");
        assert_eq!(std::fs::read_dir(world.path("unmounted")).unwrap().count(), 0);
    }
}
