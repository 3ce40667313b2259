//! Promise: a stick carries what machines without a network lack, and brings back what they run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use clavel::closures::ClosureBundle;
use serde_json::Value;

use crate::support::world::{Ran, World, until};

/// The arguments that make a bundle of the closures of `names` for the machines of the stick.
fn create(world: &World, names: &[&str]) -> Ran {
    create_with(world, &[&["--closures"], names].concat())
}

fn create_with(world: &World, more: &[&str]) -> Ran {
    let (file, stick, fleet, root) =
        (world.at("stick/clavel.bundle"), world.at("stick"), world.at("fleet.git"), world.root());
    let (store, seen) = (world.at("writer"), world.at("seen/machines.json"));
    fs::create_dir_all(&stick).unwrap();
    let first = ["bundle", "create", &file, "--for", &stick, "--repository", &fleet, "--root", &root, "--seen", &seen];
    let store: &[&str] = if more.contains(&"--closures") { &["--store", &store] } else { &[] };
    world.clavel(&[&first[..], store, more].concat())
}

/// Shows the statuses on the stick.
fn statuses(world: &World) -> Value {
    let (stick, root, seen) = (world.at("stick"), world.root(), world.at("seen/machines.json"));
    world.clavel(&["bundle", "status", &stick, "--root", &root, "--seen", &seen, "--json"]).json()["machines"].clone()
}

/// A machine on which the stick is plugged in at a place of its own.
fn set_up(world: &World, unit: &str) {
    world.configure_agent(unit, &world.at(&format!("{unit}/usb/*.bundle")), "");
    fs::create_dir_all(world.path(&format!("{unit}/usb"))).unwrap();
}

fn copy(world: &World, from: &str, to: &str) {
    let _ = fs::remove_dir_all(world.path(to));
    world.run("cp", &["-a", &world.at(from), &world.at(to)]).good();
}

/// Runs the agent of a machine that reaches nothing: it has a network namespace of its own, and neither the repository nor the cache.
/// `before` is run there first.
fn in_isolation(world: &World, unit: &str, before: &str) -> Ran {
    let script = format!(
        "set -eu; ip link set lo up; ! ip route get 192.0.2.1 2>/dev/null
        mount -t tmpfs none {cache}; mount -t tmpfs none {fleet}; {before}
        exec {agent} once --config {config}",
        cache = world.at("cache"),
        fleet = world.at("fleet.git"),
        agent = env!("CARGO_BIN_EXE_clavel-agent"),
        config = world.at(&format!("{unit}.toml")),
    );
    world.run("unshare", &["--net", "--mount", "bash", "-c", &script])
}

/// Carries the stick to a machine and back.
fn visit(world: &World, unit: &str) -> Ran {
    copy(world, "stick", &format!("{unit}/usb"));
    let ran = in_isolation(world, unit, "");
    copy(world, &format!("{unit}/usb"), "stick");
    ran
}

/// What the deployments of these machines need and one of them lacks, by their stores, with the bytes of the NARs.
fn missing(world: &World, units: &[&str]) -> (BTreeSet<String>, u64) {
    let (mut paths, mut bytes) = (BTreeSet::new(), 0);
    for unit in units {
        let document = world.document(&format!("deployments/{unit}.json"));
        let nar_id = document["specification"]["template"]["narId"].as_str().unwrap().to_owned();
        let all = world.run("nix", &["path-info", "--store", &world.at("writer"), "-r", "-s", &nar_id]).good();
        for line in all.lines() {
            let (path, size) = line.split_once(char::is_whitespace).unwrap();
            let is_there = Path::new(&format!("{}{path}", world.at(&format!("{unit}/store")))).exists();
            if !is_there && paths.insert(path.to_owned()) {
                bytes += size.trim().parse::<u64>().unwrap();
            }
        }
    }
    (paths, bytes)
}

