//! Promise: keys are replaced while the machines run on, and what a thief signed is worth nothing once theirs is gone.

use crate::support::attacker::{Branch, LARGEST, Onto, StolenKey};
use crate::support::world::World;
use serde_json::json;

/// A published fleet whose systems are in the cache, with the agent of `web-1`, which has switched.
fn running() -> World {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    world
}

/// Makes `root-2.json` with these changes, signed by the fleet's root key, and puts it on the branch.
fn next_root(world: &World, changes: &[&str]) {
    let (key, next) = (world.at("root-1.secret"), world.at("root-2.json"));
    let made = ["root", "next", &world.root(), "-o", &next, "--key", &key];
    world.clavel(&[&made, changes].concat()).good();
    world.clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")]).good();
}

/// Makes claveld's next key, and has claveld sign with it.
fn new_publisher(world: &World) -> String {
    world.clavel(&["key", "generate", "claveld-2", "--output", &world.at("claveld-2.secret")]).good();
    let config = world.read_file("claveld.toml").replace("claveld-1.secret", "claveld-2.secret");
    world.write_file("claveld.toml", &config);
    world.public_key("claveld-2")
}

#[test]
fn what_a_thief_signs_is_as_good_as_what_claveld_signs_while_the_key_counts() {
    // The workshop of `support::attacker` has to be able to do what it is there for.
    let world = running();
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    let mut branch = Branch::of(&world);
    branch.edit("deployments/web-1.json", &[&thief], |signed| signed["revision"] = json!(LARGEST));
    branch.reindex(&[&thief], |index| index["version"] = json!(LARGEST));
    branch.push(Onto::Tip);
    world.verify().good();
    assert_eq!(world.agent("web-1", &["once"]).good(), format!("web-1: adopted revision {LARGEST}\n"));
}
