//! Promise: two claveld at two sites keep one branch, and a link that is cut and healed loses no change and publishes none twice.
//!
//! Each site is a network namespace of its own, which reaches nothing but the server of the repository.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::program;
use crate::support::server::Server;
use crate::support::world::{Ran, World};

/// The changes that are published while the links fail again and again.
const CHANGES_ON_BAD_LINKS: u32 = 4;
/// How long a link that fails again and again is down, and then up.
const DOWN: Duration = Duration::from_millis(150);
const UP: Duration = Duration::from_millis(400);

/// A network of its own, which lasts as long as this value.
struct Network(Server);

impl Network {
    fn new(world: &World, name: &str) -> Self {
        let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let id = std::cell::Cell::new(None::<u32>);
        let mut command = program("unshare");
        // The shell says its number when it is in its network.
        let said = world.path(&format!("{name}.pid"));
        let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep infinity", said.display());
        command.args(["--net", "sh", "-c", &script]);
        let server = Server::start(&mut command, &world.path(&format!("{name}.log")), || {
            let found = std::fs::read_to_string(&said).ok().and_then(|text| text.trim().parse().ok());
            id.set(found);
            found.is_some()
        })
        .unwrap();
        let inside = id.get().unwrap();
        assert_eq!(inside, server.id());
        assert_ne!(of(&inside.to_string()), of("self"));
        Self(server)
    }

    /// A command that runs `program` in this network.
    fn command(&self, world: &World, program: &str, arguments: &[&str]) -> Command {
        let network = format!("--net=/proc/{}/ns/net", self.0.id());
        world.command("nsenter", &[&[network.as_str(), program], arguments].concat())
    }

    fn run(&self, world: &World, program: &str, arguments: &[&str]) -> Ran {
        let network = format!("--net=/proc/{}/ns/net", self.0.id());
        world.run("nsenter", &[&[network.as_str(), program], arguments].concat())
    }

    fn ip(&self, world: &World, arguments: &str) {
        let _ = self.run(world, "ip", &arguments.split(' ').collect::<Vec<_>>()).good();
    }
}

/// The repository's site, and two sites with a claveld each, with the same configuration but for their state.
struct Sites {
    world: World,
    middle: Network,
    ends: [Network; 2],
    _daemon: Server,
}

impl Sites {
    fn new() -> Self {
        let world = World::new();
        let middle = Network::new(&world, "middle");
        let ends = [0, 1].map(|end| Network::new(&world, &format!("end-{end}")));
        for (end, network) in ends.iter().enumerate() {
            middle.ip(&world, &format!("link add to-{end} type veth peer name uplink netns {}", network.0.id()));
            middle.ip(&world, &format!("address add 10.77.{end}.1/24 dev to-{end}"));
            middle.ip(&world, &format!("link set to-{end} up"));
            network.ip(&world, &format!("address add 10.77.{end}.2/24 dev uplink"));
            network.ip(&world, "link set uplink up");
            let text = world.read_file("claveld.toml");
            let (state, repository) = (world.at("claveld"), world.at("fleet.git"));
            let text = text.replace(&format!("\"{state}\""), &format!("\"{state}-{end}\""));
            let elsewhere = format!("repository = \"git://10.77.{end}.1/fleet.git\"");
            world.write_file(
                &format!("claveld-{end}.toml"),
                &text.replace(&format!("repository = \"{repository}\""), &elsewhere),
            );
        }
        let base = format!("--base-path={}", world.path("fleet.git").parent().unwrap().display());
        let serve = ["daemon", "--reuseaddr", "--export-all", "--enable=receive-pack", &base];
        let is_up = || ends[0].run(&world, "git", &["ls-remote", "git://10.77.0.1/fleet.git"]).code == Some(0);
        let mut daemon = middle.command(&world, "git", &serve);
        let daemon = Server::start(&mut daemon, &world.path("daemon.log"), is_up).unwrap();
        Self { world, middle, ends, _daemon: daemon }
    }

    /// Runs the claveld of a site once.
    fn once(&self, end: usize) -> Ran {
        let config = self.world.at(&format!("claveld-{end}.toml"));
        self.ends[end].run(&self.world, env!("CARGO_BIN_EXE_claveld"), &["once", "--config", &config])
    }

    /// Cuts or heals the link of a site.
    fn set_link(&self, end: usize, state: &str) {
        self.middle.ip(&self.world, &format!("link set to-{end} {state}"));
    }

    /// Changes a host of the fleet, whose version was `from`.
    fn change(&self, from: u32) {
        let version = |number: u32| format!("version = \"{number}\"");
        self.world.edit("hosts/web-2.nix", &version(from), &version(from + 1));
        self.world.push("Another version");
    }
}

#[test]
fn each_change_is_published_once_whatever_becomes_of_the_links() {
    let sites = Sites::new();
    assert!(sites.once(0).good().contains("published as index version 1"));
    assert!(sites.once(1).good().contains("nothing changed (index version 1)"));
    // The other one publishes what the one behind the cut cannot, and each of them is cut off once.
    for (cut, version) in [(1, 1), (0, 2)] {
        sites.change(version);
        sites.set_link(cut, "down");
        sites.once(cut).refused(4, &format!("git://10.77.{cut}.1/fleet.git"));
        let next = version + 1;
        assert!(sites.once(1 - cut).good().contains(&format!("published as index version {next}")));
        sites.set_link(cut, "up");
        assert!(sites.once(cut).good().contains(&format!("nothing changed (index version {next})")));
    }
    let (last, is_over) = (3 + CHANGES_ON_BAD_LINKS, AtomicBool::new(false));
    std::thread::scope(|all| {
        for end in [0, 1] {
            let (sites, is_over) = (&sites, &is_over);
            all.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    sites.set_link(end, "down");
                    std::thread::sleep(DOWN);
                    sites.set_link(end, "up");
                    std::thread::sleep(UP);
                }
            });
        }
        for version in 3..last {
            sites.change(version);
            std::thread::scope(|both| {
                for end in [0, 1] {
                    let sites = &sites;
                    both.spawn(move || while sites.once(end).code != Some(0) {});
                }
            });
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let world = &sites.world;
    world.verify().good();
    assert_eq!(world.index()["version"], last);
    let commits = world.git(&["-C", &world.at("fleet.git"), "rev-list", "--count", "deployments"]);
    assert_eq!(commits.trim(), last.to_string());
    let history =
        world.clavel(&["history", "web-2", "--repository", &world.at("fleet.git"), "--root", &world.root(), "--json"]);
    let history = history.json();
    let revisions: Vec<u64> =
        history.as_array().unwrap().iter().map(|entry| entry["revision"].as_u64().unwrap()).collect();
    let mut expected: Vec<u64> = (1..=u64::from(last)).collect();
    expected.reverse();
    assert_eq!(revisions, expected);
}
