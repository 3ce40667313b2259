//! Promise: with `wait-for-cache`, a deployment is published when one of its caches has it, and not before.

use rustix::process::Signal;

use crate::support::http::HttpServer;
use crate::support::world::{World, until};

/// A world that waits for its cache, with `more` in its configuration.
fn waiting(more: &str) -> World {
    let world = World::new();
    configure(&world, more);
    world
}

fn configure(world: &World, more: &str) {
    world.configure_claveld(more);
    let text = world.read_file("claveld.toml").replace("[publish]", "[publish]\nwait-for-cache = true");
    world.write_file("claveld.toml", &text);
}

/// The revision of a deployment on the branch.
fn revision(world: &World, name: &str) -> Option<u64> {
    let path = format!("deployments/{name}.json");
    world.on_branch(&path).map(|_| world.document(&path)["revision"].as_u64().unwrap())
}

#[test]
fn a_deployment_waits_until_one_of_its_caches_has_it() {
    let world = waiting("");
    let cache = format!("file://{}", world.at("cache"));
    world.build(&["web-1"]);
    let said = world.publish().good();
    assert!(said.contains("deployments/web-1.json  new, revision 1"), "{said}");
    let path = said.lines().find_map(|line| line.strip_prefix("web-2: waits for ")).unwrap_or_else(|| panic!("{said}"));
    assert!(path.starts_with("/nix/store/") && path.ends_with(&format!(" in {cache} (not there yet)")), "{said}");
    assert!(said.contains("router-1: waits for "), "{said}");
    assert_eq!(revision(&world, "web-2"), None);
    // The unit and the agent of a waiting deployment wait as well.
    assert_eq!(world.on_branch("agents/web-2.json"), None);
    world.verify().good();

    // A second round changes nothing, and that is no failure.
    let tip = world.tip();
    assert!(world.publish().good().contains("web-2: waits for "));
    assert_eq!(world.tip(), tip);
    world.build(&["web-2", "router-1"]);
    let said = world.publish().good();
    assert!(said.contains("deployments/web-2.json     new, revision 1"), "{said}");
    assert!(!said.contains("waits"), "{said}");
    world.configure_agent("web-2", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-2", &["once"]).good(), "web-2: switched to revision 1\n");
}

#[test]
fn a_waiting_deployment_stays_on_the_branch_as_it_is() {
    let world = waiting("");
    world.build(&["web-1", "web-2", "router-1"]);
    world.publish().good();
    let before = world.on_branch("deployments/web-1.json");
    world.edit("hosts/web-1.nix", "version = \"1\"", "version = \"2\"");
    world.edit("hosts/web-2.nix", "version = \"1\"", "version = \"2\"");
    world.push("Both");
    world.build(&["web-2"]);
    let ran = world.claveld(&["once", "--json", "--config", &world.at("claveld.toml")]);
    let report = ran.also_good().json()["report"].clone();
    assert_eq!(report["changes"][0]["path"], "deployments/web-2.json");
    assert_eq!(report["waiting"][0]["name"], "web-1");
    assert_eq!(report["waiting"][0]["caches"][0]["state"], "not-there");
    assert_eq!(world.on_branch("deployments/web-1.json"), before);
    assert_eq!(revision(&world, "web-2"), Some(2));
    // A deployment that returns to its published content does not wait any more.
    world.edit("hosts/web-1.nix", "version = \"2\"", "version = \"1\"");
    world.push("Back");
    assert!(!world.publish().good().contains("waits"));
    assert_eq!(world.on_branch("deployments/web-1.json"), before);
}

#[test]
fn a_path_that_none_of_its_keys_signed_is_not_ready() {
    let world = World::new();
    let server = HttpServer::serve_files(&world.path("cache"));
    world.use_cache(&server.url());
    world.push("A cache over HTTP");
    configure(&world, "");
    // Another CI has signed the path with a key of its own.
    world.run("cp", &[&world.at("cache-1.secret"), &world.at("own.secret")]).good();
    std::fs::remove_file(world.path("cache-1.secret")).unwrap();
    world.clavel(&["key", "generate", "other-1", "--output", &world.at("cache-1.secret")]).good();
    world.build(&["web-1"]);
    let said = world.publish().good();
    let expected = format!("{} (there, but signed by none of its keys; it is signed by other-1)", server.url());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(revision(&world, "web-1"), None);
    // With the right signature the path counts: claveld does not remember the earlier answer of the cache.
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    world.write_file("cache/nix-cache-info", "StoreDir: /nix/store\n");
    world.run("cp", &[&world.at("own.secret"), &world.at("cache-1.secret")]).good();
    world.build(&["web-1"]);
    assert!(world.publish().good().contains("deployments/web-1.json  new, revision 1"));
    // Claveld asks only for the paths that are to be published.
    let asked = server.requests().len();
    let said = world.publish().good();
    assert!(!said.contains("web-1"), "{said}");
    let narinfo = world.document("deployments/web-1.json")["specification"]["template"]["narId"].clone();
    let hash = narinfo.as_str().unwrap()["/nix/store/".len()..].split('-').next().unwrap().to_owned();
    assert!(server.requests()[asked..].iter().all(|request| !request.contains(&hash)));
    assert!(server.requests()[asked..].iter().any(|request| request.contains(".narinfo")));
}

#[test]
fn an_unreachable_cache_is_reported_and_another_one_suffices() {
    let world = World::new();
    let key = world.public_key("cache-1");
    let here = format!("file://{}", world.at("cache"));
    let caches = |list: &str| {
        world.write(
            "caches.nix",
            &format!("{{ substituters = [ {list} ]; substituters-public-keys = [ \"{key}\" ]; }}"),
        );
    };
    caches(&format!("\"http://127.0.0.1:1\" \"{here}\""));
    world.push("One of them is down");
    configure(&world, "");
    world.build(&["web-1"]);
    let said = world.publish().good();
    assert!(said.contains("deployments/web-1.json  new, revision 1"), "{said}");
    let line = said.lines().find(|line| line.starts_with("web-2: waits")).unwrap();
    assert!(line.contains("http://127.0.0.1:1 (cannot be asked: unable to download "), "{line}");
    assert!(line.ends_with(&format!(", or in {here} (not there yet)")), "{line}");
}

#[test]
fn one_bad_answer_of_a_cache_affects_no_other_deployment() {
    let world = waiting("");
    world.build(&["web-1", "web-2", "router-1"]);
    let bad = world.claveld(&["evaluate", &world.flake(), "--json"]).json()["deployments"][1].clone();
    assert_eq!(bad["name"], "web-1");
    let path = bad["specification"]["template"]["narId"].as_str().unwrap();
    let hash = path["/nix/store/".len()..].split('-').next().unwrap();
    world.write_file(&format!("cache/{hash}.narinfo"), "this is no narinfo\n");
    let said = world.publish().good();
    assert!(
        said.contains("deployments/web-2.json     new") && said.contains("deployments/router-1.json  new"),
        "{said}"
    );
    assert!(said.contains("web-1: waits for ") && said.contains("(cannot be asked: NAR info file "), "{said}");
}

#[test]
fn what_could_never_be_ready_is_a_failure() {
    let world = World::new();
    world.build(&["router-1"]);
    let key = world.public_key("cache-1");
    for (caches, keys, said) in [
        ("", key.as_str(), "it names no cache"),
        ("\"https://cache.example.org\"", "", "it names no key of its caches"),
        ("\"ssh://builder\"", key.as_str(), "none of its caches is asked: only https://, http:// and file:// are"),
    ] {
        let keys = if keys.is_empty() { String::new() } else { format!("\"{keys}\"") };
        let text = format!("{{ substituters = [ {caches} ]; substituters-public-keys = [ {keys} ]; }}");
        world.write("caches.nix", &text);
        world.push(said);
        configure(&world, "");
        let told = world.publish().refused(1, said);
        assert!(
            told.contains("error: web-1 is not published, and with `publish.wait-for-cache` never will be"),
            "{told}"
        );
        assert_eq!(revision(&world, "web-1"), None);
    }
}

#[test]
fn the_hook_reports_waiting_deployments_and_ends() {
    let world = waiting("");
    world.install_hook();
    let seen = world.push("Nothing is built yet");
    assert!(seen.contains("web-1: waits for /nix/store/"), "{seen}");
    world.build(&["web-1"]);
    world.publish().good();
    assert_eq!(revision(&world, "web-1"), Some(1));
}

#[test]
fn the_daemon_asks_the_caches_again_without_evaluating_again() {
    let world = waiting("[watch]\npoll = \"200ms\"\n");
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("it says what waits", || claveld.said().contains("web-1: waits for "));
    assert_eq!(revision(&world, "web-1"), None);
    world.build(&["web-1"]);
    until("web-1 is published", || revision(&world, "web-1") == Some(1));
    world.build(&["web-2", "router-1"]);
    until("the others are published", || {
        revision(&world, "web-2") == Some(1) && revision(&world, "router-1") == Some(1)
    });
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
    let said = claveld.said();
    assert_eq!(said.matches("evaluating git+file://").count(), 1, "{said}");
    // A deployment that goes on waiting is not reported each time.
    assert!(said.matches("web-2: waits for ").count() <= 2, "{said}");
}

#[test]
fn without_wait_for_cache_no_cache_is_asked() {
    let world = World::new();
    let server = HttpServer::serve_files(&world.path("cache"));
    world.use_cache(&server.url());
    world.push("A cache over HTTP");
    assert!(!world.publish().good().contains("waits"));
    assert_eq!(revision(&world, "web-1"), Some(1));
    assert_eq!(server.requests(), [""; 0]);
}
