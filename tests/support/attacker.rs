//! Forges branches as an attacker can who has a secret key, or may write to a repository. It uses none of Clavel's code.
//!
//! It signs by the description of the format alone (DSSE over RFC 8785, in docs/format.md). So an error in Clavel's own signing
//! cannot make a test pass.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::world::{Ran, World};

/// The largest number that a counter of the branch can have.
pub(crate) const MAX_INTEGER: u64 = (1 << 53) - 1;

/// A secret key that the attacker has, under any name that they give it.
#[derive(Clone)]
pub(crate) struct StolenKey {
    pub(crate) name: String,
    key: SigningKey,
}

impl StolenKey {
    /// Reads the key from a file that Clavel or Nix made.
    pub(crate) fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let (name, encoded) = text.trim().split_once(':').unwrap();
        let pair: [u8; 64] = STANDARD.decode(encoded).unwrap().try_into().unwrap();
        Self { name: name.to_owned(), key: SigningKey::from_keypair_bytes(&pair).unwrap() }
    }

    /// Makes a key of the attacker's own: the same seed gives the same key.
    pub(crate) fn own(name: &str, seed: u8) -> Self {
        Self { name: name.to_owned(), key: SigningKey::from_bytes(&[seed; 32]) }
    }

    /// Its public half, as Nix writes it.
    pub(crate) fn public(&self) -> String {
        format!("{}:{}", self.name, STANDARD.encode(self.key.verifying_key().as_bytes()))
    }

    /// Signs `signed` as a document of `kind`. Returns the entry for `signatures`.
    pub(crate) fn sign(&self, kind: &str, signed: &Value) -> Value {
        let payload_type = format!("application/vnd.clavel.{}.v1+json", kind.to_lowercase());
        let body = serde_json_canonicalizer::to_vec(signed).unwrap();
        let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), body.len()).into_bytes();
        bytes.extend(body);
        json!({ "keyid": self.name, "sig": STANDARD.encode(self.key.sign(&bytes).to_bytes()) })
    }
}

/// A file with the content `signed`, signed as a document of `kind` by each of `keys`.
pub(crate) fn signed_file(kind: &str, signed: &Value, keys: &[&StolenKey]) -> Vec<u8> {
    let signatures: Vec<Value> = keys.iter().map(|key| key.sign(kind, signed)).collect();
    rendered(&json!({ "signatures": signatures, "signed": signed }))
}

/// Renders `value` as the branch has it: sorted keys, two spaces, a final newline.
pub(crate) fn rendered(value: &Value) -> Vec<u8> {
    let sorted: Value = serde_json::from_slice(&serde_json_canonicalizer::to_vec(value).unwrap()).unwrap();
    let mut bytes = serde_json::to_vec_pretty(&sorted).unwrap();
    bytes.push(b'\n');
    bytes
}

/// The SHA-256 of `bytes`, as the index writes it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// The bin of `name` in an index that has a bin `like`: the first digits of the SHA-256 of the name in lower case.
fn bin_of(name: &str, like: &str) -> String {
    if like == "all" { like.to_owned() } else { sha256(name.to_ascii_lowercase().as_bytes())[..like.len()].to_owned() }
}

/// The path of a document in an index that has a bin `like`.
pub(crate) fn in_bin(identity: &str, like: &str) -> String {
    let (folder, file) = identity.split_once('/').unwrap();
    match bin_of(file.trim_end_matches(".json"), like).as_str() {
        "all" => identity.to_owned(),
        bin => format!("{folder}/{bin}/{file}"),
    }
}

/// `FOLDER/NAME.json` for the path of a document, which may be in the folder of a bin; none for another path.
pub(crate) fn identity(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_folder = ["agents", "deployments", "units"].contains(parts.first()?);
    (is_folder && parts.len() > 1).then(|| format!("{}/{}", parts[0], parts[parts.len() - 1]))
}

/// An index with the fields of its bins: `documents` and `tombstones` by the paths of the documents, and `held`. `read` reads a
/// file of the branch.
pub(crate) fn whole_index(mut index: Value, read: impl Fn(&str) -> Value) -> Value {
    for field in ["documents", "tombstones", "held"] {
        index[field] = json!({});
    }
    for bin in index["bins"].as_object().unwrap().keys().cloned().collect::<Vec<_>>() {
        let bin = read(&format!("index/{bin}.json"));
        for field in ["documents", "tombstones"] {
            for (folder, names) in bin[field].as_object().unwrap() {
                for (name, entry) in names.as_object().unwrap() {
                    index[field][format!("{folder}/{name}.json")] = entry.clone();
                }
            }
        }
        for (name, hold) in bin["held"].as_object().unwrap() {
            index["held"][name] = hold.clone();
        }
    }
    index
}

/// A file as a git tree holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Git's mode: `100644`, `100755`, `120000`.
    pub(crate) mode: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// How a commit is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Onto {
    /// On top of the branch.
    Tip,
    /// In place of the branch: a first commit, pushed by force.
    Nothing,
}

