//! Promise: a host that asks who Clavel is gets an answer in each form that hosts document, and what it refuses is told without a secret.

use crate::support::http::HttpServer;
use crate::support::private_host::{credentials_table, publish_from, publish_to};
use crate::support::world::{Ran, World};

const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");
const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const CLAVEL: &str = env!("CARGO_BIN_EXE_clavel");
const TOKEN: &str = "Z2hwX3RoZSB0b2tlbiBpbiB0aGUgcGxhY2Ugb2YgYSB1c2Vy";

fn claveld(world: &World) -> Ran {
    world.run_bare(&[], CLAVELD, &["once", "--config", &world.at("claveld.toml")])
}

fn agent(world: &World, repository: &str, table: &str) -> Ran {
    world.configure_agent("web-1", repository, table);
    world.run_bare(&[], AGENT, &["once", "--config", &world.at("web-1.toml")])
}

fn verify(world: &World, repository: &str, table: &str) -> Ran {
    world.write_file("credentials.toml", table);
    let (root, file) = (world.root(), world.at("credentials.toml"));
    world.run_bare(&[], CLAVEL, &["verify", "--repository", repository, "--root", &root, "--credentials", &file])
}

/// Asserts that the program printed `secret` nowhere.
#[track_caller]
fn without(ran: Ran, secret: &str) -> Ran {
    assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "a secret was shown:\n{}", ran.stderr);
    ran
}

#[test]
fn a_token_may_stand_in_the_place_of_the_user() {
    let world = World::new();
    world.write_file("token-helper", &format!("username={TOKEN}\n"));
    world.write_file("x-oauth-basic", "x-oauth-basic\n");
    world.write_file("nothing", "\n");
    let mut version = 0;
    for password in ["x-oauth-basic", ""] {
        let server = HttpServer::serve_private_git(&world.path(""), TOKEN, password);
        let fleet = format!("{}/fleet.git", server.url());
        world.write_file("netrc", &format!("machine 127.0.0.1 login {TOKEN} password \"{password}\"\n"));
        let file = if password.is_empty() { "nothing" } else { password };
        let helper = world.at("token-helper");
        for how in [
            format!("user = \"{TOKEN}\"\npassword-file = \"{file}\""),
            "netrc-file = \"netrc\"".to_owned(),
            format!("helper = \"!f() {{ cat {helper}; echo password={password}; }}; f\""),
        ] {
            let table = credentials_table(&server, &how);
            version += 1;
            publish_to(&world, &fleet, &table);
            world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
            world.push(&how);
            let published = without(claveld(&world), TOKEN).good();
            assert!(published.contains(&format!("published as index version {version}")), "{how}: {published}");
            if version == 1 {
                world.build(&["web-1"]);
                without(agent(&world, &fleet, &table), TOKEN).good();
            }
            without(verify(&world, &fleet, &table), TOKEN).good();
            let said = without(agent(&world, &fleet, &table), TOKEN);
            assert!(!said.stderr.contains("cannot fetch branch"), "{how}: {}", said.stderr);
        }
    }
    // What the programs keep does not have it either.
    for folder in ["web-1/state", "claveld", "fleet.git"] {
        let found = world.run("grep", &["-rl", TOKEN, &world.at(folder)]);
        assert_eq!((found.code, found.stdout.as_str()), (Some(1), ""));
    }
}

