//! Promise: a machine of type nixos switches at once or at its next boot, as its deployment, its own configuration or the new system asks.

use serde_json::{Value, json};

use crate::support::world::World;

/// A fleet whose `web-1` runs its first revision, and notes in which mode each revision is activated.
fn switched(more: &str) -> World {
    let world = World::new();
    let note = "activate = \"echo $1 $CLAVEL_REVISION >> $CLAVEL_PROFILE.log; ";
    world.edit("hosts/web-1.nix", "activate = \"", note);
    inhibit(&world, "", "dbus");
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), more);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    world
}

/// Writes the `switch-inhibitors` of the next revision.
fn inhibit(world: &World, from: &str, to: &str) {
    let line = |dbus: &str| format!("  inhibitors = \"{{\\\"dbus-implementation\\\":\\\"{dbus}\\\"}}\";\n");
    match from {
        "" => world.edit("hosts/web-1.nix", "  motd =", &format!("{}  motd =", line(to))),
        from => world.edit("hosts/web-1.nix", &line(from), &line(to)),
    }
}

/// Sets the mode of the next revision.
fn set_mode(world: &World, mode: &str) {
    world.write_file("proof.json", &json!({ "checks": {}, "mode": mode, "probation": null }).to_string());
}

fn activations(world: &World) -> Vec<String> {
    world.read_file("web-1/profile/system.log").lines().map(str::to_owned).collect()
}

fn state(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"].clone()
}

fn needs_reboot(world: &World) -> bool {
    let metrics = world.read_file("web-1.prom");
    assert!(metrics.contains("clavel_agent_need_to_reboot "), "{metrics}");
    metrics.contains("\nclavel_agent_need_to_reboot 1\n")
}

/// The name of the system that the profile leads to.
fn profile(world: &World) -> String {
    world.run("readlink", &["-m", &world.at("web-1/profile/system")]).good()
}

/// Lets the agent believe that the machine has booted since.
fn pretend_to_boot(world: &World) {
    let written = world.read_file("web-1/state/state.json");
    let mut read: Value = serde_json::from_str(&written).unwrap();
    let set_in = &mut read["deployments"]["web-1"]["nextBoot"]["setIn"];
    assert!(set_in.is_string(), "{written}");
    *set_in = "another boot".into();
    world.write_file("web-1/state/state.json", &read.to_string());
}

const WAITS: &str = "web-1: revision 2 is set for the next boot, and waits for a reboot";

#[test]
fn a_revision_that_waits_for_a_reboot_is_told_and_left_alone() {
    let world = switched("metrics-file = \"web-1.prom\"");
    let first = profile(&world);
    set_mode(&world, "boot");
    world.change_from_memory("Welcome", "Second");
    for _ in 0..2 {
        assert_eq!(world.agent("web-1", &["once"]).good(), format!("{WAITS}\n"));
        assert_eq!(activations(&world), ["switch 1", "boot 2"]);
    }
    assert_ne!(profile(&world), first);
    let found = state(&world);
    assert_eq!(
        (&found["state"], &found["candidate"]["revision"], &found["running"]["revision"]),
        (&"awaiting-reboot".into(), &2.into(), &1.into())
    );
    let line = world.agent("web-1", &["status", "--oneline"]).good();
    assert_eq!(line, "web-1 revision 2 is set for the next boot, and waits for a reboot\n");
    let table = world.agent("web-1", &["status"]).good();
    let runs = |line: &str| line.split_whitespace().take(2).eq(["web-1", "1"]);
    assert!(table.lines().any(runs), "revision 1 runs until then: {table}");
    assert!(needs_reboot(&world));
    let metrics = world.read_file("web-1.prom");
    let of_state = "clavel_agent_deployment_state{deployment=\"web-1\",state=\"awaiting-reboot\"} 1\n";
    assert!(metrics.contains(of_state), "{metrics}");

    // The next revision does not wait for this one.
    set_mode(&world, "switch");
    world.change_from_memory("Second", "Third");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
    assert!(!needs_reboot(&world));
}

