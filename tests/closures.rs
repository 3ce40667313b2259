//! Promise: a bundle with closures lets a machine without any cache switch, and what is damaged or not signed in it changes nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use clavel::closures::{ClosureBundle, ClosureWriter, Narinfo, Requirement, git_bundle_in};
use clavel::model::Content;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::world::{Ran, Running, World, until};

/// The most memory that a program of ours may hold, in KiB: 64 MiB.
const MAX_MEMORY: u64 = 64 << 10;

/// The arguments that make a bundle of the closures of `names`, by way of a store of its own.
fn arguments(world: &World, file: &str, names: &[&str], more: &[&str]) -> Vec<String> {
    let (file, fleet, root, store) = (world.at(file), world.at("fleet.git"), world.root(), world.at("writer"));
    let first = ["bundle", "create", &file, "--repository", &fleet, "--root", &root, "--store", &store];
    [&first, more, &["--closures"], names].concat().into_iter().map(ToOwned::to_owned).collect()
}

fn create(world: &World, file: &str, names: &[&str], more: &[&str]) -> Ran {
    let arguments = arguments(world, file, names, more);
    world.clavel(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A fleet whose `web-1` is in `x.bundle`, and whose cache is gone.
fn carried() -> World {
    let world = World::published();
    create(&world, "x.bundle", &["web-1"], &[]).good();
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    world
}

/// Puts bytes on the stick.
fn plug_in(world: &World, bytes: &[u8]) {
    fs::create_dir_all(world.path("media/usb")).unwrap();
    fs::write(world.path("media/usb/x.bundle"), bytes).unwrap();
}

fn read(world: &World, file: &str) -> Vec<u8> {
    fs::read(world.path(file)).unwrap()
}

fn verify(world: &World, file: &str) -> Ran {
    world.clavel(&["bundle", "verify", &world.at(file), "--root", &world.root(), "--json"])
}

/// Where the header of the first member is whose name ends so.
fn member(bytes: &[u8], end: &str) -> usize {
    let name = |block: usize| {
        let name = &bytes[block..block + 100];
        String::from_utf8_lossy(&name[..name.iter().position(|byte| *byte == 0).unwrap_or(100)]).into_owned()
    };
    let mut block = 0;
    while !name(block).ends_with(end) {
        let size = String::from_utf8_lossy(&bytes[block + 124..block + 135]).into_owned();
        block += 512 + usize::from_str_radix(&size, 8).unwrap().next_multiple_of(512);
    }
    block
}

/// Writes the bundle again, with entries that have these signatures.
fn sign_otherwise(world: &World, signatures: &[String]) {
    let bundle = ClosureBundle::open(File::open(world.path("x.bundle")).unwrap()).unwrap().unwrap();
    world.run("tar", &["-xf", &world.at("x.bundle"), "-C", &world.at(""), "deployments.bundle"]).good();
    let mut writer = ClosureWriter::open(&world.path("media/usb/x.bundle"), std::sync::Arc::default()).unwrap();
    writer.begin(bundle.manifest(), &File::open(world.path("deployments.bundle")).unwrap()).unwrap();
    for (place, carried) in bundle.manifest().paths.iter().enumerate() {
        let entry = bundle.narinfo(place).unwrap();
        let content = Content { nar_hash: carried.nar_hash, nar_size: carried.nar_size };
        let entry = Narinfo::new(&carried.path, content, entry.references(), signatures, None).unwrap();
        let hash = nix_derivation::nixbase32::encode(carried.nar_hash.bytes());
        let dump =
            |output: &mut dyn io::Write| io::copy(&mut bundle.read(bundle.nar(&hash).unwrap()), output).map(drop);
        writer.add_path(&carried.path, content, &entry, dump).unwrap();
    }
    writer.finish().unwrap();
}

/// The most memory that the program held, in KiB, once it has ended.
fn peak_memory(running: &mut Running) -> u64 {
    let status = PathBuf::from(format!("/proc/{}/status", running.id()));
    let mut peak = 0;
    until("it ends", || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        running.has_ended()
    });
    peak
}

#[test]
fn a_machine_without_any_cache_switches_by_the_bundle_alone() {
    let world = carried();
    plug_in(&world, &read(&world, "x.bundle"));
    // A proxy that is not there: nothing of it goes through one.
    let proxy = [("http_proxy", "http://127.0.0.1:1"), ("all_proxy", "http://127.0.0.1:1")];
    let config = world.at("web-1.toml");
    let ran = world.run_with(&proxy, env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &config]);
    assert_eq!(ran.good(), "web-1: switched to revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // Nix remembers nothing of a cache whose address is another one each time.
    let remembered = fs::read_dir(world.path("cache-home/nix")).into_iter().flatten().flatten();
    assert!(!remembered.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().contains("binary-cache")));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn what_nix_builds_travels_with_all_that_it_needs() {
    let world = World::published_with_nix(&["web-1", "web-2"]);
    create(&world, "x.bundle", &[], &[]).refused(6, "router-1");
    let said = create(&world, "x.bundle", &["web-1", "web-2"], &[]).good();
    assert!(said.contains("2 deployments") && said.contains("store paths"), "{said}");
    let shown = world.clavel(&["bundle", "inspect", &world.at("x.bundle"), "--json"]).json();
    let carried = shown["closures"]["carried"].as_array().unwrap();
    let name = |deployment: &Value| deployment["name"].as_str().unwrap().to_owned();
    assert_eq!(carried.iter().map(name).collect::<Vec<_>>(), ["web-1", "web-2"]);
    assert_eq!(shown["content"]["publishers"].as_array().unwrap().len(), 1);
    assert_eq!(shown["commit"], world.tip());
    let verified = verify(&world, "x.bundle").json();
    assert_eq!((&verified["errors"], &verified["closures"]), (&Value::Array(Vec::new()), &shown["closures"]));
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    plug_in(&world, &read(&world, "x.bundle"));
    for unit in ["web-1", "web-2"] {
        world.configure_agent(unit, &world.at("media/usb/*.bundle"), "");
        assert_eq!(world.agent(unit, &["once"]).good(), format!("{unit}: switched to revision 1\n"));
    }
}

#[test]
fn gnu_tar_extracts_a_cache_that_nix_reads() {
    let world = carried();
    fs::create_dir(world.path("extracted")).unwrap();
    let list = world.run("tar", &["-tf", &world.at("x.bundle")]).good();
    let names: Vec<&str> = list.lines().collect();
    assert_eq!(names[..3], ["bundle.json", "deployments.bundle", "nix-cache-info"]);
    assert!(names[3].ends_with(".narinfo") && names[4].starts_with("nar/"), "{list}");
    world.run("tar", &["-xf", &world.at("x.bundle"), "-C", &world.at("extracted")]).good();
    world.git(&["-C", &world.at("fleet.git"), "bundle", "verify", &world.at("extracted/deployments.bundle")]);
    let manifest: Value = serde_json::from_str(&world.read_file("extracted/bundle.json")).unwrap();
    let path = manifest["content"]["deployments"][0]["narId"].as_str().unwrap();
    let (from, to, key) =
        (format!("file://{}", world.at("extracted")), world.at("copied"), world.public_key("cache-1"));
    let trust = ["--option", "trusted-public-keys", key.as_str()];
    world.run("nix", &[&["copy", "--from", &from, "--to", &to], &trust[..], &[path]].concat()).good();
    assert!(Path::new(&format!("{to}{path}/etc/motd")).exists());
}

#[test]
fn a_damaged_member_is_refused_and_what_runs_stays() {
    let world = carried();
    let good = read(&world, "x.bundle");
    let flips = [("bundle.json", 300), ("deployments.bundle", 900), (".narinfo", 30), (".narinfo", 600), (".nar", 700)];
    for (name, after) in flips {
        let mut bytes = good.clone();
        bytes[member(&good, name) + after] ^= 0x20;
        plug_in(&world, &bytes);
        let ran = world.agent("web-1", &["once"]);
        assert!(matches!(ran.code, Some(4 | 6)), "{name}+{after}: {:?} {} {}", ran.code, ran.stdout, ran.stderr);
        assert_eq!(world.motd("web-1"), None, "{name}+{after}");
        let said = world.clavel(&["bundle", "verify", &world.at("media/usb/x.bundle"), "--root", &world.root()]);
        assert!(said.code != Some(0), "{name}+{after}: {}", said.stdout);
        let member = if name == "deployments.bundle" { "bundle" } else { name };
        assert!(said.stderr.contains(member), "{name}+{after}: {}", said.stderr);
    }
    for length in [600, good.len() / 2, good.len() - 1024, good.len() - 1] {
        plug_in(&world, &good[..length]);
        let ran = world.agent("web-1", &["once"]);
        assert!(matches!(ran.code, Some(4 | 6)), "the first {length} bytes: {} {}", ran.stdout, ran.stderr);
        assert_eq!(world.motd("web-1"), None);
    }
    plug_in(&world, &good);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn no_flipped_byte_of_the_closures_is_believed() {
    const FLIPS: usize = 2000;
    let world = carried();
    let good = read(&world, "x.bundle");
    let open = || ClosureBundle::open(File::open(world.path("x.bundle")).unwrap());
    let bundle = open().unwrap().unwrap();
    let git = git_bundle_in(&File::open(world.path("x.bundle")).unwrap()).unwrap().unwrap();
    let required = [Requirement {
        deployment: "web-1".parse().unwrap(),
        nar_id: bundle.manifest().deployments[0].nar_id.clone(),
        keys: vec![world.public_key("cache-1").parse().unwrap()],
    }];
    let file = File::options().write(true).open(world.path("x.bundle")).unwrap();
    let (mut refused, mut in_git, mut in_padding) = (0, 0, 0);
    assert!(good.len() > FLIPS, "{}", good.len());
    for number in 0..FLIPS {
        let (at, bit) = (number * good.len() / FLIPS, number % 8);
        file.write_all_at(&[good[at] ^ (1 << bit)], at as u64).unwrap();
        let is_good = open().is_ok_and(|opened| {
            opened.is_some_and(|opened| {
                let check = opened.check(&required, &|_| {});
                assert_eq!(opened.manifest(), bundle.manifest(), "byte {at}, bit {bit}");
                check.damaged.is_empty() && check.lacking.is_empty()
            })
        });
        file.write_all_at(&[good[at]], at as u64).unwrap();
        let is_in_git = (git.offset..git.offset + git.size).contains(&(at as u64));
        match (is_good, is_in_git, good[at]) {
            (false, ..) => refused += 1,
            // The branch is read as every bundle's is, which `git` tests.
            (true, true, _) => in_git += 1,
            // Between two members, where nothing is read.
            (true, false, 0) => in_padding += 1,
            (true, false, byte) => panic!("byte {at} ({byte}), bit {bit} has no effect"),
        }
    }
    assert!(
        refused > 200 && in_git > 200 && refused + in_git + in_padding == FLIPS,
        "{refused}, {in_git}, {in_padding}"
    );
    assert_eq!(read(&world, "x.bundle"), good);
    // The whole agent, with a few of them.
    for at in (100..good.len()).step_by(good.len() / 20) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        plug_in(&world, &bytes);
        // An agent that has read the branch before does not read it again.
        world.run("chmod", &["-R", "u+w", &world.at("web-1")]);
        let _ = fs::remove_dir_all(world.path("web-1"));
        let ran = world.agent("web-1", &["once"]);
        match ran.code {
            Some(0) => {
                assert_eq!((good[at], world.motd("web-1").as_deref()), (0, Some("Welcome to web-1")), "byte {at}");
            }
            code => assert!(matches!(code, Some(4 | 6)), "byte {at}: {code:?} {}", ran.stderr),
        }
    }
}

#[test]
fn a_container_that_is_cut_off_at_any_64_kib_is_refused() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "Welcome", &"W".repeat(600 << 10));
    world.publish_from_memory(&["web-1"]);
    create(&world, "x.bundle", &["web-1"], &[]).good();
    let good = read(&world, "x.bundle");
    let lengths: Vec<usize> = (0..good.len()).step_by(64 << 10).collect();
    assert!(lengths.len() > 8, "{}", good.len());
    for length in lengths {
        fs::write(world.path("cut.bundle"), &good[..length]).unwrap();
        let opened = ClosureBundle::open(File::open(world.path("cut.bundle")).unwrap());
        // Without its first bytes it is no container, and no git bundle either.
        assert!(matches!((&opened, length), (Err(_), _) | (Ok(None), 0)), "the first {length} bytes: {opened:?}");
    }
}

