//! Promise: a typo withdraws nothing. What a source cannot be asked about, or breaks, stays; many withdrawals wait for an operator.

use serde_json::json;

use crate::support::world::{Ran, World};

/// Every document of the fixture: the deployment, the unit and the agent of three hosts.
const DOCUMENTS: usize = 9;

impl World {
    /// How many documents the branch has.
    fn documents(&self) -> usize {
        ["agents", "deployments", "units"].iter().map(|folder| self.names_in(folder)).sum()
    }

    fn names_in(&self, folder: &str) -> usize {
        let path = format!("deployments:{folder}");
        self.run("git", &["-C", &self.at("fleet.git"), "ls-tree", "--name-only", &path]).stdout.lines().count()
    }

    fn once(&self, arguments: &[&str]) -> Ran {
        self.claveld(&[&["once", "--config", &self.at("claveld.toml")], arguments].concat())
    }

    /// Adds outputs to the flake, and pushes it.
    fn push_outputs(&self, outputs: &str) {
        self.edit("flake.nix", "nixosConfigurations.web-1 =", &format!("{outputs}\nnixosConfigurations.web-1 ="));
        self.push("More");
    }
}

/// A fleet that is published, and whose flake then gives nothing.
fn emptied(world: &World) {
    world.publish().good();
    world.write("flake.nix", "{ outputs = { self }: { }; }");
    world.push("Nothing");
}

#[test]
fn a_source_that_cannot_be_read_withdraws_nothing() {
    let world = World::new();
    world.publish().good();
    let config = world.read_file("claveld.toml");
    let before = world.tip();
    for address in [
        format!("git+file://{}/flete.git?ref=main", world.at("")),
        "git+http://127.0.0.1:9/fleet.git".to_owned(),
        "git+ssh://127.0.0.1:9/fleet.git".to_owned(),
        world.flake().replace("ref=main", "ref=mian"),
    ] {
        world.write_file("claveld.toml", &config.replace(&world.flake(), &address));
        let ran = world.once(&[]);
        assert!(matches!(ran.code, Some(1 | 9)) && ran.stderr.contains("cannot read the source"), "{}", ran.stderr);
        assert_eq!((world.tip(), world.documents()), (before.clone(), DOCUMENTS), "{address}");
    }
    // A second source that cannot be read may be the new place of one that was taken out.
    let other = "git+file:///does/not/exist?ref=main";
    let text = config.replace(&world.flake(), &format!("path:{}", world.at("work")));
    world.write_file("claveld.toml", &format!("{text}\ninclude = [\"web-1\"]\n[[source]]\nflake = \"{other}\"\n"));
    world.once(&[]).refused(1, "does/not/exist");
    assert_eq!(world.documents(), DOCUMENTS);
}

#[test]
fn nothing_is_published_before_a_source_was_read() {
    let world = World::new();
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &config.replace("ref=main", "ref=mian"));
    let said = world.once(&[]).refused(1, "claveld does not begin before it has read a source");
    assert!(said.contains("mian"), "{said}");
    assert_eq!(world.tip(), "");
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error() {
    let world = World::new();
    world.publish().good();
    let before = world.tip();
    for wrong in ["include = [\"wbe-*\"]", "include = [\"web-*\", \"ruoter-*\"]", "exclude = [\"wbe-2\"]"] {
        world.configure_claveld(wrong);
        world.once(&[]).refused(1, "matches nothing in it");
        assert_eq!(world.tip(), before, "{wrong}");
    }
}

#[test]
fn many_withdrawals_wait_for_an_operator() {
    let world = World::new();
    emptied(&world);
    let told = "9 of its 9 documents no longer";
    // Each time, until somebody allows as many.
    for _ in 0..2 {
        let said = world.once(&[]).refused(1, told);
        assert!(said.contains("claveld once --allow-withdrawals 9"), "{said}");
        assert_eq!(world.documents(), DOCUMENTS);
    }
    let output = world.once(&["--json", "--allow-withdrawals", "8"]).json();
    let held = &output["report"]["withdrawals"][0];
    assert_eq!((&held["of"], held["documents"].as_array().unwrap().len()), (&json!(9), 9), "{output}");
    world.once(&["--allow-withdrawals", "9"]).good();
    assert_eq!(world.documents(), 0);
}

