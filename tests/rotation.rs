//! Promise: keys are replaced while the machines keep running, and signatures of a stolen key do not count any
//! more once the key is removed.

use serde_json::json;

use crate::support::attacker::{ForgedBranch, MAX_INTEGER, Onto, StolenKey};
use crate::support::world::World;

/// A published fleet whose systems are in the cache, with the agent of `web-1`, which has switched.
fn running() -> World {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    world
}

/// Makes `root-2.json` with these changes, signed by the fleet's root key, and puts it on the branch.
pub(crate) fn next_root(world: &World, changes: &[&str]) {
    let (key, next) = (world.at("root-1.secret"), world.at("root-2.json"));
    world.clavel(&[&["root", "next", &world.root(), "-o", &next, "--key", &key], changes].concat()).good();
    world.clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")]).good();
}

/// Makes claveld's next key, and configures claveld to sign with it. Returns the public half.
fn new_publisher(world: &World) -> String {
    world.clavel(&["key", "generate", "claveld-2", "--output", &world.at("claveld-2.secret")]).good();
    let config = world.read_file("claveld.toml").replace("claveld-1.secret", "claveld-2.secret");
    world.write_file("claveld.toml", &config);
    world.public_key("claveld-2")
}

/// Replaces claveld's first key by its next one.
fn rotate(world: &World) {
    let key = new_publisher(world);
    next_root(world, &["--remove-key", "claveld-1", "--publisher-key", &key]);
}

#[test]
fn a_planned_rotation_goes_on_from_the_old_numbers_and_switches_nothing() {
    let world = running();
    world.clavel(&["hold", "web-2", "--config", &world.at("claveld.toml")]).good();
    rotate(&world);
    // Until claveld signs with its new key, agents refuse the branch and keep what they run.
    world.agent("web-1", &["once"]).refused(5, "no valid signature by a trusted key");
    let said = world.publish().good();
    assert!(said.contains("published as index version 3"), "{said}");
    for path in ["deployments/web-1.json", "units/web-1.json", "agents/web-1.json", "deployments/web-2.json"] {
        let file: serde_json::Value = serde_json::from_str(&world.on_branch(path).unwrap()).unwrap();
        assert_eq!(file["signatures"][0]["keyid"], "claveld-2", "{path}");
        assert_eq!(file["signed"]["revision"], 2, "{path}");
    }
    // A held deployment stays held, at the revision that claveld itself had published.
    assert_eq!(world.index()["held"]["web-2"]["revision"], 2);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: already runs the store path of revision 2\n");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
    world.verify().good();
    assert_eq!(world.publish().good(), "nothing changed (index version 3)\n");
}

#[test]
fn a_claveld_without_its_record_takes_only_the_numbers_from_the_branch() {
    let world = running();
    world.clavel(&["hold", "web-1", "--config", &world.at("claveld.toml")]).good();
    rotate(&world);
    std::fs::remove_file(world.path("claveld/published.json")).unwrap();
    let said = world.publish().good();
    assert!(
        said.contains(
            "deployments/web-1.json     revision 1 → 2 (repaired: the file there was altered or not trusted)"
        ),
        "{said}"
    );
    assert!(said.contains("web-1: is no longer held"), "{said}");
    assert_eq!(world.index()["held"], json!({}));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: already runs the store path of revision 2\n");
}

#[test]
fn what_a_removed_key_signs_later_is_not_signed_anew_by_the_next_one() {
    let world = running();
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    rotate(&world);
    let mut branch = ForgedBranch::of(&world);
    branch.edit("deployments/web-1.json", &[&thief], |signed| {
        signed["revision"] = json!(2);
        signed["specification"]["template"]["narId"] = json!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-evil");
    });
    branch.reindex(&[&thief], |index| {
        index["version"] = json!(2);
        index["held"] = json!({ "web-1": { "revision": 2, "since": "2026-01-01T00:00:00Z", "why": "" } });
    });
    branch.push(Onto::Tip);
    world.publish().good();
    let document = world.document("deployments/web-1.json");
    assert_eq!(document["revision"], 3);
    assert!(!document.to_string().contains("evil"), "{document}");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: already runs the store path of revision 3\n");
}

