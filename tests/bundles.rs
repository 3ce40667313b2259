//! Promise: a git bundle carries a branch to a machine without a network, and a bundle that is damaged, forged or old changes nothing.

use std::path::Path;

use serde_json::Value;

use crate::support::world::{Ran, World, until};

/// Makes a bundle of the fleet's branch.
fn create(world: &World, name: &str, more: &[&str]) -> Ran {
    let (file, fleet) = (world.at(name), world.at("fleet.git"));
    world.clavel(&[&["bundle", "create", &file, "--repository", &fleet], more].concat())
}

/// Puts a copy of a bundle on the stick.
fn carry(world: &World, name: &str) {
    std::fs::create_dir_all(world.path("media/usb")).unwrap();
    std::fs::copy(world.path(name), world.path("media/usb").join(name)).unwrap();
}

fn mirrors(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()["lastPass"]["mirrors"].clone()
}

/// The files of the agent's copies, without locks.
fn copies(world: &World) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                found.push(entry.path().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    walk(&world.path("web-1/state/mirrors"), &mut found);
    found.sort();
    found
}

/// A fleet at revision 2, whose agent runs revision 1 from `media/usb/first.bundle`, and has `media/usb/*.bundle` as its repository.
fn with_second_generation() -> World {
    let world = World::published();
    create(&world, "first.bundle", &[]).good();
    carry(&world, "first.bundle");
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    std::fs::remove_file(world.path("media/usb/first.bundle")).unwrap();
    world.change_from_memory("Welcome", "Hello");
    world
}

