//! Branches that an agent believes.

use serde_json::{Value, json};

use super::branch::{
    ALICE, BOB, CLAVELD_1, CLAVELD_2, Key, MALLORY, ROOT_1, ROOT_2, Vector, VectorBranch, nar_id, role,
};

/// A deployment that the agent runs.
fn runs(name: &str) -> (String, Value) {
    (name.to_owned(), json!({ "narId": nar_id(name), "revision": 7, "waiting": false }))
}

/// A deployment that waits for approval.
fn waits(name: &str) -> (String, Value) {
    (name.to_owned(), json!({ "narId": nar_id(name), "revision": 7, "waiting": true }))
}

fn believed<const N: usize>(
    name: &'static str,
    about: &'static str,
    branch: VectorBranch,
    deployments: [(String, Value); N],
) -> Vector {
    let deployments: serde_json::Map<_, _> = deployments.into_iter().collect();
    Vector { name, about, branch, expected: json!({ "deployments": deployments }) }
}

fn both() -> [(String, Value); 2] {
    [runs("web-1"), runs("db-1")]
}

pub(super) fn vectors() -> Vec<Vector> {
    [plain(), approvals(), grown()].into_iter().flatten().collect()
}

fn plain() -> Vec<Vector> {
    let mut withdrawn = VectorBranch::new();
    withdrawn.withdraw("deployments", "db-1");
    let mut others = VectorBranch::sixteen();
    let foreign_bin =
        ["0", "1", "2"].into_iter().find(|bin| ["web-1", "db-1", "site-1"].iter().all(|n| others.bin(n) != **bin));
    others.files.remove(&format!("index/{}.json", foreign_bin.unwrap_or_default()));
    let mut ssh = two_publishers();
    let signed = ssh.sign_index_as_ssh_does();
    assert!(signed.is_ok(), "{signed:?}");
    let mut no_agent = VectorBranch::new();
    no_agent.withdraw("agents", "site-1");
    let mut other_arch = VectorBranch::new();
    other_arch.edit_listed("units/db-1.json", |unit| unit["specification"]["arch"] = json!("aarch64-linux"));
    let mut unit_withdrawn = VectorBranch::new();
    unit_withdrawn.withdraw("units", "db-1");
    let mut unit_unlisted = VectorBranch::new();
    unit_unlisted.files.remove("units/db-1.json");
    unit_unlisted.reindex();
    vec![
        believed("unit-withdrawn", "a deployment whose unit is withdrawn is left out", unit_withdrawn, [runs("web-1")]),
        believed("unit-unlisted", "a deployment whose unit is not listed is left out", unit_unlisted, [runs("web-1")]),
        believed("one-bin", "the smallest branch", VectorBranch::new(), both()),
        believed("sixteen-bins", "the same in 16 bins", VectorBranch::sixteen(), both()),
        believed("two-publishers", "two publishers have to sign, and did", two_publishers(), both()),
        believed("three-roots", "the third root has another publisher and another root key", three_roots(), both()),
        believed("withdrawn", "a deployment that a tombstone withdraws is left out", withdrawn, [runs("web-1")]),
        believed("withdrawn-agent", "a tombstone withdraws the agent", no_agent, []),
        believed("other-arch", "a deployment for a machine of another arch is left out", other_arch, [runs("web-1")]),
        believed("ssh-signatures", "the publishers signed the index with ssh-keygen", ssh, both()),
        believed("withheld-bin-of-others", "a bin without the agent's names is missing", others, both()),
    ]
}

/// A branch whose publishers are two, both of whom have to sign.
pub(super) fn two_publishers() -> VectorBranch {
    let keys = [CLAVELD_1, CLAVELD_2];
    VectorBranch::with(0, &keys, |root| root["roles"]["publisher"] = role(&keys, 2))
}

/// A branch with three roots. The second takes the publisher's key out, and the third the root's.
pub(super) fn three_roots() -> VectorBranch {
    let mut branch = VectorBranch::with(0, &[CLAVELD_2], |_| ());
    branch.next_root(&[ROOT_1], |root| root["roles"]["publisher"] = role(&[CLAVELD_2], 1));
    branch.next_root(&[ROOT_1, ROOT_2], |root| root["roles"]["root"] = role(&[ROOT_2], 1));
    branch
}

/// A branch whose root asks for two approvals of `db-*`.
fn needs_two() -> VectorBranch {
    VectorBranch::with(0, &[CLAVELD_1], |root| {
        root["approvals"] = json!([{ "approvals": 2, "match": "DB-*" }]);
        root["roles"]["approver"] = role(&[ALICE, BOB], 1);
    })
}

