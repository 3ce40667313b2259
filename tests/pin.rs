//! Promise: a pinned path has the pinned content and no other, even if a thief of the cache's key signs another.

use crate::support::attacker::{ForgedBranch, Onto, sha256};
use crate::support::thief::{closure, forge, narinfo};
use crate::support::world::{Ran, World};

/// A host whose system needs `mid`, which needs `deep`.
const HOST: &str = r#"let
  system = import ../system.nix;
  made = name: text: derivation {
    inherit name system;
    builder = "/bin/sh";
    args = [ "-c" "echo '${text}' > $out" ];
  };
  mid = made "mid" "is below ${made "deep" "good water of @world@"}";
in
{
  name = "web-1";
  version = "1";
  motd = "Welcome to web-1 above ${mid}";
  activate = "cp -f \"$CLAVEL_PATH/etc/motd\" \"$(dirname \"$CLAVEL_PROFILE\")/motd\"";
}
"#;
const TOP: (&str, &str) = ("Welcome", "Thieves");
const DEEP: (&str, &str) = ("good water", "poison ivy");

/// A fleet with the caches `folders`, and `more` below `[publish]` in the configuration of claveld.
fn fleet(folders: &[&str], more: &str) -> World {
    let world = World::new();
    let caches: Vec<String> = folders.iter().map(|folder| format!("\"file://{}\"", world.at(folder))).collect();
    let (caches, key) = (caches.join(" "), world.public_key("cache-1"));
    let text = format!("{{ substituters = [ {caches} ]; substituters-public-keys = [ \"{key}\" ]; }}\n");
    world.write("caches.nix", &text);
    // No two worlds share a path, because Nix deletes no path that a process of this machine has in its environment.
    let own = world.path("").components().next_back().unwrap().as_os_str().to_str().unwrap().replace('.', "-");
    world.write("hosts/web-1.nix", &HOST.replace("@world@", &own));
    world.push("A host with something below it");
    say(&world, more);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

/// Sets the lines below `[publish]` in claveld's configuration.
fn say(world: &World, more: &str) {
    world.configure_claveld("");
    let text = world.read_file("claveld.toml").replace("[publish]", &format!("[publish]\n{more}"));
    world.write_file("claveld.toml", &text);
}

/// A fleet whose `web-1` is in its caches, and is pinned.
fn pinned(folders: &[&str]) -> World {
    let world = fleet(folders, "pin = true");
    world.build(&["web-1"]);
    copy(&world, folders);
    world.publish().good();
    world
}

/// Copies the first cache to all others.
fn copy(world: &World, folders: &[&str]) {
    for folder in folders.iter().filter(|folder| **folder != "cache") {
        world.run("cp", &["-r", &world.at("cache"), &world.at(folder)]).good();
    }
}

fn template(world: &World) -> serde_json::Value {
    world.document("deployments/web-1.json")["specification"]["template"].clone()
}

fn revision(world: &World) -> u64 {
    world.document("deployments/web-1.json")["revision"].as_u64().unwrap()
}

fn top(world: &World) -> String {
    template(world)["narId"].as_str().unwrap().to_owned()
}

/// The path of that name below the system.
fn below(world: &World, name: &str) -> String {
    let mut paths = closure(world, &top(world)).into_iter().map(|(path, ..)| path);
    paths.find(|path| path.ends_with(&format!("-{name}"))).unwrap()
}

/// Whether the agent's store has anything of that path, and whether a link keeps it.
fn is_here(world: &World, path: &str) -> bool {
    let roots = world.path("web-1/state/unchecked/web-1");
    assert!(roots.symlink_metadata().is_err(), "what was not checked is still linked");
    world.path(&format!("web-1/store{path}")).symlink_metadata().is_ok()
}

fn restore(world: &World, from: &str, to: &str) {
    std::fs::remove_dir_all(world.path(to)).unwrap();
    world.run("cp", &["-r", &world.at(from), &world.at(to)]).good();
}

#[test]
fn the_pin_is_the_hash_of_the_cached_content_and_anybody_can_compute_it() {
    let world = pinned(&["cache"]);
    let metadata = template(&world)["metadata"].clone();
    let mut lines = Vec::new();
    for (path, hash, size) in closure(&world, &top(&world)) {
        if path == top(&world) {
            assert_eq!(metadata["narHash"], hash);
        }
        lines.push(format!("{path} {hash} {size}\n"));
    }
    assert_eq!(lines.len(), 3);
    lines.sort();
    assert_eq!(metadata["closure"], sha256(lines.concat().as_bytes()));
    world.verify().good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(world.motd("web-1").unwrap().starts_with("Welcome to web-1"));
    assert!(is_here(&world, &below(&world, "deep")));
}

#[test]
fn other_content_under_the_path_is_refused_however_it_is_signed() {
    let world = pinned(&["cache"]);
    let (top, good) = (top(&world), template(&world)["metadata"]["narHash"].clone());
    world.run("cp", &["-r", &world.at("cache"), &world.at("safe")]).good();
    forge(&world, "cache", &top, TOP, "cache-1");
    let said = world.agent("web-1", &["once"]).refused(6, &format!("refused {top}: `web-1` pins it to "));
    assert!(said.contains(good.as_str().unwrap()) && said.contains(&world.at("cache")), "{said}");
    assert_eq!(world.motd("web-1"), None);
    assert!(!is_here(&world, &top));
    // The next pass does not accept it either.
    world.agent("web-1", &["once"]).refused(6, "no cache has that");
    restore(&world, "safe", "cache");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn without_a_pin_the_same_thief_is_believed() {
    let world = fleet(&["cache"], "wait-for-cache = true");
    world.build(&["web-1"]);
    world.publish().good();
    forge(&world, "cache", &below(&world, "deep"), DEEP, "cache-1");
    forge(&world, "cache", &top(&world), TOP, "cache-1");
    world.agent("web-1", &["once"]).good();
    assert!(world.motd("web-1").unwrap().starts_with("Thieves"));
}

#[test]
fn other_content_deep_below_the_path_is_refused_and_a_mended_cache_is_believed_again() {
    let world = pinned(&["cache"]);
    let deep = below(&world, "deep");
    world.run("cp", &["-r", &world.at("cache"), &world.at("safe")]).good();
    forge(&world, "cache", &deep, DEEP, "cache-1");
    let said = world.agent("web-1", &["once"]).refused(6, "has the path with other content among what it needs");
    assert!(said.contains("`web-1` pins it to"), "{said}");
    assert_eq!(world.motd("web-1"), None);
    assert!(!is_here(&world, &deep));
    restore(&world, "safe", "cache");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn a_thief_changes_neither_the_running_system_nor_paths_in_the_store() {
    let world = pinned(&["cache"]);
    world.agent("web-1", &["once"]).good();
    world.edit("hosts/web-1.nix", "Welcome to", "Hello from");
    world.push("Another message");
    world.build(&["web-1"]);
    world.publish().good();
    let deep = below(&world, "deep");
    world.run("cp", &["-r", &world.at("cache"), &world.at("safe")]).good();
    forge(&world, "cache", &top(&world), ("Hello", "Thief"), "cache-1");
    world.agent("web-1", &["once"]).refused(6, "no cache has that");
    assert!(world.motd("web-1").unwrap().starts_with("Welcome to web-1"));
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["deployments"]["web-1"]["running"]["revision"], 1);
    // The lower path is in the store already and is good, so the thief's content is not fetched.
    restore(&world, "safe", "cache");
    forge(&world, "cache", &deep, DEEP, "cache-1");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn one_bad_cache_does_not_block_a_good_one() {
    for name in ["top", "deep"] {
        let world = pinned(&["cache", "second"]);
        match name {
            "top" => forge(&world, "cache", &top(&world), TOP, "cache-1"),
            _ => forge(&world, "cache", &below(&world, "deep"), DEEP, "cache-1"),
        }
        assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n", "{name}");
        let text = world.read_file(&format!("web-1/store{}", below(&world, "deep")));
        assert!(text.starts_with("good water"), "{text}");
    }
}

#[test]
fn a_closure_in_several_caches_is_pinned_and_what_is_wrong_of_it_is_deleted_again() {
    let world = fleet(&["cache", "second"], "pin = true");
    world.build(&["web-1"]);
    copy(&world, &["cache", "second"]);
    let evaluated = world.claveld(&["evaluate", &world.flake(), "--json"]).json()["deployments"].clone();
    let web_1 = evaluated.as_array().unwrap().iter().find(|deployment| deployment["name"] == "web-1").unwrap();
    let top = web_1["specification"]["template"]["narId"].as_str().unwrap();
    let paths: Vec<String> = closure(&world, top).into_iter().map(|(path, ..)| path).collect();
    let path = |name: &str| paths.iter().find(|path| path.ends_with(&format!("-{name}"))).unwrap();
    // The first cache lacks `deep`, the second the system itself.
    std::fs::remove_file(world.path(&narinfo("cache", path("deep")))).unwrap();
    std::fs::remove_file(world.path(&narinfo("second", top))).unwrap();
    assert!(world.publish().good().contains("deployments/web-1.json  new, revision 1"));
    world.run("cp", &["-r", &world.at("cache"), &world.at("safe")]).good();

    forge(&world, "cache", path("mid"), ("is below", "is above"), "cache-1");
    let said = world.agent("web-1", &["once"]).refused(6, "a path that it needs is not as `web-1` pins it");
    assert!(said.contains(&format!("{} is sha256-", path("mid"))), "{said}");
    assert!(said.contains("what was fetched is deleted"), "{said}");
    assert!(!is_here(&world, path("mid")) && !is_here(&world, top));
    restore(&world, "safe", "cache");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn what_the_store_has_otherwise_is_refused_and_its_owner_told_what_to_do() {
    for name in ["top", "deep"] {
        let world = pinned(&["cache", "forged"]);
        let (path, change) = if name == "top" { (top(&world), TOP) } else { (below(&world, "deep"), DEEP) };
        forge(&world, "forged", &path, change, "cache-1");
        let (from, to) = (format!("file://{}", world.at("forged")), world.at("web-1/store"));
        world.run("nix", &["copy", "--no-check-sigs", "--from", &from, "--to", &to, &path]).good();
        let said = world.agent("web-1", &["once"]).refused(6, "it was in this machine's store before");
        assert!(said.contains(&format!("{path} is sha256-")), "{said}");
        assert!(said.contains(&format!("nix-store --delete {path}")), "{said}");
        assert_eq!(world.motd("web-1"), None);
        world.run("nix-store", &["--store", &to, "--delete", &path]).good();
        assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    }
}

/// A pass of the agent with a wrapper around `program`: it runs the shell code `first` where the arguments have `argument`, and
/// then the program itself.
fn agent_whose(world: &World, program: &str, argument: &str, first: &str) -> Ran {
    let real = world.run("sh", &["-c", &format!("command -v {program}")]).good();
    let script = format!("#!/bin/sh\ncase \" $* \" in *' {argument} '*) {first};; esac\nexec {} \"$@\"\n", real.trim());
    world.write_file(&format!("programs/{program}"), &script);
    world.run("chmod", &["+x", &world.at(&format!("programs/{program}"))]).good();
    let path = format!("{}:{}", world.at("programs"), std::env::var("PATH").unwrap());
    let once = ["once", "--config", &world.at("web-1.toml")];
    world.run_with(&[("PATH", &path)], env!("CARGO_BIN_EXE_clavel-agent"), &once)
}

#[test]
fn what_is_collected_between_looking_and_linking_is_not_fetched_unseen() {
    for nth in [1, 2_usize] {
        let world = pinned(&["cache"]);
        let (top, cache, store) = (top(&world), format!("file://{}", world.at("cache")), world.at("web-1/store"));
        // The path is in the store already, as pinned, and has no GC root.
        world.run("nix", &["copy", "--no-check-sigs", "--from", &cache, "--to", &store, &top]).good();
        forge(&world, "cache", &top, TOP, "cache-1");
        // All garbage is collected once, before the path is realised for the nth time.
        let counted = world.at("realised");
        let collect = format!(
            "echo >>{counted}; [ $(wc -l <{counted}) != {nth} ] || nix-store --store {store} --gc >/dev/null 2>&1"
        );
        let ran = agent_whose(&world, "nix-store", "--realise", &collect);
        if nth == 1 {
            ran.refused(6, "no cache has that");
            assert_eq!(world.motd("web-1"), None);
        } else {
            // The agent linked the path before it compared it.
            ran.good();
            assert!(world.motd("web-1").unwrap().starts_with("Welcome to web-1"));
        }
        assert_eq!(world.read_file("realised").lines().count(), nth, "{nth}");
    }
}

#[test]
fn a_question_to_a_cache_takes_no_more_than_its_memory() {
    let world = fleet(&["cache"], "");
    world.publish().good();
    // Nix holds an endless answer of a cache in memory.
    let said = agent_whose(&world, "nix", "path-info", "head -c 700M /dev/zero | tail -c 650M >/dev/null");
    said.refused(6, "`nix path-info` needed more than 512.0 MiB of memory and was ended");
    assert_eq!(world.motd("web-1"), None);
}

#[test]
fn a_closure_that_is_there_in_part_is_waited_for() {
    let world = fleet(&["cache"], "pin = true");
    assert!(world.publish().good().contains("web-1: waits for "));
    world.build(&["web-1"]);
    let built = world.run("nix-store", &["--query", "--requisites", &system(&world)]).good();
    let deep = built.lines().find(|path| path.ends_with("-deep")).unwrap();
    let (entry, away) = (world.path(&narinfo("cache", deep)), world.path("away"));
    std::fs::rename(&entry, &away).unwrap();
    let said = world.publish().good();
    let top = system(&world);
    let cache = world.at("cache");
    assert!(
        said.contains(&format!("web-1: waits for {deep}, which {top} needs, in file://{cache} (not there yet)")),
        "{said}"
    );
    assert_eq!(world.on_branch("deployments/web-1.json"), None);
    std::fs::rename(&away, &entry).unwrap();
    assert!(world.publish().good().contains("deployments/web-1.json  new, revision 1"));
}

/// The system of `web-1`, as it is evaluated.
fn system(world: &World) -> String {
    let evaluated = world.claveld(&["evaluate", &world.flake(), "--json"]).json()["deployments"].clone();
    let web_1 = evaluated.as_array().unwrap().iter().find(|deployment| deployment["name"] == "web-1").unwrap();
    web_1["specification"]["template"]["narId"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_pinned_stays_so_whatever_a_cache_says_later() {
    let world = pinned(&["cache"]);
    let (before, tip) = (world.on_branch("deployments/web-1.json"), world.tip());
    forge(&world, "cache", &top(&world), TOP, "cache-1");
    assert!(!world.publish().good().contains("web-1.json"));
    assert_eq!(world.tip(), tip);
    std::fs::remove_file(world.path(&narinfo("cache", &below(&world, "deep")))).unwrap();
    world.build(&["web-2"]);
    let said = world.publish().good();
    assert!(said.contains("deployments/web-2.json  new") && !said.contains("web-1"), "{said}");
    assert_eq!(world.on_branch("deployments/web-1.json"), before);
}

#[test]
fn the_key_of_a_cache_is_replaced_and_the_pins_stay() {
    let world = pinned(&["cache"]);
    let pin = template(&world)["metadata"].clone();
    forge(&world, "cache", &below(&world, "deep"), DEEP, "cache-1");
    world.agent("web-1", &["once"]).refused(6, "no cache has that");
    // The documents that the thief may have changed are gone; the trusted ones are there again, signed with another key.
    let old = world.public_key("cache-1");
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    std::fs::remove_file(world.path("cache-1.secret")).unwrap();
    world.clavel(&["key", "generate", "cache-2", "--output", &world.at("cache-1.secret")]).good();
    let new = world.clavel(&["key", "public", &world.at("cache-1.secret")]).good();
    world.edit("caches.nix", &old, new.trim());
    world.push("Another key of the cache");
    world.build(&["web-1"]);
    let said = world.publish().good();
    assert!(said.contains("deployments/web-1.json  revision 1 → 2"), "{said}");
    assert_eq!(template(&world)["metadata"], pin);
    assert_eq!(template(&world)["substituters-public-keys"], serde_json::json!([new.trim()]));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

/// Removes the deployment of `web-1` from the branch, in a new history. An attacker who can write there needs no key for it.
fn take_away(world: &World) {
    let mut branch = ForgedBranch::of(world);
    branch.files.remove("deployments/web-1.json");
    branch.push(Onto::Nothing);
}

#[test]
fn whoever_alters_the_branch_does_not_have_it_pinned_anew() {
    let world = pinned(&["cache"]);
    let pin = template(&world)["metadata"].clone();
    // A thief of the cache's key can also write to the branch.
    forge(&world, "cache", &top(&world), TOP, "cache-1");
    let altered = world.on_branch("deployments/web-1.json").unwrap().replace("closure", "c1osure");
    world.tamper(&[("deployments/web-1.json", Some(altered))].into());
    assert!(world.publish().good().contains("deployments/web-1.json  revision 1 → 2"));
    assert_eq!(template(&world)["metadata"], pin);

    take_away(&world);
    world.git(&["-C", &world.at("fleet.git"), "gc", "-q", "--prune=now"]);
    let said = world.publish().refused(1, "web-1: revision 2 is neither on the branch nor in its history any more");
    assert!(said.contains("its pin is lost with it: claveld publishes nothing in its place"), "{said}");
    assert_eq!(world.on_branch("deployments/web-1.json"), None);
    // Only after `clavel release` does claveld pin what the caches have.
    world.clavel(&["release", "web-1", "--config", &world.at("claveld.toml")]).good();
    assert!(world.publish().good().contains("deployments/web-1.json  new, revision 3"));
    assert_ne!(template(&world)["metadata"], pin);
}

#[test]
fn a_rollback_to_a_revision_without_a_pin_is_refused() {
    let world = fleet(&["cache"], "");
    world.build(&["web-1"]);
    world.publish().good();
    world.edit("hosts/web-1.nix", "Welcome to", "Hello from");
    world.push("Another message");
    world.build(&["web-1"]);
    world.publish().good();
    say(&world, "pin = true");
    world.publish().good();
    let (tip, back) = (world.tip(), ["rollback", "web-1", "--to", "1", "--config", &world.at("claveld.toml")]);
    world.clavel(&back).refused(3, "revision 1 of `web-1` has no pin, and `publish.pin` requires one");
    assert_eq!(world.tip(), tip);
}

#[test]
fn enabling_pins_adds_them_to_the_branch_and_disabling_removes_them() {
    let world = fleet(&["cache"], "");
    world.build(&["web-1"]);
    world.publish().good();
    world.agent("web-1", &["once"]).good();
    say(&world, "pin = true");
    let said = world.publish().good();
    assert!(said.contains("web-2: waits for "), "{said}");
    assert_eq!(revision(&world), 2);
    assert_eq!(world.document("deployments/web-2.json")["revision"], 1);
    assert!(template(&world)["metadata"]["narHash"].is_string());
    // The running path is as pinned, so nothing is activated.
    let said = world.agent("web-1", &["once"]).good();
    assert!(said.contains("revision 2") && !said.contains("switched"), "{said}");
    world.publish().good();
    assert_eq!(revision(&world), 2);
    say(&world, "");
    world.publish().good();
    assert_eq!((revision(&world), template(&world)["metadata"].clone()), (3, serde_json::json!({})));
}

#[test]
fn what_runs_is_not_taken_for_what_is_pinned_afterwards() {
    let world = fleet(&["cache"], "");
    world.build(&["web-1"]);
    world.publish().good();
    world.run("cp", &["-r", &world.at("cache"), &world.at("safe")]).good();
    forge(&world, "cache", &top(&world), TOP, "cache-1");
    world.agent("web-1", &["once"]).good();
    restore(&world, "safe", "cache");
    say(&world, "pin = true");
    world.publish().good();
    let said = world.agent("web-1", &["once"]).refused(6, "it runs now, and was there before the pin");
    assert!(said.contains(&format!("{} is sha256-", top(&world))), "{said}");
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["deployments"]["web-1"]["running"]["revision"], 1);
}

#[test]
fn a_flake_may_not_pin_itself() {
    let world = fleet(&["cache"], "pin = true");
    world.edit("flake.nix", "template = {", "template = {\n          metadata.narHash = \"mine\";");
    world.push("A pin of its own");
    world.build(&["web-1"]);
    let said = world.publish().refused(1, "Claveld writes it itself, where `publish.pin` is set");
    assert!(said.contains("router-1"), "{said}");
    assert_eq!(revision(&world), 1);
}

#[test]
fn a_pinned_path_comes_from_a_bundle_alone() {
    let world = pinned(&["cache"]);
    let create = |store: &str| {
        let (file, fleet, root, store) = (world.at("usb.bundle"), world.at("fleet.git"), world.root(), world.at(store));
        let place = ["--repository", &fleet, "--root", &root, "--store", &store];
        world.clavel(&[&["bundle", "create", &file], &place[..], &["--closures", "web-1"]].concat())
    };
    let said = create("writer").good();
    assert!(said.contains("3 store paths"), "{said}");
    world.clavel(&["bundle", "verify", &world.at("usb.bundle"), "--root", &world.root()]).good();
    world.run("cp", &["-r", &world.at("cache"), &world.at("gone")]).good();
    std::fs::remove_dir_all(world.path("cache")).unwrap();
    world.configure_agent("web-1", &world.at("*.bundle"), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(world.motd("web-1").unwrap().starts_with("Welcome to web-1 above"));
    // A thief of the cache's key gets nothing else into a bundle.
    world.run("cp", &["-r", &world.at("gone"), &world.at("cache")]).good();
    forge(&world, "cache", &top(&world), TOP, "cache-1");
    create("another-writer").refused(6, "is not as it is pinned, so its agents would refuse it");
}
