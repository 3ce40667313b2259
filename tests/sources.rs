//! Promise: a source whose server does not answer is said to be out of reach, and never counts as unchanged.

use rustix::process::Signal;

use crate::support::http::HttpServer;
use crate::support::program;
use crate::support::server::Server;
use crate::support::world::{Ran, World, until};

fn once(world: &World) -> Ran {
    world.claveld(&["once", "--config", &world.at("claveld.toml"), "--json"])
}

fn status(world: &World, more: &[&str]) -> Ran {
    world.claveld(&[&["status", "--json", "--config", &world.at("claveld.toml")], more].concat())
}

/// A world whose only source is the fleet's repository at this address.
fn with_source(address: &str) -> World {
    let world = World::new();
    let config = world.read_file("claveld.toml");
    let address = address.replace("WORLD", &world.at(""));
    world.write_file("claveld.toml", &config.replace(&world.flake(), &address));
    world
}

/// The state of the only source in the status.
fn state(world: &World) -> serde_json::Value {
    let status = status(world, &[]).json();
    status["sources"].as_object().unwrap().values().next().unwrap().clone()
}

#[test]
fn a_server_that_is_down_is_told_and_nothing_else_is_published() {
    let world = World::new();
    let server = HttpServer::serve_git(&world.path(""));
    let config = world.read_file("claveld.toml");
    let source = format!("git+{}/fleet.git?ref=main", server.url());
    world.write_file("claveld.toml", &config.replace(&world.flake(), &source));
    assert_eq!(state(&world), serde_json::Value::Null);
    assert_eq!(once(&world).also_good().json()["sources"], serde_json::json!([]));
    status(&world, &["--check"]).good();
    let (read, tip) = (state(&world), world.tip());
    assert_eq!(read["revision"].as_str().map(str::len), Some(40));

    drop(server);
    // Nix would go on with its last copy.
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    let ran = once(&world);
    assert_eq!(ran.code, Some(9), "{}", ran.stderr);
    let since = ran.json()["sources"][0]["unreachableSince"].clone();
    assert!(since.is_string());
    let said = world.publish().refused(9, &format!("is out of reach since {}", since.as_str().unwrap()));
    // Git's own words, and no password.
    assert!(said.contains("fatal: unable to access") && said.contains("What is published stays"), "{said}");
    let trouble = state(&world)["trouble"].clone();
    assert_eq!((&trouble["kind"], &trouble["since"]), (&"unreachable".into(), &since));
    assert_eq!(state(&world)["readAt"], read["readAt"]);
    assert_eq!(status(&world, &["--check"]).code, Some(9));
    assert_eq!(world.tip(), tip);
    // An index that is signed again meanwhile says so, too.
    world.run("faketime", &["-f", "+5d", env!("CARGO_BIN_EXE_claveld"), "once", "--config", &world.at("claveld.toml")]);
    let index: serde_json::Value = serde_json::from_str(&world.on_branch("index.json").unwrap()).unwrap();
    assert_eq!((&index["signed"]["version"], &index["signed"]["sources"][0]["unreadSince"]), (&2.into(), &since));
    assert!(world.on_branch("README.md").unwrap().contains(&format!("- Not read since {}", since.as_str().unwrap())));
    world.verify().good();

    let server = HttpServer::serve_git(&world.path(""));
    let back = format!("git+{}/fleet.git?ref=main", server.url());
    world.write_file("claveld.toml", &config.replace(&world.flake(), &back));
    assert!(world.publish().good().contains("deployments/web-1.json  revision 1 → 2"));
    status(&world, &["--check"]).good();
}