#[test]
fn a_branch_travels_over_three_generations() {
    let world = World::published();
    world.configure_agent("web-1", &world.at("media/*/clavel-*.bundle"), "");
    let said = world.agent("web-1", &["once"]).refused(4, "no stick with a bundle is plugged in");
    assert!(said.contains("media/*/clavel-*.bundle"), "{said}");
    create(&world, "clavel-1.bundle", &[]).good();
    carry(&world, "clavel-1.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    let first = world.tip();
    world.change_from_memory("Welcome", "Hello");
    // By the earlier bundle, and by a commit.
    create(&world, "clavel-2.bundle", &["--since", &world.at("clavel-1.bundle")]).good();
    let second = world.tip();
    world.change_from_memory("Hello", "Good day");
    create(&world, "clavel-3.bundle", &["--since", &second]).good();
    create(&world, "both.bundle", &["--since", &first]).good();
    std::fs::remove_dir_all(world.path("media/usb")).unwrap();
    carry(&world, "clavel-3.bundle");
    world.agent("web-1", &["once"]).refused(4, &format!("it builds on commit {second}, which is not"));
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // In whichever order they were written to the stick.
    carry(&world, "clavel-2.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
    // One stick is pulled out, and another one is plugged in, with bundles of a long time.
    std::fs::remove_dir_all(world.path("media/usb")).unwrap();
    let mut before = world.tip();
    for generation in 4..14 {
        world.edit("hosts/web-1.nix", "day", "day,");
        world.publish_from_memory(&["web-1"]);
        create(&world, "clavel-4.bundle", &["--since", &before]).good();
        before = world.tip();
        carry(&world, "clavel-4.bundle");
        assert_eq!(world.agent("web-1", &["once"]).good(), format!("web-1: switched to revision {generation}\n"));
    }
    let packs =
        copies(&world).iter().filter(|file| Path::new(file).extension().is_some_and(|end| end == "pack")).count();
    assert!((1..=9).contains(&packs), "{packs} packs");
}

#[test]
fn git_reads_what_clavel_writes_and_the_other_way_round() {
    let world = World::published();
    create(&world, "whole.bundle", &[]).good();
    let first = world.tip();
    world.change_from_memory("Welcome", "Hello");
    create(&world, "new.bundle", &["--since", &first]).good();
    let fleet = world.at("fleet.git");
    world.git(&["-C", &fleet, "bundle", "verify", &world.at("whole.bundle")]);
    world.git(&["-C", &fleet, "bundle", "verify", &world.at("new.bundle")]);
    world.git(&["clone", "-q", &world.at("whole.bundle"), &world.at("clone")]);
    let clone = world.at("clone");
    assert_eq!(world.git(&["-C", &clone, "rev-parse", "HEAD"]).trim(), first);
    assert!(world.path("clone/index.json").exists());
    world.git(&["-C", &clone, "fsck", "--strict", "--full"]);
    world.git(&["-C", &clone, "fetch", "-q", &world.at("new.bundle"), "deployments"]);
    assert_eq!(world.git(&["-C", &clone, "rev-parse", "FETCH_HEAD"]).trim(), world.tip());
    // Deltas in git's bundle have bases that are not in it.
    world.git(&[
        "-C",
        &fleet,
        "bundle",
        "create",
        "-q",
        &world.at("by-git.bundle"),
        "deployments",
        &format!("^{first}"),
    ]);
    std::fs::create_dir_all(world.path("media/usb")).unwrap();
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    carry(&world, "whole.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    carry(&world, "by-git.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn a_damaged_bundle_changes_nothing() {
    let world = with_second_generation();
    create(&world, "second.bundle", &[]).good();
    let good = std::fs::read(world.path("second.bundle")).unwrap();
    let before = copies(&world);
    let stick = world.path("media/usb/second.bundle");
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&stick, bytes).unwrap();
        let ran = world.agent("web-1", &["once"]);
        assert_eq!(ran.code, Some(4), "{what}: {} {}", ran.stdout, ran.stderr);
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"), "{what}");
        assert_eq!(copies(&world), before, "{what}");
    };
    // Every part of the header, and a sample of the pack and of its checksum.
    let header = good.windows(4).position(|four| four == b"PACK").unwrap();
    let in_header = (0..header).step_by(header / 20);
    let in_pack = (header..good.len() - 20).step_by((good.len() - 20 - header) / 34);
    for at in in_header.chain(in_pack).chain(good.len() - 20..good.len() - 14) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        refused(&bytes, &format!("byte {at} of {}", good.len()));
    }
    for length in [0, 5, 16, header - 1, header, header + 12, good.len() / 2, good.len() - 20, good.len() - 1] {
        refused(&good[..length], &format!("the first {length} bytes"));
    }
    std::fs::write(&stick, &good).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn something_else_than_a_bundle_is_refused_and_does_not_hang() {
    let world = World::published();
    std::fs::create_dir_all(world.path("media/usb")).unwrap();
    create(&world, "good.bundle", &[]).good();
    let bundle = world.path("media/usb/x.bundle");
    world.configure_agent("web-1", bundle.to_str().unwrap(), "");
    let refused = |why: &str| drop(world.agent("web-1", &["once"]).refused(4, why));
    refused("the file is not there; plug in the stick");
    world.run("mkfifo", &[bundle.to_str().unwrap()]).good();
    refused("it is a named pipe");
    std::fs::remove_file(&bundle).unwrap();
    std::os::unix::fs::symlink(world.path("good.bundle"), &bundle).unwrap();
    refused("it is a symbolic link");
    std::fs::remove_file(&bundle).unwrap();
    std::fs::create_dir(&bundle).unwrap();
    refused("it is a folder");
    std::fs::remove_dir(&bundle).unwrap();
    std::fs::write(&bundle, "not a bundle").unwrap();
    refused("not a git bundle");
    // A bundle of another branch.
    let fleet = world.at("fleet.git");
    world.git(&["-C", &fleet, "bundle", "create", "-q", &world.at("other.bundle"), "main"]);
    std::fs::copy(world.path("other.bundle"), &bundle).unwrap();
    refused("it has no branch `deployments`");
    assert_eq!(world.motd("web-1"), None);
    std::fs::copy(world.path("good.bundle"), &bundle).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn an_old_bundle_and_one_of_another_fleet_are_refused() {
    let world = with_second_generation();
    create(&world, "second.bundle", &[]).good();
    carry(&world, "second.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    std::fs::remove_file(world.path("media/usb/second.bundle")).unwrap();
    carry(&world, "first.bundle");
    world.agent("web-1", &["once"]).refused(5, "the index went back from version 2 to 1");
    // The newer one counts where both are there.
    carry(&world, "second.bundle");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    let statuses: Vec<Value> =
        mirrors(&world).as_array().unwrap().iter().map(|mirror| mirror["status"].clone()).collect();
    assert!(statuses.contains(&"behind".into()) && statuses.contains(&"taken".into()), "{statuses:?}");
    let other = World::published();
    create(&other, "other.bundle", &[]).good();
    std::fs::remove_dir_all(world.path("media/usb")).unwrap();
    std::fs::create_dir_all(world.path("media/usb")).unwrap();
    std::fs::copy(other.path("other.bundle"), world.path("media/usb/other.bundle")).unwrap();
    let ran = world.agent("web-1", &["once"]);
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn a_stick_that_is_not_there_stands_in_no_other_mirrors_way() {
    let world = World::published();
    let more = format!("mirrors = [{:?}]", world.at("media/*/*.bundle"));
    world.configure_agent("web-1", &world.at("fleet.git"), &more);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(mirrors(&world)[1]["status"], "unreachable");
    world.change_from_memory("Welcome", "Hello");
    create(&world, "new.bundle", &[]).good();
    carry(&world, "new.bundle");
    std::fs::rename(world.path("fleet.git"), world.path("gone.git")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn operators_read_bundles_and_write_none() {
    let world = World::published();
    let (bundle, root) = (world.at("x.bundle"), world.root());
    create(&world, "x.bundle", &[]).good();
    for command in ["list", "verify"] {
        world.clavel(&[command, "--repository", &bundle, "--root", &root]).good();
    }
    world.clavel(&["history", "web-1", "--repository", &world.at("*.bundle"), "--root", &root]).good();
    world.clavel(&["bundle", "verify", &bundle, "--root", &root]).good();
    let shown = world.clavel(&["bundle", "inspect", &bundle, "--json"]).json();
    assert_eq!(shown["commit"], world.tip());
    assert_eq!(shown["prerequisites"], Value::Array(Vec::new()));
    let content = &shown["content"];
    assert_eq!((content["indexVersion"].clone(), content["deployments"].clone()), (1.into(), 3.into()));
    assert_eq!(content["fleet"], world.fleet());
    let first = world.tip();
    create(&world, "none.bundle", &["--since", &first]).refused(3, "there is nothing new since commit");
    world.change_from_memory("Welcome", "Hello");
    create(&world, "y.bundle", &["--since", &bundle]).good();
    let newer = world.at("y.bundle");
    let shown = world.clavel(&["bundle", "inspect", &newer, "--json"]).json();
    assert_eq!((shown["prerequisites"][0].clone(), shown["content"].clone()), (first.into(), Value::Null));
    let shown = world.clavel(&["bundle", "inspect", &bundle, &newer, "--json"]).json();
    assert_eq!(shown["content"]["indexVersion"], 2);
    world.clavel(&["bundle", "verify", &bundle, &newer, "--root", &root]).good();
    world.clavel(&["bundle", "verify", &newer, "--root", &root]).refused(4, "it builds on commit");
    world.clavel(&["root", "publish", &root, "--repository", &bundle]).refused(3, "a bundle is only read");
    let config = world.read_file("claveld.toml").replace(&world.at("fleet.git"), &bundle);
    world.write_file("to-bundle.toml", &config);
    world.claveld(&["once", "--config", &world.at("to-bundle.toml")]).refused(3, "is a bundle, which is only read");
    let left: Vec<_> = std::fs::read_dir(world.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(
        !left.contains(&"none.bundle".into()) && !left.iter().any(|name| name.to_string_lossy().starts_with(".tmp"))
    );
}

#[test]
fn a_stick_that_is_plugged_in_wakes_the_agent() {
    let world = World::published();
    create(&world, "clavel.bundle", &[]).good();
    world.configure_agent("web-1", &world.at("media/*/clavel*.bundle"), "interval = \"1h\"");
    let agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    until("it has looked", || world.path("web-1/state/last-pass.json").exists());
    carry(&world, "clavel.bundle");
    until("it has switched", || world.motd("web-1").as_deref() == Some("Welcome to web-1"));
    world.change_from_memory("Welcome", "Hello");
    create(&world, "clavel.bundle", &[]).good();
    carry(&world, "clavel.bundle");
    until("it has switched again", || world.motd("web-1").as_deref() == Some("Hello to web-1"));
    drop(agent);
}
