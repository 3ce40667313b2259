//! A flake's lock as a graph: which trees its inputs are, and whether one of them is another than before. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::model::{NarHash, Sha256Digest, StorePath};

/// The most that a chain of `follows` may have before it is taken for an endless one.
const LONGEST_FOLLOWS: usize = 64;
/// So many other names of a tree are tried. About one in three is right.
const OTHER_NAMES: u32 = 256;

/// A lock as `nix flake metadata --json` gives it: that of Nix 2.8 and of 2.34.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Lock {
    nodes: BTreeMap<String, Node>,
    root: String,
}

#[derive(Debug, Clone, Deserialize)]
struct Node {
    #[serde(default)]
    locked: Map<String, Value>,
    #[serde(default = "yes")]
    flake: bool,
    #[serde(default)]
    inputs: BTreeMap<String, InputSpec>,
}

fn yes() -> bool {
    true
}

/// Which node an input is: named, or found by following inputs from the root.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum InputSpec {
    Node(String),
    Follows(Vec<String>),
}

/// Why a flake with this lock can only be called by Nix itself, unobserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unobservable {
    /// An input is a folder of the flake itself, or has no hash for another reason.
    #[error("its input `{0}` has no hash of its own")]
    InputWithoutHash(String),
    /// The lock is not one that Clavel understands.
    #[error("its lock is not understood ({0})")]
    Unknown(String),
}

/// A flake's lock, resolved: every tree with its hash, every input with the tree it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs {
    trees: BTreeMap<String, Tree>,
    root: String,
}

/// What is called of one tree, as `call.nix` takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Tree {
    /// What Nix fetches it by.
    locked: Map<String, Value>,
    /// Where it is in the store.
    pub(super) store_path: StorePath,
    nar_hash: NarHash,
    /// The folder of its `flake.nix`; empty for the tree itself.
    dir: String,
    /// Whether it has a `flake.nix` to call.
    flake: bool,
    /// What Nix says of it beside its path.
    pub(super) info: Map<String, Value>,
    inputs: BTreeMap<String, String>,
}

impl Tree {
    /// The folder of its `flake.nix`; empty for the tree itself.
    pub(super) fn dir(&self) -> &str {
        &self.dir
    }

    /// A name, as long as that of every source, under which the same tree has a path in the store that differs in each
    /// character of the hash. So it differs for whoever looks at a part of it, too.
    pub(super) fn other_name(&self) -> Option<String> {
        let own = self.store_path.hash_part();
        let differs = |name: &String| {
            let other = StorePath::of_tree(name, &self.nar_hash).map(|path| path.hash_part()).unwrap_or_default();
            other.len() == own.len() && other.bytes().zip(own.bytes()).all(|(other, own)| other != own)
        };
        (0..OTHER_NAMES).map(|number| format!("tree{number:02x}")).find(differs)
    }
}

impl Inputs {
    /// The inputs by `lock` of the flake whose own tree is known by `locked`.
    pub(super) fn resolve(lock: Lock, locked: &Map<String, Value>) -> Result<Self, Unobservable> {
        let mut trees = BTreeMap::new();
        for (key, node) in &lock.nodes {
            let locked = if *key == lock.root { locked } else { &node.locked };
            let inputs = node.inputs.iter().map(|(name, spec)| Ok((name.clone(), lock.resolve(spec)?)));
            trees.insert(key.clone(), tree(key, locked, node.flake, inputs.collect::<Result<_, _>>()?)?);
        }
        let root = lock.root;
        if trees.contains_key(&root) { Ok(Self { trees, root }) } else { Err(Unobservable::Unknown("no root".into())) }
    }

    /// The flake's own tree.
    pub(super) fn own(&self) -> &Tree {
        &self.trees[&self.root]
    }

    /// The trees of all inputs.
    pub(super) fn others(&self) -> impl Iterator<Item = &Tree> {
        self.trees.iter().filter(|(key, _)| **key != self.root).map(|(_, tree)| tree)
    }

