//! Promise: a push that changes many machines alike is told once, and the diff foresees what restarts and what takes a reboot.

use serde_json::{Value, json};

use crate::support::world::World;

/// The flake: a module that all hosts share, and what each host has of its own. The systems have the shape of those of NixOS, as far
/// as a diff reads them.
const FLAKE: &str = r#"{
  outputs = _:
    let
      system = import ./system.nix;
      caches = import ./caches.nix;
      make = attributes: derivation ({ inherit system; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; } // attributes);
      package = pname: version: make { name = "${pname}-${version}"; inherit pname version; };
      written = name: text: make { inherit name text; buildCommand = "echo -n \"$text\" > $out"; };
      linked = name: paths: make { inherit name; buildCommand = builtins.concatStringsSep "\n" (map (path: "ln -s ${path} $out") paths); };
      shared = import ./shared.nix;
      host = name: own:
        let
          linux = package "linux" shared.linux;
          nginx = package "nginx" (own.nginx or shared.nginx);
          unit = text: written "unit-nginx.service" "[Unit]\nDescription=${shared.description}\n[Service]\nExecStart=${nginx}/bin/nginx\n${text}";
          units = linked "system-units" [ (unit shared.unit) ];
          etc = linked "etc" [ units (written "etc-motd" (own.motd or shared.motd)) ];
          toplevel = make {
            name = "nixos-system-${name}-24.05";
            buildCommand = "mkdir $out\nln -s ${linux}/bzImage $out/kernel\nln -s ${etc}/etc $out/etc\n";
          };
        in
        { config.system.build = { inherit toplevel; }; config.nix.settings = { inherit (caches) substituters; trusted-public-keys = caches.substituters-public-keys; }; };
    in
    { nixosConfigurations = builtins.mapAttrs host (import ./hosts.nix); };
}"#;

const SHARED: &str =
    r#"{ linux = "6.1.2"; nginx = "1.24.0"; description = "Web server"; unit = ""; motd = "Welcome"; }"#;

/// A published fleet of these hosts.
fn world(hosts: &str) -> World {
    let world = World::new();
    world.write("flake.nix", FLAKE);
    world.write("shared.nix", SHARED);
    world.write("hosts.nix", hosts);
    world.push("A fleet with a module that all hosts share");
    world.publish().good();
    world
}

/// The hosts `web-1` to `web-COUNT`, without anything of their own.
fn hosts(count: usize) -> String {
    let hosts: Vec<String> = (1..=count).map(|n| format!("web-{n} = {{ }};")).collect();
    format!("{{ {} }}", hosts.join(" "))
}

/// The message of the newest publication, without its last paragraph, which names the source.
fn message(world: &World) -> String {
    let message = world.git(&["-C", &world.at("fleet.git"), "log", "-1", "--format=%B", "deployments"]);
    message.split("\n\nSource: ").next().unwrap().to_owned()
}

/// What a publication prints about the documents.
fn printed(world: &World) -> String {
    let said = world.publish().good();
    said.split("published as index").next().unwrap().to_owned()
}

#[test]
fn what_many_hosts_share_is_told_once() {
    let world = world(&hosts(12));
    world.edit("shared.nix", "6.1.2", "6.1.3");
    world.edit("shared.nix", "Welcome", "Hello");
    world.push("A newer kernel for all");
    let told = "all 12:
  linux 6.1.2 → 6.1.3
  files: etc-motd
  forecast: reboot for kernel
deployments: 12 changed (web-1 2, web-10 2, web-11 2 and 9 more)";
    assert_eq!(printed(&world), format!("{told}\n"));
    assert_eq!(message(&world), format!("deployments: web-1 2, web-10 2, web-11 2 and 9 more\n\n{told}"));
}