#[test]
fn what_a_thief_drove_to_its_end_begins_anew_and_nothing_of_it_is_believed_again() {
    let world = running();
    world.clavel(&["hold", "web-2", "--config", &world.at("claveld.toml")]).good();
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    let mut stolen = ForgedBranch::of(&world);
    stolen.edit("deployments/web-1.json", &[&thief], |signed| signed["revision"] = json!(MAX_INTEGER));
    stolen.reindex(&[&thief], |index| index["version"] = json!(MAX_INTEGER));
    stolen.push(Onto::Tip);
    let of_the_thief = world.tip();
    // While the key counts, the agent accepts this, and no larger number is left for claveld.
    assert_eq!(
        world.agent("web-1", &["once"]).good(),
        format!("web-1: already runs the store path of revision {MAX_INTEGER}\n")
    );
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("A change");
    world.publish().refused(1, "clavel root next --raise-epoch");

    let key = new_publisher(&world);
    next_root(&world, &["--remove-key", "claveld-1", "--publisher-key", &key, "--raise-epoch"]);
    let unsigned = "the index cannot be trusted: no valid signature by a trusted key, and 1 of claveld-2 has to";
    world.agent("web-1", &["once"]).refused(5, unsigned);
    let said = world.publish().good();
    assert!(said.contains("published as index version 1") && said.contains("web-2: is no longer held"), "{said}");
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
    world.verify().good();

    // The thief shows the old branch again, and afterwards files of their own on top of the new root.
    let good = world.tip();
    let mut mixed = ForgedBranch::of(&world);
    for (path, file) in stolen.files.iter().filter(|(path, _)| !path.starts_with("root")) {
        mixed.files.insert(path.clone(), file.clone());
    }
    let mut counted = mixed.clone();
    counted.reindex(&[&thief], |index| index["epoch"] = json!(2));
    let old = "the root went back from version 2 to 1";
    for (theirs, onto, why) in
        [(&stolen, Onto::Nothing, old), (&mixed, Onto::Tip, unsigned), (&counted, Onto::Tip, unsigned)]
    {
        theirs.push(onto);
        // Each run is a restart: the agent keeps everything in its state folder.
        for _ in 0..2 {
            world.agent("web-1", &["once"]).refused(5, why);
            assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
        }
        let said = world.publish();
        assert_ne!(said.code, Some(0), "{}", said.stdout);
        world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
    }
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    assert_eq!(world.publish().good(), "nothing changed (index version 1)\n");

    // An agent loses its root, and gets a branch with the first root only.
    std::fs::remove_file(world.path("web-1/state/root.json")).unwrap();
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &of_the_thief]);
    world.agent("web-1", &["once"]).refused(5, "the root is at epoch 1, and epoch 2 was believed before");
}

#[test]
fn a_new_root_is_believed_whatever_stands_beside_it() {
    for (beside, why) in [
        ("a stray file", "the index cannot be trusted: no valid signature by a trusted key"),
        ("the old root as the newest", "the root went back from version 2 to 1"),
        ("no newest root", "this is not a branch of Clavel: it has no root.json"),
        ("a newer root that nobody signed", "roots/3.json cannot be trusted"),
    ] {
        let world = running();
        let old = world.tip();
        rotate(&world);
        let mut branch = ForgedBranch::of(&world);
        match beside {
            "a stray file" => branch.write("deployments/stray", "stray"),
            "the old root as the newest" => {
                let first = branch.files["roots/1.json"].clone();
                branch.files.insert("root.json".to_owned(), first);
            }
            "no newest root" => drop(branch.files.remove("root.json")),
            _ => branch.write("roots/3.json", "{}"),
        }
        branch.push(Onto::Tip);
        world.agent("web-1", &["once"]).refused(5, why);
        // The key that the new root removes does not count any more, though the agent accepted nothing else.
        world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &old]);
        world.agent("web-1", &["once"]).refused(5, "the root went back from version 2 to 1");
    }
}

