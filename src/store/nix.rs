//! The machine's own Nix as a store: its programs, with typed results.
//!
//! A comment beside each option says why it is set.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use nix_archive::nar::{self, CaseHack};
use serde::Deserialize;

use super::{CacheEntries, DerivationError, Output, Store, StoreError, StoreFuture, derivation};
use crate::model::{Invalid, NarTemplateSpecification, StorePath, Substituter};
use crate::process::Invocation;

/// The longest time that one query of a cache may take.
const MAX_QUERY_TIME: Duration = Duration::from_mins(2);
/// The longest time of a query for one path.
const MAX_ONE_QUERY_TIME: Duration = Duration::from_secs(20);
/// The most memory for one query of a cache: ten thousand paths take some 100 MiB.
const MAX_MEMORY_TO_QUERY: u64 = 512 << 20;
/// The most memory to fetch a path and all that it needs. Nix 2.34 took 330 MB for a thousand paths, and it buffers up to
/// 64 MiB for each of sixteen parallel downloads.
const MAX_MEMORY_TO_FETCH: u64 = 2 << 30;
/// Options with which Nix fetches and builds nothing.
const FETCH_NOTHING: [&str; 6] = ["--option", "substituters", "", "--option", "max-jobs", "0"];
/// Options with which Nix asks the caches, and does not answer from what it remembers of them.
const REMEMBER_NOTHING: [&str; 6] =
    ["--option", "narinfo-cache-negative-ttl", "0", "--option", "narinfo-cache-positive-ttl", "0"];

/// Options with which Nix gives up a cache that does not answer, or that stops sending, within seconds. By default it waits for five
/// minutes, five times.
const GIVE_UP_SOON: [&str; 9] = [
    "--option",
    "connect-timeout",
    "10",
    "--option",
    "stalled-download-timeout",
    "15",
    "--option",
    "download-attempts",
    "2",
];

/// How long a fetch may write next to nothing.
const STALLED: Duration = Duration::from_secs(45);
/// The least that it has to write in that time, in bytes.
const LEAST_PROGRESS: u64 = 16 << 10;

/// The Nix of this machine: its programs on the PATH.
#[derive(Debug, Clone)]
pub(super) struct MachineNix {
    /// A store other than the machine's own: the folder that has a `nix/store` below it.
    pub(super) root: Option<PathBuf>,
    /// The longest time that one command may take.
    pub(super) deadline: Duration,
    /// The destination of Nix's output while it fetches.
    pub(super) output: Output,
}

impl Store for MachineNix {
    fn files_of(&self, path: &StorePath) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.to_string().trim_start_matches('/')),
            None => PathBuf::from(path.to_string()),
        }
    }

    fn fetch<'a>(&'a self, template: &'a NarTemplateSpecification, gc_root: &'a Path) -> StoreFuture<'a, ()> {
        Box::pin(self.realise(template, gc_root))
    }

    fn keep<'a>(&'a self, path: &'a StorePath, gc_root: &'a Path) -> StoreFuture<'a, ()> {
        Box::pin(self.add_gc_root(path, gc_root))
    }

    fn look_up<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        Box::pin(self.query_cache(cache, paths))
    }

    fn look_up_closure<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        Box::pin(self.query_cache_closure(cache, paths))
    }

    fn closures_here<'a>(&'a self, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        Box::pin(self.query_store_closures(paths))
    }

    fn delete<'a>(&'a self, paths: &'a [StorePath]) -> StoreFuture<'a, ()> {
        Box::pin(self.delete_with_referrers(paths))
    }

    fn set_profile<'a>(&'a self, profile: &'a Path, path: &'a StorePath) -> StoreFuture<'a, ()> {
        Box::pin(self.add_generation(profile, path))
    }

    fn dump(&self, path: &StorePath, output: &mut dyn io::Write) -> io::Result<()> {
        nar::encode_path(output, &self.files_of(path), CaseHack::native()).map_err(|error| match error {
            nar::Error::Io(error) => error,
            other => io::Error::other(other),
        })
    }

    fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError> {
        derivation::read(&self.files_of(path))
    }
}

