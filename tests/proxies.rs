//! Promise: the proxy of a table is the only way to its host, carries no login to another host, and is named where it is what fails.

use std::path::Path;

use crate::support::authority::Authority;
use crate::support::free_port;
use crate::support::http::HttpServer;
use crate::support::private_host::{credentials_table, publish_from};
use crate::support::proxy::HttpProxy;
use crate::support::world::{Ran, World};

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const SECRET: &str = "dGhlIHNlY3JldCB0b2tlbg";

fn agent(world: &World, environment: &[(&str, &str)], repository: &str, table: &str) -> Ran {
    world.configure_agent("web-1", repository, table);
    world.run_bare(environment, AGENT, &["once", "--config", &world.at("web-1.toml")])
}

fn claveld(world: &World, environment: &[(&str, &str)]) -> Ran {
    world.run_bare(environment, CLAVELD, &["once", "--config", &world.at("claveld.toml")])
}

/// A host whose repository `away.git` is on another host, for those who logged in, and the stranger that it is on. The stranger answers
/// with 451 whoever shows it a login, and with 418 whoever shows it a certificate.
fn host_and_stranger(world: &World, more: &str) -> (HttpServer, HttpServer) {
    let stranger = HttpServer::serve_git_with(
        &world.path(""),
        "ssl_verify_client optional_no_ca; if ($ssl_client_verify != NONE) { return 418; } if ($http_authorization) { return 451; }",
    );
    world.write_file("users", &format!("git:{{PLAIN}}{SECRET}\n"));
    // What is tried comes after the login.
    let away = format!(
        "auth_basic fleet; auth_basic_user_file \"{}\"; {more}
         location /away.git/ {{ try_files /none @away; }}
         location @away {{ rewrite ^/away\\.git/(.*) {}/fleet.git/$1 redirect; }}",
        world.at("users"),
        stranger.url(),
    );
    (HttpServer::serve_git_with(&world.path(""), &away), stranger)
}

/// The file that vouches for both servers.
fn vouch_for(world: &World, servers: [&HttpServer; 2]) -> String {
    let both = servers.map(|server| std::fs::read_to_string(server.certificate()).unwrap()).concat();
    world.write_file("both.pem", &both);
    world.at("both.pem")
}

fn table(server: &HttpServer, ca: &str, more: &str) -> String {
    credentials_table(server, more).replace(server.certificate().to_str().unwrap(), ca)
}

fn host(server: &HttpServer) -> String {
    server.url().replace("https://", "")
}

#[track_caller]
fn assert_shown_nothing(stranger: &HttpServer, before: usize) {
    let asked = stranger.requests().split_off(before);
    assert!(!asked.is_empty(), "it was asked nothing");
    assert!(asked.iter().all(|request| !request.ends_with("418") && !request.ends_with("451")), "{asked:?}");
}

#[test]
fn a_redirect_through_a_proxy_takes_no_login_along() {
    let world = World::published();
    world.git(&["-C", &world.at("fleet.git"), "config", "http.receivepack", "true"]);
    world.write_file("token", SECRET);
    let (server, stranger) = host_and_stranger(&world, "");
    let ca = vouch_for(&world, [&server, &stranger]);
    let proxy = HttpProxy::start();
    let table = table(&server, &ca, &format!("token-file = \"token\"\nproxy = \"{}\"", proxy.url()));
    let away = format!("{}/away.git", server.url());
    // The stranger would say what it is shown, as it does to a client that shows everything.
    let curl = ["-sko", "/dev/null", "-w", "%{http_code}", "--user", "git:x", &stranger.url()];
    assert_eq!(world.run("curl", &curl).stdout, "451");
    let before = stranger.requests().len();
    assert_eq!(agent(&world, &[], &away, &table).good(), "web-1: switched to revision 1\n");
    assert_shown_nothing(&stranger, before);
    let ways = [proxy.connections_to(&host(&server)), proxy.connections_to(&host(&stranger))];
    assert!(ways[0] > 0 && ways[1] > 0, "{ways:?}");
    // The host did get the login: it sends nobody on without one.
    let asked = server.requests();
    assert!(asked.iter().any(|request| request.ends_with(" 401")) && asked.iter().any(|r| r.ends_with(" 302")));
    // What Nix fetches, and what is pushed.
    for (source, repository) in
        [(away.clone(), world.at("fleet.git")), (format!("file://{}", world.at("fleet.git")), away)]
    {
        publish_from(&world, &source, &repository, &table);
        world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
        world.push(&source);
        let before = stranger.requests().len();
        let ran = claveld(&world, &[]);
        assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
        assert_shown_nothing(&stranger, before);
    }
}

