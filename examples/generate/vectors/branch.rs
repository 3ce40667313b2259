//! A branch in memory, which the vectors change and sign.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clavel::model::{BinCount, Index, Name, PublicKey, Sha256Digest, json as rendering};
use clavel::trust::{AddError, Signed, SshSignature, digest};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Map, Value, json};

/// The files and what to expect of them.
pub(super) struct Vector {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) branch: VectorBranch,
    /// `{"deployments": …}` or `{"error": …}`.
    pub(super) expected: Value,
}

impl Vector {
    /// A branch that the agent has to refuse.
    pub(super) fn refused(name: &'static str, error: &str, about: &'static str, branch: VectorBranch) -> Self {
        Self { name, about, branch, expected: json!({ "error": error }) }
    }

    /// Writes it to a folder of its name.
    pub(super) fn write(&self, below: &Path) -> io::Result<()> {
        let folder = below.join(self.name);
        let mut case = json!({
            "about": self.about, "agent": "site-1", "anchor": self.branch.anchor, "branch": "deployments", "now": self.branch.now,
            "system": "x86_64-linux",
        });
        for (key, value) in self.expected.as_object().into_iter().flatten() {
            case[key] = value.clone();
        }
        let files = self.branch.files.iter().map(|(path, bytes)| (folder.join("branch").join(path), bytes.clone()));
        for (path, bytes) in files.chain([(folder.join("case.json"), rendering::render(&case))]) {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(path, bytes)?;
        }
        Ok(())
    }
}

