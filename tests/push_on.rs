//! Promise: claveld pushes its branch on to every mirror, waits for none of them, and forces nothing.

use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::HttpServer;
use crate::support::ssh::SshServer;
use crate::support::world::{Ran, World, until};

const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");

/// Makes claveld push on to these mirrors, with `more` at the end of its configuration.
fn with_mirrors(world: &World, mirrors: &[&str], more: &str) {
    world.configure_claveld(more);
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &text.replace("[publish]\n", &format!("[publish]\nmirrors = {mirrors:?}\n")));
}

/// An empty bare repository that notes each push.
fn bare(world: &World, name: &str) -> String {
    let path = world.at(name);
    world.git(&["init", "-q", "--bare", &path]);
    world.git(&["-C", &path, "config", "core.logAllRefUpdates", "always"]);
    path
}

/// The tip of the branch in a repository; empty where it has none.
fn tip(world: &World, repository: &str) -> String {
    let ran = world.run("git", &["-C", repository, "rev-parse", "-q", "--verify", "refs/heads/deployments"]);
    ran.stdout.trim().to_owned()
}

/// How many pushes moved the branch of a repository.
fn pushes(repository: &str) -> usize {
    std::fs::read_to_string(Path::new(repository).join("logs/refs/heads/deployments")).unwrap().lines().count()
}

fn status(world: &World) -> Ran {
    world.claveld(&["status", "--json", "--check", "--config", &world.at("claveld.toml")])
}

/// The status of each mirror.
fn statuses(world: &World) -> Vec<String> {
    let mirrors = status(world).json()["mirrors"].clone();
    let of = |mirror: &Value| mirror["status"].as_str().unwrap().to_owned();
    mirrors.as_array().unwrap().iter().map(of).collect()
}

/// Changes the fleet and pushes that.
fn change(world: &World, from: &str, to: &str) -> String {
    world.edit("hosts/web-1.nix", from, to);
    world.push(to)
}

#[test]
fn mirrors_of_every_kind_are_level_after_each_publication_and_nothing_else_there_is_touched() {
    const SECRET: &str = "dGhlIG1pcnJvciB0b2tlbg";
    let world = World::new();
    let names = ["path.git", "ssh.git", "https.git"];
    let repositories = names.map(|name| bare(&world, name));
    for repository in &repositories {
        world.git(&["-C", &world.at("work"), "push", "-q", repository, "main:refs/heads/theirs", "main:refs/tags/v1"]);
    }
    let (ssh, https) = (SshServer::start(), HttpServer::serve_private_git(&world.path(""), "git", SECRET));
    world.write_file("token", &format!("{SECRET}\n"));
    let (ssh_url, https_url) = (ssh.url(&world.path("ssh.git")), format!("{}/https.git", https.url()));
    let mirrors = [repositories[0].as_str(), &ssh_url, &https_url];
    let tables = format!(
        "[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\ntoken-file = \"token\"\n[[credentials]]\nurl = \"{}\"\n\
         ssh-identity = \"{}\"\nknown-hosts = \"{}\"\n",
        https.url(),
        https.certificate().display(),
        ssh_url.strip_suffix(&world.at("ssh.git")).unwrap(),
        ssh.client_key().display(),
        ssh.known_hosts().display()
    );
    with_mirrors(&world, &mirrors, &tables);
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &format!("metrics-file = \"claveld.prom\"\n{text}"));
    let config = world.at("claveld.toml");
    // Before the first publication there is nothing to push, and `check` finds that everything could be.
    let check = world.claveld(&["check", "--json", "--config", &config]).json();
    let found = |mirror: &str| {
        let findings = check["findings"].as_array().unwrap();
        let subject = format!("mirror {mirror}");
        findings.iter().find(|finding| finding["subject"] == *subject).unwrap()["outcome"].clone()
    };
    assert_eq!(mirrors.map(found), ["ok", "ok", "ok"]);
    for greeting in ["Welcome", "Hello"] {
        if greeting == "Hello" {
            change(&world, "Welcome", "Hello");
        }
        let ran = world.claveld(&["once", "--json", "--config", &config]).also_good();
        assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
        let reported = ran.json()["mirrors"].clone();
        for (mirror, repository) in mirrors.iter().zip(&repositories) {
            assert_eq!(tip(&world, repository), world.tip(), "{mirror}");
            let refs = world.git(&["-C", repository, "for-each-ref", "--format=%(refname)"]);
            assert_eq!(refs, "refs/heads/deployments\nrefs/heads/theirs\nrefs/tags/v1\n");
            let is_it = |report: &&Value| report["mirror"] == **mirror && report["pushed"] == world.tip();
            assert!(reported.as_array().unwrap().iter().any(|report| is_it(&report)), "{reported}");
        }
        assert_eq!((status(&world).code, statuses(&world)), (Some(0), vec!["level".to_owned(); 3]));
    }
    let metrics = world.read_file("claveld.prom");
    for mirror in mirrors {
        assert!(metrics.contains(&format!("claveld_mirror_level{{mirror=\"{mirror}\"}} 1")), "{metrics}");
    }
    // An operator's request reaches the mirrors as well.
    world.clavel(&["hold", "web-1", "--config", &config]).good();
    assert!(repositories.iter().all(|repository| tip(&world, repository) == world.tip()));
    // A round without changes pushes nothing.
    let before = repositories.clone().map(|repository| pushes(&repository));
    assert!(world.publish().good().contains(&format!("mirror {ssh_url} is level, at {}", &world.tip()[..10])));
    assert_eq!(repositories.map(|repository| pushes(&repository)), before);
}