#[test]
fn as_many_keys_as_may_have_to_sign_are_all_replaced_at_once() {
    let world = World::new();
    let key = |name: String| {
        let file = world.at(&format!("{name}.secret"));
        world.clavel(&["key", "generate", &name, "--output", &file]).good();
        file
    };
    let old: Vec<String> = (0..8).map(|number| key(format!("old-{number}"))).collect();
    let new: Vec<String> = (0..8).map(|number| key(format!("new-{number}"))).collect();
    let each = |option: &str, values: &[String]| -> Vec<String> {
        values.iter().flat_map(|value| [option.to_owned(), value.clone()]).collect()
    };
    let clavel = |words: &[&str], more: &[Vec<String>]| {
        let more = more.concat();
        world.clavel(&words.iter().copied().chain(more.iter().map(String::as_str)).collect::<Vec<_>>())
    };
    std::fs::remove_file(world.path("root.json")).unwrap();
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    for too_high in ["9", "16", "64"] {
        for option in ["--root-threshold", "--publisher-threshold", "--approver-threshold"] {
            clavel(&["init", &world.at(""), option, too_high], &[])
                .refused(2, "it has to be from 1 to 8: a file holds");
        }
        let policy = format!("db-*={too_high}");
        clavel(&["init", &world.at(""), "--approvals", &policy], &[])
            .refused(2, "it has to be from 1 to 8: a file holds");
    }
    clavel(&["init", &world.at(""), "--root-threshold", "8"], &[each("--root-key", &old)]).good();
    clavel(&["root", "sign", &world.root()], &[each("--key", &old)]).good();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();

    let next = world.at("root-2.json");
    let names: Vec<String> = (0..8).map(|number| format!("old-{number}")).collect();
    let changes = [each("--remove-key", &names), each("--root-key", &new)];
    clavel(&["root", "next", &world.root(), "-o", &next], &changes).good();
    clavel(&["root", "sign", &next], &[each("--key", &old), each("--key", &new)]).good();
    clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")], &[]).good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    let kept: serde_json::Value = serde_json::from_str(&world.read_file("web-1/state/root.json")).unwrap();
    assert_eq!(kept["signatures"].as_array().unwrap().len(), 16);
}

#[test]
fn a_root_key_that_was_lost_or_stolen_is_replaced_by_the_others() {
    let world = World::new();
    let key = |name: &str| {
        let file = world.at(&format!("{name}.secret"));
        world.clavel(&["key", "generate", name, "--output", &file]).good();
        file
    };
    let [alice, bob, carol, dave] = ["alice", "bob", "carol", "dave"].map(key);
    std::fs::remove_file(world.path("root.json")).unwrap();
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    let owners = ["--root-key", &alice, "--root-key", &bob, "--root-key", &carol, "--root-threshold", "2"];
    world.clavel(&[&["init", &world.at("")][..], &owners].concat()).good();
    world.clavel(&["root", "sign", &world.root(), "--key", &alice, "--key", &carol]).good();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();

    // Carol's key is lost. Alice and bob sign a root in which dave replaces her.
    let next = world.at("root-2.json");
    let changes = ["--remove-key", "carol", "--root-key", &dave];
    world.clavel(&[&["root", "next", &world.root(), "-o", &next, "--key", &alice][..], &changes].concat()).good();
    let publish = || world.clavel(&["root", "publish", &next, "--repository", &world.at("fleet.git")]);
    publish().refused(3, "root-2.json cannot be trusted");
    world.clavel(&["root", "sign", &next, "--key", &bob]).good();
    publish().good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");

    // Carol's key does not count any more: it is one of the two signatures that the old root needs, and the new root has no carol.
    let theirs = StolenKey::read(&world.path("carol.secret"));
    let accomplice = StolenKey::own("mallory-1", 7);
    let mut branch = ForgedBranch::of(&world);
    let mut root = branch.signed("root.json");
    root["version"] = json!(3);
    root["roles"]["publisher"]["keys"] = json!([accomplice.public()]);
    branch.sign("root.json", &root, &[&theirs, &accomplice]);
    branch.sign("roots/3.json", &root, &[&theirs, &accomplice]);
    branch.push(Onto::Tip);
    world
        .agent("web-1", &["once"])
        .refused(5, "roots/3.json cannot be trusted: checked with the keys of the root before it");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn a_branch_restored_from_an_old_backup_begins_anew_in_the_next_epoch() {
    let world = running();
    let old = world.tip();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("A change");
    world.publish().good();
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &old]);
    world.publish().refused(5, "it is at version 1 now");
    next_root(&world, &["--raise-epoch"]);
    assert!(world.publish().good().contains("published as index version 1"));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: already runs the store path of revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn an_expired_root_is_followed_by_the_next_one() {
    let world = World::new();
    for file in ["root.json", "root-1.secret", "claveld-1.secret"] {
        std::fs::remove_file(world.path(file)).unwrap();
    }
    world.clavel(&["init", &world.at(""), "--expires-after", "1s"]).good();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    // An agent that switched just before would see it expire on probation.
    let has_expired = || world.verify().code != Some(0);
    crate::support::world::until("the root has expired", has_expired);
    world.agent("web-1", &["once"]).refused(5, "the root (version 1) is stale since");
    next_root(&world, &["--expires-after", "365d"]);
    world.agent("web-1", &["once"]).good();
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    world.publish().good();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}
