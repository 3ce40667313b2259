//! Bins of the index that an attacker withholds, exchanges, fills wrongly or counts otherwise.

use serde_json::json;

use super::Siege;
use crate::support::attacker::{ForgedBranch, Onto, StolenKey, in_bin, rendered};
use crate::support::world::World;

/// The bin of the names `web-1` among sixteen, and another one: `printf web-1 | sha256sum` begins with c.
const OWN: &str = "c";
const OTHER: &str = "0";

/// A siege whose branch has sixteen bins, all in order.
fn sixteen() -> Siege {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.spread(1, &[&siege.claveld()], |index| index["version"] = json!(2));
    branch.push(Onto::Tip);
    siege.good.replace(siege.world.tip());
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    siege
}

fn bin(branch: &ForgedBranch<'_>, bin: &str) -> Vec<u8> {
    branch.files[&format!("index/{bin}.json")].bytes.clone()
}

#[test]
fn a_bin_that_is_withheld() {
    let siege = sixteen();
    let mut branch = siege.branch();
    branch.files.remove("index/c.json");
    siege.holds(&branch, "the bin c of the index is not on the branch");
    // A bin of others' names is withheld from them alone.
    let mut branch = siege.branch();
    branch.files.remove("index/0.json");
    branch.push(Onto::Tip);
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn a_bin_of_another_version() {
    let siege = sixteen();
    let old = siege.branch();
    let mut branch = siege.branch();
    branch.edit_bin(OWN, &[&siege.claveld()], |bin| bin["tombstones"]["units"]["gone"] = json!({ "revision": 1 }));
    branch.write("index/c.json", bin(&old, OWN));
    siege.holds(&branch, "the bin c is not the file that the index lists");
}

#[test]
fn a_bin_of_another_fleet() {
    let siege = sixteen();
    let other = World::new();
    other.publish_from_memory(&["web-1"]);
    let key = StolenKey::read(&other.path("claveld-1.secret"));
    let mut theirs = ForgedBranch::of(&other);
    theirs.spread(1, &[&key], |_| ());
    let mut branch = siege.branch();
    branch.write("index/c.json", bin(&theirs, OWN));
    siege.holds(&branch, "the bin c is not the file that the index lists");
    // The publisher's own key lists it: then the documents in it are not those on the branch.
    branch.write_bin(OWN, bin(&theirs, OWN), &[&siege.claveld()]);
    siege.holds(&branch, "is not the file that the index lists");
}

#[test]
fn a_bin_that_changed_places_with_another() {
    let siege = sixteen();
    let mut branch = siege.branch();
    let (own, other) = (bin(&branch, OWN), bin(&branch, OTHER));
    branch.write("index/c.json", other);
    branch.write("index/0.json", own.clone());
    siege.holds(&branch, "the bin c is not the file that the index lists");
    let mut branch = siege.branch();
    branch.write_bin("d", own, &[&siege.claveld()]);
    branch.push(Onto::Tip);
    // Nobody who has a name in the bin d believes it.
    let view = ["--repository", &siege.world.at("fleet.git"), "--root", &siege.world.root()];
    siege.world.clavel(&[&["verify"], &view[..]].concat()).refused(5, "the bin d of the index lists `web-1`");
}

#[test]
fn a_name_that_a_bin_lists_twice() {
    let siege = sixteen();
    let mut branch = siege.branch();
    let text = String::from_utf8(bin(&branch, OWN)).unwrap();
    let entry = &text[text.find("      \"web-1\": {").unwrap()..];
    let entry = &entry[..=entry.find('}').unwrap()];
    let twice = text.replacen(entry, &format!("{entry},\n{entry}"), 1);
    branch.write_bin(OWN, twice.into_bytes(), &[&siege.claveld()]);
    siege.holds(&branch, "it is not written in the one form that its content has");
}

#[test]
fn a_name_in_two_bins() {
    let siege = sixteen();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    let listed: serde_json::Value = serde_json::from_slice(&bin(&branch, OWN)).unwrap();
    let entry = listed["documents"]["deployments"]["web-1"].clone();
    branch.edit_bin(OTHER, &[&claveld], |bin| bin["documents"]["deployments"]["web-1"] = entry);
    branch.push(Onto::Tip);
    // The agent looks for its names in their own bins alone.
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    let view = ["--repository", &siege.world.at("fleet.git"), "--root", &siege.world.root()];
    siege.world.clavel(&[&["verify"], &view[..]].concat()).refused(5, "the bin 0 of the index lists `web-1`");
}

#[test]
fn a_document_in_the_folder_of_another_bin() {
    let siege = sixteen();
    let path = in_bin("deployments/web-1.json", OWN);
    assert_eq!(path, "deployments/c/web-1.json");
    let mut branch = siege.branch();
    let file = branch.files.remove(&path).unwrap();
    branch.files.insert("deployments/0/web-1.json".to_owned(), file.clone());
    siege.holds(&branch, "deployments/web-1.json is in the index and not on the branch");
    // Beside the agent's own documents there is nothing else.
    let mut branch = siege.branch();
    branch.files.insert("deployments/c/other.json".to_owned(), file.clone());
    siege.holds(&branch, "`deployments/c/other.json` does not belong on a branch of Clavel");
    let mut branch = siege.branch();
    branch.files.insert("deployments/web-1.json".to_owned(), file);
    siege.holds(&branch, "`deployments/web-1.json` does not belong on a branch of Clavel");
}

#[test]
fn a_number_of_bins_that_shrinks_or_leaps() {
    let siege = sixteen();
    let claveld = siege.claveld();
    siege.change("Welcome", "Hello");
    siege.world.agent("web-1", &["once"]).good();
    let old = siege.branch();
    for digits in [0, 1, 2, 3] {
        // The documents are the old ones of revision 1, and what the agent remembers of them does not depend on the bins.
        let mut branch = old.clone();
        branch.spread(digits, &[&claveld], |index| index["version"] = json!(9));
        let path =
            branch.files.keys().find(|path| path.ends_with("/web-1.json") && path.starts_with("deployments")).cloned();
        let path = path.unwrap();
        branch.edit(&path, &[&claveld], |signed| signed["revision"] = json!(1));
        branch.reindex(&[&claveld], |_| ());
        siege.holds(&branch, "deployments/web-1.json went back from revision 2 to 1");
    }
    for wrong in [json!({}), json!({ "0": {}, "1": {} })] {
        let mut branch = siege.branch();
        branch.edit("index.json", &[&claveld], |index| index["bins"] = wrong);
        siege.holds(&branch, "the index cannot be trusted: it is not a valid Index: at `signed.bins");
    }
    let mut branch = siege.branch();
    branch.spread(1, &[&claveld], |_| ());
    branch.edit("index.json", &[&claveld], |index| drop(index["bins"].as_object_mut().unwrap().remove("7")));
    siege.holds(&branch, "an index has 1, 16, 256 or 4096 bins");
}

#[test]
fn a_tombstone_in_another_bin() {
    let siege = sixteen();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.files.remove("deployments/c/web-1.json");
    branch.edit_bin(OWN, &[&claveld], |bin| {
        drop(bin["documents"]["deployments"].as_object_mut().unwrap().remove("web-1"));
    });
    branch.edit_bin(OTHER, &[&claveld], |bin| bin["tombstones"]["deployments"]["web-1"] = json!({ "revision": 1 }));
    siege.holds(&branch, "deployments/web-1.json is not in the index");
}

#[test]
fn a_document_that_is_listed_and_withdrawn() {
    let siege = sixteen();
    let claveld = siege.claveld();
    for folder in ["agents", "deployments", "units"] {
        let mut branch = siege.branch();
        branch.edit_bin(OWN, &[&claveld], |bin| bin["tombstones"][folder]["web-1"] = json!({ "revision": 1 }));
        siege.holds(
            &branch,
            &format!("the bin c of the index lists {folder}/web-1.json and says that it was withdrawn"),
        );
    }
}

#[test]
fn a_bin_that_is_not_in_the_one_rendering() {
    let siege = sixteen();
    let mut branch = siege.branch();
    let mut content: serde_json::Value = serde_json::from_slice(&bin(&branch, OWN)).unwrap();
    branch.write_bin(OWN, serde_json::to_vec(&content).unwrap(), &[&siege.claveld()]);
    siege.holds(&branch, "it is not written in the one form that its content has");
    content["kind"] = json!("Index");
    branch.write_bin(OWN, rendered(&content), &[&siege.claveld()]);
    siege.holds(&branch, "`Index` is not the kind asked for: a Bin is");
}
