//! Documents that an attacker forges, moves, withholds or brings back.

use serde_json::json;

use super::Siege;
use crate::support::attacker::{Onto, StolenKey};

const DEPLOYMENT: &str = "deployments/web-1.json";

#[test]
fn an_arbitrary_document() {
    let siege = Siege::begin();
    let mallory = StolenKey::own("claveld-1", 7);
    let mut branch = siege.branch();
    branch.edit(DEPLOYMENT, &[&mallory], |signed| signed["specification"]["template"]["narId"] = other_path());
    siege.holds(&branch, "deployments/web-1.json is not the file that the index lists");
    // The attacker signs the index with the same key.
    branch.reindex(&[&mallory], |index| index["version"] = json!(2));
    siege.holds(&branch, "the index cannot be trusted: no valid signature by a trusted key");
    // Claveld's own key has signed the index, and not the document.
    branch.reindex(&[&siege.claveld()], |index| index["version"] = json!(2));
    siege.holds(&branch, "deployments/web-1.json cannot be trusted: no valid signature by a trusted key");
}

#[test]
fn a_document_that_was_rolled_back() {
    let siege = Siege::begin();
    let old = siege.branch();
    siege.change("Welcome", "Hello");
    siege.world.agent("web-1", &["once"]).good();
    let mut branch = siege.branch();
    branch.files.insert(DEPLOYMENT.to_owned(), old.files[DEPLOYMENT].clone());
    siege.holds(&branch, "deployments/web-1.json is not the file that the index lists");
    branch.reindex(&[&siege.claveld()], |index| index["version"] = json!(9));
    siege.holds(&branch, "deployments/web-1.json went back from revision 2 to 1");
}

#[test]
fn a_document_that_comes_back_behind_its_tombstone() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    let file = branch.files.remove(DEPLOYMENT).unwrap();
    branch.reindex(&[&claveld], |index| {
        index["version"] = json!(2);
        index["tombstones"][DEPLOYMENT] = json!({ "revision": 5 });
    });
    branch.push(Onto::Tip);
    siege.world.agent("web-1", &["once"]).good();
    for (version, revision) in [(3, 3), (4, 5)] {
        let mut branch = siege.branch();
        branch.files.insert(DEPLOYMENT.to_owned(), file.clone());
        branch.edit(DEPLOYMENT, &[&claveld], |signed| signed["revision"] = json!(revision));
        branch.reindex(&[&claveld], |index| {
            index["version"] = json!(version);
            index["tombstones"] = json!({});
        });
        branch.push(Onto::Tip);
        let why = format!("was withdrawn after its revision 5, and came back at revision {revision}");
        siege.refused(&format!("{DEPLOYMENT} {why}"));
    }
}

#[test]
fn another_content_under_the_same_revision() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.edit(DEPLOYMENT, &[&claveld], |signed| signed["specification"]["template"]["narId"] = other_path());
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    siege.holds(&branch, "there are two contents of deployments/web-1.json at revision 1");
}

#[test]
fn a_deployment_of_another_unit() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.files.insert(DEPLOYMENT.to_owned(), branch.files["deployments/web-2.json"].clone());
    siege.holds(&branch, "deployments/web-1.json is not the file that the index lists");
    branch.reindex(&[&siege.claveld()], |index| index["version"] = json!(2));
    siege.holds(&branch, "deployments/web-1.json says that it is `web-2`");
}

#[test]
fn a_document_of_another_agent() {
    let siege = Siege::begin();
    let mut branch = siege.branch();
    branch.files.insert("agents/web-1.json".to_owned(), branch.files["agents/web-2.json"].clone());
    branch.reindex(&[&siege.claveld()], |index| index["version"] = json!(2));
    siege.holds(&branch, "agents/web-1.json says that it is `web-2`");
}

#[test]
fn a_unit_of_another_kind_of_machine() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.edit("units/web-1.json", &[&claveld], |signed| {
        signed["revision"] = json!(2);
        signed["specification"]["arch"] = json!("riscv64-linux");
    });
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    branch.push(Onto::Tip);
    siege.refused("of arch riscv64-linux, and this machine is");
}