/// A key: the same name gives the same key.
#[derive(Clone, Copy)]
pub(super) struct Key(pub(super) &'static str);

pub(super) const ROOT_1: Key = Key("root-1");
pub(super) const ROOT_2: Key = Key("root-2");
pub(super) const CLAVELD_1: Key = Key("claveld-1");
pub(super) const CLAVELD_2: Key = Key("claveld-2");
pub(super) const ALICE: Key = Key("alice");
pub(super) const BOB: Key = Key("bob");
pub(super) const MALLORY: Key = Key("mallory");

impl Key {
    fn secret(self) -> SigningKey {
        SigningKey::from_bytes(digest(format!("a key of the test vectors: {}", self.0).as_bytes()).bytes())
    }

    /// Its public half, as Nix writes it, under another name.
    pub(super) fn public_as(self, name: &str) -> String {
        format!("{name}:{}", STANDARD.encode(self.secret().verifying_key().as_bytes()))
    }

    pub(super) fn public(self) -> String {
        self.public_as(self.0)
    }

    /// Signs `signed` as a file of `kind`. Returns the entry for `signatures`.
    pub(super) fn sign(self, kind: &str, signed: &Value) -> Value {
        let (payload, body) = (format!("application/vnd.clavel.{}.v1+json", kind.to_lowercase()), canonical(signed));
        let mut bytes = format!("DSSEv1 {} {payload} {} ", payload.len(), body.len()).into_bytes();
        bytes.extend(body);
        json!({ "keyid": self.0, "sig": STANDARD.encode(self.secret().sign(&bytes).to_bytes()) })
    }
}

/// The canonical form: the rendering without its white space. No text in the vectors has a line end or two spaces.
fn canonical(value: &Value) -> Vec<u8> {
    let sorted: BTreeMap<String, Value> = serde_json::from_slice(&rendering::render(value)).unwrap_or_default();
    serde_json::to_vec(&sorted).unwrap_or_default()
}

/// The digest of the content of what is signed.
pub(super) fn content_digest(signed: &Value) -> String {
    digest(&canonical(signed)).to_string()
}

/// The rendering of a file that has these signatures.
pub(super) fn file(signatures: &[Value], signed: &Value) -> Vec<u8> {
    rendering::render(&json!({ "signatures": signatures, "signed": signed }))
}

/// A branch in memory.
#[derive(Clone)]
pub(super) struct VectorBranch {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The digest of the first root.
    pub(super) anchor: String,
    /// The time of the reader.
    pub(super) now: &'static str,
    /// The keys that sign the index and the documents.
    pub(super) publishers: Vec<Key>,
    digits: usize,
    tombstones: BTreeSet<(String, String)>,
}

/// A role of these keys.
pub(super) fn role(keys: &[Key], threshold: u64) -> Value {
    json!({ "keys": keys.iter().map(|key| key.public()).collect::<Vec<_>>(), "threshold": threshold })
}

/// A first root, before the vector changes it.
fn first_root() -> Value {
    json!({
        "approvals": [], "epoch": 1, "expires": "2027-01-01T00:00:00Z", "format": 1, "kind": "Root",
        "roles": { "approver": role(&[], 1), "publisher": role(&[CLAVELD_1], 1), "root": role(&[ROOT_1], 1) },
        "schema": "clavel/v1", "version": 1,
    })
}

impl VectorBranch {
    /// A branch with one bin: `web-1` and `db-1` are for the agent `site-1`, and `web-9` is for another.
    pub(super) fn new() -> Self {
        Self::with(0, &[CLAVELD_1], |_| ())
    }

    /// The same with 16 bins.
    pub(super) fn sixteen() -> Self {
        Self::with(1, &[CLAVELD_1], |_| ())
    }

    /// The same with bins of so many digits, with a first root that `change` changes.
    pub(super) fn with(digits: usize, publishers: &[Key], change: impl FnOnce(&mut Value)) -> Self {
        let mut root = first_root();
        change(&mut root);
        let mut branch = Self {
            files: BTreeMap::new(),
            anchor: content_digest(&root),
            now: "2026-01-02T00:00:00Z",
            publishers: publishers.to_vec(),
            digits,
            tombstones: BTreeSet::new(),
        };
        branch.put_root(&root, &[ROOT_1]);
        branch.put("README.md", b"# Deployments\n".to_vec());
        for name in ["web-1", "db-1", "web-9"] {
            branch.put_deployment(name, name, 7);
            branch.put_document("units", name, 1, &json!({ "arch": "x86_64-linux", "type": "nixos" }));
        }
        branch.put_document("agents", "site-1", 2, &json!({ "deployments": ["web-1", "db-1"] }));
        branch.put_document("agents", "web-9", 1, &json!({ "deployments": ["web-9"] }));
        branch.reindex();
        branch
    }

    pub(super) fn put(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.insert(path.to_owned(), bytes);
    }

    /// The path of a document.
    pub(super) fn path(&self, folder: &str, name: &str) -> String {
        match self.bin(name).as_str() {
            "all" => format!("{folder}/{name}.json"),
            bin => format!("{folder}/{bin}/{name}.json"),
        }
    }

    fn count(&self) -> BinCount {
        BinCount::every().nth(self.digits).unwrap_or(BinCount::ONE)
    }

    /// The bin of a name.
    pub(super) fn bin(&self, name: &str) -> String {
        name.parse().map_or_else(|_| String::new(), |name: Name| self.count().bin_of(&name).to_string())
    }

    /// Writes a root as the newest.
    pub(super) fn put_root(&mut self, root: &Value, keys: &[Key]) {
        let signatures: Vec<Value> = keys.iter().map(|key| key.sign("Root", root)).collect();
        self.put("root.json", file(&signatures, root));
        self.put(&format!("roots/{}.json", root["version"]), file(&signatures, root));
    }

    /// Writes the next root, which `change` changes.
    pub(super) fn next_root(&mut self, keys: &[Key], change: impl FnOnce(&mut Value)) {
        let mut root = self.signed("root.json");
        root["fleet"] = json!(self.anchor);
        root["version"] = json!(root["version"].as_u64().unwrap_or_default() + 1);
        change(&mut root);
        self.put_root(&root, keys);
    }

    /// Writes a document with the fields that every document has.
    pub(super) fn put_document(&mut self, folder: &str, name: &str, revision: u64, specification: &Value) {
        let kind = match folder {
            "agents" => "Agent",
            "deployments" => "Deployment",
            "units" => "Unit",
            _ => "Site",
        };
        let signed = json!({
            "fleet": self.anchor, "kind": kind, "metadata": {
                "attribute": format!("nixosConfigurations.{name}"), "evaluatedAt": "2026-01-01T00:00:00Z",
                "source": "git+https://git.example.org/fleet.git", "sourceHash": "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            },
            "name": name, "revision": revision, "schema": "clavel/v1", "specification": specification,
        });
        self.sign(&self.path(folder, name), &signed);
    }

    /// Writes a deployment for a unit.
    pub(super) fn put_deployment(&mut self, name: &str, unit: &str, revision: u64) {
        let template = json!({
            "metadata": {}, "narId": nar_id(name), "substituters": ["https://cache.example.org"],
            "substituters-public-keys": [MALLORY.public_as("cache.example.org-1")],
        });
        self.put_document("deployments", name, revision, &json!({ "template": template, "unit": unit }));
    }

    /// The value of a file.
    pub(super) fn value(&self, path: &str) -> Value {
        self.files.get(path).and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// The signed content of a file.
    pub(super) fn signed(&self, path: &str) -> Value {
        self.value(path)["signed"].clone()
    }

    /// Writes a file that the publishers sign.
    pub(super) fn sign(&mut self, path: &str, signed: &Value) {
        self.sign_by(path, signed, &self.publishers.clone());
    }

    /// Writes a file that these keys sign.
    pub(super) fn sign_by(&mut self, path: &str, signed: &Value, keys: &[Key]) {
        let kind = signed["kind"].as_str().unwrap_or_default();
        let signatures: Vec<Value> = keys.iter().map(|key| key.sign(kind, signed)).collect();
        self.put(path, file(&signatures, signed));
    }

    /// Puts signatures in the form of ssh-keygen in place of those of the index.
    pub(super) fn sign_index_as_ssh_does(&mut self) -> Result<(), AddError> {
        let unsigned = file(&[], &self.signed("index.json"));
        let Ok(mut index) = Signed::<Index>::parse(&unsigned) else { return Ok(()) };
        for key in self.publishers.clone() {
            let signature = key.secret().sign(&SshSignature::to_be_signed(&index.to_be_signed())?);
            let Ok(public) = key.public().parse::<PublicKey>() else { continue };
            index.add_ssh(&public.clone().into(), SshSignature::wrap(&public, signature.to_bytes())?)?;
        }
        self.put("index.json", index.render());
        Ok(())
    }

    /// Changes what is signed in a file, and signs it again.
    pub(super) fn edit(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut signed = self.signed(path);
        change(&mut signed);
        self.sign(path, &signed);
    }

    /// Changes a file beside what is signed.
    pub(super) fn edit_file(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.value(path);
        change(&mut value);
        self.put(path, rendering::render(&value));
    }

    /// Changes a document, signs it again, and lists it.
    pub(super) fn edit_listed(&mut self, path: &str, change: impl FnOnce(&mut Value)) {
        self.edit(path, change);
        self.reindex();
    }

    /// Removes a document from the branch, and leaves a tombstone.
    pub(super) fn withdraw(&mut self, folder: &str, name: &str) {
        self.files.remove(&self.path(folder, name));
        self.tombstones.insert((folder.to_owned(), name.to_owned()));
        self.reindex();
    }

    /// Writes bins that list the documents as they are, and an index that lists the bins.
    pub(super) fn reindex(&mut self) {
        let mut bins: BTreeMap<String, Value> = self.count().bins().map(|bin| (bin.to_string(), empty_bin())).collect();
        for (path, bytes) in &self.files {
            let (folder, file) =
                (path.split('/').next().unwrap_or_default(), path.rsplit('/').next().unwrap_or_default());
            if !["agents", "deployments", "units", "sites"].contains(&folder) {
                continue;
            }
            let name = file.trim_end_matches(".json");
            let revision = self.signed(path)["revision"].as_u64().unwrap_or(7);
            let entry =
                json!({ "length": bytes.len(), "revision": revision, "sha256": Sha256Digest::of(bytes).to_string() });
            put_name(bins.get_mut(&self.bin(name)), "documents", folder, name, entry);
        }
        for (folder, name) in &self.tombstones {
            put_name(bins.get_mut(&self.bin(name)), "tombstones", folder, name, json!({ "revision": 7 }));
        }
        for (bin, value) in bins {
            self.put(&format!("index/{bin}.json"), rendering::render(&value));
        }
        self.sign_bins();
    }

    /// Changes a bin, and lists it.
    pub(super) fn edit_bin(&mut self, bin: &str, change: impl FnOnce(&mut Value)) {
        self.edit_file(&format!("index/{bin}.json"), change);
        self.sign_bins();
    }

    /// Signs an index that lists the bins as they are.
    pub(super) fn sign_bins(&mut self) {
        let mut index = match self.signed("index.json") {
            Value::Null => json!({
                "branch": "deployments", "epoch": 1, "expires": "2026-01-08T00:00:00Z", "fleet": self.anchor,
                "folders": ["agents", "deployments", "units"], "issued": "2026-01-01T00:00:00Z", "kind": "Index",
                "schema": "clavel/v1", "version": 1,
            }),
            index => index,
        };
        let listed = self.files.iter().filter_map(|(path, bytes)| {
            let bin = path.strip_prefix("index/")?.strip_suffix(".json")?;
            Some((bin.to_owned(), json!({ "length": bytes.len(), "sha256": Sha256Digest::of(bytes).to_string() })))
        });
        index["bins"] = listed.collect::<Map<_, _>>().into();
        self.sign("index.json", &index);
    }

    /// Writes the approval of a deployment as it is now. `change` changes what `key` signs.
    pub(super) fn approve(&mut self, name: &str, key: Key, change: impl FnOnce(&mut Value)) {
        let deployment = self.signed(&self.path("deployments", name));
        let mut approval = json!({
            "contentDigest": content_digest(&deployment), "epoch": 1, "fleet": self.anchor, "kind": "Approval", "name": name,
            "revision": deployment["revision"], "schema": "clavel/v1",
        });
        change(&mut approval);
        let folder = self.path("approvals", name);
        self.sign_by(&format!("{}/{}.json", folder.trim_end_matches(".json"), key.0), &approval, &[key]);
    }
}

fn empty_bin() -> Value {
    json!({ "documents": {}, "held": {}, "kind": "Bin", "schema": "clavel/v1", "tombstones": {} })
}

fn put_name(bin: Option<&mut Value>, field: &str, folder: &str, name: &str, entry: Value) {
    if let Some(bin) = bin {
        bin[field][folder][name] = entry;
    }
}

/// The store path of a deployment.
pub(super) fn nar_id(name: &str) -> String {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}")
}