#[test]
fn only_the_keys_of_the_deployment_count() {
    let world = carried();
    fs::create_dir_all(world.path("media/usb")).unwrap();
    sign_otherwise(&world, &[]);
    let said = world.agent("web-1", &["once"]).refused(6, "not signed by any key that the deployment names");
    // People know the bundle, and no address of this machine.
    assert!(said.contains("media/usb/x.bundle") && !said.contains("127.0.0.1"), "{said}");
    let errors = verify(&world, "media/usb/x.bundle").json()["errors"].to_string();
    assert!(errors.contains(".narinfo: no key of `web-1` signed"), "{errors}");
    let forged = format!("cache-1:{}", "A".repeat(86) + "==");
    sign_otherwise(&world, &[forged]);
    world.agent("web-1", &["once"]).refused(6, "not signed by any key that the deployment names");
    assert_eq!(world.motd("web-1"), None);
}

#[test]
fn an_update_has_only_the_paths_that_its_reader_lacks() {
    let world = World::new();
    world.edit("hosts/web-2.nix", "Welcome", &"Welcome".repeat(300_000));
    world.publish_from_memory(&["web-1", "web-2"]);
    create(&world, "first.bundle", &["web-1"], &[]).good();
    let first = world.at("first.bundle");
    let said = create(&world, "second.bundle", &["web-1", "web-2"], &["--since", &first]).good();
    assert!(said.contains("1 store paths, without 1 that its reader has"), "{said}");
    let shown = world.clavel(&["bundle", "inspect", &world.at("second.bundle"), "--json"]).json();
    assert_eq!((&shown["closures"]["paths"], &shown["closures"]["assumed"]), (&1.into(), &1.into()));
    let (size, missing) = (shown["size"].as_u64().unwrap(), shown["closures"]["narBytes"].as_u64().unwrap());
    assert!(missing > 2_000_000 && size - missing < missing / 20, "{size} bytes for {missing}");
    assert_eq!(verify(&world, "second.bundle").json()["errors"], Value::Array(Vec::new()));
    // The third knows what the second left out, because the first has it.
    world.change_from_memory("Welcome", "Hello");
    let second = world.at("second.bundle");
    create(&world, "third.bundle", &["web-1", "web-2"], &["--since", &second]).good();
    let shown = world.clavel(&["bundle", "inspect", &world.at("third.bundle"), "--json"]).json();
    assert_eq!((&shown["closures"]["paths"], &shown["closures"]["assumed"]), (&1.into(), &1.into()));
    assert_eq!(shown["prerequisites"].as_array().unwrap().len(), 1);
    // A stick with all three.
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    fs::create_dir_all(world.path("media/usb")).unwrap();
    for file in ["first.bundle", "second.bundle", "third.bundle"] {
        fs::copy(world.path(file), world.path("media/usb").join(file)).unwrap();
    }
    for unit in ["web-1", "web-2"] {
        world.configure_agent(unit, &world.at("media/usb/*.bundle"), "");
        world.agent(unit, &["once"]).good();
    }
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn a_write_that_was_cut_short_goes_on() {
    let world = World::new();
    world.publish_from_memory(&["web-1", "web-2"]);
    let make = |file: &str| create(&world, file, &["web-1", "web-2"], &[]).good();
    assert!(!make("whole.bundle").contains("from a run that was ended"));
    let whole = read(&world, "whole.bundle");
    let last = member(&whole, ".nar");
    for (earlier, is_used) in [
        (whole[..last + 100].to_vec(), true),
        ([&whole[..last], &[7; 9000]].concat(), true),
        ([&[7; 600], &whole[600..]].concat(), false),
        (vec![7; whole.len() + 5000], false),
    ] {
        fs::write(world.path("again.bundle.partial"), earlier).unwrap();
        let said = make("again.bundle");
        assert_eq!(said.contains("were there from a run that was ended"), is_used, "{said}");
        assert_eq!(read(&world, "again.bundle"), whole);
        assert!(!world.path("again.bundle.partial").exists());
    }
    // Another process writes it.
    let held = File::create(world.path("again.bundle.partial")).unwrap();
    held.lock().unwrap();
    create(&world, "again.bundle", &["web-1"], &[]).refused(8, "another process is writing");
}

#[test]
fn neither_a_large_closure_nor_the_end_of_a_process_costs_memory_or_work() {
    let world = World::new();
    let size = 160 << 20;
    world.edit("hosts/web-1.nix", "Welcome", &"W".repeat(size));
    world.publish_from_memory(&["web-1"]);
    // The paths are fetched before, so that Nix is not what is measured.
    create(&world, "whole.bundle", &["web-1"], &[]).good();
    let arguments = arguments(&world, "x.bundle", &["web-1"], &[]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut writing = world.start(env!("CARGO_BIN_EXE_clavel"), &arguments);
    let partial = world.path("x.bundle.partial");
    until("it has begun", || fs::metadata(&partial).is_ok_and(|file| file.len() > 1 << 20));
    writing.signal(Signal::KILL);
    writing.wait();
    let mut writing = world.start(env!("CARGO_BIN_EXE_clavel"), &arguments);
    let peak = peak_memory(&mut writing);
    assert!(peak < MAX_MEMORY, "{peak} KiB to write: {}", writing.said());
    assert_eq!(writing.wait(), Some(0), "{}", writing.said());
    assert!(read(&world, "x.bundle") == read(&world, "whole.bundle"));
    let (file, root) = (world.at("x.bundle"), world.root());
    let mut reading = world.start(env!("CARGO_BIN_EXE_clavel"), &["bundle", "verify", &file, "--root", &root]);
    let peak = peak_memory(&mut reading);
    assert!(peak < MAX_MEMORY, "{peak} KiB to verify: {}", reading.said());
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    fs::create_dir_all(world.path("media/usb")).unwrap();
    fs::rename(world.path("x.bundle"), world.path("media/usb/x.bundle")).unwrap();
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    let config = world.at("web-1.toml");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &config]);
    let peak = peak_memory(&mut agent);
    assert!(peak < MAX_MEMORY, "{peak} KiB to serve: {}", agent.said());
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
}

