//! Stores: fetching a path from its caches, asking a cache for it, setting a profile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix_derivation::nixbase32;
use nix_narinfo::{NarInfoSignature, TrustedPublicKey};
use serde::Deserialize;

use super::{Nix, NixError, Voice};
use crate::model::{Content, Invalid, NarHash, NarTemplateSpecification, PublicKey, StorePath, Substituter};
use crate::process::Invocation;

/// The longest that one question to a cache may take.
const LONGEST_QUESTION: Duration = Duration::from_mins(2);
/// The most memory for one question to a cache: ten thousand paths take some 100 MiB.
const MOST_MEMORY_TO_ASK: u64 = 512 << 20;
/// The most memory to fetch a path and all that it needs: Nix 2.34 took 330 MB for a thousand paths, and has up to 64 MiB
/// under way for each of sixteen.
const MOST_MEMORY_TO_FETCH: u64 = 2 << 30;
/// Options under which nothing comes from elsewhere.
const FETCH_NOTHING: [&str; 6] = ["--option", "substituters", "", "--option", "max-jobs", "0"];

/// What a cache says of a path it has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheEntry {
    nar_hash: NarHash,
    nar_size: u64,
    references: Vec<StorePath>,
    #[serde(default)]
    signatures: Vec<String>,
}

/// Paths, and what is said of each.
pub type Entries = BTreeMap<StorePath, CacheEntry>;

impl Nix {
    /// Where the files of `path` are on this machine.
    pub fn files_of(&self, path: &StorePath) -> PathBuf {
        match &self.store {
            Some(root) => root.join(path.to_string().trim_start_matches('/')),
            None => PathBuf::from(path.to_string()),
        }
    }

    /// Fetches `template`'s path and all it needs from the template's caches alone, believing the template's keys alone,
    /// and keeps it from the garbage collector by a link at `root`. Nothing is built.
    ///
    /// What a cache says of a path is followed before it is known who signed it, so this has an end in memory too.
    pub async fn realise(&self, template: &NarTemplateSpecification, root: &Path) -> Result<(), NixError> {
        let run = self
            .keeping(&template.nar_id, root)
            .within_memory(MOST_MEMORY_TO_FETCH)
            .args(["--option", "substituters", &joined(&template.substituters, " ")])
            .args(["--option", "trusted-public-keys", &joined(&template.substituters_public_keys, " ")])
            // Nix trusts the keys that this machine signs with, too; the specification is to be the only word.
            .args(["--option", "secret-key-files", ""])
            .args(["--option", "require-sigs", "true"])
            // Nix remembers for an hour that a cache had no such path, and by then it mostly has; and for a month what a
            // cache said of one, though it may have been mended since.
            .args(["--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0"]);
        let run = if self.voice == Voice::Aloud { run.passing_output_on() } else { run };
        let act = || format!("fetch {}", template.nar_id);
        run.run().await.map(drop).map_err(|source| NixError::Failed { act: act(), source })
    }

    /// Keeps `path`, which has to be in the store, from the garbage collector by a link at `root`. Nothing is fetched.
    pub async fn keep(&self, path: &StorePath, root: &Path) -> Result<(), NixError> {
        let run = self.keeping(path, root).args(FETCH_NOTHING).run().await;
        run.map(drop).map_err(|source| NixError::Failed { act: format!("keep {path} by a link"), source })
    }

    fn keeping(&self, path: &StorePath, root: &Path) -> Invocation {
        self.program("nix-store")
            .args(["--realise", &path.to_string()])
            // A collection between this and the profile must not take the path away again.
            .arg("--add-root")
            .arg(root.as_os_str())
            .args(["--max-jobs", "0", "--option", "builders", "", "--option", "fallback", "false"])
    }

    /// What `cache` says of `path`; `None` when it does not have it.
    pub async fn look_up(&self, cache: &Substituter, path: &StorePath) -> Result<Option<CacheEntry>, NixError> {
        let mut found = self.look_up_all(cache, std::slice::from_ref(path)).await?;
        Ok(found.remove(path))
    }

    /// What `cache` says of those of `paths` that it has.
    pub async fn look_up_all(&self, cache: &Substituter, paths: &[StorePath]) -> Result<Entries, NixError> {
        let act = || match paths {
            [path] => format!("ask {cache} for {path}"),
            _ => format!("ask {cache} for {} paths", paths.len()),
        };
        let run = self.asking(cache).map_err(|source| NixError::Files { act: act(), source })?;
        entries(run.args(paths.iter().map(ToString::to_string)), act).await
    }