/// The store paths in the bundle on the stick.
fn carried(world: &World) -> BTreeSet<String> {
    let bundle = ClosureBundle::open(File::open(world.path("stick/clavel.bundle")).unwrap()).unwrap().unwrap();
    bundle.manifest().paths.iter().map(|carried| carried.path.to_string()).collect()
}

fn inspect(world: &World) -> Value {
    world.clavel(&["bundle", "inspect", &world.at("stick/clavel.bundle"), "--json"]).json()
}

/// Asserts that the bundle has exactly what the machines lack, and little more than its bytes.
#[track_caller]
fn assert_exact(world: &World, units: &[&str]) {
    let (paths, bytes) = missing(world, units);
    assert_eq!(carried(world), paths);
    let size = inspect(world)["size"].as_u64().unwrap();
    assert!(size > bytes && size - bytes < bytes / 20, "{size} bytes for NARs of {bytes}");
}

/// A text of so many kilobytes.
fn text(of: char, kilobytes: usize) -> String {
    of.to_string().repeat(kilobytes << 10)
}

/// A fleet whose two hosts need one library.
fn with_library() -> World {
    let world = World::new();
    let line = "echo \"$version\" > \"$out/nixos-version\"";
    world.edit("lib/host.nix", line, "echo \"$version $library\" > \"$out/nixos-version\"");
    let library = "library = derivation { name = \"library\"; inherit system; builder = \"/bin/sh\"; text = import ../library.nix; \
                   args = [ \"-c\" \"echo $text$text$text$text$text > $out\" ]; };\n    inherit (host) motd";
    world.edit("lib/host.nix", "inherit (host) motd", library);
    // A variable of the environment has at most 128 KiB.
    world.edit("lib/host.nix", "echo \"$motd\"", "echo \"$motd$motd$motd$motd$motd\"");
    world.write("library.nix", &format!("\"first {}\"", text('L', 90)));
    for unit in ["web-1", "web-2"] {
        world.edit(&format!("hosts/{unit}.nix"), "Welcome", &format!("Welcome {}", text('W', 60)));
        set_up(&world, unit);
    }
    world.push("With a library");
    world.publish_with_nix(&["web-1", "web-2"]);
    world
}

#[test]
fn three_generations_reach_two_machines_with_exactly_what_they_lack() {
    let world = with_library();
    let both = ["web-1", "web-2"];
    let version = |unit: &str| world.read_file(&format!("{unit}/profile/motd")).chars().take(5).collect::<String>();
    let state = |found: &Value, at: usize| found[at]["status"]["deployments"][0].clone();

    let said = create(&world, &both).also_good().stderr;
    assert!(
        said.contains("web-1 has no status that counts on the stick, so the bundle has the whole branch"),
        "{said}"
    );
    assert_exact(&world, &both);
    assert_eq!((carried(&world).len(), inspect(&world)["prerequisites"][0].clone()), (3, Value::Null));
    for unit in both {
        assert_eq!(visit(&world, unit).good(), format!("{unit}: switched to revision 1\n"));
    }
    let found = statuses(&world);
    assert_eq!((&found[0]["agent"], &found[1]["agent"]), (&"web-1".into(), &"web-2".into()));
    assert_eq!((&state(&found, 0)["revision"], &state(&found, 1)["state"]), (&1.into(), &"confirmed".into()));
    let first = world.tip();
    assert_eq!(found[0]["status"]["commit"], first.as_str());

    // Nothing is new.
    let said = create(&world, &both).also_good();
    assert!(said.stdout.contains("0 store paths, without 3"), "{}", said.stdout);
    assert!(said.stderr.contains("web-2: its first status, signed with the key web-2:"), "{}", said.stderr);
    assert!(carried(&world).is_empty() && inspect(&world)["size"].as_u64().unwrap() < 60 << 10, "{}", inspect(&world));
    assert_eq!(visit(&world, "web-1").good(), "web-1: up to date at revision 1\n");

    // One host changes, and the stick reaches it alone.
    world.edit("hosts/web-1.nix", "Welcome ", "Hello ");
    world.push("Hello");
    world.publish_with_nix(&both);
    create(&world, &both).good();
    assert_exact(&world, &both);
    assert_eq!((carried(&world).len(), inspect(&world)["prerequisites"][0].clone()), (1, first.clone().into()));
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 2\n");
    assert_eq!(version("web-1"), "Hello");

    // Everything changes. One machine is a generation behind the other.
    world.write("library.nix", &format!("\"second {}\"", text('M', 90)));
    for unit in both {
        world.edit(&format!("hosts/{unit}.nix"), "motd = \"", "motd = \"Third ");
    }
    world.push("Third");
    world.publish_with_nix(&both);
    create(&world, &both).good();
    assert_exact(&world, &both);
    assert_eq!((carried(&world).len(), inspect(&world)["prerequisites"][0].clone()), (3, first.into()));
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 3\n");
    assert_eq!(visit(&world, "web-2").good(), "web-2: switched to revision 2\n");
    assert_eq!((version("web-1"), version("web-2")), ("Third".to_owned(), "Third".to_owned()));
    create(&world, &both).good();
    assert!(carried(&world).is_empty());

    create_with(&world, &["--closures", "web-1"]).good();
    let said = world.agent("web-1", &["status"]).good();
    assert!(said.contains(&format!("status      left on {}", world.at("web-1/usb"))), "{said}");
}

