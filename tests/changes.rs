//! Promise: Clavel shows the changes inside a machine before it is built: on a push, on the branch and on request.

use crate::support::run;
use crate::support::world::World;

/// A host like a NixOS host: its system has files and a folder that gathers packages, all as real derivations.
const HOST: &str = r#"{ system, nginx, motd, compiler ? "1" }:
let
  make = attributes: derivation ({ inherit system; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; } // attributes);
  stdenv = make { name = "stdenv-${compiler}"; };
  package = pname: version: make { name = "${pname}-${version}"; inherit pname version stdenv; };
  written = name: text: make { inherit name text stdenv; buildCommand = "echo -n \"$text\" > $out"; };
  packages = [ (package "nginx" nginx) (package "bash" "5.2") ];
  etc = make {
    name = "etc";
    inherit stdenv;
    buildCommand = ''
      ln -s ${written "etc-motd" motd} $out/motd
      ln -s ${written "unit-nginx.service" "ExecStart=${builtins.head packages}/bin/nginx"} $out/nginx.service
    '';
  };
  path = make { name = "system-path"; pkgs = builtins.toJSON packages; inherit stdenv; };
in
{ config.system.build.toplevel = make { name = "nixos-system-web-1-24.05"; inherit etc path stdenv; }; }
"#;

fn world(host: &str) -> World {
    let world = World::new();
    world.write("lib/nixos.nix", HOST);
    world.edit("flake.nix", "host ./hosts/web-1.nix", &format!("import ./lib/nixos.nix {{ inherit system; {host} }}"));
    world.push("A host of packages and files");
    world.publish().good();
    world
}

fn message(world: &World) -> String {
    world.git(&["-C", &world.at("fleet.git"), "log", "-1", "--format=%B", "deployments"])
}

#[test]
fn a_push_and_the_branch_show_changed_packages_and_files() {
    let world = world("nginx = \"1.24.0\"; motd = \"Welcome\";");
    world.install_hook();
    world.edit("flake.nix", "nginx = \"1.24.0\"; motd = \"Welcome\"", "nginx = \"1.26.1\"; motd = \"Hello\"");
    let seen = world.push("A newer nginx");
    let shown = ["deployments/web-1.json  revision 1 → 2", "  nginx 1.24.0 → 1.26.1", "  files: etc-motd"];
    let lines: Vec<&str> = seen.lines().filter_map(|line| line.strip_prefix("remote: ")).map(str::trim_end).collect();
    assert!(lines.windows(3).any(|window| window == shown), "{seen}");
    let message = message(&world);
    let expected = "deployments: web-1 2\n\ndeployments/web-1.json: revision 1 → 2\n  nginx 1.24.0 → 1.26.1\n  files: etc-motd\n\n";
    assert!(message.starts_with(expected), "{message}");

    world.edit("flake.nix", "nginx = \"1.26.1\"", "compiler = \"2\"; nginx = \"1.26.1\"");
    world.git(&["-C", &world.at("work"), "commit", "-qam", "Another compiler"]);
    std::fs::remove_file(world.path("fleet.git/hooks/post-receive")).unwrap();
    world.git(&["-C", &world.at("work"), "push", "-q", "origin", "main"]);
    let report = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json();
    let rebuilt = serde_json::json!({
        "settings": [], "packages": [], "rebuilt": ["bash 5.2", "nginx 1.26.1"], "files": []
    });
    assert_eq!(report["report"]["changes"][0]["system"], rebuilt);
    assert!(self::message(&world).contains("\n  2 packages rebuilt\n"), "{}", self::message(&world));
}

#[test]
fn any_two_revisions_are_compared_from_the_branch_alone() {
    let world = world("nginx = \"1.24.0\"; motd = \"Welcome\";");
    for (from, to) in [("1.24.0", "1.26.1"), ("1.26.1", "1.22.0")] {
        world.edit("flake.nix", &format!("\"{from}\""), &format!("\"{to}\""));
        world.push(to);
        world.publish().good();
    }
    let (fleet, root) = (world.at("fleet.git"), world.root());
    let diff = |more: &[&str]| world.clavel(&[&["diff", "web-1", "--repository", &fleet], more].concat());
    let shown = diff(&["--root", &root]).good();
    assert!(shown.starts_with("web-1: revision 2 → 3\n  narId: /nix/store/"), "{shown}");
    assert!(shown.ends_with("\n  nginx 1.26.1 → 1.22.0 (older)\n"), "{shown}");
    let all = diff(&["--from", "1", "--to", "3", "--json"]).json();
    assert_eq!((&all["from"], &all["to"], &all["specification"][0]["field"]), (&1.into(), &3.into(), &"narId".into()));
    let nginx = serde_json::json!([{ "name": "nginx", "change": "downgraded", "from": ["1.24.0"], "to": ["1.22.0"] }]);
    assert_eq!(all["system"]["packages"], nginx);
    assert!(diff(&["--from", "2", "--to", "1"]).good().contains("nginx 1.26.1 → 1.24.0 (older)"));
    // From a repository elsewhere, clavel has to fetch the history first.
    let elsewhere = format!("file://{fleet}");
    let shown = world.clavel(&["diff", "web-1", "--repository", &elsewhere, "--to", "2"]).good();
    assert!(shown.contains("revision 1 → 2\n") && shown.ends_with("\n  nginx 1.24.0 → 1.26.1\n"), "{shown}");

    diff(&["--to", "1"]).refused(3, "web-1 has no earlier revision to compare with");
    diff(&["--from", "7"]).refused(3, "the branch has no revision 7 of web-1 in its history");
    world.clavel(&["diff", "web-9", "--repository", &fleet]).refused(3, "no deployment web-9");
    world.clavel(&["diff", "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-a.drv"]).refused(3, "two derivations");
}

#[test]
fn changes_that_are_not_known_are_published_with_the_reason() {
    let world = world("nginx = \"1.24.0\"; motd = \"Welcome\";");
    // A deployment that names a store path has no derivation.
    let path = world.document("deployments/web-1.json")["specification"]["template"]["narId"].clone();
    let router = "(host ./hosts/router-1.nix).config.system.build.toplevel";
    world.edit("flake.nix", router, &format!("\"{}\"", path.as_str().unwrap()));
    world.push("A router by its store path");
    let said = world.publish().good();
    let unknown = "  the changes inside are not known: the new one names a store path and no derivation\n";
    assert!(said.contains(&format!("deployments/router-1.json  revision 1 → 2\n{unknown}")), "{said}");
    assert!(message(&world).contains(unknown), "{}", message(&world));

    // The derivation is not in the store, as after a garbage collection.
    let gone = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-gone.drv";
    let here = world.document("deployments/web-1.json")["metadata"]["drvPath"].clone();
    let shown = world.clavel(&["diff", gone, here.as_str().unwrap()]).good();
    let why = "cannot be read (it is not on this machine, or not any more)\n";
    assert_eq!(shown, format!("the changes inside are not known: {gone} {why}"));
}

#[test]
fn versions_are_compared_as_this_nix_does() {
    let versions = [
        "",
        "0",
        "00",
        "1",
        "1.0",
        "1.00",
        "1-0",
        "1.",
        "1.0a",
        "1.0pre2",
        "1.0pre10",
        "pre",
        "rc",
        "2024-01-01",
        "2.3.1",
        "2.3q",
        "2.3c",
        "10",
        "9.9",
        "1_1",
        "1.0.0-beta.2",
    ];
    let expression = format!(
        "let v = [ {} ]; in map (a: map (b: builtins.compareVersions a b) v) v",
        versions.map(|version| format!("\"{version}\"")).join(" ")
    );
    let world = World::new();
    let nix = run(&mut world.command("nix", &["eval", "--json", "--expr", &expression]));
    let ours = versions.map(|a| versions.map(|b| clavel::changes::compare_versions(a, b) as i8).to_vec()).to_vec();
    assert_eq!(serde_json::from_str::<Vec<Vec<i8>>>(&nix).unwrap(), ours);
}