#[test]
fn a_mirror_that_was_down_catches_up_by_one_push_with_the_newest_at_its_own_time() {
    let world = World::new();
    let (up, down) = (bare(&world, "up.git"), bare(&world, "down.git"));
    with_mirrors(&world, &[&up, &down], "");
    world.publish().good();
    assert_eq!(tip(&world, &down), world.tip());
    std::fs::rename(&down, world.path("away.git")).unwrap();
    for (from, to) in [("Welcome", "Hello"), ("Hello", "Good day")] {
        change(&world, from, to);
        let ran = world.publish().also_good();
        assert!(ran.stderr.contains(&format!("mirror {down} is behind since ")), "{}", ran.stderr);
        assert_eq!(tip(&world, &up), world.tip());
        assert_eq!((status(&world).code, statuses(&world)), (Some(9), vec!["level".to_owned(), "behind".to_owned()]));
    }
    let shown = status(&world).json()["mirrors"][1].clone();
    assert_eq!((shown["failed"]["attempts"].as_u64(), &shown["failed"]["commit"]), (Some(2), &world.tip().into()));
    assert!(shown["failed"]["error"].as_str().unwrap().contains("does not appear to be a git repository"), "{shown}");
    let mut claveld = world.start(CLAVELD, &["run", "--config", &world.at("claveld.toml")]);
    until("it was tried again", || {
        status(&world).json()["mirrors"][1]["failed"]["attempts"].as_u64().is_some_and(|attempts| attempts > 2)
    });
    std::fs::rename(world.path("away.git"), &down).unwrap();
    until("it is level", || statuses(&world) == ["level", "level"]);
    assert_eq!((tip(&world, &down), pushes(&down)), (world.tip(), 2));
    until("the log says so", || claveld.said().contains(&format!("mirror {down} is level again")));
    assert_eq!(claveld.said().matches("is behind since").count(), 1, "{}", claveld.said());
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}

#[test]
fn a_mirror_with_another_history_is_told_each_time_and_left_alone() {
    let world = World::new();
    let (mirror, good) = (bare(&world, "mirror.git"), bare(&world, "good.git"));
    with_mirrors(&world, &[&mirror, &good], "");
    world.publish().good();
    // Somebody commits there.
    world.git(&["clone", "-q", "-b", "deployments", &mirror, &world.at("theirs")]);
    world.git(&["-C", &world.at("theirs"), "commit", "-q", "--allow-empty", "-m", "Mine"]);
    world.git(&["-C", &world.at("theirs"), "push", "-q", "origin", "deployments"]);
    let theirs = tip(&world, &mirror);
    change(&world, "Welcome", "Hello");
    for _ in 0..2 {
        let ran = world.publish().also_good();
        assert!(ran.stderr.contains(&format!("mirror {mirror} has another history since ")), "{}", ran.stderr);
        assert!(ran.stderr.contains("delete that branch of the mirror"), "{}", ran.stderr);
        assert_eq!((tip(&world, &mirror), tip(&world, &good)), (theirs.clone(), world.tip()));
        assert_eq!(
            (status(&world).code, statuses(&world)),
            (Some(1), vec!["rewritten".to_owned(), "level".to_owned()])
        );
    }
    let check = world.claveld(&["check", "--config", &world.at("claveld.toml")]);
    assert!(
        check.stdout.contains(&format!("problem  mirror {mirror}: its branch `deployments` has commits")),
        "{}",
        check.stdout
    );
    // The branch of another fleet is the same.
    world.git(&["-C", &mirror, "update-ref", "-d", "refs/heads/deployments"]);
    world.git(&["-C", &world.at("work"), "push", "-q", &mirror, "main:deployments"]);
    let theirs = tip(&world, &mirror);
    change(&world, "Hello", "Good day");
    world.publish().good();
    assert_eq!((tip(&world, &mirror), statuses(&world)[0].as_str()), (theirs, "rewritten"));
    // Once an operator deleted it, the next publication brings ours.
    world.git(&["-C", &mirror, "update-ref", "-d", "refs/heads/deployments"]);
    change(&world, "Good day", "Hi");
    world.publish().good();
    assert_eq!((tip(&world, &mirror), statuses(&world)[0].as_str()), (world.tip(), "level"));
}

