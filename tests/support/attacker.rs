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
pub(crate) const LARGEST: u64 = (1 << 53) - 1;

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
pub(crate) struct Branch<'a> {
    world: &'a World,
    name: String,
    pub(crate) files: BTreeMap<String, File>,
}

impl<'a> Branch<'a> {
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

    /// Makes the index list all documents that are there and can be read, and no others. Then it applies `change`, and signs the
    /// index anew.
    pub(crate) fn reindex(&mut self, keys: &[&StolenKey], change: impl FnOnce(&mut Value)) {
        let mut index = self.signed("index.json");
        let before = std::mem::replace(&mut index["documents"], json!({}));
        let is_document =
            |path: &str| ["agents/", "deployments/", "units/"].iter().any(|folder| path.starts_with(folder));
        for (path, File { bytes, .. }) in self.files.iter().filter(|(path, _)| is_document(path)) {
            let said = serde_json::from_slice::<Value>(bytes).unwrap_or_default();
            let revision = match &said["signed"]["revision"] {
                Value::Null => before[path]["revision"].clone(),
                revision => revision.clone(),
            };
            let sha256 = sha256(bytes);
            index["documents"][path] = json!({ "length": bytes.len(), "revision": revision, "sha256": sha256 });
        }
        change(&mut index);
        self.sign("index.json", &index, keys);
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
