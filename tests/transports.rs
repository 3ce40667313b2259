//! Promise: agents read the branch from files, over HTTP and over SSH, and claveld publishes to a repository elsewhere, all with
//! the same result.

use std::path::Path;

use crate::support::http::HttpServer;
use crate::support::ssh::SshServer;
use crate::support::world::World;

/// Asserts that the agent of `web-1` switches to its first revision, does nothing after that, and switches to the second.
fn follows(world: &World, url: &str, more: &str) {
    world.configure_agent("web-1", url, more);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    world.change_from_memory("Welcome", "Hello");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn over_a_file() {
    let world = World::published();
    follows(&world, &world.at("fleet.git"), "");
}

#[test]
fn over_http() {
    let world = World::published();
    let server = HttpServer::serve_git(&world.path(""));
    follows(&world, &format!("{}/fleet.git", server.url()), "");
    let asked = server.requests();
    assert!(asked.contains(&"POST /fleet.git/git-upload-pack 200".to_owned()), "{asked:?}");
    let fleet = format!("{}/fleet.git", server.url());
    world.clavel(&["verify", "--repository", &fleet, "--root", &world.root()]).good();
    world.configure_agent("web-1", &format!("{}/none.git", server.url()), "");
    world.agent("web-1", &["once"]).refused(4, "cannot fetch branch `deployments` from http://127.0.0.1");
}

#[test]
fn over_https_where_the_certificate_is_trusted() {
    let world = World::published();
    let server = HttpServer::serve_git_over_https(&world.path(""));
    let stranger = HttpServer::serve_git_over_https(&world.path(""));
    let fleet = format!("{}/fleet.git", server.url());
    world.configure_agent("web-1", &fleet, "");
    let trusting = |certificate: &Path, url: &str| {
        world.configure_agent("web-1", url, "");
        let (agent, config) = (env!("CARGO_BIN_EXE_clavel-agent"), world.at("web-1.toml"));
        world.run_with(&[("SSL_CERT_FILE", certificate.to_str().unwrap())], agent, &["once", "--config", &config])
    };
    // Neither this machine's own certificates nor another server's vouch for this one.
    world.agent("web-1", &["once"]).refused(4, "certificate");
    trusting(&stranger.certificate(), &fleet).refused(4, "certificate");
    // The certificate is trusted, but it is for another name than the one that was asked for.
    let renamed = fleet.replace("127.0.0.1", "localhost");
    trusting(&server.certificate(), &renamed).refused(4, "certificate");
    assert_eq!(world.motd("web-1"), None);
    assert_eq!(trusting(&server.certificate(), &fleet).good(), "web-1: switched to revision 1\n");
}

#[test]
fn over_ssh() {
    let world = World::published();
    let server = SshServer::start();
    follows(&world, &server.url(&world.path("fleet.git")), &format!("ssh-command = \"{}\"", server.command()));
}

#[test]
fn to_a_repository_elsewhere() {
    let world = World::new();
    let server = SshServer::start();
    world.git(&["init", "-q", "--bare", &world.at("elsewhere.git")]);
    let config = world.read_file("claveld.toml");
    let to = format!(
        "repository = \"{}\"\nssh-command = \"{}\"",
        server.url(&world.path("elsewhere.git")),
        server.command()
    );
    world.write_file("claveld.toml", &config.replace(&format!("repository = \"{}\"", world.at("fleet.git")), &to));
    assert!(world.publish().good().contains("published as index version 1"));
    assert_eq!(world.publish().good(), "nothing changed (index version 1)\n");
    // Somebody else published meanwhile, from a working copy of their own.
    world.write_file(
        "other.toml",
        &world.read_file("claveld.toml").replace(&world.at("claveld"), &world.at("claveld-2")),
    );
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    assert!(world.claveld(&["once", "--config", &world.at("other.toml")]).good().contains("index version 2"));
    world.edit("hosts/web-1.nix", "Hello", "Good day");
    world.push("Good day");
    assert!(world.publish().good().contains("deployments/web-1.json  revision 2 → 3"));
    world.clavel(&["verify", "--repository", &world.at("elsewhere.git"), "--root", &world.root()]).good();
    drop(server);
    world.publish().refused(4, "elsewhere.git");
}

#[test]
fn a_cache_is_read_over_http() {
    let world = World::new();
    let server = HttpServer::serve_files(&world.path("cache"));
    world.use_cache(&server.url());
    world.push("Over HTTP");
    world.publish().good();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    assert!(world.agent("web-1", &["once"]).good().contains("not in any of its caches yet"));
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(server.requests().iter().any(|request| request.starts_with("GET /nar/")));
}