#[test]
fn a_stick_that_is_pulled_out_fails_the_pass_and_the_next_goes_on() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "Welcome", &"W".repeat(120 << 20));
    world.publish_from_memory(&["web-1"]);
    create(&world, "x.bundle", &["web-1"], &[]).good();
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    fs::create_dir_all(world.path("media/usb")).unwrap();
    let stick = world.path("media/usb/x.bundle");
    fs::copy(world.path("x.bundle"), &stick).unwrap();
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")]);
    // The agent reads the NAR in order, and this much of it has come to it.
    let reads = PathBuf::from(format!("/proc/{}/io", agent.id()));
    until("it serves the NAR", || {
        let text = fs::read_to_string(&reads).unwrap_or_default();
        let read = text.lines().find_map(|line| line.strip_prefix("rchar: ")).and_then(|read| read.parse().ok());
        read.unwrap_or(0_u64) > 8 << 20
    });
    File::options().write(true).open(&stick).unwrap().set_len(1 << 20).unwrap();
    assert_eq!(agent.wait(), Some(6), "{}", agent.said());
    assert!(agent.said().contains("plug the stick in again"), "{}", agent.said());
    assert_eq!(world.motd("web-1"), None);
    fs::copy(world.path("x.bundle"), &stick).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}

#[test]
fn a_large_manifest_is_refused_before_it_is_read() {
    let world = carried();
    let bytes = read(&world, "x.bundle");
    // A header as ours, for a member of 33 MiB.
    let mut header = tar_header("bundle.json", 33 << 20);
    header.resize(512 + (33 << 20), b' ');
    header.extend_from_slice(&bytes[member(&bytes, "deployments.bundle")..]);
    plug_in(&world, &header);
    world.agent("web-1", &["once"]).refused(6, "bundle.json");
}

