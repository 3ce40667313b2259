//! Promise: the committed schemas, man pages, completions and test vectors agree with the programs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::world::World;

#[path = "../examples/generate/vectors.rs"]
mod vectors;
#[path = "../examples/generate/write.rs"]
mod write;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// All files below the generated folders of `root`, by their paths.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = ["schemas", "share", "fixtures/format"].map(|folder| root.join(folder)).to_vec();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn the_committed_files_are_up_to_date() {
    let fresh = tempfile::tempdir().unwrap();
    write::all(fresh.path()).unwrap();
    vectors::all(fresh.path()).unwrap();
    let (committed, generated) = (files(Path::new(ROOT)), files(fresh.path()));
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&committed), names(&generated), "run `make generate`");
    for (name, bytes) in generated {
        assert!(committed[&name] == bytes, "{name} is not up to date: run `make generate`");
    }
}

fn schema(name: &str) -> jsonschema::Validator {
    let text = std::fs::read_to_string(Path::new(ROOT).join(format!("schemas/{name}.schema.json"))).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[test]
fn published_documents_fit_their_schemas_and_altered_ones_do_not() {
    let world = World::new();
    world.publish().good();
    for (path, name) in [
        ("deployments/web-1.json", "deployment"),
        ("units/web-1.json", "unit"),
        ("agents/web-1.json", "agent"),
        ("index.json", "index"),
    ] {
        let schema = schema(name);
        let good: Value = serde_json::from_str(&world.on_branch(path).unwrap()).unwrap();
        let errors: Vec<String> = schema.iter_errors(&good).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
        for (pointer, value) in [("/signed/kind", json!("Other")), ("/signed/schema", json!("v9"))] {
            let mut bad = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            bad.pointer_mut(parent).unwrap()[key] = value;
            assert!(!schema.is_valid(&bad), "{path} with {pointer}");
        }
        let mut newer = good.clone();
        newer["signed"]["new"] = json!({ "field": 1 });
        assert!(schema.is_valid(&newer), "{path}");
    }
    let bin: Value = serde_json::from_str(&world.on_branch("index/all.json").unwrap()).unwrap();
    assert!(schema("bin").is_valid(&bin));
    assert!(!schema("bin").is_valid(&json!({ "kind": "Bin" })));
    let found = world.claveld(&["evaluate", &world.flake(), "--json"]).json();
    assert!(schema("evaluation").is_valid(&found));
    assert!(!schema("evaluation").is_valid(&json!({ "deployments": [] })));
}