#[test]
fn what_another_claveld_published_and_pushed_on_is_no_other_history() {
    let world = World::new();
    let (server, mirror) = (SshServer::start(), bare(&world, "mirror.git"));
    let elsewhere = bare(&world, "elsewhere.git");
    with_mirrors(&world, &[&mirror], "");
    let to = format!(
        "repository = \"{}\"\nssh-command = \"{}\"",
        server.url(&world.path("elsewhere.git")),
        server.command()
    );
    let config = world.read_file("claveld.toml");
    let config = config.replace(&format!("repository = \"{}\"", world.at("fleet.git")), &to);
    world.write_file("claveld.toml", &config);
    world.write_file("other.toml", &config.replace(&world.at("claveld"), &world.at("claveld-2")));
    // The first one cannot reach the mirror.
    std::fs::rename(&mirror, world.path("away.git")).unwrap();
    world.publish().good();
    assert_eq!(statuses(&world), ["behind"]);
    // The other one can.
    std::fs::rename(world.path("away.git"), &mirror).unwrap();
    change(&world, "Welcome", "Hello");
    assert!(world.claveld(&["once", "--config", &world.at("other.toml")]).good().contains("index version 2"));
    let newest = tip(&world, &elsewhere);
    assert_eq!(tip(&world, &mirror), newest);
    // The first one is to push an older commit, and finds out.
    until("it tried again", || {
        world.claveld(&["learn", "--config", &world.at("claveld.toml")]).good();
        statuses(&world) == ["level"]
    });
    assert_eq!(
        (tip(&world, &mirror), status(&world).json()["mirrors"][0]["pushed"].as_str()),
        (newest.clone(), Some(newest.as_str()))
    );
}

#[test]
fn wrong_credentials_tell_what_to_do_and_show_no_secret() {
    const WRONG: &str = "d3JvbmcgdG9rZW4";
    let world = World::new();
    bare(&world, "mirror.git");
    let (https, ssh) = (HttpServer::serve_private_git(&world.path(""), "git", "right"), SshServer::start());
    world.write_file("token", &format!("{WRONG}\n"));
    let mirrors = [format!("{}/mirror.git", https.url()), ssh.url(&world.path("mirror.git"))];
    let tables = format!(
        "[[credentials]]\nurl = \"{}\"\nca-file = \"{}\"\ntoken-file = \"token\"\n",
        https.url(),
        https.certificate().display()
    );
    with_mirrors(&world, &[&mirrors[0], &mirrors[1]], &tables);
    let ran = world.publish().also_good();
    let said = ran.stderr;
    assert!(said.contains("name a token that is still good with a [[credentials]] table"), "{said}");
    assert!(said.contains("known-hosts of a [[credentials]] table"), "{said}");
    let check = world.claveld(&["check", "--config", &world.at("claveld.toml")]);
    assert!(check.stdout.contains(&format!("problem  mirror {}", mirrors[0])), "{}", check.stdout);
    let texts = [said, check.stdout, status(&world).stdout, world.read_file("claveld/mirrors.json")];
    assert!(texts.iter().all(|text| !text.contains(WRONG)), "{texts:?}");
    assert_eq!(statuses(&world), ["behind", "behind"]);
}

#[test]
fn a_mirror_that_hangs_delays_neither_the_publication_nor_the_pusher_nor_another_mirror() {
    let world = World::new();
    let good = bare(&world, "good.git");
    // The system takes the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}/fleet.git", silent.local_addr().unwrap());
    with_mirrors(&world, &[&hanging, &good], "");
    let config = world.at("claveld.toml");
    let mut once = world.start(CLAVELD, &["once", "--config", &config]);
    until("the other mirror is level", || !world.tip().is_empty() && tip(&world, &good) == world.tip());
    until("the report", || once.said().contains("published as index version 1"));
    assert!(!once.has_ended());
    drop(once);
    // A daemon publishes the next change, while the push hangs.
    let claveld = world.start(CLAVELD, &["run", "--config", &config]);
    until("the push is under way", || claveld.said().contains("index version 1"));
    change(&world, "Welcome", "Hello");
    until("the second publication", || {
        world.on_branch("deployments/web-1.json").is_some_and(|text| text.contains("\"revision\": 2"))
    });
    until("the other mirror has it", || tip(&world, &good) == world.tip());
    drop(claveld);
    // A hook leaves both behind, and git tells the pusher the result.
    world.install_hook();
    assert!(change(&world, "Hello", "Good day").contains("published as index version 3"));
    until("the other mirror has it from the hook", || tip(&world, &good) == world.tip());
    until("the state has it", || statuses(&world) == ["behind", "level"]);
    drop(silent);
}
