//! Branches that an agent refuses, though each of their files is written in its one rendering.

use serde_json::{Value, json};

use super::branch::{CLAVELD_1, CLAVELD_2, Key, MALLORY, ROOT_1, ROOT_2, Vector, VectorBranch, file, nar_id, role};
use super::good::{three_roots, two_publishers};

/// The deployment that most vectors change.
const PATH: &str = "deployments/web-1.json";

/// A branch after a change.
fn changed(mut branch: VectorBranch, change: impl FnOnce(&mut VectorBranch)) -> VectorBranch {
    change(&mut branch);
    branch
}

pub(super) fn roots() -> Vec<Vector> {
    let refused = Vector::refused;
    let next = |change: fn(&mut Value)| changed(VectorBranch::new(), |branch| branch.next_root(&[ROOT_1], change));
    let anchor = changed(VectorBranch::new(), |branch| branch.anchor = "0".repeat(64));
    let late = changed(VectorBranch::new(), |branch| {
        branch.edit("index.json", |index| index["expires"] = json!("2030-01-01T00:00:00Z"));
        branch.now = "2027-01-01T00:00:00Z";
    });
    let gap = changed(three_roots(), |branch| drop(branch.files.remove("roots/2.json")));
    let stranger = changed(VectorBranch::new(), |branch| {
        branch.next_root(&[ROOT_2], |root| root["roles"]["root"] = role(&[ROOT_2], 1));
    });
    let not_itself = changed(VectorBranch::new(), |branch| {
        branch.next_root(&[ROOT_1], |root| root["roles"]["root"] = role(&[ROOT_2], 1));
    });
    let newest = changed(three_roots(), |branch| branch.put("root.json", branch.files["roots/2.json"].clone()));
    let forged = changed(VectorBranch::new(), |branch| branch.next_root(&[MALLORY], |root| root["format"] = json!(2)));
    let same_key = json!({ "keys": [CLAVELD_1.public(), CLAVELD_1.public_as("claveld-2")], "threshold": 2 });
    let same_key = VectorBranch::with(0, &[CLAVELD_1], |root| root["roles"]["publisher"] = same_key);
    let few = VectorBranch::with(0, &[CLAVELD_1], |root| root["approvals"] = json!([{ "approvals": 1, "match": "*" }]));
    vec![
        refused("root-other-anchor", "fleet", "the first root is not the one that the agent trusts", anchor),
        refused("root-expired", "expired", "the time is that at which the root expires", late),
        refused("root-gap", "roots", "the second of three roots is missing", gap),
        refused(
            "root-by-a-stranger",
            "signatures",
            "the key of the root before did not sign the second root",
            stranger,
        ),
        refused("root-not-by-itself", "signatures", "the second root's own key did not sign it", not_itself),
        refused("root-older-as-newest", "roots", "root.json is the second of three roots", newest),
        refused("root-format-2", "format", "the root is for newer readers", next(|root| root["format"] = json!(2))),
        refused("root-format-2-forged", "signatures", "a stranger says that the root is for newer readers", forged),
        refused(
            "root-threshold-9",
            "malformed",
            "nine have to sign, and one root could not hold the signatures of nine old keys and nine new ones",
            next(|root| root["roles"]["approver"]["threshold"] = json!(9)),
        ),
        refused("root-epoch-leaps", "epoch", "an epoch goes up by two", next(|root| root["epoch"] = json!(3))),
        refused(
            "root-other-fleet",
            "fleet",
            "the second root is of another fleet",
            next(|root| root["fleet"] = json!("1".repeat(64))),
        ),
        refused(
            "root-one-key-twice",
            "keys",
            "two publishers have to sign, and have one key under two names",
            same_key,
        ),
        refused("root-without-approvers", "keys", "the root asks for more approvals than there are approvers", few),
    ]
}

pub(super) fn index_signatures() -> Vec<Vector> {
    let refused = Vector::refused;
    let with_signatures = |branch: VectorBranch, keys: &[Key]| {
        changed(branch, |branch| {
            let index = branch.signed("index.json");
            branch.sign_by("index.json", &index, keys);
        })
    };
    let renamed = changed(two_publishers(), |branch| {
        let index = branch.signed("index.json");
        let mut again = CLAVELD_1.sign("Index", &index);
        again["keyid"] = json!("claveld-2");
        branch.put("index.json", file(&[CLAVELD_1.sign("Index", &index), again], &index));
    });
    let as_unit = changed(VectorBranch::new(), |branch| {
        let index = branch.signed("index.json");
        branch.put("index.json", file(&[CLAVELD_1.sign("Unit", &index)], &index));
    });
    let late = changed(VectorBranch::new(), |branch| branch.now = "2026-01-08T00:00:00Z");
    let old_key = changed(three_roots(), |branch| {
        let index = branch.signed("index.json");
        branch.sign_by("index.json", &index, &[CLAVELD_1]);
    });
    vec![
        refused(
            "index-missing",
            "missing",
            "there is no index",
            changed(VectorBranch::new(), |b| drop(b.files.remove("index.json"))),
        ),
        refused(
            "index-unsigned",
            "signatures",
            "the index has no signature",
            with_signatures(VectorBranch::new(), &[]),
        ),
        refused(
            "index-by-a-stranger",
            "signatures",
            "another key signed the index",
            with_signatures(VectorBranch::new(), &[MALLORY]),
        ),
        refused("index-by-an-old-key", "signatures", "a key signed that a newer root took out", old_key),
        refused(
            "index-one-of-two",
            "signatures",
            "one of two publishers signed",
            with_signatures(two_publishers(), &[CLAVELD_2]),
        ),
        refused("index-one-key-twice", "signatures", "one publisher signed twice, under two names", renamed),
        refused("index-signed-as-unit", "signatures", "the signature is for another type", as_unit),
        refused("index-expired", "expired", "the time is that at which the index expires", late),
    ]
}