    /// The names of the flake's own inputs.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.own().inputs.keys().map(String::as_str)
    }

    /// What the flake's input `name` is, with all that it has below it; the same digest means the same. None where it
    /// leads back to the flake itself, or where there is none of that name.
    pub(super) fn digest_of(&self, name: &str) -> Option<Sha256Digest> {
        let mut numbers = BTreeMap::new();
        self.number(self.own().inputs.get(name)?, &mut numbers)?;
        // Nodes by the order they are met in: Nix names them anew when others come and go.
        let mut below: Vec<(usize, Value)> = numbers
            .iter()
            .map(|(key, number)| {
                let tree = &self.trees[*key];
                let inputs: BTreeMap<_, _> =
                    tree.inputs.iter().map(|(name, key)| (name, numbers[key.as_str()])).collect();
                (*number, json!({ "locked": tree.locked, "flake": tree.flake, "inputs": inputs }))
            })
            .collect();
        below.sort_by_key(|(number, _)| *number);
        Some(Sha256Digest::from_bytes(Sha256::digest(json!(below).to_string()).into()))
    }

    /// Numbers the nodes from `key` on; none where the root is among them.
    fn number<'a>(&'a self, key: &'a str, numbers: &mut BTreeMap<&'a str, usize>) -> Option<()> {
        let mut open = vec![key];
        while let Some(key) = open.pop() {
            if key == self.root {
                return None;
            }
            let next = numbers.len();
            if numbers.contains_key(key) {
                continue;
            }
            numbers.insert(key, next);
            open.extend(self.trees[key].inputs.values().rev().map(String::as_str));
        }
        Some(())
    }

    /// As `call.nix` takes it; trees at `missing` paths are left to Nix to fetch.
    pub(super) fn as_data(&self, missing: &BTreeSet<StorePath>) -> Value {
        let shown = |tree: &Tree| {
            let mut shown = json!(tree);
            if let (true, Some(fields)) = (missing.contains(&tree.store_path), shown.as_object_mut()) {
                fields.remove("storePath");
            }
            shown
        };
        let trees: BTreeMap<&String, Value> = self.trees.iter().map(|(key, tree)| (key, shown(tree))).collect();
        json!({ "root": self.root, "trees": trees })
    }
}

impl Lock {
    fn resolve(&self, spec: &InputSpec) -> Result<String, Unobservable> {
        self.resolve_within(spec, LONGEST_FOLLOWS)
    }

    fn resolve_within(&self, spec: &InputSpec, steps: usize) -> Result<String, Unobservable> {
        let unknown = |why: String| Unobservable::Unknown(why);
        let steps = steps.checked_sub(1).ok_or_else(|| unknown("an endless `follows`".to_owned()))?;
        let key = match spec {
            InputSpec::Node(key) => key.clone(),
            InputSpec::Follows(path) => path.iter().try_fold(self.root.clone(), |at, name| {
                let spec = self.nodes.get(&at).and_then(|node| node.inputs.get(name));
                self.resolve_within(spec.ok_or_else(|| unknown(format!("no input `{name}` of `{at}`")))?, steps)
            })?,
        };
        if self.nodes.contains_key(&key) { Ok(key) } else { Err(unknown(format!("no node `{key}`"))) }
    }
}

fn tree(
    key: &str,
    locked: &Map<String, Value>,
    flake: bool,
    inputs: BTreeMap<String, String>,
) -> Result<Tree, Unobservable> {
    let nar_hash = locked.get("narHash").and_then(Value::as_str).and_then(|hash| hash.parse::<NarHash>().ok());
    let Some(nar_hash) = nar_hash else { return Err(Unobservable::InputWithoutHash(key.to_owned())) };
    let store_path = StorePath::of_source(&nar_hash).map_err(|invalid| Unobservable::Unknown(invalid.to_string()))?;
    let dir = locked.get("dir").and_then(Value::as_str).unwrap_or_default().to_owned();
    // Newer versions mark what needs no look at its origin any more; `fetchTree` does not take the mark.
    let fetched_by = locked.iter().filter(|(name, _)| !matches!(name.as_str(), "dir" | "__final"));
    let info = info(locked);
    let locked = fetched_by.map(|(name, value)| (name.clone(), value.clone())).collect();
    Ok(Tree { locked, store_path, nar_hash, dir, flake, info, inputs })
}

