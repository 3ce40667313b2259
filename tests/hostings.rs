//! Promise: the branch is read from what hosts are in the world: with the old protocol, with thousands of other refs, with redirects, and by
//! `git daemon`.

use std::path::Path;

use crate::support::http::HttpServer;
use crate::support::program;
use crate::support::server::Server;
use crate::support::world::World;

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");

/// Makes nginx keep from git which protocol the client would like, as an old server does.
const OLD_PROTOCOL: &str = "set $asked_protocol \"\";";

/// A pass of an agent that has nothing yet. Returns the bytes that the server sent and got.
fn first_fetch(world: &World, server: &HttpServer, unit: &str) -> u64 {
    let table =
        format!("[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\n", server.url(), server.certificate().display());
    let _ = std::fs::remove_dir_all(world.path(&format!("{unit}/state/mirrors")));
    world.configure_agent(unit, &format!("{}/fleet.git", server.url()), &table);
    let before = server.transfers().len();
    let config = world.at(&format!("{unit}.toml"));
    world.run_bare(&[], AGENT, &["once", "--config", &config]).good();
    server.transfers()[before..].iter().filter(|transfer| transfer.status == "200").map(|transfer| transfer.bytes).sum()
}

/// Adds thousands of refs to the repository, like a host does for each change that somebody proposed.
fn add_refs(world: &World) {
    let tip = world.tip();
    let lines = (0..3000).map(|number| format!("{tip} refs/pull/{number}/head\n")).collect::<Vec<_>>().concat();
    let packed = world.path("fleet.git/packed-refs");
    let known = std::fs::read_to_string(&packed).unwrap_or_default();
    let known = known
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| format!("{line}\n"))
        .collect::<Vec<_>>()
        .concat();
    std::fs::write(packed, format!("# pack-refs with: peeled fully-peeled\n{known}{lines}")).unwrap();
}

#[test]
fn thousands_of_other_refs_cost_nothing_and_the_old_protocol_works() {
    let world = World::published();
    let new = HttpServer::serve_git_with(&world.path(""), "");
    let old = HttpServer::serve_git_with(&world.path(""), OLD_PROTOCOL);
    let few = [&new, &old].map(|server| first_fetch(&world, server, "web-1"));
    add_refs(&world);
    let many = [&new, &old].map(|server| first_fetch(&world, server, "web-1"));
    // An address of 3,000 refs is some 200 KB.
    assert!(many[0] < few[0] + 4096, "{few:?} {many:?}");
    assert!(many[1] > few[1] + 100_000, "the old protocol lists every ref: {few:?} {many:?}");
    world.git(&["-C", &world.at("fleet.git"), "config", "transfer.hideRefs", "refs/pull"]);
    let hidden = [&new, &old].map(|server| first_fetch(&world, server, "web-1"));
    assert!(hidden[0] < few[0] + 4096 && hidden[1] < few[1] + 4096, "{few:?} {hidden:?}");
}

#[test]
fn a_redirect_stays_within_tls_and_leads_to_a_repository() {
    let world = World::published();
    let server = HttpServer::serve_git_with(
        &world.path(""),
        "rewrite ^/moved\\.git/(.*) /fleet.git/$1 redirect; rewrite ^/plain\\.git/(.*) http://127.0.0.1:1/fleet.git/$1 redirect;
         rewrite ^/login\\.git/(.*) /sign_in redirect; rewrite ^/round\\.git/(.*) /round.git/$1 redirect;",
    );
    let table =
        format!("[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\n", server.url(), server.certificate().display());
    let pass = |name: &str| {
        world.configure_agent("web-1", &format!("{}/{name}", server.url()), &table);
        world.run_bare(&[], AGENT, &["once", "--config", &world.at("web-1.toml")])
    };
    pass("plain.git").refused(4, "not encrypted");
    pass("login.git").refused(4, "not a git repository");
    pass("round.git").refused(4, "more than 5 times");
    pass("none.git").refused(4, "token is missing");
    assert_eq!(pass("moved.git").good(), "web-1: switched to revision 1\n");
}

#[test]
fn git_daemon_is_read() {
    let world = World::published();
    let start = |port: u16| {
        let mut daemon = program("git");
        daemon.args(["daemon", "--export-all", "--listen=127.0.0.1", "--reuseaddr"]);
        daemon.arg(format!("--port={port}")).arg(format!("--base-path={}", world.at("")));
        // The repository belongs to the user who runs the test.
        daemon.env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", world.path(""));
        daemon
    };
    let (_daemon, port) = Server::on_free_port(start, Path::new(&world.at("daemon.log")));
    world.configure_agent("web-1", &format!("git://127.0.0.1:{port}/fleet.git"), "");
    let once = ["once", "--config", &world.at("web-1.toml")];
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.run_bare(&[], AGENT, &once).good(), "web-1: up to date at revision 1\n");
}
