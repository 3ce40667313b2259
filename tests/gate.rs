//! Promise: the gate refuses a push that breaks a host, with Nix's own message, and accepts a push that breaks nothing.

use crate::support::world::{Ran, World};

/// A world whose repository has the gate, and in which the fleet is pushed already.
fn gated() -> World {
    let world = World::new();
    world.install_gate();
    world
}

impl World {
    /// The commit that a branch of the flake's repository is at; empty where there is none.
    fn at_branch(&self, branch: &str) -> String {
        let name = format!("refs/heads/{branch}");
        self.run("git", &["-C", &self.at("fleet.git"), "rev-parse", "-q", "--verify", &name]).stdout
    }

    /// Pushes these refspecs as they are.
    fn push_refs(&self, arguments: &[&str]) -> Ran {
        self.run("git", &[&["-C", &self.at("work"), "push"], arguments].concat())
    }
}

/// Asserts that the push is refused with `said`, and that the branch does not move.
#[track_caller]
fn refused(world: &World, message: &str, said: &str) -> String {
    let before = world.at_branch("main");
    let seen = world.try_push(message).refused(1, said);
    assert!(seen.contains("pre-receive hook declined"), "{seen}");
    assert_eq!(world.at_branch("main"), before, "{seen}");
    seen
}

#[test]
fn a_push_that_breaks_a_host_is_refused_with_what_nix_says() {
    let world = gated();
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"web-2 has no version\";");
    let seen = refused(&world, "Broken", "error: web-2 has no version");
    assert!(seen.contains("broken: nixosConfigurations.web-2"), "{seen}");
    assert!(seen.contains("the push is refused: it breaks nixosConfigurations.web-2 of git+file://"), "{seen}");
    // The message names no temporary folder, which nobody could find afterwards.
    assert!(!seen.contains("clavel-preview"), "{seen}");
    // A push that repairs the host is accepted, with the commits that were refused before.
    world.edit("hosts/web-2.nix", "throw \"web-2 has no version\"", "\"2\"");
    world.push("Mended");
}

#[test]
fn the_gate_sees_the_very_source_that_is_published_afterwards() {
    let world = gated();
    // The hash of the source depends on git's attributes of a file, on a link, and on an executable file.
    world.write(".gitattributes", "notes export-ignore\nstamp export-subst\n");
    world.write("notes", "x");
    world.write("stamp", "$Format:%H$");
    world.write("run", "#!/bin/sh\n");
    world.run("chmod", &["+x", &world.at("work/run")]).good();
    std::os::unix::fs::symlink("hosts/web-1.nix", world.path("work/link")).unwrap();
    let told = "seen=${self.narHash},${self.rev},${toString self.lastModified},${toString self.revCount},";
    let marker = "nixosConfigurations.web-1 =";
    world.edit("flake.nix", marker, &format!("nixosConfigurations.told = throw \"{told}\";\n{marker}"));
    let before = refused(&world, "Tells what it sees", "broken: nixosConfigurations.told");

    std::fs::remove_file(world.path("fleet.git/hooks/pre-receive")).unwrap();
    world.install_hook();
    let after = world.push_refs(&["origin", "main"]).also_good().stderr;
    let seen = |said: &str| said.split_whitespace().find(|word| word.starts_with("seen=sha256-")).map(str::to_owned);
    assert!(seen(&before).is_some(), "{before}");
    assert_eq!(seen(&before), seen(&after));
}

#[test]
fn a_symbolic_ref_is_checked_as_the_branch_it_leads_to() {
    let world = gated();
    world.git(&["-C", &world.at("fleet.git"), "symbolic-ref", "refs/heads/master", "refs/heads/main"]);
    let before = world.at_branch("main");
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"web-2 has no version\";");
    world.git(&["-C", &world.at("work"), "commit", "-qam", "Broken"]);
    let seen = world.push_refs(&["origin", "HEAD:master"]).refused(1, "web-2 has no version");
    assert!(seen.contains("pre-receive hook declined"), "{seen}");
    assert_eq!(world.at_branch("main"), before);
}

#[test]
fn a_push_of_too_many_refs_is_refused() {
    let world = gated();
    let hook = world.at("long");
    // The input that git gives its hook for a push of very many refs.
    let script = format!(
        "i=0; while [ $i -lt 140000 ]; do echo {0} {1} refs/heads/{2}$i; i=$((i+1)); done > {hook}; \
         cd {3} && claveld hook pre-receive --config {4} < {hook}",
        "0".repeat(40),
        world.at_branch("main").trim(),
        "x".repeat(40),
        world.at("fleet.git"),
        world.at("claveld.toml"),
    );
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_claveld")).parent().unwrap().display().to_string();
    let path = format!("PATH={path}:{}", std::env::var("PATH").unwrap());
    world.run("env", &[&path, "sh", "-c", &script]).refused(8, "push fewer at once");
}

#[test]
fn a_host_that_was_broken_before_refuses_no_push() {
    let world = World::new();
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"web-2 has no version\";");
    world.push("Broken before there was a gate");
    world.install_gate();
    world.edit("hosts/web-1.nix", "Welcome to", "Willkommen auf");
    let seen = world.push("Something else");
    assert!(seen.contains("broken before this push as well: nixosConfigurations.web-2"), "{seen}");
    // Another broken host is refused, and the message says which host is newly broken.
    world.edit("hosts/web-1.nix", "version = \"1\";", "version = throw \"web-1 neither\";");
    let seen = refused(&world, "Worse", "it breaks nixosConfigurations.web-1 of");
    assert!(seen.contains("broken before this push as well: nixosConfigurations.web-2"), "{seen}");
    assert!(seen.contains("error: web-1 neither") && !seen.contains("error: web-2 has no version"), "{seen}");
}

