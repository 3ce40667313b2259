//! A flake's lock as a graph: the tree of each input, and a digest that tells whether an input changed. No I/O.
//!
//! Reading the lock is the work of `nix`; calling the flake with it is the work of `call.nix`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::model::{NarHash, Sha256Digest, StorePath, Timestamp};

/// The longest chain of `follows`. A longer one counts as endless.
const MAX_FOLLOWS: usize = 64;
/// How many other names of a tree are tried. About one in three fits.
const OTHER_NAMES: u32 = 256;

/// A lock as `nix flake metadata --json` prints it, from Nix 2.8 to 2.34.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Lock {
    nodes: BTreeMap<String, LockNode>,
    root: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct LockNode {
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

/// The node of an input: by its name, or by a path of inputs from the root.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum InputSpec {
    Node(String),
    Follows(Vec<String>),
}

/// Why Clavel's expression cannot call a flake, so that Nix has to call it and its reads are not seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallObstacle {
    /// An input is a folder of the flake itself, or has no hash for another reason.
    #[error("its input `{0}` has no hash of its own")]
    InputWithoutHash(String),
    /// Clavel does not understand the lock.
    #[error("its lock is not understood ({0})")]
    UnknownLock(String),
}

/// A flake's lock in which every input leads to its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvedLock {
    trees: BTreeMap<String, LockedTree>,
    root: String,
}

/// One tree of a lock, in the form that `call.nix` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LockedTree {
    /// The attributes by which Nix fetches it.
    locked: Map<String, Value>,
    /// Its path in the store.
    pub(super) store_path: StorePath,
    nar_hash: NarHash,
    /// The folder of its `flake.nix`; empty for the tree itself.
    dir: String,
    /// Whether it is a flake.
    flake: bool,
    /// The attributes that Nix gives it besides its path.
    pub(super) info: Map<String, Value>,
    inputs: BTreeMap<String, String>,
}

impl LockedTree {
    /// The folder of its `flake.nix`; empty for the tree itself.
    pub(super) fn dir(&self) -> &str {
        &self.dir
    }

    /// The store path of the tree under another name of the same length. It differs in every character of the hash, so that any part
    /// of the path differs.
    pub(super) fn other_path(&self) -> Option<StorePath> {
        let own = self.store_path.hash_part();
        let differs = |other: &StorePath| other.hash_part().bytes().zip(own.bytes()).all(|(other, own)| other != own);
        let other = |number| StorePath::of_tree(&format!("tree{number:02x}"), &self.nar_hash).ok();
        (0..OTHER_NAMES).filter_map(other).find(differs)
    }
}

impl ResolvedLock {
    /// Resolves `lock`. `locked` has the attributes of the flake's own tree.
    pub(super) fn new(lock: Lock, locked: &Map<String, Value>) -> Result<Self, CallObstacle> {
        let mut trees = BTreeMap::new();
        for (key, node) in &lock.nodes {
            let locked = if *key == lock.root { locked } else { &node.locked };
            let inputs = node.inputs.iter().map(|(name, spec)| Ok((name.clone(), lock.resolve(spec)?)));
            trees.insert(key.clone(), tree(key, locked, node.flake, inputs.collect::<Result<_, _>>()?)?);
        }
        let root = lock.root;
        if trees.contains_key(&root) {
            Ok(Self { trees, root })
        } else {
            Err(CallObstacle::UnknownLock("no root".into()))
        }
    }

    /// The flake's own tree.
    pub(super) fn own(&self) -> &LockedTree {
        &self.trees[&self.root]
    }

    /// The names of the flake's own inputs.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.own().inputs.keys().map(String::as_str)
    }

    /// A digest of the flake's input `name` with all inputs below it. None where the input leads back to the flake itself,
    /// or where the flake has no such input.
    pub(super) fn digest_of(&self, name: &str) -> Option<Sha256Digest> {
        let mut numbers = BTreeMap::new();
        self.number(self.own().inputs.get(name)?, &mut numbers)?;
        // The nodes in the order in which they are met: Nix renames nodes when others are added or removed.
        let mut below: Vec<(usize, Value)> = numbers
            .iter()
            .map(|(key, number)| {
                let tree = &self.trees[*key];
                let inputs: BTreeMap<_, _> =
                    tree.inputs.iter().map(|(name, key)| (name, numbers[key.as_str()])).collect();
                (*number, json!({ "locked": tree.locked, "dir": tree.dir, "flake": tree.flake, "inputs": inputs }))
            })
            .collect();
        below.sort_by_key(|(number, _)| *number);
        Some(Sha256Digest::of(json!(below).to_string()))
    }

    /// Numbers the nodes below `key`. None where the root is one of them.
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

    /// The data for `call.nix`. An absent input has the reason in place of its store path.
    pub(super) fn as_data(&self, absent: &AbsentInputs) -> Value {
        let data = |(key, tree): (&String, &LockedTree)| {
            let mut data = json!(tree);
            if let (Some(why), Some(fields)) = (absent.get(key), data.as_object_mut()) {
                fields.remove("storePath");
                fields.insert("absent".to_owned(), format!("cannot fetch the input {key}: {why}").into());
            }
            (key.clone(), data)
        };
        let trees: BTreeMap<String, Value> = self.trees.iter().map(data).collect();
        json!({ "root": self.root, "trees": trees })
    }
}

