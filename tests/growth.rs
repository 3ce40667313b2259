//! Promise: agents of today go on with what they understand of the branch of a newer claveld, and what they do not understand
//! names the document or the root and says to upgrade. A newer claveld stands here as a writer that uses none of Clavel's code.

use serde_json::{Value, json};

use crate::rotation::next_root;
use crate::support::attacker::{ForgedBranch, Onto, StolenKey, sha256};
use crate::support::world::World;

/// A machine that runs the first revision of `web-1`, and the key of its publisher.
fn running() -> (World, StolenKey) {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    let key = StolenKey::read(&world.path("claveld-1.secret"));
    (world, key)
}

/// Adds a field to every object of `value`, apart from those that are keyed by names.
fn with_new_fields(value: &mut Value) {
    /// Adds it to each value of an object that is keyed by names, `levels` deep.
    fn by_name(value: &mut Value, levels: usize) {
        match value {
            Value::Object(names) if levels > 0 => names.values_mut().for_each(|value| by_name(value, levels - 1)),
            value => with_new_fields(value),
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match name.as_str() {
                    "metadata" | "bins" | "held" => by_name(value, 1),
                    "documents" | "tombstones" => by_name(value, 2),
                    _ => with_new_fields(value),
                }
            }
            fields.insert("newField".to_owned(), json!({ "a": [1, null, true, "x"], "b": {} }));
        }
        Value::Array(items) => items.iter_mut().for_each(with_new_fields),
        _ => {}
    }
}

/// Adds a field to a file beside what is signed, and to each of its signatures.
fn with_new_envelope(branch: &mut ForgedBranch<'_>, path: &str) {
    let mut file: Value = serde_json::from_slice(&branch.files[path].bytes).unwrap();
    file["newField"] = json!(1);
    for signature in file["signatures"].as_array_mut().unwrap() {
        signature["newField"] = json!(1);
    }
    let unknown = json!({ "keyid": "post-quantum-1", "sig": "bm90IGVkMjU1MTk=" });
    file["signatures"].as_array_mut().unwrap().push(unknown);
    branch.write(path, crate::support::attacker::rendered(&file));
}

#[test]
fn fields_kinds_and_folders_of_a_newer_clavel_are_ignored() {
    let (world, key) = running();
    world.change_from_memory("Welcome", "Hello");
    let mut branch = ForgedBranch::of(&world);
    for path in ["deployments/web-1.json", "units/web-1.json", "agents/web-1.json"] {
        branch.edit(path, &[&key], |signed| {
            signed["revision"] = json!(9);
            with_new_fields(signed);
        });
        with_new_envelope(&mut branch, path);
    }
    let site = json!({ "kind": "Site", "name": "berlin", "revision": 1, "schema": "clavel/v1" });
    branch.sign("sites/berlin.json", &site, &[&key]);
    branch.reindex(&[&key], |index| index["version"] = json!(9));
    let file = branch.files["sites/berlin.json"].bytes.clone();
    branch.edit_bin("all", &[&key], |bin| {
        bin["documents"]["sites"]["berlin"] = json!({ "length": file.len(), "revision": 1, "sha256": sha256(&file) });
        with_new_fields(bin);
    });
    branch.edit("index.json", &[&key], |index| {
        index["folders"].as_array_mut().unwrap().push(json!("sites"));
        with_new_fields(index);
    });
    with_new_envelope(&mut branch, "index.json");
    branch.push(Onto::Tip);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 9\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
    world.verify().good();
    // The claveld of today goes on as well, and keeps what it does not know.
    world.change_from_memory("Hello", "Good day");
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 10\n");
    let bin: Value = serde_json::from_str(&world.on_branch("index/all.json").unwrap()).unwrap();
    assert_eq!(bin["documents"]["sites"]["berlin"]["sha256"], sha256(&file));
    assert!(world.on_branch("sites/berlin.json").is_some());
    world.verify().good();
    // A folder that the index does not name is still refused.
    let mut branch = ForgedBranch::of(&world);
    branch.write("rooms/a.json", "{}\n");
    branch.push(Onto::Tip);
    world.agent("web-1", &["once"]).refused(5, "`rooms` does not belong on a branch of Clavel");
}

#[test]
fn a_deployment_with_a_critical_field_of_a_newer_clavel_waits_for_an_upgrade() {
    let (world, key) = running();
    world.change_from_memory("Welcome", "Hello");
    let publish = |critical: Value, version: u64| {
        let mut branch = ForgedBranch::of(&world);
        branch.edit("deployments/web-1.json", &[&key], |signed| {
            signed["revision"] = json!(version);
            signed["specification"]["schedule"] = json!({ "window": "Sunday" });
            signed["critical"] = critical;
        });
        branch.reindex(&[&key], |index| index["version"] = json!(version));
        branch.push(Onto::Tip);
    };
    publish(json!(["specification.unit", "specification.schedule"]), 3);
    let said =
        world.agent("web-1", &["once"]).refused(5, "web-1: deployments/web-1.json is written for a newer Clavel");
    assert!(said.contains("its field `specification.schedule` is critical"), "{said}");
    assert!(said.contains("upgrade this program"), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    publish(json!(["specification.rollback"]), 4);
    world.agent("web-1", &["once"]).refused(5, "it names `specification.rollback`, which the file does not have");
    publish(json!(["specification.unit", "specification.template.narId", "name"]), 5);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 5\n");
}

#[test]
fn an_index_or_a_bin_of_a_newer_schema_is_refused_with_what_to_do() {
    let (world, key) = running();
    let good = world.tip();
    let refused = |branch: &ForgedBranch<'_>, why: &str| {
        branch.push(Onto::Tip);
        let said = world.agent("web-1", &["once"]).refused(5, why);
        assert!(said.contains("upgrade this program"), "{said}");
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
        world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
        assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    };
    let mut branch = ForgedBranch::of(&world);
    branch.edit("index.json", &[&key], |index| index["schema"] = json!("clavel/v2"));
    refused(&branch, "the index cannot be trusted: it is a Index of the schema `clavel/v2`");
    let mut branch = ForgedBranch::of(&world);
    branch.edit_bin("all", &[&key], |bin| bin["schema"] = json!("clavel/v2"));
    refused(&branch, "cannot read the bin all of the index: it is a Bin of the schema `clavel/v2`");
}