/// A name, a keyword, what it is about, and the change to what is signed.
type Edit = (&'static str, &'static str, &'static str, fn(&mut Value));

pub(super) fn index_fields() -> Vec<Vector> {
    let edits: [Edit; 8] = [
        ("index-other-fleet", "fleet", "the index is of another fleet", |index| index["fleet"] = json!("1".repeat(64))),
        ("index-other-branch", "branch", "the index is of another branch", |index| index["branch"] = json!("staging")),
        ("index-other-epoch", "epoch", "the index is of another epoch", |index| index["epoch"] = json!(2)),
        ("index-schema-2", "newer", "the index is of another schema", |index| index["schema"] = json!("clavel/v2")),
        ("index-no-schema", "malformed", "the schema is none of Clavel's", |index| index["schema"] = json!("v1")),
        ("index-critical", "newer", "the index has an unknown critical field", |index| {
            index["newField"] = json!(1);
            index["critical"] = json!(["newField"]);
        }),
        ("index-critical-absent", "malformed", "a critical field is not there", |index| {
            index["critical"] = json!(["newField"]);
        }),
        ("index-reserved-folder", "malformed", "the index has documents in the folder of roots", |index| {
            index["folders"] = json!(["agents", "deployments", "roots", "units"]);
        }),
    ];
    let vector = |(name, error, about, change): Edit| {
        Vector::refused(name, error, about, changed(VectorBranch::new(), |branch| branch.edit("index.json", change)))
    };
    edits.into_iter().map(vector).collect()
}

pub(super) fn bins() -> Vec<Vector> {
    let refused = Vector::refused;
    let own = VectorBranch::sixteen().bin("web-1");
    let own_file = format!("index/{own}.json");
    let withheld = changed(VectorBranch::sixteen(), |branch| drop(branch.files.remove(&own_file)));
    let other = VectorBranch::sixteen().bin("site-1");
    let swapped = changed(VectorBranch::sixteen(), |branch| {
        let (one, two) = (own_file.clone(), format!("index/{other}.json"));
        let files = (branch.files[&one].clone(), branch.files[&two].clone());
        branch.put(&one, files.1);
        branch.put(&two, files.0);
    });
    let foreign = changed(VectorBranch::sixteen(), |branch| {
        let name = ["a", "b", "c", "d"].into_iter().find(|name| branch.bin(name) != own).unwrap_or_default();
        branch.edit_bin(&own, |bin| {
            bin["held"][name] = json!({ "revision": 1, "since": "2026-01-01T00:00:00Z", "why": "" });
        });
    });
    let buried = changed(VectorBranch::sixteen(), |branch| {
        branch.edit_bin(&own, |bin| bin["tombstones"]["deployments"]["web-1"] = json!({ "revision": 1 }));
    });
    let fewer = changed(VectorBranch::sixteen(), |branch| {
        branch.files.remove("index/0.json");
        branch.sign_bins();
    });
    let none = changed(VectorBranch::new(), |branch| branch.edit("index.json", |index| index["bins"] = json!({})));
    let newer = changed(VectorBranch::new(), |branch| branch.edit_bin("all", |bin| bin["schema"] = json!("clavel/v2")));
    let kind = changed(VectorBranch::new(), |branch| branch.edit_bin("all", |bin| bin["kind"] = json!("Index")));
    let tampered =
        changed(VectorBranch::new(), |branch| branch.edit_file("index/all.json", |bin| bin["newField"] = json!(1)));
    vec![
        refused("bin-withheld", "missing", "the bin of a deployment is missing", withheld),
        refused("bin-tampered", "digest", "a field was added to the bin", tampered),
        refused("bin-swapped", "digest", "two bins changed places", swapped),
        refused("bin-other-name", "bins", "a bin lists a name of another bin", foreign),
        refused("bin-tombstone-of-listed", "tombstone", "a document is listed and withdrawn", buried),
        refused("bin-wrong-number", "malformed", "there are 15 bins", fewer),
        refused("bin-none", "malformed", "there are no bins", none),
        refused("bin-schema-2", "newer", "the bin is of another schema", newer),
        refused("bin-other-kind", "malformed", "the bin says that it is an index", kind),
    ]
}

/// A name, what it is about, the branch, and the path of a file that does not belong on it.
type ForeignFile<'a> = (&'static str, &'static str, fn() -> VectorBranch, &'a str);