#[test]
fn a_redirect_through_a_proxy_takes_no_certificate_along() {
    let world = World::published();
    let authority = Authority::new();
    let (certificate, key) = authority.issue("agent");
    world.write_file("token", SECRET);
    let asks = format!("ssl_client_certificate \"{}\"; ssl_verify_client on;", authority.certificate().display());
    let (server, stranger) = host_and_stranger(&world, &asks);
    let ca = vouch_for(&world, [&server, &stranger]);
    let proxy = HttpProxy::start();
    let with = |path: &Path| path.display().to_string();
    let table = table(
        &server,
        &ca,
        &format!(
            "token-file = \"token\"\nproxy = \"{}\"\nclient-certificate = \"{}\"\nclient-key = \"{}\"",
            proxy.url(),
            with(&certificate),
            with(&key)
        ),
    );
    let before = stranger.requests().len();
    let away = format!("{}/away.git", server.url());
    assert_eq!(agent(&world, &[], &away, &table).good(), "web-1: switched to revision 1\n");
    assert_shown_nothing(&stranger, before);
    assert!(proxy.connections_to(&host(&stranger)) > 0);
}

/// Each way on which a program reaches the host fails, in these words.
fn every_way_fails(world: &World, server: &HttpServer, table: &str, words: &[&str], secret: &str) {
    let fleet = format!("{}/fleet.git", server.url());
    let told = |ran: Ran| {
        assert!(ran.code != Some(0), "{}", ran.stdout);
        assert!(!ran.stderr.contains(secret), "{}", ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "`{word}` is not in: {}", ran.stderr);
        }
    };
    let before = server.asked();
    told(agent(world, &[], &fleet, table));
    told(agent(world, &[], &format!("static+{}/files/static", server.url()), table));
    publish_from(world, &fleet, &world.at("fleet.git"), table);
    told(claveld(world, &[]));
    let local = format!("file://{}", world.at("fleet.git"));
    publish_from(world, &local, &fleet, table);
    told(claveld(world, &[]));
    // The copy of what was published is here, so this is the push alone.
    publish_from(world, &local, &world.at("fleet.git"), table);
    let text = world.read_file("claveld.toml");
    let mirrored = text.replace("[publish]\n", &format!("[publish]\nmirrors = [\"{fleet}\"]\n"));
    world.write_file("claveld.toml", &mirrored);
    claveld(world, &[]);
    let status = world.claveld(&["status", "--json", "--config", &world.at("claveld.toml")]).json();
    let error = status["mirrors"][0]["failed"]["error"].as_str().unwrap_or_else(|| panic!("{status}"));
    assert!(words.iter().all(|word| error.contains(word)) && !error.contains(secret), "{error}");
    assert_eq!(server.asked(), before, "something reached the host");
}

#[test]
fn a_proxy_that_is_down_is_named() {
    let world = World::published();
    world.write_file("token", SECRET);
    let server = HttpServer::serve_git_with(&world.path(""), "");
    let proxy = format!("http://127.0.0.1:{}", free_port());
    let table = credentials_table(&server, &format!("token-file = \"token\"\nproxy = \"{proxy}\""));
    every_way_fails(
        &world,
        &server,
        &table,
        &["the proxy that the [[credentials]] table names does not answer"],
        SECRET,
    );
    let said = agent(&world, &[], &format!("{}/fleet.git", server.url()), &table).refused(4, &proxy);
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn a_proxy_that_wants_a_password_is_told_and_gets_it_from_the_environment_alone() {
    const PASSWORD: &str = "cHJveHk";
    let world = World::published();
    world.write_file("token", SECRET);
    let server = HttpServer::serve_git_with(&world.path(""), "");
    let proxy = HttpProxy::start_for("me", PASSWORD);
    let table = credentials_table(&server, &format!("token-file = \"token\"\nproxy = \"{}\"", proxy.url()));
    every_way_fails(&world, &server, &table, &["the proxy asks for a user and a password"], SECRET);
    // In a table it would be in a file that people show each other.
    let with_password = proxy.url().replace("http://", &format!("http://me:{PASSWORD}@"));
    let in_table = credentials_table(&server, &format!("proxy = \"{with_password}\""));
    let fleet = format!("{}/fleet.git", server.url());
    agent(&world, &[], &fleet, &in_table).refused_without(3, "proxy", PASSWORD);
    world.build(&["web-1"]);
    let environment = [("https_proxy", with_password.as_str())];
    let plain = credentials_table(&server, "");
    let said = agent(&world, &environment, &fleet, &plain);
    assert!(!said.stderr.contains(PASSWORD), "{}", said.stderr);
    assert_eq!(said.good(), "web-1: switched to revision 2\n");
    assert!(proxy.connections_to(&host(&server)) > 0);
    // With a wrong one, its words do not show it.
    let wrong = [("https_proxy", with_password.replace(PASSWORD, "d3Jvbmc"))];
    let wrong: Vec<(&str, &str)> = wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let said = agent(&world, &wrong, &fleet, &plain);
    assert!(!said.stderr.contains("d3Jvbmc"), "{}", said.stderr);
    said.refused(4, "the proxy asks for a user and a password");
}