#[test]
fn a_source_that_is_broken_as_a_whole_is_refused() {
    let world = gated();
    let work = world.read_file("work/flake.nix");
    world.write("flake.nix", "{ this is no nix");
    let seen = refused(&world, "No Nix", "the push is refused: nothing of git+file://");
    assert!(seen.contains("syntax error"), "{seen}");
    assert!(!seen.contains("clavel-preview"), "{seen}");
    assert!(seen.contains("broken: git+file://"), "{seen}");
    // The revision before was pushed before there was a gate, and cannot be evaluated. So every host has to evaluate now.
    std::fs::remove_file(world.path("fleet.git/hooks/pre-receive")).unwrap();
    world.push_refs(&["origin", "main"]).good();
    world.install_gate();
    refused(&world, "Still no Nix", "syntax error");
    world.write("flake.nix", &work);
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"web-2 has no version\";");
    let seen = refused(&world, "Nearly mended", "it breaks nixosConfigurations.web-2 of");
    assert!(seen.contains("cannot evaluate the revision before this push"), "{seen}");
    world.edit("hosts/web-2.nix", "throw \"web-2 has no version\"", "\"2\"");
    world.push("Mended");
}

#[test]
fn a_first_push_is_accepted_if_every_host_evaluates() {
    let world = gated();
    world.git(&["-C", &world.at("fleet.git"), "config", "receive.denyDeleteCurrent", "ignore"]);
    world.push_refs(&["origin", ":main"]).good();
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"web-2 has no version\";");
    refused(&world, "Broken from the beginning", "it breaks nixosConfigurations.web-2 of");
    world.edit("hosts/web-2.nix", "throw \"web-2 has no version\"", "\"2\"");
    world.push("Whole");
    assert_ne!(world.at_branch("main"), "");
}

#[test]
fn a_push_that_moves_no_source_is_accepted_without_evaluation() {
    let world = gated();
    world.write("flake.nix", "{ this is no nix");
    world.git(&["-C", &world.at("work"), "commit", "-qam", "Work in progress"]);
    let seen = world.push_refs(&["origin", "HEAD:refs/heads/draft", "HEAD:refs/tags/v1"]).also_good().stderr;
    assert!(!seen.contains("evaluating"), "{seen}");
    // A push is accepted as a whole or not at all.
    let refused = world.push_refs(&["origin", "HEAD:refs/heads/second", "HEAD:refs/heads/main"]);
    refused.refused(1, "syntax error");
    assert_eq!(world.at_branch("second"), "");
    world.git(&["-C", &world.at("fleet.git"), "config", "receive.denyDeleteCurrent", "ignore"]);
    world.push_refs(&["origin", ":main", ":draft"]).good();
    assert_eq!(world.at_branch("main") + &world.at_branch("draft"), "");
}

#[test]
fn each_source_in_the_repository_is_checked_by_itself() {
    let world = gated();
    world.configure_claveld(&format!("[[source]]\nflake = \"{}&dir=second\"\n", world.flake()));
    world
        .write("second/flake.nix", "{ outputs = { self }: { nixosConfigurations.db-1 = throw \"db-1 is broken\"; }; }");
    let seen = refused(&world, "A second flake", "it breaks nixosConfigurations.db-1 of");
    assert!(seen.contains("&dir=second\n") || seen.contains("&dir=second "), "{seen}");
    assert!(!seen.contains("broken: nixosConfigurations.web-1"), "{seen}");
}

#[test]
fn a_submodule_that_only_the_repository_finds_is_refused_with_a_remedy() {
    let world = gated();
    world.git(&["init", "-q", "--bare", "-b", "main", &world.at("part.git")]);
    world.git(&["-C", &world.at("work"), "push", "-q", &world.at("part.git"), "main"]);
    world.git(&["-C", &world.at("work"), "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../part.git"]);
    world.configure_claveld("");
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &config.replace("?ref=main", "?ref=main&submodules=1"));
    refused(&world, "With a part", "make it a full one");
}

#[test]
fn a_gate_that_cannot_look_lets_nothing_through() {
    let world = gated();
    let good = world.read_file("claveld.toml");
    std::fs::remove_file(world.path("claveld.toml")).unwrap();
    let seen = refused(&world, "No configuration", "the push is refused, because it could not be evaluated");
    assert!(seen.contains("cannot read the configuration"), "{seen}");
    world.write_file("claveld.toml", &good.replace("ref=main", &format!("rev={}", "a".repeat(40))));
    refused(&world, "Nothing to look at", "no source of the configuration is this repository");
    world.write_file("claveld.toml", &good.replace("fleet.git?ref", "elsewhere.git?ref"));
    refused(&world, "Nothing to look at", "no source of the configuration is this repository");
    world.write_file("claveld.toml", &format!("{good}[evaluate]\ntimeout = \"1ms\"\n"));
    refused(&world, "No time", "did not finish within 1ms");
    world.write_file("claveld.toml", &good);
    world.push("All well");
}

#[test]
fn the_gate_reads_no_key_and_publishes_nothing() {
    let world = gated();
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    world.push("Without a key");
    assert_eq!(world.tip(), "");
    let copies = world.run("find", &[&world.at("cache-home"), "-name", "HEAD"]).stdout;
    assert_eq!(copies, "", "no copy of what was judged is left behind");
}