pub(super) fn layouts() -> Vec<Vector> {
    let in_own = format!("deployments/{}/other.json", VectorBranch::sixteen().bin("web-1"));
    let (one, sixteen) = (VectorBranch::new, VectorBranch::sixteen);
    let files: [ForeignFile<'_>; 8] = [
        ("layout-top-file", "there is a foreign file at the top", one, "flake.nix"),
        ("layout-top-folder", "there is a folder that the index does not name", one, "sites/berlin.json"),
        ("layout-unlisted", "a folder has a document that no bin lists", one, "deployments/other.json"),
        ("layout-unlisted-in-bin", "the same in the folder of a bin", sixteen, &in_own),
        ("layout-beside-bins", "a file is beside the folders of the bins", sixteen, "units/web-1.json"),
        ("layout-roots", "the number of a root has a leading zero", one, "roots/01.json"),
        ("layout-index", "there is a bin that does not belong", one, "index/0.json"),
        ("layout-approvals", "a file is where the folders of deployments belong", one, "approvals/db-1.json"),
    ];
    let vector = |(name, about, branch, path): ForeignFile<'_>| {
        Vector::refused(name, "layout", about, changed(branch(), |branch| branch.put(path, b"{}\n".to_vec())))
    };
    files.into_iter().map(vector).collect()
}

pub(super) fn documents() -> Vec<Vector> {
    let refused = Vector::refused;
    let listed = |change: fn(&mut Value)| changed(VectorBranch::new(), |branch| branch.edit_listed(PATH, change));
    let tampered = changed(VectorBranch::new(), |branch| {
        let text = String::from_utf8_lossy(&branch.files[PATH]).replace("sppdcry-web-1", "sppdcry-web-2");
        branch.put(PATH, text.into_bytes());
    });
    let removed = |path: &'static str| changed(VectorBranch::new(), move |branch| drop(branch.files.remove(path)));
    let unlisted = changed(VectorBranch::new(), |branch| {
        branch.files.remove(PATH);
        branch.reindex();
    });
    let other_name = changed(VectorBranch::new(), |branch| {
        branch.put(PATH, branch.files["deployments/web-9.json"].clone());
        branch.reindex();
    });
    let other_kind = changed(VectorBranch::new(), |branch| {
        branch.put(PATH, branch.files["units/web-1.json"].clone());
        branch.reindex();
    });
    let unsigned = changed(VectorBranch::new(), |branch| {
        branch.edit_file(PATH, |file| file["signed"]["specification"]["template"]["narId"] = json!(nar_id("evil")));
        branch.reindex();
    });
    let other_revision = changed(VectorBranch::new(), |branch| {
        branch.edit_bin("all", |bin| bin["documents"]["deployments"]["web-1"]["revision"] = json!(8));
    });
    let one_unit = changed(VectorBranch::new(), |branch| {
        branch.put_deployment("db-1", "web-1", 7);
        branch.reindex();
    });
    let critical = listed(|signed| signed["critical"] = json!([]));
    let not_base64 = changed(VectorBranch::new(), |branch| {
        branch.edit_file(PATH, |file| file["signatures"][0]["sig"] = json!("not base64"));
        branch.reindex();
    });
    vec![
        refused("document-tampered", "digest", "one byte of a document differs", tampered),
        refused("document-unsigned", "signatures", "a document differs from what was signed, and is listed", unsigned),
        refused("document-missing", "missing", "a listed document is not there", removed(PATH)),
        refused("document-unit-missing", "missing", "a listed unit is not there", removed("units/web-1.json")),
        refused("document-critical-empty", "malformed", "`critical` names no field", critical),
        refused(
            "document-agent-missing",
            "missing",
            "the agent's own document is not there",
            removed("agents/site-1.json"),
        ),
        refused("document-unlisted", "missing", "a bin has neither the deployment nor its tombstone", unlisted),
        refused("document-other-name", "document", "a document of another name is listed", other_name),
        refused("document-other-revision", "document", "the bin lists another revision", other_revision),
        refused("document-other-kind", "malformed", "a unit is in place of a deployment", other_kind),
        refused(
            "document-other-fleet",
            "fleet",
            "a document is of another fleet",
            listed(|signed| signed["fleet"] = json!("1".repeat(64))),
        ),
        refused(
            "document-without-unit",
            "malformed",
            "a field is missing",
            listed(|signed| {
                signed["specification"] = json!({ "template": signed["specification"]["template"] });
            }),
        ),
        refused("document-two-of-one-unit", "units", "two deployments are for one unit", one_unit),
        refused("document-signature-not-base64", "malformed", "a signature is not base64", not_base64),
    ]
}