    /// What `cache` says of `paths` and of all that they need; an error where it does not have all of it.
    pub async fn look_up_closure(&self, cache: &Substituter, paths: &[StorePath]) -> Result<Entries, NixError> {
        let act = || match paths {
            [path] => format!("ask {cache} for {path} and all that it needs"),
            _ => format!("ask {cache} for {} paths and all that they need", paths.len()),
        };
        let run = self.asking(cache).map_err(|source| NixError::Files { act: act(), source })?;
        entries(run.arg("--recursive").args(paths.iter().map(ToString::to_string)), act).await
    }

    fn asking(&self, cache: &Substituter) -> io::Result<Invocation> {
        // Nix makes a cache of whatever folder it is asked about, and a flake may name any.
        if let Some(path) = cache.as_str().strip_prefix("file://") {
            let path = path.split('?').next().unwrap_or_default();
            // Versions of Nix differ in whether they decode it.
            let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
            let is_there = |path: &str| fs::metadata(Path::new(path).join("nix-cache-info"));
            is_there(path)
                .or_else(|_| is_there(&decoded))
                .map_err(|error| io::Error::new(error.kind(), format!("there is no cache at {path}: {error}")))?;
        }
        // The question is for the cache; a store of our own must not answer it.
        let nix = Self { store: None, ..self.clone() };
        let run = nix.nix(&["path-info", "--json", "--store", cache.as_str()]);
        let run = run
            // Whoever runs a cache can name ever more paths.
            .within(self.deadline.min(LONGEST_QUESTION))
            .within_memory(MOST_MEMORY_TO_ASK)
            // What it said before is not the answer: a path may have come, or have been signed by another key.
            .args(["--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0"])
            // Whoever asks will ask again; nobody waits for a cache that is down.
            .args(["--option", "connect-timeout", "10", "--option", "download-attempts", "1"]);
        Ok(run)
    }

    /// What the store has of `paths`, and of all that those need which are there.
    pub async fn closures_here(&self, paths: &[StorePath]) -> Result<Entries, NixError> {
        let act = || match paths {
            [path] => format!("ask the store for {path} and all that it needs"),
            _ => format!("ask the store for {} paths and all that they need", paths.len()),
        };
        let ask = || self.nix(&["path-info", "--json"]);
        let here = entries(ask().args(paths.iter().map(ToString::to_string)), act).await?;
        // Nix calls it an error to be asked for all that an absent path needs.
        if here.is_empty() {
            return Ok(here);
        }
        entries(ask().arg("--recursive").args(here.keys().map(ToString::to_string)), act).await
    }

    /// Deletes `paths`, and whatever else in the store needs one of them. What something on this machine holds stays,
    /// and is an error.
    pub async fn delete(&self, paths: &[StorePath]) -> Result<(), NixError> {
        let failed = |source| NixError::Failed { act: format!("delete {}", joined(paths, ", ")), source };
        let paths = paths.iter().map(ToString::to_string);
        let query = self.program("nix-store").args(["--query", "--referrers-closure"]).args(paths).run();
        let referrers = query.await.map_err(failed)?;
        // What needs one of them has to be named as well, or else it counts as what holds them.
        let all = String::from_utf8_lossy(&referrers.stdout).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        self.program("nix-store").arg("--delete").args(all).run().await.map(drop).map_err(failed)
    }

    /// Makes `path` the newest generation of `profile`.
    pub async fn set_profile(&self, profile: &Path, path: &StorePath) -> Result<(), NixError> {
        let run = self
            .program("nix-env")
            .arg("--profile")
            .arg(profile.as_os_str())
            .args(["--set", &path.to_string()])
            // What is gone from the store would come back from the machine's own caches, by whatever keys they have.
            .args(FETCH_NOTHING);
        let act = || format!("set the profile {} to {path}", profile.display());
        run.run().await.map(drop).map_err(|source| NixError::Failed { act: act(), source })
    }
}

