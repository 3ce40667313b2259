//! Promise: a push is evaluated and published, the pusher sees the result, and each machine switches by itself.

use crate::support::world::World;

#[test]
fn from_a_push_to_a_switched_machine() {
    let world = World::new();
    world.install_hook();
    let seen = world.push("Anything");
    for line in
        ["deployments/web-1.json", "units/router-1.json", "agents/web-2.json", "new, revision 1", "index version 1"]
    {
        assert!(seen.contains(line), "{seen}");
    }
    world.build(&["web-1", "router-1"]);
    for (unit, motd) in [("web-1", "Welcome to web-1"), ("router-1", "10 routes")] {
        world.configure_agent(unit, &format!("file://{}", world.at("fleet.git")), "");
        let said = world.agent(unit, &["once"]).good();
        assert_eq!(said, format!("{unit}: switched to revision 1\n"));
        assert_eq!(world.motd(unit).as_deref(), Some(motd));
    }

    world.edit("hosts/web-1.nix", "Welcome to", "Willkommen auf");
    let seen = world.push("In German");
    assert!(seen.contains("deployments/web-1.json  revision 1 → 2"), "{seen}");
    assert!(!seen.contains("deployments/web-2"), "{seen}");
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Willkommen auf web-1"));
    assert_eq!(world.agent("router-1", &["once"]).good(), "router-1: up to date at revision 1\n");
}

#[test]
fn a_push_of_another_branch_evaluates_nothing() {
    let world = World::new();
    world.install_hook();
    let work = world.at("work");
    world.git(&["-C", &work, "push", "-q", "origin", "main:refs/heads/experiment"]);
    assert_eq!(world.tip(), "");
}

#[test]
fn a_push_with_a_broken_host_says_so_and_publishes_the_others() {
    let world = World::new();
    world.install_hook();
    world.push("Good");
    let before = world.on_branch("deployments/web-2.json");
    world.write("hosts/web-2.nix", "throw \"web-2 is not ready\"");
    world.edit("hosts/web-1.nix", "Welcome to", "Hello from");
    let seen = world.push("Half good");
    assert!(seen.contains("broken: nixosConfigurations.web-2"), "{seen}");
    assert!(seen.contains("error: web-2 is not ready"), "{seen}");
    assert!(seen.contains("deployments/web-1.json  revision 1 → 2"), "{seen}");
    assert_eq!(world.on_branch("deployments/web-2.json"), before);
}