#[test]
fn a_machine_that_boots_something_else_goes_back_by_the_next_boot_too() {
    let world = switched("metrics-file = \"web-1.prom\"");
    let first = profile(&world);
    set_mode(&world, "boot");
    world.change_from_memory("Welcome", "Second");
    world.agent("web-1", &["once"]).good();
    pretend_to_boot(&world);
    world.agent("web-1", &["once"]).refused(7, "the machine did not boot into it");
    assert_eq!(profile(&world), first);
    // What runs is not activated again.
    assert_eq!(activations(&world), ["switch 1", "boot 2", "boot 1"]);
    let found = state(&world);
    assert_eq!((&found["state"], &found["rollback"]), (&"rolled-back".into(), &"restored".into()));
    assert!(!needs_reboot(&world));
    // It is held, until somebody asks for it.
    world.agent("web-1", &["once"]).refused(7, "or for `clavel-agent retry`");
    world.agent("web-1", &["retry"]).good();
    assert_eq!(world.agent("web-1", &["once"]).good(), format!("{WAITS}\n"));
}

#[test]
fn the_configuration_of_the_machine_counts_more_than_the_deployment() {
    let world = switched("");
    let own = world.read_file("web-1.toml");
    set_mode(&world, "boot");
    world.change_from_memory("Welcome", "Second");
    world.write_file("web-1.toml", &format!("{own}mode = \"switch\"\n"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    set_mode(&world, "switch");
    world.change_from_memory("Second", "Third");
    world.write_file("web-1.toml", &format!("{own}mode = \"boot\"\n"));
    let said = world.agent("web-1", &["once"]).good();
    assert_eq!(said, "web-1: revision 3 is set for the next boot, and waits for a reboot\n");
    assert_eq!(activations(&world), ["switch 1", "switch 2", "boot 3"]);
}

#[test]
fn a_switch_that_the_new_system_inhibits_waits_for_the_next_boot() {
    let world = switched("");
    inhibit(&world, "dbus", "broker");
    world.publish_from_memory(&["web-1"]);
    let said = world.agent("web-1", &["once"]).good();
    assert_eq!(said, format!("{WAITS}, because dbus-implementation: dbus → broker\n"));
    assert_eq!(activations(&world), ["switch 1", "boot 2"]);
    // Against what runs, and not against what waits.
    inhibit(&world, "broker", "dbus");
    world.edit("hosts/web-1.nix", "Welcome", "Third");
    world.publish_from_memory(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}

#[test]
fn a_switch_that_turns_out_to_need_a_boot_goes_on_as_one() {
    let world = switched("");
    world.change_from_memory("cp -f", "test $1 = boot || exit 100; cp -f");
    let said = world.agent("web-1", &["once"]).good();
    assert_eq!(said, format!("{WAITS}, because the new system has another init (exit code 100)\n"));
    assert_eq!(activations(&world), ["switch 1", "switch 2", "boot 2"]);
    let refuses = r#"test $1 = boot || { echo \"Pre-switch check 'switchInhibitors' failed\" >&2; exit 1; }"#;
    world.change_from_memory("test $1 = boot || exit 100", refuses);
    let said = world.agent("web-1", &["once"]).good();
    assert!(said.ends_with("waits for a reboot, because the new system does not allow a switch\n"), "{said}");
}

#[test]
fn units_that_failed_are_named() {
    let world = switched("");
    let fails = "echo warning: the following units failed: a.service, b.mount >&2; exit 4; cp -f";
    world.change_from_memory("cp -f", fails);
    let said = world.agent("web-1", &["once"]).refused(7, "web-1: the activation of `web-1` failed: units failed to ");
    assert!(said.contains("(exit code 4): a.service, b.mount\n"), "{said}");
    let error = state(&world)["failure"]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("a.service, b.mount"), "{error}");
}
