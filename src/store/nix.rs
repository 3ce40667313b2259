//! The machine's own Nix as a store: its programs, with typed results.
//!
//! Each option's why stands beside it.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use serde::Deserialize;

use super::{Answer, DerivationError, Entries, Output, Store, StoreError, derivation};
use crate::model::{Invalid, NarTemplateSpecification, StorePath, Substituter};
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

/// The Nix of this machine: its programs on the PATH.
#[derive(Debug, Clone)]
pub(super) struct MachineNix {
    /// A store other than the machine's own: the folder that has a `nix/store` below it.
    pub(super) root: Option<PathBuf>,
    /// How long one command may take.
    pub(super) deadline: Duration,
    /// What is shown of what Nix says while it fetches.
    pub(super) output: Output,
}

impl Store for MachineNix {
    fn files_of(&self, path: &StorePath) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.to_string().trim_start_matches('/')),
            None => PathBuf::from(path.to_string()),
        }
    }

    fn fetch<'a>(&'a self, template: &'a NarTemplateSpecification, root: &'a Path) -> Answer<'a, ()> {
        Box::pin(self.realise(template, root))
    }

    fn keep<'a>(&'a self, path: &'a StorePath, root: &'a Path) -> Answer<'a, ()> {
        Box::pin(self.link(path, root))
    }

    fn look_up<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> Answer<'a, Entries> {
        Box::pin(self.ask(cache, paths))
    }

    fn look_up_closure<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> Answer<'a, Entries> {
        Box::pin(self.ask_for_closure(cache, paths))
    }

    fn closures_here<'a>(&'a self, paths: &'a [StorePath]) -> Answer<'a, Entries> {
        Box::pin(self.closures(paths))
    }

    fn delete<'a>(&'a self, paths: &'a [StorePath]) -> Answer<'a, ()> {
        Box::pin(self.delete_with_referrers(paths))
    }

    fn set_profile<'a>(&'a self, profile: &'a Path, path: &'a StorePath) -> Answer<'a, ()> {
        Box::pin(self.set(profile, path))
    }

    fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError> {
        derivation::read(&self.files_of(path))
    }
}

impl MachineNix {
    /// A run of one of Nix's programs on this store.
    fn on_this_store(&self, invocation: Invocation) -> Invocation {
        let invocation = invocation.of_nix(self.deadline);
        match &self.root {
            Some(root) => invocation.arg("--store").arg(root.as_os_str()),
            None => invocation,
        }
    }

    fn program(&self, name: &str) -> Invocation {
        self.on_this_store(Invocation::new(name))
    }

    /// Fetches `template`'s path and all it needs from the template's caches alone, believing the template's keys alone,
    /// and keeps it from the garbage collector by a link at `root`. Nothing is built.
    ///
    /// What a cache says of a path is followed before it is known who signed it, so this has an end in memory too.
    async fn realise(&self, template: &NarTemplateSpecification, root: &Path) -> Result<(), StoreError> {
        let run = self
            .keeping(&template.nar_id, root)
            .within_memory(MOST_MEMORY_TO_FETCH)
            .args(["--option", "substituters", &joined(&template.substituters, " ")])
            .args(["--option", "trusted-public-keys", &joined(&template.substituters_public_keys, " ")])
            // Nix trusts the keys that this machine signs with, too; the specification is to be the only word.
            .args(["--option", "secret-key-files", ""])
            .args(["--option", "require-sigs", "true"])
            // Nix remembers for an hour that a cache had no such path, and by then it mostly has; and for a month what a
            // cache said of one, though the cache may have been repaired since.
            .args(["--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0"]);
        let run = if self.output == Output::Inherit { run.passing_output_on() } else { run };
        let act = || format!("fetch {}", template.nar_id);
        run.run().await.map(drop).map_err(|source| StoreError::Failed { act: act(), source })
    }

    /// Keeps `path`, which has to be in the store, from the garbage collector by a link at `root`. Nothing is fetched.
    async fn link(&self, path: &StorePath, root: &Path) -> Result<(), StoreError> {
        let run = self.keeping(path, root).args(FETCH_NOTHING).run().await;
        run.map(drop).map_err(|source| StoreError::Failed { act: format!("keep {path} by a link"), source })
    }

    fn keeping(&self, path: &StorePath, root: &Path) -> Invocation {
        self.program("nix-store")
            .args(["--realise", &path.to_string()])
            // A collection between this and the profile must not take the path away again.
            .arg("--add-root")
            .arg(root.as_os_str())
            .args(["--max-jobs", "0", "--option", "builders", "", "--option", "fallback", "false"])
    }