#[test]
fn a_stick_that_is_pulled_out_leaves_what_runs_and_nix_keeps_what_was_complete() {
    let world = with_library();
    create(&world, &["web-1"]).good();
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 1\n");
    // A new library, and a system of some 100 MB that takes long enough to read.
    let line = "echo \"$motd$motd$motd$motd$motd\" > \"$out/etc/motd\"";
    let large =
        "i=0; while [ $i -lt 400 ]; do echo \"$motd$motd$motd$motd$motd\"; i=$((i + 1)); done > \"$out/etc/motd\"";
    world.edit("lib/host.nix", line, large);
    world.edit("hosts/web-1.nix", "Welcome ", "Hello ");
    world.write("library.nix", "\"second\"");
    world.push("A large system");
    world.publish_with_nix(&["web-1"]);
    create(&world, &["web-1"]).good();
    let new: Vec<String> = carried(&world).into_iter().collect();
    let library = new.iter().find(|path| path.ends_with("-library")).unwrap();
    let system = new.iter().find(|path| path.contains("-nixos-system-")).unwrap();
    let stick = world.path("web-1/usb/clavel.bundle");
    let begin = || {
        copy(&world, "stick", "web-1/usb");
        let config = world.at("web-1.toml");
        let agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &config]);
        let reads = format!("/proc/{}/io", agent.id());
        until("it serves the large NAR", || {
            let text = fs::read_to_string(&reads).unwrap_or_default();
            let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")).and_then(|read| read.parse().ok());
            read.unwrap_or(0_u64) > 8 << 20
        });
        agent
    };
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    let mut agent = begin();
    File::options().write(true).open(&stick).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(agent.wait(), Some(6), "{}", agent.said());
    assert!(world.motd("web-1").unwrap().starts_with("Welcome"));
    let is_whole =
        |path: &str| world.run("nix", &["path-info", "--store", &world.at("web-1/store"), path]).code == Some(0);
    assert_eq!((is_whole(library), is_whole(system)), (true, false));
    // What runs, and what is on the stick of it, is told all the same.
    copy(&world, "web-1/usb/clavel-status", "stick/clavel-status");
    assert_eq!(statuses(&world)[0]["status"]["deployments"][0]["revision"], 1);
    // The file is removed while it is read. What is open is read to its end, and nothing is left beside what is not there.
    let mut agent = begin();
    fs::remove_dir_all(world.path("web-1/usb")).unwrap();
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
    assert!(agent.said().contains("web-1: switched to revision 2"), "{}", agent.said());
    assert!(world.motd("web-1").unwrap().starts_with("Hello") && !world.path("web-1/usb").exists());
}