#[test]
fn the_hook_holds_withdrawals_back_and_the_gate_refuses_them() {
    let world = World::new();
    world.publish().good();
    world.install_hook();
    let flake = world.read_file("work/flake.nix");
    world.write("flake.nix", "{ outputs = { self }: { }; }");
    assert!(world.push("Nothing").contains("9 of its 9 documents no longer"));
    assert_eq!(world.documents(), DOCUMENTS);
    world.write("flake.nix", &flake);
    world.push("All");

    std::fs::remove_file(world.path("fleet.git/hooks/post-receive")).unwrap();
    world.install_gate();
    world.write("flake.nix", "{ outputs = { self }: { }; }");
    let said = world.try_push("Nothing").refused(1, "the push is refused: it takes too much out of");
    assert!(said.contains("9 of its 9 documents no longer"), "{said}");
    // The flake itself says what is to go.
    world.write("flake.nix", "{ outputs = { self }: { clavel.withdraw = [ \"web-*\" \"ROUTER-1\" ]; }; }");
    world.push("Nothing, on purpose");
    world.once(&[]).good();
    assert_eq!(world.documents(), 0);
}

#[test]
fn a_source_that_was_taken_out_of_the_configuration_waits_too() {
    let world = World::new();
    world.publish().good();
    let other = world.path("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("flake.nix"), "{ outputs = { self }: { }; }").unwrap();
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &config.replace(&world.flake(), &format!("path:{}", other.display())));
    world.once(&[]).refused(1, "9 of its 9 documents no longer");
    assert_eq!(world.documents(), DOCUMENTS);
    world.once(&["--allow-withdrawals", "9"]).good();
    assert_eq!(world.documents(), 0);
}

#[test]
fn a_broken_unit_or_agent_holds_back_what_needs_it() {
    let world = World::new();
    world.publish().good();
    let before = ["deployments", "units", "agents"].map(|folder| world.on_branch(&format!("{folder}/router-1.json")));
    let router = world.read_file("work/hosts/router-1.nix");
    let flake = world.read_file("work/flake.nix");
    for (from, to, said) in [
        ("type = \"command\";", "type = \"comand\";", "comand"),
        ("clavel.units.router-1 =", "clavel.units.ruoter-1 =", "correct its name"),
        ("arch = system;", "arch = \"riscv64-linux\";", "riscv64-linux"),
        ("arch = system;", "arch = throw \"no arch\";", "no arch"),
        (
            "clavel.units.router-1 =",
            "clavel.agents.g.deployments = [ \"router-1\" \"gone\" ];\nclavel.units.router-1 =",
            "`gone`",
        ),
    ] {
        // The deployment changes as well, and may not go out with a broken unit or agent.
        world.write("hosts/router-1.nix", &router.replace("10 routes", "11 routes"));
        world.write("flake.nix", &flake.replace(from, to));
        world.push("Broken");
        world.once(&[]).refused(1, said);
        let after =
            ["deployments", "units", "agents"].map(|folder| world.on_branch(&format!("{folder}/router-1.json")));
        assert_eq!(after, before, "{to}");
        assert!(world.on_branch("agents/g.json").is_none());
        world.verify().good();
    }
    world.write("flake.nix", &flake);
    world.push("Good");
    assert!(world.once(&[]).good().contains("deployments/router-1.json  revision 1 → 2"));
}

#[test]
fn an_output_that_throws_is_one_failure_and_one_that_is_excluded_is_never_looked_at() {
    let world = World::new();
    world.publish().good();
    for broken in ["throw \"no homes\"", "null", "abort \"no homes\"", "let x = x; in x"] {
        let flake = world.read_file("work/flake.nix");
        world.write("hosts/web-1.nix", &world.read_file("work/hosts/web-1.nix").replace("Welcome", "Welcome, Welcome"));
        world.push_outputs(&format!("homeConfigurations = {broken};"));
        world.configure_claveld("");
        let ran = world.once(&[]);
        assert!(ran.stdout.contains("published as index version"), "{}\n{}", ran.stdout, ran.stderr);
        ran.refused(1, "broken: homeConfigurations");
        world.configure_claveld("exclude = [\"homeConfigurations.*\"]");
        world.once(&[]).good();
        world.configure_claveld("include = [\"nixosConfigurations.*\", \"clavel.deployments.*\"]");
        world.once(&[]).good();
        world.write("flake.nix", &flake);
    }
    // Where `clavel` itself is broken, no host is what the flake describes.
    world.push_outputs("clavel.agents = throw \"no agents\";");
    world.configure_claveld("");
    let before = world.tip();
    world.once(&[]).refused(1, "no agents");
    assert_eq!((world.tip(), world.documents()), (before, DOCUMENTS));
}