#[test]
fn a_token_in_a_url_is_refused_with_the_place_for_it() {
    let world = World::new();
    let server = HttpServer::serve_private_git(&world.path(""), TOKEN, "x-oauth-basic");
    let host = server.url().replace("https://", "");
    for user in [TOKEN.to_owned(), format!("{TOKEN}:"), format!("{TOKEN}:x-oauth-basic")] {
        let fleet = format!("https://{user}@{host}/fleet.git");
        let table = credentials_table(&server, "");
        let good = format!("{}/fleet.git", server.url());
        publish_to(&world, &good, &table);
        let refused = |ran: Ran| without(ran, TOKEN).refused(3, "[[credentials]]");
        // An argument is a mistake in the command.
        without(verify(&world, &fleet, &table), TOKEN).refused(2, "[[credentials]]");
        refused(agent(&world, &fleet, &table));
        refused(agent(&world, &good, &format!("mirrors = [\"{fleet}\"]\n{table}")));
        publish_from(&world, &good, &fleet, &table);
        refused(claveld(&world));
        publish_from(&world, &fleet, &good, &table);
        refused(claveld(&world));
        refused(verify(&world, &good, &table.replace("https://", &format!("https://{user}@"))));
    }
    assert_eq!(server.asked(), 0);
}

#[test]
fn everything_answers_a_server_that_asks_and_tells_what_it_refuses() {
    const SECRET: &str = "dGhlIHNlY3JldCB0b2tlbg";
    const WRONG: &str = "d3Jvbmcgc2VjcmV0";
    let world = World::new();
    let server = HttpServer::serve_private_git(&world.path(""), "git", SECRET);
    let fleet = format!("{}/fleet.git", server.url());
    world.write_file("token", SECRET);
    let good = credentials_table(&server, "token-file = \"token\"");
    // Every program asks without a login first, since the server has to ask for one, and then with it.
    let asks = |from: usize, what: &str| {
        let asked: Vec<_> = server.requests().split_off(from);
        let asked: Vec<_> = asked.iter().filter(|request| request.contains(what)).map(String::as_str).collect();
        assert!(asked.len() >= 2 && asked[0].ends_with(" 401") && asked[1].ends_with(" 200"), "{asked:?}");
    };
    let upload = "/fleet.git/info/refs?service=git-upload-pack";
    let receive = "/fleet.git/info/refs?service=git-receive-pack";
    let count = || server.requests().len();
    // The source alone is there: what fetches first is Nix, and then claveld and git.
    publish_from(&world, &fleet, &world.at("fleet.git"), &good);
    let before = count();
    assert!(without(claveld(&world), SECRET).good().contains("published as index version 1"));
    asks(before, upload);
    world.build(&["web-1"]);
    world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
    world.push("Welcome!");
    publish_from(&world, &format!("file://{}", world.at("fleet.git")), &fleet, &good);
    let before = count();
    assert!(without(claveld(&world), SECRET).good().contains("published as index version 2"));
    asks(before, upload);
    asks(before, receive);
    for run in [agent, verify] {
        let before = count();
        let ran = without(run(&world, &fleet, &good), SECRET);
        assert!(!ran.stderr.contains("cannot fetch branch"), "{}", ran.stderr);
        asks(before, upload);
    }
    // Wrong ones: another password, another user, and the password of nobody.
    world.write_file("wrong", WRONG);
    world.write_file("netrc", &format!("machine 127.0.0.1 login git password {WRONG}\n"));
    world.write_file("helper", &format!("username=git\npassword={WRONG}\n"));
    for how in [
        "token-file = \"wrong\"".to_owned(),
        format!("user = \"{WRONG}\"\ntoken-file = \"token\""),
        "netrc-file = \"netrc\"".to_owned(),
        format!("helper = \"!f() {{ cat {}; }}; f\"", world.at("helper")),
    ] {
        let table = credentials_table(&server, &how);
        let told = |ran: Ran| {
            let said = without(without(ran, WRONG), SECRET);
            assert!(said.code != Some(0), "{how}: {}", said.stdout);
            assert!(said.stderr.contains("name a token that is still good"), "{how}: {}", said.stderr);
        };
        told(agent(&world, &fleet, &table));
        told(verify(&world, &fleet, &table));
        publish_from(&world, &format!("file://{}", world.at("fleet.git")), &fleet, &table);
        told(claveld(&world));
        publish_from(&world, &fleet, &world.at("fleet.git"), &table);
        world.edit("hosts/web-1.nix", "Welcome", "Welcome!");
        world.push(&how);
        told(claveld(&world));
    }
}