    /// What `cache` says of those of `paths` that it has.
    async fn ask(&self, cache: &Substituter, paths: &[StorePath]) -> Result<Entries, StoreError> {
        let act = || match paths {
            [path] => format!("ask {cache} for {path}"),
            _ => format!("ask {cache} for {} paths", paths.len()),
        };
        let run = self.asking(cache).map_err(|source| StoreError::Files { act: act(), source })?;
        entries(run.args(paths.iter().map(ToString::to_string)), act).await
    }

    /// What `cache` says of `paths` and of all that they need; an error where it does not have all of it.
    async fn ask_for_closure(&self, cache: &Substituter, paths: &[StorePath]) -> Result<Entries, StoreError> {
        let act = || match paths {
            [path] => format!("ask {cache} for {path} and all that it needs"),
            _ => format!("ask {cache} for {} paths and all that they need", paths.len()),
        };
        let run = self.asking(cache).map_err(|source| StoreError::Files { act: act(), source })?;
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
        // The question is for the cache; a store of our own must not answer it. Whoever runs a cache can name ever more
        // paths, and so the question has a deadline of its own.
        let verb = ["path-info", "--json", "--store", cache.as_str()];
        let run = Invocation::nix(&verb, self.deadline.min(LONGEST_QUESTION))
            .within_memory(MOST_MEMORY_TO_ASK)
            // What it said before is not the answer: a path may have come, or have been signed by another key.
            .args(["--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0"])
            // Whoever asks will ask again; nobody waits for a cache that is down.
            .args(["--option", "connect-timeout", "10", "--option", "download-attempts", "1"]);
        Ok(run)
    }

    /// What the store has of `paths`, and of all that those need which are there.
    async fn closures(&self, paths: &[StorePath]) -> Result<Entries, StoreError> {
        let act = || match paths {
            [path] => format!("ask the store for {path} and all that it needs"),
            _ => format!("ask the store for {} paths and all that they need", paths.len()),
        };
        let ask = || {
            let run = self.on_this_store(Invocation::new("nix").args(["path-info", "--json"]));
            run.args(["--extra-experimental-features", "nix-command flakes"])
        };
        let here = entries(ask().args(paths.iter().map(ToString::to_string)), act).await?;
        // Nix calls it an error to be asked for all that an absent path needs.
        if here.is_empty() {
            return Ok(here);
        }
        entries(ask().arg("--recursive").args(here.keys().map(ToString::to_string)), act).await
    }

    /// Deletes `paths`, and whatever else in the store needs one of them. What something on this machine holds stays,
    /// and is an error.
    async fn delete_with_referrers(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        let failed = |source| StoreError::Failed { act: format!("delete {}", joined(paths, ", ")), source };
        let paths = paths.iter().map(ToString::to_string);
        let query = self.program("nix-store").args(["--query", "--referrers-closure"]).args(paths).run();
        let referrers = query.await.map_err(failed)?;
        // What needs one of them has to be named as well, or else it counts as what holds them.
        let all = String::from_utf8_lossy(&referrers.stdout).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        self.program("nix-store").arg("--delete").args(all).run().await.map(drop).map_err(failed)
    }

    /// Makes `path` the newest generation of `profile`.
    async fn set(&self, profile: &Path, path: &StorePath) -> Result<(), StoreError> {
        let run = self
            .program("nix-env")
            .arg("--profile")
            .arg(profile.as_os_str())
            .args(["--set", &path.to_string()])
            // What is gone from the store would come back from the machine's own caches, by whatever keys they have.
            .args(FETCH_NOTHING);
        let act = || format!("set the profile {} to {path}", profile.display());
        run.run().await.map(drop).map_err(|source| StoreError::Failed { act: act(), source })
    }
}

/// What a run of `nix path-info --json` says of each path that is there.
async fn entries(run: Invocation, act: impl Fn() -> String) -> Result<Entries, StoreError> {
    let output = run.run().await.map_err(|source| StoreError::Failed { act: act(), source })?;
    let unexpected = |why: String| StoreError::Unexpected { act: act(), why };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::CacheEntry;

    fn entry(json: &str) -> Option<CacheEntry> {
        let all: PathInfo = serde_json::from_str(json).unwrap();
        all.present().next().map(|(_, value)| serde_json::from_value(value).unwrap())
    }

    #[test]
    fn every_shape_of_an_absent_path_is_known() {
        assert_eq!(entry("[]"), None);
        assert_eq!(entry(r#"[{"path":"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x","valid":false}]"#), None);
        assert_eq!(entry(r#"{"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x":null}"#), None);
    }
}