/// The inputs that are not in the store, by their keys in the lock, with the reason of each.
pub(super) type AbsentInputs = BTreeMap<String, String>;

/// The locked attributes that `fetchTree` takes. Newer versions mark a tree that needs no query of its origin; it accepts neither the
/// mark nor the folder of the flake.
pub(super) fn as_fetched(locked: &Map<String, Value>) -> Map<String, Value> {
    let is_for_it = |name: &str| !matches!(name, "dir" | "__final");
    locked.iter().filter(|(name, _)| is_for_it(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The store path of a locked tree; none where it has no hash.
pub(super) fn store_path_of(locked: &Map<String, Value>) -> Option<StorePath> {
    let hash: NarHash = locked.get("narHash")?.as_str()?.parse().ok()?;
    StorePath::of_source(&hash).ok()
}

impl Lock {
    /// The keys and the locked attributes of all inputs, but for folders of the flake itself.
    pub(super) fn inputs(&self) -> impl Iterator<Item = (&String, &Map<String, Value>)> {
        let is_own = |locked: &Map<String, Value>| {
            let is_path = locked.get("type").and_then(Value::as_str) == Some("path");
            is_path && locked.get("path").and_then(Value::as_str).is_some_and(|path| !path.starts_with('/'))
        };
        let nodes = self.nodes.iter().filter(|(key, _)| **key != self.root).map(|(key, node)| (key, &node.locked));
        nodes.filter(move |(_, locked)| !is_own(locked))
    }

    fn resolve(&self, spec: &InputSpec) -> Result<String, CallObstacle> {
        self.resolve_within(spec, MAX_FOLLOWS)
    }

    fn resolve_within(&self, spec: &InputSpec, steps: usize) -> Result<String, CallObstacle> {
        let unknown = |why: String| CallObstacle::UnknownLock(why);
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
) -> Result<LockedTree, CallObstacle> {
    let nar_hash = locked.get("narHash").and_then(Value::as_str).and_then(|hash| hash.parse::<NarHash>().ok());
    let Some(nar_hash) = nar_hash else { return Err(CallObstacle::InputWithoutHash(key.to_owned())) };
    let store_path =
        StorePath::of_source(&nar_hash).map_err(|invalid| CallObstacle::UnknownLock(invalid.to_string()))?;
    let dir = locked.get("dir").and_then(Value::as_str).unwrap_or_default().to_owned();
    let (info, locked) = (info(key, locked)?, as_fetched(locked));
    Ok(LockedTree { locked, store_path, nar_hash, dir, flake, info, inputs })
}

/// The attributes besides `outPath` that Nix gives a tree with these locked attributes (Nix's manual, `fetchTree`).
fn info(key: &str, locked: &Map<String, Value>) -> Result<Map<String, Value>, CallObstacle> {
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
        let time = Timestamp::from_seconds(seconds).ok_or_else(|| {
            CallObstacle::UnknownLock(format!(
                "`{key}` was last changed {seconds} seconds after 1970, which is after the year 9999"
            ))
        })?;
        let date: String = time.to_string().chars().filter(char::is_ascii_digit).collect();
        info.insert("lastModifiedDate".to_owned(), date.into());
    }
    if locked.get("type").and_then(Value::as_str) == Some("git") {
        let submodules = locked.get("submodules").and_then(Value::as_bool).unwrap_or(false);
        info.insert("submodules".to_owned(), submodules.into());
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = r#"{"type":"git","url":"file:///x","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=",
        "rev":"ae6b0437f48df0c54a69d616f4d8d7139dd99f52","revCount":3,"lastModified":1795460113,"dir":"sub"}"#;

    /// Two inputs. An input of the second follows the first.
    const LOCK: &str = r#"{"root":"root","version":7,"nodes":{
        "root":{"inputs":{"lib":"lib_2","tools":"tools"}},
        "lib_2":{"locked":{"type":"path","path":"/a","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4="}},
        "lib":{"flake":false,"locked":{"type":"path","path":"/b","narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="}},
        "tools":{"inputs":{"lib":["lib"],"own":"lib"},"locked":{"type":"path","path":"/c","narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4="}}}}"#;

    fn resolved(lock: &str) -> Result<ResolvedLock, CallObstacle> {
        ResolvedLock::new(serde_json::from_str(lock).unwrap(), &serde_json::from_str(OWN).unwrap())
    }

    #[test]
    fn an_input_that_follows_is_resolved_and_a_tree_has_the_store_path_that_nix_gives_it() {
        let lock = resolved(LOCK).unwrap();
        assert_eq!(lock.trees["tools"].inputs["lib"], "lib_2");
        assert_eq!(lock.names().collect::<Vec<_>>(), ["lib", "tools"]);
        assert_eq!(lock.own().dir, "sub");
        // Printed by Nix for a tree of that hash.
        let real: NarHash = "sha256-NSxBtHrFrrvc9NATaGb8H9RAbYj1ZC/UA2LIX1RsQGk=".parse().unwrap();
        assert_eq!(
            StorePath::of_source(&real).unwrap().to_string(),
            "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source"
        );
    }

    #[test]
    fn under_its_other_name_a_tree_has_a_path_that_differs_in_every_character() {
        let lock = resolved(LOCK).unwrap();
        for tree in lock.trees.values() {
            let other = tree.other_path().unwrap();
            assert_eq!(other.name().len(), "source".len());
            let other = other.hash_part();
            let own = tree.store_path.hash_part();
            assert!(other.bytes().zip(own.bytes()).all(|(other, own)| other != own), "{own} {other}");
        }
    }

    #[test]
    fn the_attributes_of_self_are_those_that_nix_gives() {
        let info = Value::Object(resolved(LOCK).unwrap().own().info.clone());
        let expected = json!({
            "lastModified": 1_795_460_113, "lastModifiedDate": "20261123185513", "rev": "ae6b0437f48df0c54a69d616f4d8d7139dd99f52",
            "narHash": "sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=", "revCount": 3, "shortRev": "ae6b043", "submodules": false,
        });
        assert_eq!(info, expected);
    }

    #[test]
    fn the_digest_of_an_input_changes_with_everything_below_it() {
        let before = resolved(LOCK).unwrap();
        let renamed = resolved(&LOCK.replace("lib_2", "lib_3")).unwrap();
        assert_eq!(before.digest_of("tools"), renamed.digest_of("tools"));
        let bumped = resolved(&LOCK.replace("\"/b\"", "\"/b2\"")).unwrap();
        assert_ne!(before.digest_of("tools"), bumped.digest_of("tools"));
        assert_eq!(before.digest_of("lib"), bumped.digest_of("lib"));
        assert!(before.digest_of("lib").is_some());
        let in_a_folder = resolved(&LOCK.replacen("\"path\":\"/c\"", "\"dir\":\"x\",\"path\":\"/c\"", 1)).unwrap();
        assert_ne!(before.digest_of("tools"), in_a_folder.digest_of("tools"));
        let by_name = resolved(&LOCK.replace("\"lib\":[\"lib\"]", "\"lib\":\"lib\"")).unwrap();
        assert_ne!(before.digest_of("tools"), by_name.digest_of("tools"));
    }

    #[test]
    fn an_input_is_fetched_by_the_attributes_that_fetch_tree_takes() {
        let marked = LOCK.replace(r#""path":"/c","#, r#""path":"/c","dir":"sub","__final":true,"#);
        let (marked, plain): (Lock, Lock) =
            (serde_json::from_str(&marked).unwrap(), serde_json::from_str(LOCK).unwrap());
        let tools = |lock: &Lock| lock.inputs().find(|(key, _)| *key == "tools").map(|(_, locked)| as_fetched(locked));
        assert_eq!(marked.inputs().find(|(key, _)| *key == "tools").unwrap().1["dir"], "sub");
        assert_eq!(tools(&marked), tools(&plain));
    }

    #[test]
    fn an_input_that_is_the_flake_itself_has_no_digest() {
        let lock = resolved(&LOCK.replace("\"lib\":[\"lib\"]", "\"lib\":[]")).unwrap();
        assert_eq!(lock.digest_of("tools"), None);
        assert!(lock.digest_of("lib").is_some());
    }

    #[test]
    fn a_lock_that_clavel_cannot_call_is_refused_with_the_reason() {
        let relative = LOCK.replace(r#","narHash":"sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=""#, "");
        assert_eq!(resolved(&relative).unwrap_err(), CallObstacle::InputWithoutHash("lib".to_owned()));
        let endless = LOCK.replace(r#""lib":"lib_2","tools""#, r#""lib":["tools","lib"],"tools""#);
        assert!(matches!(resolved(&endless).unwrap_err(), CallObstacle::UnknownLock(_)));
        assert!(matches!(resolved(&LOCK.replace("[\"lib\"]", "[\"x\"]")).unwrap_err(), CallObstacle::UnknownLock(_)));
        for late in ["253402300800", "18446744073709551615"] {
            let lock = LOCK.replacen("\"narHash\"", &format!("\"lastModified\":{late},\"narHash\""), 1);
            let error = resolved(&lock).unwrap_err().to_string();
            assert!(error.contains("after the year 9999"), "{error}");
        }
    }
}
