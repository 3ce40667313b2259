//! An attacker shows an old index, a frozen one, a fork, or the index of another branch.

use std::collections::BTreeMap;

use serde_json::json;

use super::Siege;
use crate::support::attacker::{ForgedBranch, MAX_INTEGER, Onto, StolenKey};

#[test]
fn an_index_that_was_rolled_back() {
    let siege = Siege::begin_with_nix();
    let old = siege.world.tip();
    siege.change_with_nix("Welcome", "Hello");
    siege.world.agent("web-1", &["once"]).good();
    siege.show(&old);
    siege.refused("the index went back from version 2 to 1");
    siege.restore();
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
}

#[test]
fn a_frozen_branch() {
    let siege = Siege::begin();
    let agent = env!("CARGO_BIN_EXE_clavel-agent");
    let frozen = siege.world.run("faketime", &["-f", "+8d", agent, "once", "--config", &siege.world.at("web-1.toml")]);
    frozen.refused(5, "the index (version 1) is stale since");
    assert_eq!(siege.world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn two_indexes_of_one_version() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.reindex(&[&siege.claveld()], |index| index["issued"] = json!("2026-01-01T00:00:00Z"));
    siege.holds(&branch, "there are two indexes of version 1");
}

#[test]
fn the_index_of_another_branch() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.reindex(&[&siege.claveld()], |index| {
        index["branch"] = json!("staging");
        index["version"] = json!(2);
    });
    siege.holds(&branch, "the index is of the branch `staging`, and this is `deployments`");
}

#[test]
fn an_index_of_an_epoch_that_no_root_has_begun() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.reindex(&[&siege.claveld()], |index| index["epoch"] = json!(2));
    siege.holds(&branch, "signed in epoch 2, and the root is at epoch 1");
}

#[test]
fn the_index_of_another_fleet() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.reindex(&[&siege.claveld()], |index| index["fleet"] = json!("0".repeat(64)));
    siege.holds(&branch, "the index cannot be trusted: it belongs to the fleet 000000000000…");
}

#[test]
fn no_index_at_all() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.files.remove("index.json");
    siege.holds(&branch, "this is not a branch of Clavel: it has no index.json");
}

#[test]
fn numbers_driven_to_their_end_block_nobody_for_ever() {
    // The runbook, which `runbook.rs` follows, says how a root with a new epoch ends this.
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.reindex(&[&siege.claveld()], |index| index["version"] = json!(MAX_INTEGER));
    branch.push(Onto::Tip);
    siege.world.agent("web-1", &["once"]).good();
    siege.restore();
    siege.refused(&format!("the index went back from version {MAX_INTEGER} to 1"));
}

#[test]
fn a_bad_tip_that_a_good_one_follows() {
    let siege = Siege::begin();
    siege.world.tamper(&BTreeMap::from([("index.json", Some("{}\n".to_owned()))]));
    siege.refused("the index cannot be trusted");
    let bad = siege.world.tip();
    siege.restore();
    siege.change("Welcome", "Hello");
    // The good branch on top of the bad one, as after a git host has restored the branch.
    let good = ForgedBranch::of(&siege.world);
    siege.show(&bad);
    good.push(Onto::Tip);
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: switched to revision 2\n");
}

#[test]
fn rewritten_history_under_a_newer_index_is_believed_and_told() {
    let siege = Siege::begin();
    let before = siege.world.tip();
    siege.change("Welcome", "Hello");
    siege.branch().push(Onto::Nothing);
    let ran = siege.world.agent("web-1", &["once"]);
    let told = format!("the history of the branch was rewritten: {} is not part of it any more", &before[..10]);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    assert_eq!(ran.good(), "web-1: switched to revision 2\n");
    // The agent reports the rewrite once. Later commits are not reported.
    siege.world.change_from_memory("Hello", "Good day");
    let ran = siege.world.agent("web-1", &["once"]);
    assert!(!ran.stderr.contains("rewritten"), "{}", ran.stderr);
    assert_eq!(ran.good(), "web-1: switched to revision 3\n");
}

#[test]
fn an_index_with_one_more_signature() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.countersign("index.json", &StolenKey::own("mallory-1", 7));
    branch.push(Onto::Tip);
    // The content is the same, so the agent sees no fork.
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    assert!(!siege.world.path("web-1/state/evidence").exists());
}
