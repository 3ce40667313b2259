//! Promise: an agent whose Nix works through a daemon gets the closures of a stick through it, and is told what the daemon does not let it
//! do.

use std::fs;

use crate::support::world::{Ran, World};

/// The number of the user whom the daemon does not trust.
const USER: u32 = 61004;

/// Who runs the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runner {
    /// The daemon trusts this user.
    Root,
    /// The daemon knows nothing of this user. It has these lines in its nix.conf.
    Stranger(&'static str),
}

/// A fleet whose `web-1` is on a stick alone.
fn carried() -> World {
    let world = World::published();
    let (file, fleet, root, store) = (world.at("x.bundle"), world.at("fleet.git"), world.root(), world.at("writer"));
    let create = ["bundle", "create", &file, "--repository", &fleet, "--root", &root, "--store", &store, "--closures"];
    world.clavel(&[&create[..], &["web-1"]].concat()).good();
    fs::create_dir_all(world.path("media/usb")).unwrap();
    fs::rename(world.path("x.bundle"), world.path("media/usb/x.bundle")).unwrap();
    fs::rename(world.path("cache"), world.path("gone")).unwrap();
    world.configure_agent("web-1", &world.at("media/usb/*.bundle"), "");
    // The store is the daemon's.
    let text = world.read_file("web-1.toml").replace("[nix]\nstore = \"web-1/store\"\n", "");
    world.write_file("web-1.toml", &text);
    for folder in ["web-1/profile", "web-1/state", "nix/store", "nix/var/nix/daemon-socket", "home"] {
        fs::create_dir_all(world.path(folder)).unwrap();
    }
    world
}

/// Runs the agent beside a daemon with a store of its own, which both see at /nix, as they would on a machine of theirs.
fn once(world: &World, runner: Runner) -> Ran {
    let (settings, user) = match runner {
        Runner::Root => ("", String::new()),
        Runner::Stranger(settings) => (settings, format!("setpriv --reuid {USER} --regid {USER} --clear-groups")),
    };
    let script = format!(
        "set -eu
        mount --bind {world}nix /nix
        chmod a+rx {world}; chmod a+r {world}media/usb/* {world}root.json {world}web-1.toml
        [ -z '{user}' ] || chown -R {USER} {world}web-1 {world}home
        NIX_CONFIG=\"$NIX_CONFIG
{settings}\" nix-daemon 2> {world}nix-daemon.log &
        daemon=$!; trap 'kill $daemon' EXIT
        until [ -S /nix/var/nix/daemon-socket/socket ]; do kill -0 $daemon; sleep 0.02; done
        {user} env HOME={world}home XDG_CACHE_HOME={world}home NIX_REMOTE=daemon {agent} once --config {world}web-1.toml",
        world = world.at(""),
        agent = env!("CARGO_BIN_EXE_clavel-agent"),
    );
    world.run("unshare", &["--mount", "bash", "-c", &script])
}

#[test]
fn the_daemon_reads_the_stick_for_a_user_whom_it_trusts() {
    let world = carried();
    assert_eq!(once(&world, Runner::Root).good(), "web-1: switched to revision 1\n");
    let system = world.document("deployments/web-1.json")["specification"]["template"]["narId"].clone();
    assert!(world.path(&system.as_str().unwrap()[1..]).exists(), "it is in the daemon's store");
    assert_eq!(once(&world, Runner::Root).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn a_daemon_that_does_not_trust_the_user_is_told() {
    let world = carried();
    for settings in ["", "trusted-users = root 61005"] {
        let said = once(&world, Runner::Stranger(settings))
            .refused(6, "add its user to `trusted-users` in the daemon's nix.conf");
        assert!(
            said.contains("a cache has it") && said.contains("media/usb/x.bundle") && !said.contains("127.0.0.1"),
            "{said}"
        );
        assert_eq!(world.motd("web-1"), None);
    }
    let trusting = Runner::Stranger("trusted-users = root 61004");
    assert_eq!(once(&world, trusting).good(), "web-1: switched to revision 1\n");
}
