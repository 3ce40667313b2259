//! Promise: what holds is said at every pass, with its likely cause first, and monitoring gets it as data.

use crate::support::world::World;

fn world() -> World {
    let world = World::published();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

#[test]
fn a_misspelt_name_is_named_as_such() {
    let world = world();
    let config = world.read_file("web-1.toml");
    world.write_file("web-1.toml", &config.replace("name = \"web-1\"", "name = \"wbe-1\""));
    for _ in 0..2 {
        let said = world.agent("web-1", &["once"]).refused(5, "the branch has no agent `wbe-1`: most likely `name`");
        assert!(!said.contains("altered") && !said.contains("somebody"), "{said}");
    }
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["lastPass"]["ok"], false);
    // An agent that was on the branch, and is neither listed nor withdrawn, is another matter.
    world.write_file("web-1.toml", &config);
    world.agent("web-1", &["once"]).good();
}

#[test]
fn a_profile_or_a_system_that_was_deleted_by_hand_is_noticed_at_the_next_pass() {
    let world = world();
    world.agent("web-1", &["once"]).good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    std::fs::remove_dir_all(world.path("web-1/profile")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");

    // The store, with its database.
    world.run("chmod", &["-R", "u+w", &world.at("web-1/store")]).good();
    std::fs::remove_dir_all(world.path("web-1/store")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    // Where no cache has it any more, the agent waits for one, and says so at every pass.
    world.run("chmod", &["-R", "u+w", &world.at("web-1/store")]).good();
    std::fs::remove_dir_all(world.path("web-1/store")).unwrap();
    std::fs::rename(world.path("cache"), world.path("gone")).unwrap();
    std::fs::create_dir(world.path("cache")).unwrap();
    world.write_file("cache/nix-cache-info", "StoreDir: /nix/store\n");
    for _ in 0..2 {
        let said = world.agent("web-1", &["once"]).good();
        assert!(said.contains("is not in any of its caches yet"), "{said}");
    }
    let last = world.agent("web-1", &["status", "--json"]).json()["lastPass"]["deployments"].clone();
    assert_eq!(last[0]["outcome"], "waiting", "{last}");
}

#[test]
fn a_mirror_that_lags_is_called_one() {
    let world = world();
    world.git(&["clone", "-q", "--bare", &world.at("fleet.git"), &world.at("mirror.git")]);
    world.change_from_memory("Welcome", "Hello");
    world.agent("web-1", &["once"]).good();
    world.configure_agent("web-1", &format!("file://{}", world.at("mirror.git")), "");
    for _ in 0..2 {
        let said = world.agent("web-1", &["once"]).refused(5, "the index went back from version 2 to 1: most likely");
        assert!(said.contains("is a mirror that lags behind"), "{said}");
        assert!(!said.contains("somebody"), "{said}");
    }
    let mirrors = world.agent("web-1", &["status", "--json"]).json()["lastPass"]["mirrors"].clone();
    assert_eq!(mirrors[0]["status"], "behind");
}
