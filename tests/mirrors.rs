//! Promise: the agent uses the newest valid index of all mirrors, and a mirror that fails, lags or lies blocks no other one.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::attacker::{ForgedBranch, Onto, StolenKey};
use crate::support::http::HttpServer;
use crate::support::world::World;

/// Configures the agent of `web-1` with these repositories, in this order.
fn with_mirrors(world: &World, mirrors: &[&str]) {
    let others: Vec<String> = mirrors[1..].iter().map(|mirror| format!("{mirror:?}")).collect();
    world.configure_agent("web-1", mirrors[0], &format!("mirrors = [{}]", others.join(", ")));
}

/// A copy of the fleet's repository as it is now.
fn copy(world: &World, name: &str) -> String {
    world.git(&["clone", "-q", "--mirror", &world.at("fleet.git"), &world.at(name)]);
    world.at(name)
}

fn statuses(world: &World) -> serde_json::Value {
    let status = world.agent("web-1", &["status", "--json"]).json();
    status["lastPass"]["mirrors"].as_array().unwrap().iter().map(|mirror| mirror["status"].clone()).collect()
}

#[test]
fn the_newest_mirror_is_used_wherever_it_is_in_the_order() {
    let world = World::new();
    world.publish_with_nix(&["web-1"]);
    let old = copy(&world, "old.git");
    world.change_with_nix("Welcome", "Hello");
    let fleet = world.at("fleet.git");
    with_mirrors(&world, &[&old, &fleet]);
    let ran = world.agent("web-1", &["once"]);
    assert!(ran.stderr.contains(&format!("{old} lags behind: it shows index version 1, and another mirror shows 2")));
    assert_eq!(ran.good(), "web-1: switched to revision 2\n");
    assert_eq!(statuses(&world), json!(["behind", "taken"]));
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains(&format!("repository  {old} (deployments)\nmirror      {fleet}\n")), "{status}");
    assert!(status.contains(&format!("not used    {old} lags behind")), "{status}");
    // The agent never goes back behind an index that it has accepted, whichever mirror shows an older one.
    let ran = world.agent("web-1", &["once"]);
    assert!(ran.stderr.contains("the index went back from version 2 to 1"), "{}", ran.stderr);
    assert_eq!(ran.good(), "web-1: up to date at revision 2\n");
    assert_eq!(statuses(&world), json!(["behind", "taken"]));
    std::fs::remove_dir_all(&old).unwrap();
    copy(&world, "old.git");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    assert_eq!(statuses(&world), json!(["taken", "level"]));
}