#[test]
fn a_daemon_of_git_that_is_down_is_told_too() {
    let world = World::new();
    let daemon = |port: u16| {
        let mut daemon = program("git");
        daemon.args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr"]);
        daemon.arg(format!("--port={port}")).arg(format!("--base-path={}", world.at(""))).arg(world.at(""));
        daemon
    };
    let (server, port) = Server::on_free_port(daemon, &world.path("daemon.log"));
    let config = world.read_file("claveld.toml");
    let source = format!("git://127.0.0.1:{port}/fleet.git");
    world.write_file("claveld.toml", &config.replace(&world.flake(), &format!("{source}?ref=main")));
    once(&world).good();
    drop(server);
    world.publish().refused(9, "is out of reach since");
    // The server is asked also where the reference leaves the branch to Nix.
    world.write_file("claveld.toml", &config.replace(&world.flake(), &source));
    world.publish().refused(9, "is out of reach since");
}

#[test]
fn a_branch_that_is_not_there_is_told_as_such() {
    let world = World::new();
    let server = HttpServer::serve_git(&world.path(""));
    let config = world.read_file("claveld.toml");
    let with_branch = |branch: &str| {
        let source = format!("git+{}/fleet.git?ref={branch}", server.url());
        world.write_file("claveld.toml", &config.replace(&world.flake(), &source));
    };
    with_branch("main");
    once(&world).good();
    with_branch("mian");
    world.publish().refused(1, "its repository has no refs/heads/mian");
    let trouble = state(&world)["trouble"].clone();
    assert_eq!(trouble["kind"], "broken");
    assert_eq!(status(&world, &["--check"]).code, Some(1));
}

#[test]
fn the_status_says_since_when_a_host_is_broken() {
    let world = World::new();
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"no version\";");
    world.push("Broken");
    let since = || state(&world)["broken"]["nixosConfigurations.web-2"]["since"].clone();
    let earlier = ["-f", "-1h", env!("CARGO_BIN_EXE_claveld"), "once", "--config", &world.at("claveld.toml")];
    world.run("faketime", &earlier).refused(1, "no version");
    let first = since();
    assert!(first.is_string());
    assert_eq!(state(&world)["broken"]["nixosConfigurations.web-2"]["error"], "error: no version");
    let said = world.claveld(&["status", "--config", &world.at("claveld.toml")]).good();
    assert!(said.contains(": nixosConfigurations.web-2: error: no version\n"), "{said}");
    world.publish().refused(1, "no version");
    assert_eq!(since(), first);
    assert_eq!(status(&world, &["--check"]).code, Some(1));
    world.edit("hosts/web-2.nix", "throw \"no version\"", "\"2\"");
    world.push("Mended");
    world.publish().good();
    assert_eq!(state(&world)["broken"], serde_json::Value::Null);
    status(&world, &["--check"]).good();
}

#[test]
fn the_branch_says_which_hosts_are_broken_and_only_another_set_of_them_is_published() {
    let world = World::published();
    let tip = world.tip();
    let version = |text: &str| {
        world.edit("hosts/web-2.nix", "version = ", &format!("version = throw \"{text}\" + "));
        world.push("Broken");
        world.publish().refused(1, text);
        world.tip()
    };
    let broken = version("is <b>broken</b>");
    assert_ne!(broken, tip);
    let index: serde_json::Value = serde_json::from_str(&world.on_branch("index.json").unwrap()).unwrap();
    let part = index["signed"]["sources"][0]["broken"][0].clone();
    assert_eq!(
        (&index["signed"]["version"], &part["attribute"], &part["error"]),
        (&2.into(), &"nixosConfigurations.web-2".into(), &"error: is <b>broken</b>".into())
    );
    let since = part["since"].as_str().unwrap();
    let readme = world.on_branch("README.md").unwrap();
    let line = format!("- Broken since {since}: `nixosConfigurations.web-2` of `");
    assert!(readme.contains(&line) && readme.contains(r"error\: is \<b\>broken\<\/b\>"), "{readme}");
    let look = ["list", "--repository", &world.at("fleet.git")];
    let root = world.root();
    let verified = [&look[..], &["--root", &root]].concat();
    for look in [&look[..], &verified] {
        let said = world.clavel(look).stderr;
        let line = format!(" is broken since {since}: error: is <b>broken</b>");
        assert!(said.contains("nixosConfigurations.web-2 of ") && said.contains(&line), "{said}");
        let json = world.clavel(&[look, &["--json"]].concat()).json();
        assert_eq!((&json["sources"][0]["broken"][0], json["deployments"].as_array().unwrap().len()), (&part, 3));
    }
    // The same host with another error is no news for the branch.
    assert_eq!(version("is broken otherwise"), broken);
    world.publish().refused(1, "is broken otherwise");
    assert_eq!(world.tip(), broken);
    world.edit(
        "hosts/web-2.nix",
        "version = throw \"is broken otherwise\" + throw \"is <b>broken</b>\" + ",
        "version = ",
    );
    world.push("Mended");
    world.publish().good();
    let index: serde_json::Value = serde_json::from_str(&world.on_branch("index.json").unwrap()).unwrap();
    assert_eq!(index["signed"]["sources"][0]["broken"], serde_json::Value::Null);
    assert!(!world.on_branch("README.md").unwrap().contains("Broken since"));
    world.verify().good();
}

