//! Promise: the keys of a host in the configuration are the only ones that ssh believes it by.

use crate::support::openssh::new_key;
use crate::support::ssh::SshServer;
use crate::support::world::World;

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const CLAVEL: &str = env!("CARGO_BIN_EXE_clavel");

/// The public half of a new key, of that type.
fn public_key(world: &World, kind: &str, name: &str) -> String {
    let file = new_key(world, kind, name);
    std::fs::read_to_string(format!("{file}.pub")).unwrap().trim().to_owned()
}

#[test]
fn a_host_is_believed_by_the_keys_of_its_table_alone() {
    let world = World::new();
    let server = SshServer::start();
    let [fleet, mirror] = ["fleet.git", "mirror.git"].map(|name| server.url(&world.path(name)));
    world.git(&["init", "-q", "--bare", &world.at("mirror.git")]);
    let host = fleet.strip_suffix(&world.at("fleet.git")).unwrap().to_owned();
    let table = |keys: &[String]| {
        let identity = server.client_key();
        format!("[[credentials]]\nurl = \"{host}\"\nssh-identity = \"{}\"\nhost-keys = {keys:?}\n", identity.display())
    };
    let stranger = public_key(&world, "ed25519", "stranger");
    let other_kind = public_key(&world, "ecdsa", "other-kind");
    // The user's own file knows another key: nobody asks it.
    world.write_file("home/.ssh/known_hosts", &format!("{} {stranger}\n", host.rsplit('@').next().unwrap()));
    let good = table(&[other_kind.clone(), server.host_key()]);
    world.configure_claveld("");
    let (local, text) = (world.at("fleet.git"), world.read_file("claveld.toml"));
    let text = text
        .replace(&format!("repository = \"{local}\""), &format!("repository = \"{fleet}\"\nmirrors = [\"{mirror}\"]"))
        .replace(&format!("git+file://{local}"), &format!("git+{fleet}"));
    let publish = |tables: &str| {
        world.write_file("claveld.toml", &format!("{text}\n[evaluate]\nisolation = \"none\"\n{tables}\n"));
        let temporary = world.at("temporary");
        std::fs::create_dir_all(&temporary).unwrap();
        world.run_bare(&[("TMPDIR", &temporary)], CLAVELD, &["once", "--config", &world.at("claveld.toml")])
    };
    assert!(publish(&good).good().contains("published as index version 1"));
    let mirrored = world.git(&["-C", &world.at("mirror.git"), "rev-parse", "deployments"]);
    assert_eq!(mirrored.trim(), world.tip());
    world.build(&["web-1"]);
    world.configure_agent("web-1", &fleet, &good);
    let once = ["once", "--config", &world.at("web-1.toml")];
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: switched to revision 1\n");
    let (root, file) = (world.root(), world.at("credentials.toml"));
    let verify = ["verify", "--repository", &fleet, "--root", &root, "--credentials", &file];
    world.write_file("credentials.toml", &good);
    world.run_bare(&[], CLAVEL, &verify).good();
    // The user's file is right now, and the table is wrong.
    world.write_file("home/.ssh/known_hosts", &std::fs::read_to_string(server.known_hosts()).unwrap());
    for keys in [vec![stranger.clone()], vec![other_kind]] {
        let wrong = table(&keys);
        world.write_file("credentials.toml", &wrong);
        let said = world.run_bare(&[], CLAVEL, &verify).refused(4, "Host key verification failed.");
        assert!(said.contains("into host-keys, or into the file of known-hosts"), "{said}");
        world.configure_agent("web-1", &fleet, &wrong);
        world.run_bare(&[], AGENT, &once).refused(4, "Host key verification failed.");
        let said = publish(&wrong);
        assert!(said.code != Some(0) && said.stderr.contains("Host key verification failed."), "{}", said.stderr);
    }
    // Nothing is left of the files that ssh read.
    let left = std::fs::read_dir(world.path("temporary")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("clavel-known-hosts")).collect();
    assert!(left.is_empty(), "{left:?}");
    // Both is an error, and so is a line with the host in it.
    for (more, why) in [
        ("known-hosts = \"known_hosts\"\n".to_owned(), "names both known-hosts and host-keys"),
        (String::new(), "leave out the host"),
    ] {
        let keys = if more.is_empty() { format!("127.0.0.1 {stranger}") } else { stranger.clone() };
        world.write_file("credentials.toml", &format!("{}{more}", table(&[keys])));
        world.run_bare(&[], CLAVEL, &verify).refused(3, why);
    }
}