/// Reads the bytes of each of `blobs`, with one git process.
fn contents(world: &World, repository: &str, blobs: &[&str]) -> Vec<Vec<u8>> {
    let mut git = world.command("git", &["-C", repository, "cat-file", "--batch"]);
    let mut git = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut asked, mut said) = (git.stdin.take().unwrap(), BufReader::new(git.stdout.take().unwrap()));
    let contents = blobs.iter().map(|blob| {
        writeln!(asked, "{blob}").unwrap();
        let mut head = String::new();
        said.read_line(&mut head).unwrap();
        let size: Option<usize> = head.trim_end().rsplit(' ').next().and_then(|size| size.parse().ok());
        // Git prints a line end after each blob.
        let mut bytes = vec![0; size.unwrap_or_else(|| panic!("{head}")) + 1];
        said.read_exact(&mut bytes).unwrap();
        bytes.pop();
        bytes
    });
    let contents = contents.collect();
    drop(asked);
    assert!(git.wait().unwrap().success());
    contents
}

/// The files of a branch, which the attacker changes and pushes to a repository that they may write to.
#[derive(Clone)]
pub(crate) struct ForgedBranch<'a> {
    world: &'a World,
    name: String,
    pub(crate) files: BTreeMap<String, File>,
}

impl<'a> ForgedBranch<'a> {
    /// The `deployments` branch of the world's own repository.
    pub(crate) fn of(world: &'a World) -> Self {
        Self::at(world, &world.at("fleet.git"), "deployments")
    }

    /// The branch, tag or commit `name` of the repository at a path, with its regular files.
    pub(crate) fn at(world: &'a World, repository: &str, name: &str) -> Self {
        let listed = world.git(&["-C", repository, "ls-tree", "-r", "-z", name]);
        let (blobs, paths): (Vec<&str>, Vec<&str>) = listed
            .split_terminator('\0')
            .map(|line| line.split_once('\t').unwrap())
            .map(|(fact, path)| (fact.split(' ').nth(2).unwrap(), path))
            .unzip();
        let contents = contents(world, repository, &blobs);
        let file = |bytes| File { mode: "100644", bytes };
        let files = paths.into_iter().map(str::to_owned).zip(contents.into_iter().map(file)).collect();
        Self { world, name: name.to_owned(), files }
    }