#[test]
fn a_unit_that_the_agent_does_not_serve_or_of_another_type() {
    let siege = Siege::begin();
    siege.world.agent("web-1", &["once"]).good();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.edit("units/web-1.json", &[&claveld], |signed| {
        signed["revision"] = json!(2);
        signed["specification"]["type"] = json!("system-manager");
    });
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    branch.push(Onto::Tip);
    siege.refused("of type system-manager, and this agent serves that unit as type nixos");
    let mut branch = siege.branch();
    branch.edit(DEPLOYMENT, &[&claveld], |signed| {
        signed["revision"] = json!(2);
        signed["specification"]["unit"] = json!("web-2");
    });
    branch.reindex(&[&claveld], |index| index["version"] = json!(3));
    branch.push(Onto::Tip);
    siege.refused("it is for the unit `web-2`, and this agent serves `web-1`");
}

#[test]
fn a_document_of_another_kind() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.files.insert(DEPLOYMENT.to_owned(), branch.files["units/web-1.json"].clone());
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    siege.holds(&branch, "`Unit` is not the kind asked for");
    // A document that says it is a Deployment, under a signature that was made for a Unit.
    let mut branch = siege.branch();
    let mut signed = branch.signed(DEPLOYMENT);
    signed["revision"] = json!(2);
    let file = crate::support::attacker::signed_file("Unit", &signed, &[&claveld]);
    branch.write(DEPLOYMENT, file);
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    siege.holds(&branch, "deployments/web-1.json cannot be trusted: no valid signature");
}

#[test]
fn a_document_of_another_fleet() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    let mut branch = siege.branch();
    branch.edit(DEPLOYMENT, &[&claveld], |signed| {
        signed["revision"] = json!(2);
        signed["fleet"] = json!("0".repeat(64));
    });
    branch.reindex(&[&claveld], |index| index["version"] = json!(2));
    siege.holds(&branch, "it belongs to the fleet 000000000000…");
}

#[test]
fn mix_and_match() {
    let siege = Siege::begin_with_nix();
    let old = siege.branch();
    siege.change_with_nix("Welcome", "Hello");
    let new = siege.branch();
    // The newest documents under the index before them, and old documents under the newest index.
    let mut mixed = new.clone();
    mixed.files.insert("index.json".to_owned(), old.files["index.json"].clone());
    siege.holds(&mixed, "the bin all is not the file that the index lists");
    let mut mixed = old;
    mixed.files.insert("index.json".to_owned(), new.files["index.json"].clone());
    mixed.push(Onto::Tip);
    siege.refused("the bin all is not the file that the index lists");
    mixed.files.insert("index/all.json".to_owned(), new.files["index/all.json"].clone());
    mixed.push(Onto::Tip);
    siege.refused("deployments/web-1.json is not the file that the index lists");
    siege.restore();
    assert_eq!(siege.world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 2\n");
}

#[test]
fn a_document_that_is_not_there() {
    let siege = Siege::begin();
    for path in [DEPLOYMENT, "agents/web-1.json", "units/web-1.json"] {
        let mut branch = siege.branch();
        branch.files.remove(path);
        siege.holds(&branch, &format!("{path} is in the index and not on the branch"));
    }
}

#[test]
fn a_document_that_the_index_does_not_list() {
    let siege = Siege::begin();
    let claveld = siege.claveld();
    for path in [DEPLOYMENT, "agents/web-1.json", "units/web-1.json"] {
        let mut branch = siege.branch();
        let file = branch.files.remove(path).unwrap();
        branch.reindex(&[&claveld], |index| index["version"] = json!(2));
        siege.holds(&branch, &format!("{path} is not in the index"));
        branch.files.insert(path.to_owned(), file);
        siege.holds(&branch, &format!("`{path}` does not belong on a branch of Clavel"));
    }
}

fn other_path() -> serde_json::Value {
    json!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-evil")
}