impl MachineNix {
    /// Adds the option that makes one of Nix's programs work on this store.
    fn on_this_store(&self, run: Invocation) -> Invocation {
        match &self.root {
            Some(root) => run.arg("--store").arg(root.as_os_str()),
            None => run,
        }
    }

    /// Whether Nix's program writes to the store, and not a daemon, whose progress cannot be seen.
    fn writes_itself(&self) -> bool {
        let remote = std::env::var_os("NIX_REMOTE").unwrap_or_default();
        let asks_daemon = !remote.is_empty() && remote != "auto" && remote != "local";
        let may_write = || rustix::fs::access("/nix/var/nix/db", rustix::fs::Access::WRITE_OK).is_ok();
        self.root.is_some() || (!asks_daemon && may_write())
    }

    /// A run of the program `name` on this store.
    fn program(&self, name: &str) -> Invocation {
        self.on_this_store(Invocation::new(name).of_nix(self.deadline))
    }

    /// Fetches the path of `template` and all that it needs, and makes a GC root at `gc_root`.
    ///
    /// Nix follows the references that a cache names before it verifies their signatures, so the memory has a limit too.
    async fn realise(&self, template: &NarTemplateSpecification, gc_root: &Path) -> Result<(), StoreError> {
        let act = || format!("fetch {}", template.nar_id);
        let passing =
            PassingCaches::among(&template.substituters).map_err(|source| StoreError::Files { act: act(), source })?;
        let run = passing
            .prepare(self.realise_command(&template.nar_id, gc_root))
            .within_memory(MAX_MEMORY_TO_FETCH)
            .args(["--option", "substituters", &joined(&usable_caches(&template.substituters), " ")])
            .args(["--option", "trusted-public-keys", &joined(&template.substituters_public_keys, " ")])
            // Nix also trusts the keys with which this machine signs. Only the keys of the template must count.
            .args(["--option", "secret-key-files", ""])
            .args(["--option", "require-sigs", "true"])
            // Nix remembers for an hour that a cache lacks a path, although CI may have copied the path there meanwhile. It
            // remembers the entry of a path for a month, although the cache may have been repaired meanwhile.
            .args(REMEMBER_NOTHING)
            .args(GIVE_UP_SOON);
        // Nix itself gives up where nothing comes at all, and goes on for ever where a byte comes now and then.
        let run = if self.writes_itself() { run.making_progress(STALLED, LEAST_PROGRESS) } else { run };
        let run = if self.output == Output::Inherit { run.passing_output_on() } else { run };
        run.run().await.map(drop).map_err(|source| StoreError::Failed { act: act(), source })
    }

    /// Makes a GC root at `gc_root` for `path`, which has to be in the store.
    async fn add_gc_root(&self, path: &StorePath, gc_root: &Path) -> Result<(), StoreError> {
        let run = self.realise_command(path, gc_root).args(FETCH_NOTHING).run().await;
        let act = || format!("make a GC root for {path} at {}", gc_root.display());
        run.map(drop).map_err(|source| StoreError::Failed { act: act(), source })
    }

    /// A run that realises `path` and makes a GC root for it at `gc_root`. Nothing is built.
    fn realise_command(&self, path: &StorePath, gc_root: &Path) -> Invocation {
        self.program("nix-store")
            .args(["--realise", &path.to_string()])
            // Without a root, a garbage collection could delete the path before the profile has it.
            .arg("--add-root")
            .arg(gc_root.as_os_str())
            .args(["--max-jobs", "0", "--option", "builders", "", "--option", "fallback", "false"])
    }

