//! Promise: what a unit runs is asked of the unit, whichever deployment it is of, and every way back leads to what ran there.

use serde_json::json;

use crate::support::attacker::{ForgedBranch, Onto, StolenKey};
use crate::support::world::{ENDS_EVERYTHING, World};

/// An agent that serves two units, each with a profile of its own, and publishes no branch yet.
fn with_two_units() -> World {
    let world = World::new();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let more = "[units.web-2]\nprofile = \"web-2/profile/system\"\n";
    world.write_file("web-1.toml", &(world.read_file("web-1.toml") + more));
    world
}

/// Publishes that the agent has these deployments, each for its unit, at this revision.
fn publish(world: &World, revision: u64, deployments: &[(&str, &str)]) {
    let key = StolenKey::read(&world.path("claveld-1.secret"));
    let mut branch = ForgedBranch::of(world);
    for (deployment, unit) in deployments {
        branch.edit(&format!("deployments/{deployment}.json"), &[&key], |signed| {
            signed["revision"] = json!(revision);
            signed["specification"]["unit"] = json!(unit);
        });
    }
    let names: Vec<&str> = deployments.iter().map(|(deployment, _)| *deployment).collect();
    branch.edit("agents/web-1.json", &[&key], |signed| {
        signed["revision"] = json!(revision);
        signed["specification"]["deployments"] = json!(names);
    });
    branch.reindex(&[&key], |index| index["version"] = json!(revision));
    branch.push(Onto::Tip);
}