#[test]
fn a_root_of_a_newer_format_stops_an_older_agent_only_if_the_root_keys_signed_it() {
    let (world, _) = running();
    let root_key = StolenKey::read(&world.path("root-1.secret"));
    let good = world.tip();
    let next = |key: &StolenKey| {
        let mut branch = ForgedBranch::of(&world);
        let mut root = branch.signed("root.json");
        root["version"] = json!(2);
        root["fleet"] = json!(world.fleet());
        root["format"] = json!(2);
        // A key of a kind that this version cannot read.
        root["roles"]["approver"]["keys"] = json!(["ml-dsa-87 AAAA alice"]);
        branch.sign("root.json", &root, &[key]);
        branch.sign("roots/2.json", &root, &[key]);
        branch.push(Onto::Tip);
    };
    next(&StolenKey::own("root-1", 7));
    world.agent("web-1", &["once"]).refused(5, "no valid signature by a trusted key");
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &good]);
    next(&root_key);
    let said =
        world.agent("web-1", &["once"]).refused(5, "it needs the format 2, and this Clavel knows the formats up to 1");
    assert!(said.contains("roots/2.json") && said.contains("upgrade this program"), "{said}");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // A claveld that does not know the format publishes nothing.
    let before = world.tip();
    world.publish().refused(5, "it needs the format 2");
    assert_eq!(world.tip(), before);
}

#[test]
fn state_that_a_newer_clavel_wrote_is_refused_and_kept() {
    let (world, _) = running();
    for (file, program) in [("web-1/state/state.json", "agent"), ("claveld/published.json", "claveld")] {
        let text = world.read_file(file).replace("\"version\": 1\n", "\"version\": 2\n");
        world.write_file(file, &text);
        let ran = if program == "agent" { world.agent("web-1", &["once"]) } else { world.publish() };
        assert_ne!(ran.code, Some(0));
        assert!(
            ran.stderr.contains("it is of version 2") && ran.stderr.contains("upgrade this program"),
            "{}",
            ran.stderr
        );
        assert_eq!(world.read_file(file), text);
    }
}

/// What claveld and an agent of the time before the first release wrote: a branch, keys and state folders.
fn from_before_the_release() -> World {
    let world = World::new();
    let fixture = |name: &str| format!("{}/fixtures/before-release/{name}", env!("CARGO_MANIFEST_DIR"));
    for (file, place) in [
        ("root.json", "root.json"),
        ("root-1.secret", "root-1.secret"),
        ("claveld-1.secret", "claveld-1.secret"),
        ("state.json", "web-1/state/state.json"),
        ("published.json", "claveld/published.json"),
    ] {
        let text = std::fs::read_to_string(fixture(file)).unwrap();
        let _ = std::fs::remove_file(world.path(place));
        world.write_file(place, &text.replace("REPOSITORY", &world.at("fleet.git")));
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(world.path(place), owner_only).unwrap();
    }
    let bundle = fixture("branch.bundle");
    world.git(&["-C", &world.at("fleet.git"), "fetch", "-q", &bundle, "deployments:deployments"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

#[test]
fn a_fleet_of_before_the_first_release_begins_a_new_epoch() {
    let world = from_before_the_release();
    let (state, before) = (world.read_file("web-1/state/state.json"), world.tip());
    let told = "it is an index of Clavel's time before the first release";
    let said = world.agent("web-1", &["once"]).refused(5, told);
    assert!(said.contains("`clavel root next --raise-epoch`"), "{said}");
    assert_eq!(world.read_file("web-1/state/state.json"), state);
    // The note of the last publication is of that time too. It says what to do, and is not overwritten.
    let note = world.read_file("claveld/published.json");
    let said = world.publish().stderr;
    assert!(said.contains("published.json") && said.contains("delete the file to continue"), "{said}");
    assert_eq!((world.read_file("claveld/published.json"), world.tip()), (note, before));
    std::fs::remove_file(world.path("claveld/published.json")).unwrap();
    world.publish().refused(5, told);
    next_root(&world, &["--raise-epoch"]);
    world.publish().good();
    world.verify().good();
    world.build(&["web-1"]);
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert!(world.read_file("web-1/state/state.json").contains("\"version\": 1"));
}