    /// The entries of those of `paths` that `cache` has.
    async fn query_cache(&self, cache: &Substituter, paths: &[StorePath]) -> Result<CacheEntries, StoreError> {
        let act = || match paths {
            [path] => format!("ask {cache} for {path}"),
            _ => format!("ask {cache} for {} paths", paths.len()),
        };
        let files = |source| StoreError::Files { act: act(), source };
        let passing = PassingCaches::among(std::slice::from_ref(cache)).map_err(files)?;
        let run = passing.prepare(self.query_command(cache).map_err(files)?);
        // A cache that sends a byte now and then is given up in seconds, where little is asked of it.
        let run = if paths.len() == 1 { run.within(self.deadline.min(MAX_ONE_QUERY_TIME)) } else { run };
        entries(run.args(paths.iter().map(ToString::to_string)), act).await
    }

    /// The entries that `cache` has for `paths` and all that they need; an error if it lacks one of them.
    async fn query_cache_closure(&self, cache: &Substituter, paths: &[StorePath]) -> Result<CacheEntries, StoreError> {
        let act = || asking_for_all(cache, paths);
        let files = |source| StoreError::Files { act: act(), source };
        let passing = PassingCaches::among(std::slice::from_ref(cache)).map_err(files)?;
        let run = passing.prepare(self.query_command(cache).map_err(files)?);
        entries(run.arg("--recursive").args(paths.iter().map(ToString::to_string)), act).await
    }

    /// A run that queries `cache`.
    fn query_command(&self, cache: &Substituter) -> io::Result<Invocation> {
        check_folder(cache)?;
        // The cache has to answer, and not the store of this machine. A hostile cache can name ever more paths, so the query
        // has a deadline of its own.
        let cache = cache.for_nix();
        let verb = ["path-info", "--json", "--store", &cache];
        let run = Invocation::nix(&verb, self.deadline.min(MAX_QUERY_TIME))
            .within_memory(MAX_MEMORY_TO_QUERY)
            // An answer that Nix remembers may be wrong: a path may be there now, or have another signature.
            .args(REMEMBER_NOTHING)
            // The caller asks again later, so it does not wait for a cache that is down.
            .args(["--option", "connect-timeout", "10", "--option", "download-attempts", "1"])
            .args(["--option", "stalled-download-timeout", "15"]);
        Ok(run)
    }

    /// The entries of those of `paths` that are in the store, and of all that these need.
    async fn query_store_closures(&self, paths: &[StorePath]) -> Result<CacheEntries, StoreError> {
        let act = || asking_for_all(&"the store", paths);
        let query = || self.on_this_store(Invocation::nix(&["path-info", "--json"], self.deadline));
        let here = entries(query().args(paths.iter().map(ToString::to_string)), act).await?;
        // For Nix it is an error to query all that an absent path needs.
        if here.is_empty() {
            return Ok(here);
        }
        entries(query().arg("--recursive").args(here.keys().map(ToString::to_string)), act).await
    }

    /// Deletes `paths` and all paths of the store that need one of them.
    async fn delete_with_referrers(&self, paths: &[StorePath]) -> Result<(), StoreError> {
        let failed = |source| StoreError::Failed { act: format!("delete {}", joined(paths, ", ")), source };
        let paths = paths.iter().map(ToString::to_string);
        let query = self.program("nix-store").args(["--query", "--referrers-closure"]).args(paths).run();
        let referrers = query.await.map_err(failed)?;
        // A path that needs one of them has to be named as well. Otherwise Nix refuses, because the path uses it.
        let all = String::from_utf8_lossy(&referrers.stdout).lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        self.program("nix-store").arg("--delete").args(all).run().await.map(drop).map_err(failed)
    }

    /// Makes `path` the newest generation of `profile`.
    async fn add_generation(&self, profile: &Path, path: &StorePath) -> Result<(), StoreError> {
        let run = self
            .program("nix-env")
            .arg("--profile")
            .arg(profile.as_os_str())
            .args(["--set", &path.to_string()])
            // Otherwise Nix would fetch a path that is gone from the machine's own caches, and trust their keys.
            .args(FETCH_NOTHING);
        let act = || format!("set the profile {} to {path}", profile.display());
        run.run().await.map(drop).map_err(|source| StoreError::Failed { act: act(), source })
    }
}

