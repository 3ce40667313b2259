//! Promise: several users share a repository as git lets them, and nobody is shut out of it by a program of Clavel.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::world::{Ran, World};

/// Two users of no name, and the group that they share.
const ALICE: u32 = 61004;
const BOB: u32 = 61005;
const GROUP: u32 = 61020;

/// Runs a program as a service of this user would, who is in the group.
fn run_as(world: &World, user: u32, program: &str, arguments: &[&str]) -> Ran {
    let home = world.at(&format!("home-{user}"));
    world.run("mkdir", &["-p", &home]).good();
    world.run("chown", &["-R", &user.to_string(), &home]).good();
    let (user, group) = (user.to_string(), GROUP.to_string());
    let who = ["--reuid", &user, "--regid", &user, "--groups", &group, "--", "env", "-i"];
    let (home, path) = (format!("HOME={home}"), format!("PATH={}", std::env::var("PATH").unwrap()));
    world.run("setpriv", &[&who[..], &[&home, &path, program], arguments].concat())
}

/// Makes the next root, which differs in nothing but its version and its end. Everybody may read it.
fn next_root(world: &World, of: &str, to: &str) -> String {
    let (of, next, key) = (world.at(of), world.at(to), world.at("root-1.secret"));
    world.clavel(&["root", "next", &of, "-o", &next, "--key", &key, "--expires-after", "300d"]).good();
    world.run("chmod", &["644", &next]).good();
    next
}

/// The files and folders below `folder` that are not as they should be.
fn misfits(folder: &Path, is_right: &dyn Fn(&std::fs::Metadata) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let about = entry.path().symlink_metadata().unwrap();
        if !is_right(&about) {
            found.push(format!("{} {:o}", entry.path().display(), about.mode()));
        }
        if about.is_dir() {
            found.extend(misfits(&entry.path(), is_right));
        }
    }
    found
}

#[test]
fn the_superuser_leaves_nothing_of_its_own_in_the_repository_of_another_user() {
    let world = World::published();
    world.run("chmod", &["a+rx", &world.at("")]).good();
    let (fleet, next) = (world.at("fleet.git"), next_root(&world, "root.json", "root-2.json"));
    world.run("chown", &["-R", &ALICE.to_string(), &fleet]).good();
    let publish = ["root", "publish", &next, "--repository", &fleet];
    world.clavel(&publish).refused(4, &format!("sudo -u '#{ALICE}'"));
    let hold = ["hold", "web-1", "--config", &world.at("claveld.toml")];
    world.clavel(&hold).refused(4, &format!("sudo -u '#{ALICE}'"));
    assert_eq!(misfits(Path::new(&fleet), &|about| about.uid() == ALICE), [""; 0]);
    run_as(&world, ALICE, env!("CARGO_BIN_EXE_clavel"), &publish).good();
    assert_eq!(misfits(Path::new(&fleet), &|about| about.uid() == ALICE), [""; 0]);
}

#[test]
fn the_members_of_a_group_write_to_their_repository_one_after_the_other() {
    let world = World::published();
    world.run("chmod", &["a+rx", &world.at("")]).good();
    let (fleet, shared) = (world.at("fleet.git"), world.at("shared.git"));
    world.run("git", &["init", "-q", "--bare", "--shared=group", &shared]).good();
    world.run("git", &["-C", &fleet, "push", "-q", &shared, "deployments"]).good();
    world.run("chown", &["-R", &format!("{ALICE}:{GROUP}"), &shared]).good();
    let clavel = env!("CARGO_BIN_EXE_clavel");
    let second = next_root(&world, "root.json", "root-2.json");
    run_as(&world, ALICE, clavel, &["root", "publish", &second, "--repository", &shared]).good();
    let third = next_root(&world, "root-2.json", "root-3.json");
    let publish = ["root", "publish", &third, "--repository", &shared];
    run_as(&world, BOB, clavel, &publish).good();
    // Both can write everywhere, and what is new belongs to the group.
    let is_shared =
        |about: &std::fs::Metadata| about.gid() == GROUP && (!about.is_dir() || about.mode() & 0o2070 == 0o2070);
    assert_eq!(misfits(&Path::new(&shared).join("objects"), &is_shared), [""; 0]);
    assert_eq!(misfits(&Path::new(&shared).join("refs"), &is_shared), [""; 0]);
    let fourth = next_root(&world, "root-3.json", "root-4.json");
    run_as(&world, ALICE, clavel, &["root", "publish", &fourth, "--repository", &shared]).good();
    let verify = ["verify", "--repository", &shared, "--root", &world.root()];
    assert!(run_as(&world, BOB, clavel, &verify).good().contains("root version 4"));
}