#[test]
fn what_differs_is_told_by_group_and_then_by_host() {
    let world = world(r#"{ db-1 = { nginx = "1.22.0"; motd = "A"; }; web-1 = { }; web-2 = { }; web-3 = { }; }"#);
    world.edit("shared.nix", "6.1.2", "6.1.3");
    world.edit("shared.nix", "1.24.0", "1.26.1");
    world.edit("hosts.nix", "\"A\"", "\"B\"");
    world.push("A newer kernel, and a newer nginx where it follows the shared module");
    let reported = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json();
    let expected = "deployments: db-1 2, web-1 2, web-2 2, web-3 2

db-1, web-1, web-2, web-3:
  linux 6.1.2 → 6.1.3
  forecast: reboot for kernel
web-1, web-2, web-3:
  nginx 1.24.0 → 1.26.1
  forecast: restart of nginx.service
deployments/db-1.json: revision 1 → 2
  files: etc-motd
deployments/web-1.json: revision 1 → 2
deployments/web-2.json: revision 1 → 2
deployments/web-3.json: revision 1 → 2";
    assert_eq!(message(&world), expected);
    let groups = reported["report"]["groups"].as_array().unwrap();
    let of = |group: &Value| group["deployments"].clone();
    let names: Vec<Value> = groups.iter().map(of).collect();
    assert_eq!(
        names,
        [json!(["db-1", "web-1", "web-2", "web-3"]), json!(["web-1", "web-2", "web-3"]), json!(["db-1"])]
    );
    assert_eq!(groups[1]["system"]["forecast"]["units"], json!([{ "name": "nginx.service", "action": "restart" }]));
    // The data of each host is whole all the same.
    let web = reported["report"]["changes"].as_array().unwrap().iter().find(|c| c["path"] == "deployments/web-2.json");
    assert_eq!(web.unwrap()["system"]["packages"].as_array().unwrap().len(), 2);

    let (fleet, root) = (world.at("fleet.git"), world.root());
    let diff = |names: &[&str]| world.clavel(&[&["diff", "--repository", &fleet, "--root", &root], names].concat());
    let shown = diff(&["web-1", "web-2", "db-1"]).good();
    let expected = "db-1, web-1, web-2:
  linux 6.1.2 → 6.1.3
  forecast: reboot for kernel
web-1, web-2:
  nginx 1.24.0 → 1.26.1
  forecast: restart of nginx.service
web-1: revision 1 → 2\n";
    assert!(shown.starts_with(expected), "{shown}");
    assert!(shown.ends_with("\n  files: etc-motd\n"), "{shown}");
    let shown = diff(&["web-1", "web-2", "db-1", "--json"]).json();
    assert_eq!(
        (shown["deployments"][1]["name"].clone(), of(&shown["groups"][1])),
        (json!("web-2"), json!(["web-1", "web-2"]))
    );
    diff(&["web-1", "web-2", "--from", "1"]).refused(3, "`--from` and `--to` are for one deployment");
}

#[test]
fn a_unit_that_says_how_it_takes_a_change_is_believed() {
    let world = world(&hosts(1));
    let forecast = || {
        let report = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]).json();
        report["report"]["changes"][0]["system"]["forecast"].clone()
    };
    world.edit("shared.nix", "unit = \"\"", "unit = \"X-ReloadIfChanged=true\"");
    world.push("Reload nginx");
    let units = json!([{ "name": "nginx.service", "action": "reload" }]);
    assert_eq!(forecast(), json!({ "reboot": [], "units": units }));
    world.edit("shared.nix", "X-ReloadIfChanged=true", "X-RestartIfChanged=false");
    world.push("Leave nginx alone");
    assert_eq!(forecast(), Value::Null);
    world.edit("shared.nix", "X-RestartIfChanged=false", "");
    world.push("Restart nginx again");
    let units = json!([{ "name": "nginx.service", "action": "restart" }]);
    assert_eq!(forecast(), json!({ "reboot": [], "units": units }));
    world.edit("shared.nix", "Web server", "The web server");
    world.push("Another description");
    assert_eq!(forecast(), Value::Null);
}
