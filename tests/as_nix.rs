//! Promise: a flake that Clavel calls sees the same `self` and inputs as with Nix, and gives the same derivations.

use crate::support::world::{LOCAL_INPUTS, World, until};

/// A host whose derivation contains everything that a flake can see of `self` and of its inputs.
const FLAKE: &str = r#"{
  inputs.dep = { url = "git+file://WORLD/dep"; inputs.plain.follows = "plain"; };
  inputs.sub.url = "git+file://WORLD/dep?dir=sub";
  inputs.plain = { url = "path:WORLD/plain"; flake = false; };
  outputs = { self, ... }@inputs: let
    describe = flake: builtins.toJSON (builtins.mapAttrs (name: value:
      if builtins.isAttrs value || builtins.isFunction value then builtins.typeOf value else value) flake);
  in {
    nixosConfigurations.host.config.system.build.toplevel = derivation {
      name = "nixos-system-host"; system = "x86_64-linux"; builder = "/bin/sh";
      args = [ (describe self) (describe self.sourceInfo) (toString ./.) "${./data}" ]
        ++ map (name: describe inputs.${name}) (builtins.attrNames (removeAttrs inputs [ "self" ]))
        ++ [ (describe inputs.dep.sourceInfo) (describe inputs.dep.inputs) inputs.dep.plain (builtins.toJSON (builtins.attrNames self.inputs)) ];
    };
  };
}"#;

fn world() -> World {
    let world = World::new();
    world.write_file("plain/text", "plain");
    let dep = "{ inputs.plain.url = \"path:/nowhere\"; outputs = { self, plain }: { plain = builtins.readFile (plain + \"/text\"); }; }";
    world.write_file("dep/flake.nix", dep);
    world.write_file("dep/sub/flake.nix", "{ outputs = { self }: { here = toString ./.; }; }");
    let dep = world.at("dep");
    world.git(&["-C", &dep, "init", "-q", "-b", "main"]);
    world.git(&["-C", &dep, "add", "-A"]);
    world.git(&["-C", &dep, "commit", "-q", "-m", "An input"]);
    let flake = FLAKE.replace("WORLD", world.path("dep").parent().unwrap().to_str().unwrap());
    world.git(&["-C", &world.at("work"), "rm", "-rq", "."]);
    for folder in ["", "below/"] {
        world.write(&format!("{folder}flake.nix"), &flake);
        world.write(&format!("{folder}data/text"), "data");
        world.git(&["-C", &world.at("work"), "add", "-A"]);
        world.run("nix", &["flake", "lock", &format!("{}?dir={folder}", world.at("work"))]).good();
    }
    world.push("The host");
    world
}

/// Asserts that Clavel gives the same derivation as Nix, both with and without watching.
#[track_caller]
fn assert_same(world: &World, flake: &str) {
    let attribute = format!("{flake}#nixosConfigurations.host.config.system.build.toplevel.drvPath");
    let by_nix = world.run("nix", &["eval", "--raw", "--option", "tarball-ttl", "0", &attribute]).good();
    for more in [&[][..], &["--records", &world.at("records")]] {
        let found = world.claveld(&[&["evaluate", flake, "--json"], &LOCAL_INPUTS[..], more].concat()).json();
        assert_eq!(found["deployments"][0]["metadata"]["drvPath"], by_nix.trim(), "{found:#}");
    }
}

#[test]
fn a_flake_at_a_revision_in_git() {
    let world = world();
    assert_same(&world, &world.flake());
    assert_same(&world, &format!("{}&dir=below", world.flake()));
}

#[test]
fn a_flake_in_a_clean_and_in_a_changed_work_tree() {
    let world = world();
    assert_same(&world, &world.at("work"));
    world.write("data/text", "changed");
    assert_same(&world, &world.at("work"));
}

#[test]
fn a_flake_in_a_folder_without_version_control() {
    let world = world();
    world.run("cp", &["-r", &world.at("work"), &world.at("copy")]).good();
    world.run("rm", &["-r", &world.at("copy/.git")]).good();
    assert_same(&world, &format!("path:{}", world.at("copy")));
}

#[test]
fn a_flake_whose_inputs_are_not_in_the_store() {
    let world = world();
    // A text that no other test and no earlier run has put into the store.
    let text = world.path("plain").display().to_string();
    world.write_file("plain/text", &text);
    world.run("nix", &["flake", "lock", &world.at("work"), "--update-input", "plain"]).good();
    let lock: serde_json::Value = serde_json::from_str(&world.read_file("work/flake.lock")).unwrap();
    let hash = lock["nodes"]["plain"]["locked"]["narHash"].as_str().unwrap().to_owned();
    world.push("Another input");
    let stored = world
        .run(
            "nix",
            &[
                "eval",
                "--raw",
                "--expr",
                &format!(
                    "(builtins.fetchTree {{ type = \"path\"; path = \"{}\"; narHash = \"{hash}\"; }}).outPath",
                    world.at("plain")
                ),
            ],
        )
        .good();
    // The garbage collector of another test may hold the lock.
    until("it is deleted", || world.run("nix-store", &["--delete", stored.trim()]).code == Some(0));
    assert_same(&world, &world.flake());
}
