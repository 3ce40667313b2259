//! Promise: the hosts of every platform are found, and a source takes those that its patterns select.

use serde_json::Value;

use crate::support::world::{Ran, World, names};

/// Writes a flake whose outputs are `outputs`.
fn write(world: &World, outputs: &str) {
    let flake = format!(
        "{{ outputs = {{ self }}: let
             system = import ./system.nix;
             host = import ./lib/host.nix {{ inherit system; }};
             shapes = import ./lib/platforms.nix {{ inherit system; }};
             apple = import ./lib/platforms.nix {{ system = \"aarch64-darwin\"; }};
             darwin = name: apple.darwin name {{ activate = \"true\"; }};
             home = name: shapes.home name {{ activate = \"true\"; }};
             manager = name: shapes.systemManager name {{ \"bin/activate\" = \"true\"; }};
           in {outputs}; }}"
    );
    world.write("flake.nix", &flake);
}

/// Evaluates that flake.
fn evaluate(world: &World, outputs: &str, arguments: &[&str]) -> Ran {
    write(world, outputs);
    world.claveld(&[&["evaluate", &format!("path:{}", world.at("work")), "--json"], arguments].concat())
}

const ALL: &str = r#"{
  nixosConfigurations.web-1 = host ./hosts/web-1.nix;
  darwinConfigurations.air = darwin "air";
  darwinConfigurations.old = { config = { }; inherit (darwin "old") system; };
  homeConfigurations."alice@laptop" = home "alice";
  systemConfigs.box = manager "box";
  systemConfigs.${system}.cube = manager "cube";
}"#;

#[test]
fn the_hosts_of_every_platform_are_found_in_its_output() {
    let world = World::new();
    let ran = evaluate(&world, ALL, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let found = ran.json();
    let system = clavel::model::System::this().unwrap();
    let below = format!("systemConfigs.{system}.cube");
    let expected = [
        ("air", "darwin", "darwinConfigurations.air", "darwin-system-air"),
        ("alice@laptop", "home-manager", "homeConfigurations.\"alice@laptop\"", "home-manager-generation-alice"),
        ("box", "system-manager", "systemConfigs.box", "system-manager-box"),
        ("cube", "system-manager", &below, "system-manager-cube"),
        ("old", "darwin", "darwinConfigurations.old", "darwin-system-old"),
        ("web-1", "nixos", "nixosConfigurations.web-1", "nixos-system-web-1-1"),
    ];
    assert_eq!(names(&found, "agents"), expected.map(|(name, ..)| name));
    for (at, (name, unit_type, attribute, path)) in expected.into_iter().enumerate() {
        let (deployment, unit) = (&found["deployments"][at], &found["units"][at]);
        assert_eq!((&deployment["name"], &unit["name"]), (&name.into(), &name.into()));
        let arch = if unit_type == "darwin" { "aarch64-darwin" } else { system.as_str() };
        assert_eq!(unit["specification"], serde_json::json!({ "arch": arch, "type": unit_type }));
        assert_eq!(deployment["metadata"]["attribute"], attribute);
        let template = &deployment["specification"]["template"];
        assert!(template["narId"].as_str().unwrap().ends_with(path), "{template}");
        // Hosts with settings of Nix name their caches.
        let caches = template["substituters"].as_array().unwrap().len();
        assert_eq!(caches, usize::from(["air", "web-1"].contains(&name)), "{name}");
    }
}

#[test]
fn the_arch_of_a_cross_compiled_host_is_the_one_that_it_runs_on() {
    let world = World::new();
    let outputs = r#"let
      pi = { system = "aarch64-linux"; };
      built = { config.system.build.toplevel = (host ./hosts/web-1.nix).config.system.build.toplevel; };
      cross = extra: built // extra;
    in {
      nixosConfigurations = {
        by-pkgs = cross { pkgs.stdenv.hostPlatform = pi; };
        by-option.config = built.config // { nixpkgs.hostPlatform = pi; };
        undefined.config = built.config // { nixpkgs.hostPlatform = throw "used but not defined"; };
        both = { pkgs.stdenv.hostPlatform = pi; config = built.config // { nixpkgs.hostPlatform.system = "riscv64-linux"; }; };
      };
      homeConfigurations.home = home "alice" // { pkgs.stdenv.hostPlatform = pi; };
      clavel.deployments.tool.template.narId = built.config.system.build.toplevel // { stdenv.hostPlatform = pi; };
    }"#;
    let ran = evaluate(&world, outputs, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let found = ran.json();
    let own = clavel::model::System::this().unwrap();
    let arches: Vec<(&str, &str)> = found["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| (unit["name"].as_str().unwrap(), unit["specification"]["arch"].as_str().unwrap()))
        .collect();
    let pi = "aarch64-linux";
    assert_eq!(
        arches,
        [("both", pi), ("by-option", pi), ("by-pkgs", pi), ("home", pi), ("tool", pi), ("undefined", own.as_str())]
    );
}

#[test]
fn an_unchanged_host_of_any_platform_is_not_evaluated_again() {
    let world = World::new();
    let records = ["--records", &world.at("records")];
    let first = evaluate(&world, ALL, &records).json();
    let again = evaluate(&world, ALL, &records).json();
    assert_eq!(first["work"]["evaluated"].as_array().unwrap().len(), 6);
    assert_eq!((&again["work"]["evaluated"], &again["work"]["unchanged"]), (&serde_json::json!([]), &6.into()));
    let paths = |found: &Value| -> Vec<Value> {
        let all = found["deployments"].as_array().unwrap().iter();
        all.map(|deployment| deployment["specification"].clone()).collect()
    };
    assert_eq!(paths(&again), paths(&first));
    // Other patterns select other hosts of the same source.
    let homes = evaluate(&world, ALL, &[&records[..], &["--include", "homeConfigurations.*"]].concat()).json();
    assert_eq!(
        (names(&homes, "deployments"), &homes["work"]["unchanged"]),
        (vec!["alice@laptop".to_owned()], &1.into())
    );
}

#[test]
fn a_broken_host_of_any_platform_is_a_failure_of_its_attribute() {
    let world = World::new();
    let outputs = r#"{
      systemConfigs.${system} = { bad = throw "no box"; good = manager "good"; };
      homeConfigurations.lacking = { };
      darwinConfigurations.twice = darwin "twice";
      nixosConfigurations.twice = host ./hosts/web-1.nix;
    }"#;
    let ran = evaluate(&world, outputs, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = ran.json();
    assert_eq!(names(&found, "deployments"), ["good"]);
    let error = |attribute: &str| {
        let failure = found["failures"].as_array().unwrap().iter().find(|f| f["attribute"] == attribute);
        failure.unwrap_or_else(|| panic!("{attribute} in {found}"))["error"].as_str().unwrap().to_owned()
    };
    let bad = error(&format!("systemConfigs.{}.bad", clavel::model::System::this().unwrap()));
    assert!(bad.contains("no box"), "{bad}");
    assert!(error("homeConfigurations.lacking").contains("`homeConfigurations.lacking` has no `activationPackage`"));
    for (one, other) in [("nixos", "darwin"), ("darwin", "nixos")] {
        let both = format!("`{one}Configurations.twice` and `{other}Configurations.twice` would both be");
        assert!(error(&format!("{one}Configurations.twice")).contains(&both));
    }
}

#[test]
fn a_host_that_is_left_out_is_not_evaluated() {
    let world = World::new();
    let outputs = r#"{
      nixosConfigurations = { web-1 = host ./hosts/web-1.nix; web-old-1 = throw "too old"; db-1 = throw "not ours"; };
      homeConfigurations.web-home = throw "not here";
      clavel.deployments.web-1.metadata.site = "north";
      clavel.deployments.web-old-1.metadata.site = "south";
    }"#;
    let patterns = ["--include", "web-*", "--exclude", "web-old-*", "--exclude", "homeConfigurations.*"];
    let ran = evaluate(&world, outputs, &patterns);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let found = ran.json();
    for kind in ["deployments", "units", "agents"] {
        assert_eq!(names(&found, kind), ["web-1"]);
    }
    assert_eq!(found["deployments"][0]["metadata"]["site"], "north");
    let evaluated: Vec<&str> =
        found["work"]["evaluated"].as_array().unwrap().iter().map(|e| e["attribute"].as_str().unwrap()).collect();
    assert_eq!(evaluated.len(), 2, "{evaluated:?}");

    let ran = evaluate(&world, outputs, &["--include", "web-1", "--exclude", "wbe-*"]);
    assert!(ran.stderr.contains("wbe-*"), "a pattern without a match is reported: {}", ran.stderr);
    evaluate(&world, outputs, &["--include", ""]).refused(2, "is not a pattern");
}

#[test]
fn a_host_that_is_left_out_is_withdrawn_and_one_with_a_twin_stays() {
    let world = World::new();
    world.configure_claveld("include = [\"*-1\"]\n");
    world.publish().good();
    assert!(world.on_branch("deployments/web-2.json").is_none());
    world.configure_claveld("");
    world.publish().good();
    let web_2 = world.on_branch("deployments/web-2.json").unwrap();
    world.configure_claveld("exclude = [\"nixosConfigurations.web-1\"]\n");
    world.publish().good();
    for folder in ["deployments", "units", "agents"] {
        assert!(world.on_branch(&format!("{folder}/web-1.json")).is_none(), "{folder}");
    }
    assert!(world.on_branch("units/router-1.json").is_some());

    let web_1 = "nixosConfigurations.web-1";
    let twin = format!("darwinConfigurations.web-2 = host ./hosts/web-1.nix;\n{web_1}");
    world.edit("flake.nix", web_1, &twin);
    world.push("A twin");
    let said = world.publish().refused(1, "broken: nixosConfigurations.web-2");
    assert!(said.contains("broken: darwinConfigurations.web-2"), "{said}");
    for folder in ["deployments", "units", "agents"] {
        assert!(world.on_branch(&format!("{folder}/web-2.json")).is_some(), "{folder}");
    }
    assert_eq!(world.on_branch("deployments/web-2.json").unwrap(), web_2);
}