#[test]
fn a_deployment_that_moves_to_another_unit_is_activated_there() {
    let world = with_two_units();
    world.publish_from_memory(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    publish(&world, 2, &[("web-1", "web-2")]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    assert_eq!(world.motd("web-2").as_deref(), Some("Welcome to web-1"));
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["deployments"]["web-1"]["running"]["unit"]["name"], "web-2");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
}

#[test]
fn an_agent_takes_its_machine_for_what_the_configuration_says() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    let repository = format!("file://{}", world.at("fleet.git"));
    world.configure_agent("web-1", &repository, "system = \"riscv64-linux\"\n");
    let said = world.agent("web-1", &["once"]).refused(5, "this machine is riscv64-linux");
    assert!(said.contains("set `system` in clavel-agent.toml"), "{said}");
    let own = clavel::model::System::this().unwrap();
    world.configure_agent("web-1", &repository, &format!("system = \"{own}\"\n"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn two_deployments_that_change_places_are_both_activated() {
    let world = with_two_units();
    world.publish_from_memory(&["web-1", "web-2"]);
    publish(&world, 2, &[("web-1", "web-1"), ("web-2", "web-2")]);
    assert_eq!(
        world.agent("web-1", &["once"]).good(),
        "web-1: switched to revision 2\nweb-2: switched to revision 2\n"
    );
    let (first, second) = (world.motd("web-1"), world.motd("web-2"));
    assert_ne!(first, second);
    for (revision, units) in [(3, ["web-2", "web-1"]), (4, ["web-1", "web-2"])] {
        publish(&world, revision, &[("web-1", units[0]), ("web-2", units[1])]);
        let said = world.agent("web-1", &["once"]).good();
        assert_eq!(said, format!("web-1: switched to revision {revision}\nweb-2: switched to revision {revision}\n"));
        assert_eq!((world.motd(units[0]), world.motd(units[1])), (first.clone(), second.clone()));
    }
}

#[test]
fn a_profile_that_leads_elsewhere_is_not_taken_for_the_record() {
    let world = with_two_units();
    world.publish_from_memory(&["web-1"]);
    world.agent("web-1", &["once"]).good();
    // The same revision, for a profile that nothing was switched to.
    let config = world.read_file("web-1.toml");
    world.write_file("web-1.toml", &config.replace("web-1/profile/system", "web-1/other/system"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(world.path("web-1/other/motd").exists());
}

#[test]
fn the_first_deployment_that_kills_the_agent_goes_back_to_what_ran_before() {
    let world = with_two_units();
    world.publish_from_memory(&["web-1"]);
    world.agent("web-1", &["once"]).good();
    // An agent without a state finds what another tool has activated.
    std::fs::remove_file(world.path("web-1/state/state.json")).unwrap();
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"test $CLAVEL_REVISION != 2 || {{ {ENDS_EVERYTHING}}}; "),
    );
    world.change_from_memory("Welcome", "Deadly");
    for _ in 1..=2 {
        assert_eq!(world.agent("web-1", &["once"]).code, None);
        let state = world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone();
        assert!(state["wayBack"]["path"].as_str().unwrap().ends_with("-nixos-system-web-1-1"), "{state}");
    }
    world.agent("web-1", &["once"]).refused(7, "revision 2 failed to activate at");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn no_way_back_leads_to_what_failed() {
    let world = with_two_units();
    world.edit("hosts/web-1.nix", "activate = \"", "activate = \"exit 1; ");
    world.publish_from_memory(&["web-1"]);
    world.agent("web-1", &["once"]).refused(7, "the activation of `web-1` failed");
    for (from, to) in [("Welcome", "Hello"), ("Hello", "Good day")] {
        world.change_from_memory(from, to);
        let said = world.agent("web-1", &["once"]).refused(7, "the activation of `web-1` failed");
        assert!(!said.contains("going back"), "{said}");
        let status = world.agent("web-1", &["status", "--json"]).json();
        assert_eq!(status["deployments"]["web-1"]["rollback"], "nothing-before");
    }
}

#[test]
fn a_store_of_its_own_has_a_profile_of_its_own() {
    let world = World::published();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let config = world.read_file("web-1.toml");
    world.write_file("web-1.toml", &config.replace("profile = \"web-1/profile/system\"\n", ""));
    let machine = || std::fs::read_link("/nix/var/nix/profiles/system").ok();
    let before = machine();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(machine(), before);
    let profiles = world.path("web-1/store/nix/var/nix/profiles");
    assert_eq!(std::fs::read_link(profiles.join("system")).unwrap(), std::path::Path::new("system-1-link"));
    assert_eq!(std::fs::read_to_string(profiles.join("motd")).unwrap().trim(), "Welcome to web-1");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    // In another store, nothing runs yet.
    world.write_file("web-1.toml", &world.read_file("web-1.toml").replace("web-1/store", "web-1/second"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(world.path("web-1/second/nix/var/nix/profiles/system").is_symlink());
    assert_eq!(machine(), before);
}

#[test]
fn a_table_about_a_unit_that_no_deployment_is_for_is_a_warning_at_every_pass() {
    let world = World::published();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let config = world.read_file("web-1.toml");
    world.write_file("web-1.toml", &format!("{config}[units.web-one]\n"));
    for _ in 0..2 {
        let ran = world.agent("web-1", &["once"]).also_good();
        assert!(ran.stderr.contains("warning: the configuration has [units.\"web-one\"]"), "{}", ran.stderr);
        assert!(ran.stderr.contains("the units there are: `web-1`"), "{}", ran.stderr);
    }
    let entries = world.agent("web-1", &["once", "--json"]).json();
    assert_eq!((&entries[0]["deployment"], &entries[0]["outcome"]), (&json!("web-1"), &json!("up-to-date")));
    assert_eq!((&entries[1]["unit"], &entries[1]["outcome"]), (&json!("web-one"), &json!("warning")));
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert!(status["lastPass"]["warnings"][0].as_str().unwrap().contains("web-one"), "{status}");
    assert!(world.agent("web-1", &["status"]).good().contains("warning     the configuration has"));
    world.write_file("web-1.toml", &config);
    assert!(!world.agent("web-1", &["once"]).also_good().stderr.contains("warning"));
}