/// Fails for a folder of this machine that is no cache. Nix would turn any folder that it is asked about into one, and a flake
/// may name any folder.
fn check_folder(cache: &Substituter) -> io::Result<()> {
    let Some(path) = cache.folder() else { return Ok(()) };
    let no_cache = |error: io::Error| io::Error::new(error.kind(), format!("there is no cache at {path}: {error}"));
    fs::metadata(Path::new(path).join("nix-cache-info")).map(drop).map_err(no_cache)
}

/// Caches on the loopback interface, whose addresses may be others the next time: those of the closures on a stick are.
struct PassingCaches(Option<tempfile::TempDir>);

impl PassingCaches {
    fn among(caches: &[Substituter]) -> io::Result<Self> {
        let folder = caches.iter().any(Substituter::is_loopback).then(tempfile::tempdir);
        folder.transpose().map(Self)
    }

    /// The run, if it asks such a cache: not through a proxy, and without leaving what Nix remembers of caches in the home of this user,
    /// which would grow with each address.
    fn prepare(&self, run: Invocation) -> Invocation {
        let Some(folder) = &self.0 else { return run };
        let exceptions = ["no_proxy", "NO_PROXY"].into_iter().find_map(std::env::var_os).unwrap_or_default();
        let mut no_proxy = std::ffi::OsString::from("127.0.0.1,");
        no_proxy.push(exceptions);
        run.env("no_proxy", no_proxy)
            // The first since Nix 2.25; before, the second.
            .env("NIX_CACHE_HOME", folder.path())
            .env("XDG_CACHE_HOME", folder.path())
    }
}

/// What Nix is asked to fetch from. A folder that is no cache, for example of a disk that is not mounted, is left out: another
/// cache may have the path.
fn usable_caches(caches: &[Substituter]) -> Vec<String> {
    let mut usable = Vec::new();
    for cache in caches {
        match check_folder(cache) {
            Ok(()) => usable.push(cache.for_nix()),
            Err(error) => tracing::warn!(%cache, %error, "a substituter is not asked"),
        }
    }
    usable
}

/// Runs `nix path-info --json`. Returns the entries of the paths that exist.
async fn entries(run: Invocation, act: impl Fn() -> String) -> Result<CacheEntries, StoreError> {
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

/// Names a query of `whom` for `paths` and all that they need, for an error.
fn asking_for_all(whom: &dyn Display, paths: &[StorePath]) -> String {
    match paths {
        [path] => format!("ask {whom} for {path} and all that it needs"),
        _ => format!("ask {whom} for {} paths and all that they need", paths.len()),
    }
}

fn joined<T: ToString>(items: &[T], separator: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

/// The output of `nix path-info --json`: a list up to Nix 2.18; since 2.19 a map by path, where an absent path has null.
#[derive(Deserialize)]
#[serde(untagged)]
enum PathInfo {
    List(Vec<serde_json::Value>),
    Map(serde_json::Map<String, serde_json::Value>),
}

impl PathInfo {
    /// The paths that exist, each with its entry.
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
    fn a_folder_that_is_no_cache_is_not_asked_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let caches: Vec<Substituter> =
            [path.clone(), format!("file://{path}"), "https://h".to_owned()].map(|cache| cache.parse().unwrap()).into();
        assert_eq!(usable_caches(&caches), ["https://h"]);
        let nix = MachineNix { root: None, deadline: MAX_QUERY_TIME, output: Output::Capture };
        let refused = |cache| nix.query_command(cache).map(drop).unwrap_err().to_string();
        assert!(caches[..2].iter().all(|cache| refused(cache).contains("there is no cache at")));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        fs::write(folder.path().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
        assert_eq!(
            usable_caches(&caches),
            [format!("file://{path}"), format!("file://{path}"), "https://h".to_owned()]
        );
    }

    #[test]
    fn an_absent_path_has_no_entry_in_any_version_of_nix() {
        assert_eq!(entry("[]"), None);
        assert_eq!(entry(r#"[{"path":"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x","valid":false}]"#), None);
        assert_eq!(entry(r#"{"/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x":null}"#), None);
    }
}