fn tar_header(name: &str, size: u64) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn an_old_bundle_with_closures_and_one_of_another_fleet_are_refused() {
    let world = carried();
    plug_in(&world, &read(&world, "x.bundle"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    fs::rename(world.path("gone"), world.path("cache")).unwrap();
    world.change_from_memory("Welcome", "Hello");
    create(&world, "y.bundle", &["web-1"], &[]).good();
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    plug_in(&world, &read(&world, "y.bundle"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    let profile = || fs::read_link(world.path("web-1/profile/system")).unwrap();
    let running = profile();
    let deployments = || world.agent("web-1", &["status", "--json"]).json()["deployments"].clone();
    let before = deployments();
    assert_eq!(before["web-1"]["state"], "confirmed", "{before:#}");
    let stays = |why: &str| {
        assert_eq!((world.motd("web-1").as_deref(), profile()), (Some("Hello to web-1"), running.clone()), "{why}");
        assert_eq!(deployments(), before, "{why}");
    };
    // An older one than what runs, whose closures are good.
    plug_in(&world, &read(&world, "x.bundle"));
    world.agent("web-1", &["once"]).refused(5, "the index went back from version 2 to 1");
    stays("an older one");
    // One of another fleet, with a deployment of the same name and its closure.
    let other = World::new();
    other.edit("hosts/web-1.nix", "Welcome", "Intruders");
    other.push("Intruders");
    other.publish_from_memory(&["web-1"]);
    create(&other, "x.bundle", &["web-1"], &[]).good();
    plug_in(&world, &read(&other, "x.bundle"));
    let why = format!("the branch is of the fleet {}, not of {}", other.fleet(), world.fleet());
    world.agent("web-1", &["once"]).refused(5, &why);
    stays("one of another fleet");
    let intruders = other.document("deployments/web-1.json")["specification"]["template"]["narId"].clone();
    let fetched = world.path(&format!("web-1/store{}", intruders.as_str().unwrap()));
    assert!(!fetched.exists(), "nothing of it was fetched");
    let root = world.root();
    world.clavel(&["bundle", "verify", &world.at("media/usb/x.bundle"), "--root", &root]).refused(5, &why);
    // Both beside the right one change nothing either.
    fs::write(world.path("media/usb/y.bundle"), read(&world, "y.bundle")).unwrap();
    fs::write(world.path("media/usb/z.bundle"), read(&world, "x.bundle")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    stays("all of them");
}