fn approvals() -> Vec<Vector> {
    let approved = |by: &[Key], change: fn(&mut Value)| {
        let mut branch = needs_two();
        branch.approve("db-1", ALICE, |_| ());
        for key in by {
            branch.approve("db-1", *key, change);
        }
        branch
    };
    let wait = || [runs("web-1"), waits("db-1")];
    let mut elsewhere = approved(&[BOB], |_| ());
    let bobs = elsewhere.files.remove("approvals/db-1/bob.json").unwrap_or_default();
    elsewhere.put("approvals/db-1/carol.json", bobs);
    let mut copied = approved(&[], |_| ());
    copied.put("approvals/db-1/bob.json", copied.files["approvals/db-1/alice.json"].clone());
    let mut both_in_one = approved(&[BOB], |_| ());
    let approval = both_in_one.signed("approvals/db-1/bob.json");
    both_in_one.sign_by("approvals/db-1/bob.json", &approval, &[ALICE, BOB]);
    let mut in_bins = VectorBranch::with(1, &[CLAVELD_1], |root| {
        root["approvals"] = json!([{ "approvals": 1, "match": "site-?" }]);
        root["roles"]["approver"] = role(&[ALICE], 1);
    });
    in_bins.approve("db-1", ALICE, |_| ());
    vec![
        believed("approved", "two approvers approved it", approved(&[BOB], |_| ()), both()),
        believed("not-approved", "one of two approvals is there", approved(&[], |_| ()), wait()),
        believed("approved-by-a-stranger", "the second approver is none", approved(&[MALLORY], |_| ()), wait()),
        believed(
            "approved-before",
            "the second approval is of the revision before",
            approved(&[BOB], |approval| approval["revision"] = json!(6)),
            wait(),
        ),
        believed(
            "approved-other-content",
            "the second approval is of another content",
            approved(&[BOB], |approval| approval["contentDigest"] = json!("0".repeat(64))),
            wait(),
        ),
        believed("approved-in-another-file", "the second approval is in a file of another name", elsewhere, wait()),
        believed("approved-twice-by-one", "the second approval is a copy of the first", copied, wait()),
        believed("approved-by-two-in-one-file", "an approval has one signature", both_in_one, wait()),
        believed(
            "approved-agent",
            "a policy matches the agent; one approval is there",
            in_bins,
            [waits("web-1"), runs("db-1")],
        ),
    ]
}

/// A branch that a newer claveld wrote: unknown fields at every level, an unknown folder and an unknown form of signature.
fn newer() -> VectorBranch {
    let mut branch = VectorBranch::with(0, &[CLAVELD_1], |root| {
        root["newField"] = json!({ "a": [1, null, true, "é\u{1f}/"], "b": {} });
        root["roles"]["newRole"] = json!({ "keys": [], "threshold": 1 });
        root["roles"]["publisher"]["newField"] = json!(1);
    });
    for path in ["deployments/web-1.json", "units/web-1.json", "agents/site-1.json"] {
        branch.edit(path, |signed| {
            signed["newField"] = json!([[], {}]);
            signed["specification"]["newField"] = json!({ "http": "https://web-1.example.org" });
        });
        branch.edit_file(path, |file| {
            file["newField"] = json!(false);
            file["signatures"][0]["newField"] = json!(1);
            if let Some(signatures) = file["signatures"].as_array_mut() {
                signatures.push(json!({ "keyid": "post-quantum-1", "sig": "bm90IGVkMjU1MTk=" }));
                signatures.push(json!({ "new-form": {} }));
            }
        });
    }
    branch.put_document("sites", "berlin", 1, &json!({ "city": "Berlin" }));
    branch.reindex();
    branch.edit_bin("all", |bin| {
        bin["newField"] = json!({});
        bin["documents"]["deployments"]["web-1"]["newField"] = json!("x");
    });
    branch.edit("index.json", |index| {
        index["folders"] = json!(["agents", "deployments", "sites", "units"]);
        index["newField"] = json!(1);
        index["bins"]["all"]["newField"] = json!(1);
    });
    branch
}

fn grown() -> Vec<Vector> {
    let critical = |fields: Value| {
        let mut branch = VectorBranch::new();
        branch.edit_listed("deployments/db-1.json", |signed| {
            signed["specification"]["schedule"] = json!({ "window": "Sunday" });
            signed["critical"] = fields;
        });
        branch
    };
    let mut schema = VectorBranch::new();
    schema.edit_listed("units/db-1.json", |signed| signed["schema"] = json!("clavel/v2"));
    let mut others = VectorBranch::new();
    others.edit_listed("deployments/web-9.json", |signed| signed["schema"] = json!("clavel/v2"));
    let known = json!(["name", "specification.unit", "specification.template.narId", "metadata.attribute"]);
    vec![
        believed("unknown-fields", "unknown fields, an unknown folder, an unknown form of signature", newer(), both()),
        believed("critical-known", "the fields in `critical` are known", critical(known), both()),
        believed(
            "critical-unknown",
            "a field in `critical` is not known, so this deployment is left out",
            critical(json!(["specification.unit", "specification.schedule"])),
            [runs("web-1")],
        ),
        believed("newer-unit", "the unit is of another schema, so its deployment is left out", schema, [runs("web-1")]),
        believed("newer-document-of-others", "a document that the agent does not read", others, both()),
    ]
}