#[test]
fn a_branch_alone_goes_to_those_that_left_a_status() {
    let world = World::published();
    set_up(&world, "web-1");
    create_with(&world, &[]).good();
    assert_eq!(inspect(&world)["prerequisites"], Value::Array(Vec::new()));
    // The machine reaches its cache, and no repository.
    let reach = |world: &World| {
        copy(world, "stick", "web-1/usb");
        let ran = world.agent("web-1", &["once"]);
        copy(world, "web-1/usb", "stick");
        ran
    };
    assert_eq!(reach(&world).good(), "web-1: switched to revision 1\n");
    let first = world.tip();
    create_with(&world, &[]).refused(3, "there is nothing new");
    world.change_from_memory("Welcome", "Hello");
    create_with(&world, &[]).good();
    assert_eq!(inspect(&world)["prerequisites"][0], first.as_str());
    assert_eq!(reach(&world).good(), "web-1: switched to revision 2\n");
    // A machine that lost its copy says so, and gets all of it the next time.
    world.change_from_memory("Hello", "Good day");
    create_with(&world, &[]).good();
    fs::remove_dir_all(world.path("web-1/state/mirrors")).unwrap();
    reach(&world).refused(4, "it builds on commit");
    assert_eq!(statuses(&world)[0]["status"].get("commit"), None);
    let said = create_with(&world, &[]).also_good().stderr;
    assert!(
        said.contains("web-1 says that it has no commit on the stick, so the bundle has the whole branch"),
        "{said}"
    );
    assert_eq!(reach(&world).good(), "web-1: switched to revision 3\n");
}

/// A fleet whose `web-1` has switched by the stick, which is at home again.
fn visited() -> World {
    let world = World::published();
    set_up(&world, "web-1");
    create(&world, &["web-1"]).good();
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 1\n");
    create(&world, &["web-1"]).good();
    assert!(carried(&world).is_empty());
    world
}

/// Asserts that the next bundle has everything for `web-1`, whose status is refused with this reason.
#[track_caller]
fn assert_whole(world: &World, why: &str) {
    let ran = create(world, &["web-1"]).also_good();
    assert!(ran.stderr.contains("warning: clavel-status/web-1.json: ") && ran.stderr.contains(why), "{}", ran.stderr);
    assert_eq!((carried(world).len(), inspect(world)["prerequisites"][0].clone()), (1, Value::Null));
    let shown = statuses(world);
    assert!(shown[0]["problem"].as_str().unwrap().contains(why) && shown[0]["status"].is_null(), "{shown:#}");
}

#[test]
fn a_status_that_is_forged_damaged_or_of_another_fleet_leaves_nothing_out() {
    let world = visited();
    let status = world.path("stick/clavel-status/web-1.json");
    let good = fs::read_to_string(&status).unwrap();
    // Another machine, with another key, under the same name.
    fs::rename(world.path("web-1/state/status-key"), world.path("key")).unwrap();
    fs::remove_file(world.path("web-1/usb/clavel-status/web-1.json")).unwrap();
    visit(&world, "web-1").good();
    assert_whole(&world, "another key signed it than the first status of this name");
    // It says something else than its key signed.
    fs::write(&status, good.replace("\"revision\": 1", "\"revision\": 2")).unwrap();
    assert_whole(&world, "it is damaged or forged");
    for damaged in ["", "{", &good[..good.len() / 2], &"x".repeat(2 << 20)] {
        fs::write(&status, damaged).unwrap();
        assert_whole(&world, "it is damaged or forged");
    }
    fs::remove_file(&status).unwrap();
    fs::create_dir(&status).unwrap();
    assert_whole(&world, "it cannot be read");
    fs::remove_dir(&status).unwrap();
    // It is of another fleet.
    let other = visited();
    fs::copy(other.path("stick/clavel-status/web-1.json"), &status).unwrap();
    assert_whole(&world, "it is of another fleet");
    // It is of another machine.
    fs::write(world.path("stick/clavel-status/web-2.json"), &good).unwrap();
    let shown = statuses(&world);
    assert!(shown[1]["problem"].as_str().unwrap().contains("it is the status of the agent `web-1`"), "{shown:#}");
    fs::remove_file(world.path("stick/clavel-status/web-2.json")).unwrap();
    // The right one counts again.
    fs::write(&status, &good).unwrap();
    create(&world, &["web-1"]).good();
    assert!(carried(&world).is_empty());
    // Without --for, everything is written whatever the stick says.
    let (file, fleet, root, store) = (world.at("all.bundle"), world.at("fleet.git"), world.root(), world.at("writer"));
    let all =
        ["bundle", "create", &file, "--repository", &fleet, "--root", &root, "--store", &store, "--closures", "web-1"];
    assert!(world.clavel(&all).good().contains("1 store paths, "));
}