/// What a run of `nix path-info --json` says of each path that is there.
async fn entries(run: Invocation, act: impl Fn() -> String) -> Result<Entries, NixError> {
    let output = run.run().await.map_err(|source| NixError::Failed { act: act(), source })?;
    let unexpected = |why: String| NixError::Unexpected { act: act(), why };
    let all: PathInfo = serde_json::from_slice(&output.stdout).map_err(|error| unexpected(error.to_string()))?;
    let entry = |(path, value): (String, serde_json::Value)| {
        let path = path.parse().map_err(|error: Invalid| unexpected(error.to_string()))?;
        let entry = serde_json::from_value(value).map_err(|error| unexpected(error.to_string()))?;
        Ok((path, entry))
    };
    all.present().map(entry).collect()
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// What `nix path-info --json` prints: a list up to Nix 2.18, a map by path (null where it is not there) since 2.19.
#[derive(Deserialize)]
#[serde(untagged)]
enum PathInfo {
    List(Vec<serde_json::Value>),
    Map(serde_json::Map<String, serde_json::Value>),
}

impl PathInfo {
    /// Each path that is there, and what is said of it.
    fn present(self) -> impl Iterator<Item = (String, serde_json::Value)> {
        let all: Vec<_> = match self {
            Self::List(list) => {
                list.into_iter().map(|entry| (entry["path"].as_str().unwrap_or_default().to_owned(), entry)).collect()
            }
            Self::Map(map) => map.into_iter().collect(),
        };
        all.into_iter().filter(|(_, entry)| !entry.is_null() && entry["valid"] != serde_json::Value::Bool(false))
    }
}

impl CacheEntry {
    /// Whether one of `keys` signed this entry for `path` (Nix's manual, "Signing paths": the fingerprint).
    pub fn is_signed_by(&self, path: &StorePath, keys: &[PublicKey]) -> bool {
        let fingerprint = self.fingerprint(path);
        let keys: Vec<TrustedPublicKey> =
            keys.iter().filter_map(|key| TrustedPublicKey::parse(&key.to_string()).ok()).collect();
        let mut signatures = self.signatures.iter().filter_map(|text| NarInfoSignature::parse(text).ok());
        // A malformed signature is no signature; another one may be good.
        signatures.any(|signature| signature.verify(fingerprint.as_bytes(), &keys).unwrap_or(false))
    }

    fn fingerprint(&self, path: &StorePath) -> String {
        let hash = nixbase32::encode(self.nar_hash.bytes());
        format!("1;{path};sha256:{hash};{};{}", self.nar_size, joined(&self.references, ","))
    }

    /// What is in the path.
    pub fn content(&self) -> Content {
        Content { nar_hash: self.nar_hash, nar_size: self.nar_size }
    }

    /// The paths that this one needs, itself among them where it names itself.
    pub fn references(&self) -> &[StorePath] {
        &self.references
    }

    /// The names of the keys that are said to have signed it.
    pub fn signers(&self) -> Vec<&str> {
        self.signatures.iter().filter_map(|text| text.split_once(':')).map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by Nix 2.8 of a path in a cache that was signed with the key below.
    const LISTED: &str = r#"[{"path":"/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t",
        "narHash":"sha256-77dlDcqTnlOIvhVcgRCg77MIUBXSOhzwYrzh+budw6g=","narSize":456,"references":[],
        "signatures":["SIGNATURE"],"url":"nar/x.nar"}]"#;

    fn entry(json: &str) -> Option<CacheEntry> {
        let all: PathInfo = serde_json::from_str(json).unwrap();
        all.present().next().map(|(_, value)| serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_cache_is_believed_by_its_signature_alone() {
        let path: StorePath = "/nix/store/pxzcmw8rvay770ashv53bv5765sv0hfb-t".parse().unwrap();
        let listed = LISTED.replace("SIGNATURE", SIGNATURE);
        let entry = entry(&listed).unwrap();
        let key: PublicKey = KEY.parse().unwrap();
        assert!(entry.is_signed_by(&path, std::slice::from_ref(&key)));
        assert_eq!(entry.signers(), ["c-1"]);
        assert!(!entry.is_signed_by(&path, &[PublicKey::new("c-1".parse().unwrap(), [7; 32])]));
        assert!(!CacheEntry { nar_size: 457, ..entry }.is_signed_by(&path, &[key]));
    }

    #[test]
    fn every_shape_of_an_absent_path_is_known() {
        assert_eq!(entry("[]"), None);
        assert_eq!(entry(r#"[{"path":"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x","valid":false}]"#), None);
        assert_eq!(entry(r#"{"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x":null}"#), None);
    }

    const KEY: &str = "c-1:zUKaRQdOh2MbC3fCvP0xWwVxdeVkF/0L1WQg6VNMcT0=";
    const SIGNATURE: &str =
        "c-1:CFBcSNfkQy9R8cvBewykipAUJ6FlNCVL3kuoC8Amn8eiNJ5kR8JPRP6WveaCYTkA7BlnA1DzMdwP/ao7Nf/EAQ==";
}