#[test]
fn the_status_says_how_evaluations_are_isolated() {
    let world = with_source("path:WORLD/work");
    assert_eq!(status(&world, &[]).json()["isolation"], serde_json::json!({ "kind": "cage" }));
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &format!("{config}\n[evaluate]\nisolation = \"none\"\n"));
    assert_eq!(status(&world, &[]).json()["isolation"]["kind"], "none");
    let said = world.claveld(&["status", "--config", &world.at("claveld.toml")]).good();
    assert!(said.contains("isolation   none, as configured") && said.contains("no round was about it yet"), "{said}");
}

/// A world whose claveld asks a server for its source, again and again, with the reference of that source.
fn polled_elsewhere() -> (World, HttpServer, String) {
    let world = World::new();
    let server = HttpServer::serve_git(&world.path(""));
    let config = world.read_file("claveld.toml");
    let source = format!("git+{}/fleet.git?ref=main", server.url());
    let polling = format!("{}\n[watch]\npoll = \"200ms\"\n", config.replace(&world.flake(), &source));
    world.write_file("claveld.toml", &polling);
    (world, server, source)
}

#[test]
fn a_daemon_notices_a_push_to_a_repository_elsewhere() {
    let (world, server, _) = polled_elsewhere();
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the first publication", || world.on_branch("deployments/web-1.json").is_some());
    let polls = || server.requests().iter().filter(|request| request.contains("info/refs")).count();
    let before = polls();
    until("the source is asked again", || polls() > before + 1);
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    until("the second revision is published", || {
        world.on_branch("deployments/web-1.json").is_some_and(|text| text.contains("\"revision\": 2"))
    });
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}

#[test]
fn a_daemon_says_what_is_broken_once_and_that_it_is_over() {
    let (world, server, source) = polled_elsewhere();
    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"no version\";");
    world.push("Broken");
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    let says = |times: usize, text: &str| claveld.said().matches(text).count() == times;
    until("it says the broken host", || says(1, "broken: nixosConfigurations.web-2"));

    // Another push evaluates the source again, and the host is as broken as before.
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    until("the second revision is published", || says(1, "deployments/web-1.json  revision 1 → 2"));
    let flake = world.read_file("work/flake.nix");
    world.write("flake.nix", "{ no");
    world.push("Broken as a whole");
    until("it says the broken source", || says(1, "syntax error"));
    let polls = || server.requests().iter().filter(|request| request.contains("info/refs")).count();
    let before = polls();
    until("the source is read again and again", || polls() > before + 6);
    world.write("flake.nix", &flake);
    world.push("Mended");
    until("it says that the source is mended", || says(1, &format!("{source} can be read again")));
    world.edit("hosts/web-2.nix", "throw \"no version\"", "\"2\"");
    world.push("Mended");
    until("it says that the host is mended", || {
        says(1, &format!("nixosConfigurations.web-2 of {source} is no longer broken"))
    });
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
    for once in ["error: no version", "error: syntax error"] {
        assert_eq!(claveld.said().lines().filter(|line| line.contains(once)).count(), 1, "{}", claveld.said());
    }
}
