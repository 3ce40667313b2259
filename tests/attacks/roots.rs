//! Chains of roots that are broken in any way, and roots with removed keys.

use serde_json::json;

use super::Siege;
use crate::support::attacker::{ForgedBranch, Onto, StolenKey, signed_file};

impl Siege {
    fn root_key(&self) -> StolenKey {
        StolenKey::read(&self.world.path("root-1.secret"))
    }

    /// Makes the root after the branch's newest, with these changes, signed by the root key, and puts it on the branch.
    fn next_root(&self, changes: &[&str]) {
        let next = self.world.at("next.json");
        let _ = std::fs::remove_file(&next);
        let newest = self.world.at("newest.json");
        std::fs::write(&newest, self.world.on_branch("root.json").unwrap()).unwrap();
        let key = self.world.at("root-1.secret");
        let next_of = ["root", "next", &newest, "--output", &next, "--key", &key];
        self.world.clavel(&[&next_of[..], changes].concat()).good();
        self.world.clavel(&["root", "publish", &next, "--repository", &self.world.at("fleet.git")]).good();
    }
}

/// The branch with a root of that version, changed by `change` and signed by `keys`.
fn with_root(
    branch: &ForgedBranch<'_>,
    version: u64,
    keys: &[&StolenKey],
    change: impl FnOnce(&mut serde_json::Value),
) -> Vec<u8> {
    let mut root = branch.signed("root.json");
    root["version"] = json!(version);
    root["fleet"] = branch.signed("index.json")["fleet"].clone();
    change(&mut root);
    signed_file("Root", &root, keys)
}

#[test]
fn a_root_that_was_rolled_back() {
    let siege = Siege::begin();
    let old = siege.branch();
    siege.next_root(&[]);
    siege.world.agent("web-1", &["once"]).good();
    let mut branch = siege.branch();
    branch.files.insert("root.json".to_owned(), old.files["root.json"].clone());
    branch.push(Onto::Tip);
    siege.refused("the root went back from version 2 to 1");
    old.push(Onto::Tip);
    siege.refused("the root went back from version 2 to 1");
}

#[test]
fn a_root_that_the_one_before_did_not_sign() {
    let siege = Siege::begin();
    let mallory = StolenKey::own("root-1", 9);
    let mut branch = siege.branch();
    let root = with_root(&branch, 2, &[&mallory], |root| {
        root["roles"]["root"]["keys"] = json!([mallory.public()]);
        root["roles"]["publisher"]["keys"] = json!([mallory.public()]);
    });
    branch.write("roots/2.json", root.clone());
    branch.write("root.json", root);
    siege.holds(&branch, "roots/2.json cannot be trusted: checked with the keys of the root before it");
}

#[test]
fn a_root_that_its_own_keys_did_not_sign() {
    let siege = Siege::begin();
    let mallory = StolenKey::own("root-2", 9);
    let mut branch = siege.branch();
    let root =
        with_root(&branch, 2, &[&siege.root_key()], |root| root["roles"]["root"]["keys"] = json!([mallory.public()]));
    branch.write("roots/2.json", root.clone());
    branch.write("root.json", root);
    siege.holds(&branch, "roots/2.json cannot be trusted: checked with its own root keys");
}

#[test]
fn a_chain_with_a_gap() {
    let siege = Siege::begin();
    siege.next_root(&[]);
    siege.next_root(&[]);
    let mut branch = siege.branch();
    branch.files.remove("roots/2.json");
    branch.push(Onto::Tip);
    siege.refused("the branch has root.json of version 3, and lacks roots/2.json");
}

