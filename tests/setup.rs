//! Promise: `clavel init` writes a set-up that works as it is.

use crate::support::world::World;

/// The folder of the programs under test, first on the PATH.
fn path() -> String {
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_claveld")).parent().unwrap().display().to_string();
    format!("{programs}:{}", std::env::var("PATH").unwrap())
}

#[test]
fn the_files_of_init_publish_a_push_and_an_agent_follows() {
    let world = World::new();
    let (etc, fleet, flake) = (world.at("etc"), world.at("fleet.git"), world.flake());
    let init = ["init", &etc, "--repository", &fleet, "--source", &flake, "--hooks", &fleet];
    let said = world.clavel(&init).good();
    for made in ["claveld.toml", "clavel-agent.toml", "clavel.nix", "hooks/post-receive", "hooks/pre-receive"] {
        assert!(said.contains(made), "{made}: {said}");
    }
    assert!(said.contains(&format!("claveld once --config {etc}/claveld.toml")), "{said}");
    // A test may not write below /var/lib.
    let in_the_world = |file: &str, line: &str| {
        let text = world.read_file(file);
        world.write_file(file, &format!("{line}\n{text}"));
    };
    in_the_world("etc/claveld.toml", &format!("state-directory = \"{}\"", world.at("claveld")));
    world.write("README", "x");
    world.git(&["-C", &world.at("work"), "add", "-A"]);
    world.git(&["-C", &world.at("work"), "commit", "-qm", "By the hook"]);
    let push = ["-C", &world.at("work"), "push", "origin", "main"];
    let seen = world.run_with(&[("PATH", &path())], "git", &push).also_good().stderr;
    assert!(seen.contains("published as index version 1"), "{seen}");

    let root = world.clavel(&["root", "show", &world.at("etc/root.json")]).good();
    let digest = root.lines().find_map(|line| line.strip_prefix("fleet")).unwrap().trim().to_owned();
    let agent = world.read_file("etc/clavel-agent.toml");
    assert!(agent.contains(&format!("root = \"{digest}\"")), "{agent}");
    assert!(world.read_file("etc/clavel.nix").contains(&format!("root = \"{digest}\";")));
    let repository = agent.lines().find(|line| line.starts_with("repository = ")).unwrap().to_owned();
    let agent = agent.replace(&repository, &format!("repository = \"file://{fleet}\""));
    world.write_file("etc/clavel-agent.toml", &format!("state-directory = \"{}\"\n{agent}\n", world.at("state")));
    let once = ["once", "--config", &world.at("etc/clavel-agent.toml"), "--json"];
    let passed = world.run(env!("CARGO_BIN_EXE_clavel-agent"), &once);
    // The cache has nothing, so the agent waits.
    assert!(passed.stdout.contains("web-1"), "{}\n{}", passed.stdout, passed.stderr);
}

#[test]
fn init_writes_over_nothing() {
    let world = World::new();
    let etc = world.at("etc");
    world.write_file("etc/claveld.toml", "# mine\n");
    world.clavel(&["init", &etc]).good();
    assert_eq!(world.read_file("etc/claveld.toml"), "# mine\n");
    let other = world.at("etc-2");
    world.write_file("fleet.git/hooks/post-receive", "#!/bin/sh\n");
    world.clavel(&["init", &other, "--hooks", &world.at("fleet.git")]).refused(3, "is another hook");
    assert_eq!(world.read_file("fleet.git/hooks/post-receive"), "#!/bin/sh\n");
    world.clavel(&["init", &world.at("etc-3"), "--hooks", &world.at("work")]).refused(3, "no bare git repository");
}