#[test]
fn a_machine_that_is_restored_from_an_old_backup_is_told() {
    let world = visited();
    let old = fs::read(world.path("stick/clavel-status/web-1.json")).unwrap();
    copy(&world, "web-1/state", "backup");
    world.change_from_memory("Welcome", "Hello");
    create(&world, &["web-1"]).good();
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 2\n");
    let newer = create(&world, &["web-1"]).also_good();
    assert!(!newer.stderr.contains("warning"), "{}", newer.stderr);
    // A copy of the old file comes back, by whomever.
    let seen = world.read_file("seen/machines.json");
    let later = seen.replacen("\"at\": \"2", "\"at\": \"3", 1);
    world.write_file("seen/machines.json", &later);
    fs::write(world.path("stick/clavel-status/web-1.json"), &old).unwrap();
    assert_whole(&world, "it is a copy of an older status");
    world.write_file("seen/machines.json", &seen);
    // The machine itself is as it was: its status is new, and what it says is old. It counts.
    copy(&world, "backup", "web-1/state");
    fs::remove_dir_all(world.path("web-1/profile")).unwrap();
    let empty = world.path("web-1/usb");
    fs::remove_dir_all(&empty).unwrap();
    fs::create_dir(&empty).unwrap();
    world.run("cp", &[&world.at("stick/clavel.bundle"), &world.at("web-1/usb/")]).good();
    let damaged = [&fs::read(world.path("stick/clavel.bundle")).unwrap()[..3000], b"cut"].concat();
    fs::write(world.path("web-1/usb/clavel.bundle"), damaged).unwrap();
    in_isolation(&world, "web-1", "");
    copy(&world, "web-1/usb/clavel-status", "stick/clavel-status");
    let ran = create(&world, &["web-1"]).also_good();
    assert!(
        ran.stderr.contains("the machine believed index version 2 before: it was restored from a backup"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_medium_that_cannot_be_written_is_told_in_the_status_alone() {
    let world = World::published();
    set_up(&world, "web-1");
    create(&world, &["web-1"]).good();
    copy(&world, "stick", "web-1/usb");
    let usb = world.at("web-1/usb");
    let read_only = format!("mount --bind {usb} {usb}; mount -o remount,ro,bind {usb};");
    assert_eq!(in_isolation(&world, "web-1", &read_only).also_good().stdout, "web-1: switched to revision 1\n");
    assert!(!world.path("web-1/usb/clavel-status").exists());
    let said = world.agent("web-1", &["status"]).good();
    assert!(said.contains(&format!("status      not left on {usb}: Read-only file system")), "{said}");
    assert!(said.contains("last pass") && !said.contains("failed"), "{said}");
    // It is full.
    let full = format!(
        "mount -t tmpfs -o size=1m none {usb}; cp {stick} {usb}; dd if=/dev/zero of={usb}/rest bs=4k 2>/dev/null || true;",
        stick = world.at("stick/clavel.bundle")
    );
    assert_eq!(in_isolation(&world, "web-1", &full).also_good().stdout, "web-1: up to date at revision 1\n");
    let said = world.agent("web-1", &["status"]).good();
    assert!(said.contains(&format!("status      not left on {usb}: No space left on device")), "{said}");
    // It can be written again, and is written once.
    assert_eq!(in_isolation(&world, "web-1", "").also_good().stdout, "web-1: up to date at revision 1\n");
    let status = world.path("web-1/usb/clavel-status/web-1.json");
    let written = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let (before, bytes) = (written(&status), fs::read(&status).unwrap());
    assert_eq!(in_isolation(&world, "web-1", "").also_good().stdout, "web-1: up to date at revision 1\n");
    assert_eq!((written(&status), fs::read(&status).unwrap()), (before, bytes));
    // Its owner wants none.
    fs::remove_dir_all(world.path("web-1/usb/clavel-status")).unwrap();
    world.configure_agent("web-1", &world.at("web-1/usb/*.bundle"), "leave-status = false");
    in_isolation(&world, "web-1", "").good();
    assert!(!world.path("web-1/usb/clavel-status").exists());
    // Nothing is left where no stick is plugged in.
    world.configure_agent("web-1", &world.at("web-1/usb/clavel.bundle"), "");
    fs::remove_file(world.path("web-1/usb/clavel.bundle")).unwrap();
    in_isolation(&world, "web-1", "").refused(4, "plug in the stick");
    assert!(!world.path("web-1/usb/clavel-status").exists());
}

#[test]
fn a_table_shows_people_what_the_machines_run() {
    let world = visited();
    fs::write(world.path("stick/clavel-status/web-2.json"), "{").unwrap();
    let (stick, seen) = (world.at("stick"), world.at("seen/machines.json"));
    let said = world.clavel(&["bundle", "status", &stick, "--seen", &seen]).good();
    let line = |of: &str| said.lines().find(|line| line.starts_with(of)).unwrap().to_owned();
    assert!(line("MACHINE").contains("DEPLOYMENT") && line("web-1").contains("confirmed"), "{said}");
    assert!(line("web-2").contains("it is damaged or forged"), "{said}");
}

#[test]
fn an_operator_who_lost_everything_but_the_repository_makes_a_good_bundle() {
    let world = visited();
    let first = world.tip();
    world.change_from_memory("Welcome", "Hello");
    // The store that bundles are made with, the memory of the machines, and what clavel and Nix keep in the home.
    let lose = || {
        world.run("chmod", &["-R", "u+w", &world.at("writer")]);
        for folder in ["writer", "seen", "cache-home"] {
            let _ = fs::remove_dir_all(world.path(folder));
        }
    };
    lose();
    let ran = create(&world, &["web-1"]).also_good();
    assert!(ran.stderr.contains("web-1: its first status, signed with the key web-1:"), "{}", ran.stderr);
    // What the machine runs is known by its name alone: whatever it needs is carried again.
    assert!(ran.stderr.contains("neither the store nor a bundle on the stick knows what that needs"), "{}", ran.stderr);
    assert_eq!((carried(&world).len(), inspect(&world)["prerequisites"][0].clone()), (1, first.as_str().into()));
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 2\n");
    // The store path is lost as well: no cache has it any more.
    world.change_from_memory("Hello", "Good day");
    lose();
    let before = fs::read(world.path("stick/clavel.bundle")).unwrap();
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    create(&world, &["web-1"]).refused(6, "cannot");
    assert_eq!(fs::read(world.path("stick/clavel.bundle")).unwrap(), before, "the stick has what it had");
    fs::rename(world.path("gone"), world.path("cache")).unwrap();
    create(&world, &["web-1"]).good();
    assert_eq!(visit(&world, "web-1").good(), "web-1: switched to revision 3\n");
    // The repository is as it was before: the machine has a commit that is in no history, and is not led back.
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &first]);
    let said = create(&world, &["web-1"]).also_good().stderr;
    assert!(said.contains("the machines have commits that are not in the branch's history"), "{said}");
    visit(&world, "web-1").refused(5, "the index went back");
    assert_eq!(world.motd("web-1").as_deref(), Some("Good day to web-1"));
}
