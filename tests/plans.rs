//! Promise: `clavel-agent plan` says what the next pass would do, and does nothing of it.

use serde_json::json;

use crate::support::world::World;

fn plan(world: &World) -> serde_json::Value {
    world.agent("web-1", &["plan", "--json"]).json()[0].clone()
}

#[test]
fn a_plan_says_what_the_next_pass_does() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let first = plan(&world);
    assert_eq!((&first["action"], &first["isHere"], &first["from"]), (&"activate".into(), &false.into(), &json!(null)));
    let system = first["to"]["narId"].as_str().unwrap().to_owned();
    assert_eq!(first["changes"], json!({ "packages": [], "rebuilt": 0 }), "{first:#}");
    assert!(!world.path("web-1/profile/system").exists(), "it did nothing");

    world.agent("web-1", &["once"]).good();
    assert_eq!(plan(&world)["action"], "up-to-date");
    let said = world.agent("web-1", &["plan"]).good();
    assert!(said.starts_with("DEPLOYMENT") && said.contains("web-1       1         up to date"), "{said}");

    let before = world.read_file("web-1/state/state.json");
    world.edit("hosts/web-1.nix", "activate = \"", "activate = \"echo no room >&2; exit 1; ");
    world.publish_from_memory(&["web-1"]);
    let said = world.agent("web-1", &["plan"]).good();
    assert!(said.contains("web-1       1 → 2     activate"), "{said}");
    assert!(said.contains(&format!("from {system}")) && said.contains("(to be fetched)"), "{said}");
    assert_eq!(world.read_file("web-1/state/state.json"), before, "it did nothing");

    world.agent("web-1", &["once"]).refused(7, "no room");
    let held = plan(&world);
    assert_eq!(held["action"], "hold");
    assert!(held["why"].as_str().unwrap().contains("no room"), "{held:#}");

    std::fs::rename(world.path("fleet.git"), world.path("away.git")).unwrap();
    world.agent("web-1", &["plan"]).refused(4, "fleet.git");
}
