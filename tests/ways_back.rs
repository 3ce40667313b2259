//! Promise: a way back that fails is tried at every pass until it holds, and until then the agent says that it does not hold.

use serde_json::{Value, json};

use crate::support::world::{ENDS_EVERYTHING, World};

/// A unit whose second revision fails, and whose first one fails as well while the file `broken` is there.
fn with_a_way_back_that_fails() -> World {
    let world = World::new();
    let broken = world.at("broken");
    world.edit("hosts/web-1.nix", "activate = \"", &format!("activate = \"test ! -e {broken} || exit 9; "));
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();
    world.edit("hosts/web-1.nix", "activate = \"", "activate = \"test $CLAVEL_REVISION != 2 || exit 8; ");
    world.change_from_memory("Welcome", "Broken");
    world.write_file("broken", "");
    let said = world.agent("web-1", &["once"]).refused(7, "going back failed as well");
    assert!(said.contains("does not hold yet"), "{said}");
    world
}

fn state(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone()
}

fn mend(world: &World) {
    std::fs::remove_file(world.path("broken")).unwrap();
}

#[test]
fn a_way_back_that_fails_is_tried_at_every_pass_until_it_holds() {
    let world = with_a_way_back_that_fails();
    for tries in 2..=5 {
        world.agent("web-1", &["once"]).refused(7, "it is tried again at every pass");
        let state = state(&world);
        assert_eq!((&state["state"], &state["tries"]), (&json!("rolling-back"), &json!(tries)), "{state}");
        assert!(state["lastFailure"]["error"].as_str().unwrap().contains('9'), "{state}");
        assert_eq!(state.get("running"), None, "{state}");
    }
    let ran = world.agent("web-1", &["once", "--json"]);
    assert_eq!(ran.code, Some(7));
    let outcomes = ran.json();
    assert_eq!(outcomes[0]["outcome"], "failed");
    assert!(outcomes[0]["message"].as_str().unwrap().contains("does not hold yet"), "{outcomes}");
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains("not certain") && status.contains("does not hold yet"), "{status}");
    assert_eq!(world.agent("web-1", &["status", "--json"]).json()["lastPass"]["ok"], false);
    // It needs no branch.
    std::fs::rename(world.path("fleet.git"), world.path("moved.git")).unwrap();
    mend(&world);
    world.agent("web-1", &["once"]).refused(4, "cannot fetch branch `deployments`");
    let state = state(&world);
    assert_eq!((&state["state"], &state["rollback"]), (&json!("rolled-back"), &json!("restored")), "{state}");
    assert_eq!(state["running"]["revision"], 1);
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    std::fs::rename(world.path("moved.git"), world.path("fleet.git")).unwrap();
    let said = world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    assert!(!said.contains("does not hold"), "{said}");
}

#[test]
fn a_new_revision_helps_and_the_way_back_is_tried_until_it_is_there() {
    let world = with_a_way_back_that_fails();
    let fix = |from: &str, to: &str| {
        world.edit("hosts/web-1.nix", from, to);
        world.publish_from_memory(&[]);
    };
    fix("Broken", "Good");
    for tries in [2, 3] {
        let said = world.agent("web-1", &["once"]).refused(7, "does not hold yet");
        assert!(said.contains("is not in any of its caches yet"), "{said}");
        assert_eq!(state(&world)["tries"], tries);
    }
    mend(&world);
    world.publish_from_memory(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}

#[test]
fn the_operator_can_try_the_revision_again_while_the_way_back_fails() {
    let world = with_a_way_back_that_fails();
    world.edit("hosts/web-1.nix", "exit 8", "exit 7");
    world.publish_from_memory(&["web-1"]);
    mend(&world);
    world.agent("web-1", &["retry"]).good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}

#[test]
fn a_way_back_is_tried_for_a_deployment_that_was_withdrawn() {
    let world = with_a_way_back_that_fails();
    let flake = world.read_file("work/flake.nix").replace("nixosConfigurations.web-1 = host ./hosts/web-1.nix;", "");
    world.write("flake.nix", &flake);
    world.publish_from_memory(&[]);
    world.agent("web-1", &["once"]).refused(7, "does not hold yet");
    mend(&world);
    world.agent("web-1", &["once"]).good();
    assert_eq!(state(&world)["rollback"], "restored");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_way_back_that_kills_the_agent_does_not_keep_it_from_the_branch() {
    let world = with_a_way_back_that_fails();
    mend(&world);
    // The first revision kills the agent from now on.
    let profile = world.path("web-1/profile");
    let first = std::fs::read_link(profile.join("system-1-link")).unwrap();
    let script = world.path(&format!("web-1/store{}/bin/switch-to-configuration", first.display()));
    world.run("chmod", &["-R", "u+w", script.parent().unwrap().to_str().unwrap()]).good();
    std::fs::write(&script, format!("#!/bin/sh\n{ENDS_EVERYTHING}\n")).unwrap();
    for tries in 2..=4 {
        assert_eq!(world.agent("web-1", &["once"]).code, None);
        assert_eq!(state(&world)["tries"], tries);
    }
    world.edit("hosts/web-1.nix", "Broken", "Good");
    world.publish_from_memory(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}