/// The attributes that Nix gives a tree which is locked like this, but its `outPath` (Nix's manual, `fetchTree`).
fn info(locked: &Map<String, Value>) -> Map<String, Value> {
    let mut info = Map::new();
    for name in ["narHash", "rev", "revCount", "lastModified", "dirtyRev", "dirtyShortRev"] {
        if let Some(value) = locked.get(name) {
            info.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(rev) = locked.get("rev").and_then(Value::as_str) {
        info.insert("shortRev".to_owned(), rev.chars().take(7).collect::<String>().into());
    }
    if let Some(seconds) = locked.get("lastModified").and_then(Value::as_u64) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let date: String =
            humantime::format_rfc3339_seconds(time).to_string().chars().filter(char::is_ascii_digit).collect();
        info.insert("lastModifiedDate".to_owned(), date.into());
    }
    if locked.get("type").and_then(Value::as_str) == Some("git") {
        let submodules = locked.get("submodules").and_then(Value::as_bool).unwrap_or(false);
        info.insert("submodules".to_owned(), submodules.into());
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"type":"git","url":"file:///x","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=",
        "rev":"ae6b0437f48df0c54a69d616f4d8d7139dd99f52","revCount":3,"lastModified":1795460113,"dir":"sub"}"#;

    /// Two inputs, one below the other, whose own input follows the flake's.
    const LOCK: &str = r#"{"root":"root","version":7,"nodes":{
        "root":{"inputs":{"lib":"lib_2","tools":"tools"}},
        "lib_2":{"locked":{"type":"path","path":"/a","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4="}},
        "lib":{"flake":false,"locked":{"type":"path","path":"/b","narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}},
        "tools":{"inputs":{"lib":["lib"],"own":"lib"},"locked":{"type":"path","path":"/c","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4="}}}}"#;

    fn resolved(lock: &str) -> Result<Inputs, Unobservable> {
        Inputs::resolve(serde_json::from_str(lock).unwrap(), &serde_json::from_str(OWN).unwrap())
    }

    #[test]
    fn what_follows_is_resolved_and_the_tree_is_where_nix_has_it() {
        let inputs = resolved(LOCK).unwrap();
        assert_eq!(inputs.trees["tools"].inputs["lib"], "lib_2");
        assert_eq!(inputs.names().collect::<Vec<_>>(), ["lib", "tools"]);
        assert_eq!(inputs.own().dir, "sub");
        // Printed by Nix for a tree of that hash.
        let real: NarHash = "sha256-NSxBtHrFrrvc9NATaGb8H9RAbYj1ZC/UA2LIX1RsQGk=".parse().unwrap();
        assert_eq!(
            StorePath::of_source(&real).unwrap().to_string(),
            "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source"
        );
    }

    #[test]
    fn under_another_name_a_tree_is_at_another_path_in_every_character() {
        let inputs = resolved(LOCK).unwrap();
        for tree in inputs.trees.values() {
            let name = tree.other_name().unwrap();
            assert_eq!(name.len(), "source".len());
            let other = StorePath::of_tree(&name, &tree.nar_hash).unwrap().hash_part();
            let own = tree.store_path.hash_part();
            assert!(other.bytes().zip(own.bytes()).all(|(other, own)| other != own), "{own} {other}");
        }
    }

    #[test]
    fn what_a_flake_knows_of_itself_is_what_nix_tells_it() {
        let info = Value::Object(resolved(LOCK).unwrap().own().info.clone());
        let expected = json!({
            "lastModified": 1_795_460_113, "lastModifiedDate": "20261123185513", "rev": "ae6b0437f48df0c54a69d616f4d8d7139dd99f52",
            "narHash": "sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=", "revCount": 3, "shortRev": "ae6b043", "submodules": false,
        });
        assert_eq!(info, expected);
    }

    #[test]
    fn an_input_is_another_when_anything_below_it_is() {
        let before = resolved(LOCK).unwrap();
        let renamed = resolved(&LOCK.replace("lib_2", "lib_3")).unwrap();
        assert_eq!(before.digest_of("tools"), renamed.digest_of("tools"));
        let bumped = resolved(&LOCK.replace("\"/b\"", "\"/b2\"")).unwrap();
        assert_ne!(before.digest_of("tools"), bumped.digest_of("tools"));
        assert_eq!(before.digest_of("lib"), bumped.digest_of("lib"));
        assert!(before.digest_of("lib").is_some());
        let by_name = resolved(&LOCK.replace("\"lib\":[\"lib\"]", "\"lib\":\"lib\"")).unwrap();
        assert_ne!(before.digest_of("tools"), by_name.digest_of("tools"));
    }

    #[test]
    fn an_input_that_is_the_flake_itself_has_no_digest() {
        let inputs = resolved(&LOCK.replace("\"lib\":[\"lib\"]", "\"lib\":[]")).unwrap();
        assert_eq!(inputs.digest_of("tools"), None);
        assert!(inputs.digest_of("lib").is_some());
    }

    #[test]
    fn locks_that_cannot_be_called_by_clavel_are_told_apart() {
        let relative = LOCK.replace(r#","narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=""#, "");
        assert_eq!(resolved(&relative).unwrap_err(), Unobservable::InputWithoutHash("lib".to_owned()));
        let endless = LOCK.replace(r#""lib":"lib_2","tools""#, r#""lib":["tools","lib"],"tools""#);
        assert!(matches!(resolved(&endless).unwrap_err(), Unobservable::Unknown(_)));
        assert!(matches!(resolved(&LOCK.replace("[\"lib\"]", "[\"x\"]")).unwrap_err(), Unobservable::Unknown(_)));
    }
}