    /// Writes a file with these bytes.
    pub(crate) fn write(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.to_owned(), File { mode: "100644", bytes: bytes.into() });
    }

    /// The signed content of a file.
    pub(crate) fn signed(&self, path: &str) -> Value {
        let file = self.files.get(path).unwrap_or_else(|| panic!("the branch has no {path}"));
        serde_json::from_slice::<Value>(&file.bytes).unwrap()["signed"].clone()
    }

    /// Writes a file with the content `signed`, signed as a document of its own kind.
    pub(crate) fn sign(&mut self, path: &str, signed: &Value, keys: &[&StolenKey]) {
        let kind = signed["kind"].as_str().unwrap().to_owned();
        self.write(path, signed_file(&kind, signed, keys));
    }

    /// Adds a signature to a file that others signed. Any key will do for that.
    pub(crate) fn countersign(&mut self, path: &str, key: &StolenKey) {
        let signed = self.signed(path);
        let mut file: Value = serde_json::from_slice(&self.files[path].bytes).unwrap();
        let signature = key.sign(signed["kind"].as_str().unwrap(), &signed);
        file["signatures"].as_array_mut().unwrap().push(signature);
        self.write(path, rendered(&file));
    }

    /// Changes the content of a document, and signs it anew.
    pub(crate) fn edit(&mut self, path: &str, keys: &[&StolenKey], change: impl FnOnce(&mut Value)) {
        let mut signed = self.signed(path);
        change(&mut signed);
        self.sign(path, &signed, keys);
    }

    /// Makes the index list all documents that are there and can be read, and no others. Then it applies `change` to the index,
    /// which has the fields of its bins as well ([`whole_index`]), and signs it anew, with as many bins as before.
    pub(crate) fn reindex(&mut self, keys: &[&StolenKey], change: impl FnOnce(&mut Value)) {
        let mut index = whole_index(self.signed("index.json"), |path| self.parsed(path));
        let before = std::mem::replace(&mut index["documents"], json!({}));
        for (path, File { bytes, .. }) in &self.files {
            let Some(identity) = identity(path) else { continue };
            let said = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
            let revision = match &said["signed"]["revision"] {
                Value::Null => before[&identity]["revision"].clone(),
                revision => revision.clone(),
            };
            let sha256 = sha256(bytes);
            index["documents"][identity] = json!({ "length": bytes.len(), "revision": revision, "sha256": sha256 });
        }
        change(&mut index);
        self.write_index(index, keys);
    }

    /// Spreads all documents and approvals over bins whose names have so many digits, and signs the index anew.
    pub(crate) fn spread(&mut self, digits: usize, keys: &[&StolenKey], change: impl FnOnce(&mut Value)) {
        let names: Vec<String> = match digits {
            0 => vec!["all".to_owned()],
            digits => (0..1 << (4 * digits)).map(|bin: u32| format!("{bin:0digits$x}")).collect(),
        };
        let mut index = whole_index(self.signed("index.json"), |path| self.parsed(path));
        self.files.retain(|path, _| !path.starts_with("index/"));
        for (path, file) in std::mem::take(&mut self.files) {
            self.files.insert(identity(&path).map_or(path, |identity| in_bin(&identity, &names[0])), file);
        }
        index["bins"] = names.into_iter().map(|name| (name, json!({}))).collect::<serde_json::Map<_, _>>().into();
        change(&mut index);
        self.write_index(index, keys);
    }

    /// Changes one bin, and signs an index that has it so.
    pub(crate) fn edit_bin(&mut self, bin: &str, keys: &[&StolenKey], change: impl FnOnce(&mut Value)) {
        let path = format!("index/{bin}.json");
        let mut content = self.parsed(&path);
        change(&mut content);
        self.write_bin(bin, rendered(&content), keys);
    }

    /// Writes the file of a bin, and signs an index that lists it.
    pub(crate) fn write_bin(&mut self, bin: &str, file: Vec<u8>, keys: &[&StolenKey]) {
        let entry = json!({ "length": file.len(), "sha256": sha256(&file) });
        self.write(&format!("index/{bin}.json"), file);
        self.edit("index.json", keys, |index| {
            index["bins"][bin] = entry;
            index["version"] = json!(index["version"].as_u64().unwrap() + 1);
        });
    }

    /// Writes the index and its bins, from an index that has the fields of its bins as well.
    fn write_index(&mut self, mut index: Value, keys: &[&StolenKey]) {
        let [documents, tombstones, held] =
            ["documents", "tombstones", "held"].map(|field| index.as_object_mut().unwrap().remove(field).unwrap());
        for bin in index["bins"].as_object().unwrap().keys().cloned().collect::<Vec<_>>() {
            let by_folder = |all: &Value| {
                let mut folders = json!({});
                for (path, entry) in all.as_object().unwrap() {
                    let (folder, file) = path.split_once('/').unwrap();
                    let name = file.trim_end_matches(".json");
                    if bin_of(name, &bin) == bin {
                        folders[folder][name] = entry.clone();
                    }
                }
                folders
            };
            let held: serde_json::Map<String, Value> =
                held.as_object().unwrap().clone().into_iter().filter(|(name, _)| bin_of(name, &bin) == bin).collect();
            let file = rendered(&json!({
                "documents": by_folder(&documents), "held": held, "kind": "Bin", "schema": "clavel/v1",
                "tombstones": by_folder(&tombstones),
            }));
            index["bins"][&bin] = json!({ "length": file.len(), "sha256": sha256(&file) });
            self.write(&format!("index/{bin}.json"), file);
        }
        self.sign("index.json", &index, keys);
    }

    /// The content of a file that nobody signs.
    fn parsed(&self, path: &str) -> Value {
        serde_json::from_slice(&self.files[path].bytes).unwrap()
    }

    /// Commits the files and pushes them to the `deployments` branch of the world's own repository.
    #[track_caller]
    pub(crate) fn push(&self, onto: Onto) {
        self.try_push(&self.world.at("fleet.git"), "deployments", onto).good();
    }

    /// Commits the files and pushes them to a branch of any repository, which git can push to by that name.
    pub(crate) fn try_push(&self, repository: &str, branch: &str, onto: Onto) -> Ran {
        let workshop = self.world.at("workshop.git");
        if !self.world.path("workshop.git").exists() {
            self.world.git(&["init", "-q", "--bare", &workshop]);
        }
        let parent = match onto {
            Onto::Nothing => None,
            Onto::Tip => {
                let refspec = format!("+refs/heads/{branch}:refs/seen");
                self.world.git(&["-C", &workshop, "fetch", "-q", repository, &refspec]);
                Some("refs/seen^0")
            }
        };
        let mut importing = self.world.command("git", &["-C", &workshop, "fast-import", "--quiet", "--force"]);
        let mut importing = importing.stdin(Stdio::piped()).spawn().unwrap();
        importing.stdin.take().unwrap().write_all(&self.stream(parent)).unwrap();
        assert!(importing.wait().unwrap().success());
        let mut push = vec!["-C", &workshop, "push", "-q"];
        push.extend((onto == Onto::Nothing).then_some("--force"));
        let refspec = format!("refs/made:refs/heads/{branch}");
        push.extend([repository, &refspec]);
        self.world.run("git", &push)
    }

    /// The commit as `git fast-import` reads it.
    fn stream(&self, parent: Option<&str>) -> Vec<u8> {
        let mut stream = b"commit refs/made\ncommitter Mallory <mallory@example.org> 1767225600 +0000\n".to_vec();
        let message = format!("A small change to {}\n", self.name);
        write!(stream, "data {}\n{message}", message.len()).unwrap();
        if let Some(parent) = parent {
            writeln!(stream, "from {parent}").unwrap();
        }
        writeln!(stream, "deleteall").unwrap();
        for (path, File { mode, bytes }) in &self.files {
            write!(stream, "M {mode} inline {path}\ndata {}\n", bytes.len()).unwrap();
            stream.extend_from_slice(bytes);
            stream.push(b'\n');
        }
        stream
    }
}