#[test]
fn one_that_is_out_of_reach_or_lies_stands_in_nobodys_way() {
    let world = World::published();
    let server = HttpServer::serve_git(&world.path(""));
    let liar = copy(&world, "liar.git");
    let index = world.on_branch("index.json").unwrap().replace("\"version\": 1", "\"version\": 7");
    let good = world.tip();
    world.tamper(&BTreeMap::from([("index.json", Some(index))]));
    world.git(&["-C", &liar, "fetch", "-q", "origin", "+refs/*:refs/*"]);
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
    let nowhere = format!("{}/none.git", server.url());
    let empty = world.at("empty.git");
    world.git(&["init", "-q", "--bare", &empty]);
    let fleet = format!("{}/fleet.git", server.url());
    with_mirrors(&world, &[&nowhere, &liar, "https://127.0.0.1:9/fleet.git", &empty, &fleet]);
    let ran = world.agent("web-1", &["once"]);
    for why in [
        &format!("from {nowhere}: there is no git repository"),
        &format!("refused what {liar} shows: the index cannot be trusted"),
        "from https://127.0.0.1:9/fleet.git",
        &format!("cannot fetch from {empty}: it has no branch `deployments`"),
    ] {
        assert!(ran.stderr.contains(why), "`{why}` is not in:\n{}", ran.stderr);
    }
    assert_eq!(ran.good(), "web-1: switched to revision 1\n");
    assert_eq!(statuses(&world), json!(["unreachable", "refused", "unreachable", "unreachable", "taken"]));
    assert_eq!(world.copies("web-1").len(), 5);
    // The lying mirror did not harm the state that the others are compared with.
    world.change_from_memory("Welcome", "Hello");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    with_mirrors(&world, &[&fleet]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    assert_eq!(world.copies("web-1").len(), 1, "copies of mirrors that are asked no more are gone");
}

#[test]
fn if_no_mirror_is_accepted_each_is_reported_and_the_running_system_stays() {
    let world = World::published();
    let old = copy(&world, "old.git");
    world.change_from_memory("Welcome", "Hello");
    let fleet = world.at("fleet.git");
    with_mirrors(&world, &[&fleet, &old]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    std::fs::rename(world.path("fleet.git"), world.path("moved.git")).unwrap();
    let said = world.agent("web-1", &["once"]).refused(5, "none of the 2 mirrors shows a branch that can be believed:");
    assert!(said.contains(&format!("from {fleet}: there is no git repository")), "{said}");
    assert!(said.contains(&format!("refused what {old} shows: the index went back from version 2 to 1")), "{said}");
    assert_eq!(statuses(&world), json!(["unreachable", "behind"]));
    std::fs::remove_dir_all(&old).unwrap();
    world.agent("web-1", &["once"]).refused(4, "none of the 2 mirrors shows a branch that can be believed:");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
    std::fs::rename(world.path("moved.git"), world.path("fleet.git")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
}

#[test]
fn a_mirror_that_holds_back_the_newest_root_is_judged_by_it_all_the_same() {
    let world = World::published();
    let old = copy(&world, "old.git");
    world.clavel(&["key", "generate", "claveld-2", "--output", &world.at("claveld-2.secret")]).good();
    let (root, next, key) = (world.root(), world.at("root-2.json"), world.at("root-1.secret"));
    let other = world.public_key("claveld-2");
    world
        .clavel(&[
            "root",
            "next",
            &root,
            "-o",
            &next,
            "--key",
            &key,
            "--remove-key",
            "claveld-1",
            "--publisher-key",
            &other,
        ])
        .good();
    let fleet = world.at("fleet.git");
    world.clavel(&["root", "publish", &next, "--repository", &fleet]).good();
    // The first mirror shows an index by claveld-1, and the root that trusted it; the second shows a root that does not.
    with_mirrors(&world, &[&old, &fleet]);
    let said = world.agent("web-1", &["once"]).refused(5, "none of the 2 mirrors shows a branch that can be believed:");
    assert!(said.contains(&format!("refused what {old} shows: the root went back from version 2 to 1")), "{said}");
    assert!(said.contains(&format!("refused what {fleet} shows: the index cannot be trusted")), "{said}");
    assert_eq!(world.motd("web-1"), None);
    assert_eq!(statuses(&world), json!(["behind", "refused"]));
}

#[test]
fn two_mirrors_that_show_two_indexes_of_one_version_are_both_refused_and_both_are_kept() {
    let world = World::published();
    let (fleet, other) = (world.at("fleet.git"), copy(&world, "other.git"));
    with_mirrors(&world, &[&fleet, &other]);
    world.agent("web-1", &["once"]).good();
    world.change_from_memory("Welcome", "Hello");
    // A thief of claveld's key shows another version 2 at the other mirror.
    let mut branch = ForgedBranch::of(&world);
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    branch.reindex(&[&thief], |index| index["issued"] = json!("2026-01-01T00:00:00Z"));
    branch.try_push(&other, "deployments", Onto::Nothing).good();
    let said = world.agent("web-1", &["once"]).refused(5, "the mirrors do not agree: index version 2 is");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    let places: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("both contents are kept in ")).collect();
    assert_eq!(places.len(), 2, "{said}");
    let index = world.on_branch("index.json").unwrap();
    let of = |place: &str, name: &str| std::fs::read_to_string(std::path::Path::new(place).join(name)).unwrap();
    assert_eq!((of(places[0], "refused.json"), of(places[1], "other.json")), (index.clone(), index));
    assert_eq!(of(places[0], "other.json").as_bytes(), branch.files["index.json"].bytes);
    assert!(of(places[1], "about.json").contains("the mirrors do not agree"));
    // The agent keeps the fork only once, and a newer valid index resolves the conflict.
    let again = world.agent("web-1", &["once"]).refused(5, "the mirrors do not agree");
    assert!(!again.contains("were kept"), "{again}");
    world.change_from_memory("Hello", "Good day");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 3\n");
}

#[test]
fn two_mirrors_that_show_two_contents_of_one_revision_are_both_refused_and_both_are_kept() {
    let world = World::published();
    let (fleet, other) = (world.at("fleet.git"), copy(&world, "other.git"));
    with_mirrors(&world, &[&fleet, &other]);
    world.agent("web-1", &["once"]).good();
    world.change_from_memory("Welcome", "Hello");
    // A thief of claveld's key shows another revision 2 at the other mirror, in an index of its own version.
    let mut branch = ForgedBranch::of(&world);
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    branch.edit("deployments/web-1.json", &[&thief], |signed| signed["metadata"]["thief"] = json!("me"));
    branch.reindex(&[&thief], |index| index["version"] = json!(3));
    branch.try_push(&other, "deployments", Onto::Nothing).good();
    let said = world.agent("web-1", &["once"]).refused(5, "deployments/web-1.json at revision 2 is ");
    assert!(said.contains(&format!(" at {fleet};")) && said.contains(&format!(" at {other};")), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    let places: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("both contents are kept in ")).collect();
    assert_eq!(places.len(), 2, "{said}");
    let of = |place: &str, name: &str| std::fs::read_to_string(std::path::Path::new(place).join(name)).unwrap();
    let good = world.on_branch("deployments/web-1.json").unwrap();
    assert_eq!((of(places[0], "refused.json"), of(places[1], "other.json")), (good.clone(), good));
    assert_eq!(of(places[0], "other.json").as_bytes(), branch.files["deployments/web-1.json"].bytes);
}

#[test]
fn a_mirror_without_a_key_makes_no_fork() {
    let world = World::published();
    let (fleet, other) = (world.at("fleet.git"), copy(&world, "other.git"));
    let mut branch = ForgedBranch::of(&world);
    branch.countersign("index.json", &StolenKey::own("mallory-1", 7));
    branch.try_push(&other, "deployments", Onto::Nothing).good();
    with_mirrors(&world, &[&other, &fleet]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(statuses(&world), json!(["taken", "level"]));
    assert!(!world.path("web-1/state/evidence").exists());
}

#[test]
fn what_was_believed_is_kept_beside_a_fork_though_its_copy_is_gone() {
    let world = World::published();
    with_mirrors(&world, &[&world.at("fleet.git")]);
    world.agent("web-1", &["once"]).good();
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    for path in ["index.json", "deployments/web-1.json"] {
        let mut branch = ForgedBranch::of(&world);
        let believed = branch.files[path].bytes.clone();
        if path == "index.json" {
            branch.reindex(&[&thief], |index| index["issued"] = json!("2026-01-01T00:00:00Z"));
        } else {
            branch.edit(path, &[&thief], |signed| signed["metadata"]["thief"] = json!("me"));
            branch.reindex(&[&thief], |index| index["version"] = json!(2));
        }
        // A mirror without the accepted commit replaces the mirror that had it.
        let other = world.at(&format!("other-{}.git", path.len()));
        world.git(&["init", "-q", "--bare", &other]);
        branch.try_push(&other, "deployments", Onto::Nothing).good();
        with_mirrors(&world, &[&other]);
        let said = world.agent("web-1", &["once"]).refused(5, "was believed before, and now it is");
        let place = said.lines().find_map(|line| line.strip_prefix("both contents are kept in ")).unwrap();
        let of = |name: &str| std::fs::read(std::path::Path::new(place).join(name)).unwrap();
        assert_eq!((of("refused.json"), of("other.json")), (branch.files[path].bytes.clone(), believed));
    }
}

#[test]
fn a_fork_of_what_was_believed_is_kept_beside_it() {
    let world = World::published();
    with_mirrors(&world, &[&world.at("fleet.git")]);
    world.agent("web-1", &["once"]).good();
    let believed = world.on_branch("index.json").unwrap();
    let mut branch = ForgedBranch::of(&world);
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    branch.reindex(&[&thief], |index| index["issued"] = json!("2026-01-01T00:00:00Z"));
    branch.push(Onto::Tip);
    let said = world.agent("web-1", &["once"]).refused(5, "there are two indexes of version 1");
    let place = said.lines().find_map(|line| line.strip_prefix("both contents are kept in ")).unwrap();
    let of = |name: &str| std::fs::read_to_string(std::path::Path::new(place).join(name)).unwrap();
    assert_eq!(of("other.json"), believed);
    assert_eq!(of("refused.json").as_bytes(), branch.files["index.json"].bytes);
}