#[test]
fn a_chain_with_a_repeat_and_one_in_the_wrong_order() {
    let siege = Siege::begin();
    siege.next_root(&[]);
    siege.next_root(&[]);
    let good = siege.world.tip();
    let mut branch = siege.branch();
    let (second, third) = (branch.files["roots/2.json"].clone(), branch.files["roots/3.json"].clone());
    branch.files.insert("roots/2.json".to_owned(), third);
    branch.files.insert("roots/3.json".to_owned(), second);
    branch.push(Onto::Tip);
    siege.refused("roots/2.json cannot be trusted: it is version 3, where version 2 has to follow");
    siege.show(&good);
    let mut branch = siege.branch();
    branch.files.insert("roots/3.json".to_owned(), branch.files["roots/2.json"].clone());
    branch.push(Onto::Tip);
    siege.refused("roots/3.json cannot be trusted: it is version 2, where version 3 has to follow");
    siege.show(&good);
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn a_root_before_the_newest_may_have_expired_and_the_newest_may_not() {
    let siege = Siege::begin();
    let key = siege.root_key();
    let mut branch = siege.branch();
    let expired = with_root(&branch, 2, &[&key], |root| root["expires"] = json!("2026-01-01T00:00:00Z"));
    branch.write("roots/2.json", expired.clone());
    branch.write("root.json", expired);
    branch.push(Onto::Tip);
    siege.refused("the root (version 2) is stale since 2026-01-01T00:00:00Z");
    let good = with_root(&branch, 3, &[&key], |root| root["expires"] = json!("2100-01-01T00:00:00Z"));
    branch.write("roots/3.json", good.clone());
    branch.write("root.json", good);
    branch.push(Onto::Tip);
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
}

#[test]
fn an_epoch_that_leaps() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    let root = with_root(&branch, 2, &[&siege.root_key()], |root| root["epoch"] = json!(3));
    branch.write("roots/2.json", root.clone());
    branch.write("root.json", root);
    siege.holds(&branch, "its epoch is 3, and the epoch before it is 1");
}

#[test]
fn the_root_of_another_fleet() {
    let siege = Siege::begin();
    siege.world.clavel(&["init", &siege.world.at("others")]).good();
    let mut branch = siege.branch();
    let theirs = std::fs::read(siege.world.path("others/root.json")).unwrap();
    branch.write("root.json", theirs.clone());
    branch.write("roots/1.json", theirs);
    siege.holds(&branch, "the branch is of the fleet");
}

#[test]
fn a_key_that_was_taken_out() {
    let siege = Siege::begin();
    let thief = siege.claveld();
    siege.world.clavel(&["key", "generate", "claveld-2", "--output", &siege.world.at("claveld-2.secret")]).good();
    let new = siege.world.at("claveld-2.secret");
    siege.next_root(&["--remove-key", "claveld-1", "--publisher-key", &new]);
    siege.world.write_file(
        "claveld.toml",
        &siege.world.read_file("claveld.toml").replace("claveld-1.secret", "claveld-2.secret"),
    );
    siege.world.publish_from_memory(&[]);
    let good = siege.world.tip();
    siege.world.agent("web-1", &["once"]).good();
    // The thief signs an index with a higher version.
    let mut branch = siege.branch();
    branch.reindex(&[&thief], |index| index["version"] = json!(100));
    branch.push(Onto::Tip);
    siege.refused("the index cannot be trusted: no valid signature by a trusted key, and 1 of claveld-2");
    // Each run above was a restart. The next run begins without a state.
    std::fs::remove_dir_all(siege.world.path("web-1/state")).unwrap();
    siege.refused("no valid signature by a trusted key, and 1 of claveld-2");
    // An agent that has seen the newest root refuses a branch without it as an old one.
    siege.show(&good);
    siege.world.agent("web-1", &["once"]).good();
    siege.restore();
    siege.refused("the root went back from version 2 to 1");
}

#[test]
fn a_wiped_state_folder() {
    let siege = Siege::begin();
    let old = siege.world.tip();
    siege.change("Welcome", "Hello");
    siege.next_root(&[]);
    siege.world.agent("web-1", &["once"]).good();
    std::fs::remove_dir_all(siege.world.path("web-1/state")).unwrap();
    // The agent has only the digest of the first root, and follows the chain to the newest by itself.
    let config = siege.world.read_file("web-1.toml").replace("root.json", &siege.world.fleet());
    siege.world.write_file("web-1.toml", &config);
    siege.world.agent("web-1", &["once"]).good();
    let status = siege.world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["indexVersion"], 2);
    // From then on it refuses the older branch again.
    siege.show(&old);
    siege.refused("the root went back from version 2 to 1");
}
