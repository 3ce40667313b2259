//! Fetches a flake at one content, and reads its lock. Nothing that the flake says is evaluated outside of the cage.

use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::newest::is_stale;
use super::{Nix, NixError, NixString, check_daemon};
use crate::model::{FlakeReference, Invalid, LockedSource, NarHash, SourceRevision, StorePath, excerpt};
use crate::process::Invocation;

/// The most memory for reading a lock, in bytes. That of a large flake takes some 50 MB.
const MAX_MEMORY_FOR_LOCK: u64 = 1 << 30;
/// The most bytes of a warning of Nix in an error.
const MAX_WORDS: usize = 2000;

/// A flake at one content, whose tree is in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedFlake {
    /// The source at this content.
    pub source: LockedSource,
    /// The store path of its tree.
    pub tree: StorePath,
    /// The attributes that name this content, as Nix writes them in locks.
    pub locked: Map<String, Value>,
}

/// The attributes of a fetched tree (Nix's manual, `fetchTree`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tree {
    last_modified: Option<u64>,
    nar_hash: NarHash,
    path: StorePath,
    rev: Option<SourceRevision>,
    rev_count: Option<u64>,
}

impl FetchedFlake {
    /// The path of the `flake.lock` that is written in its tree; none where the tree has no such file. Whether it fits the flake is for
    /// [`Nix::read_lock`] to say.
    pub fn written_lock(&self) -> Option<PathBuf> {
        let tree = PathBuf::from(self.tree.to_string());
        let folder = self.locked.get("dir").and_then(Value::as_str).unwrap_or_default();
        let path = tree.join(folder).join("flake.lock").canonicalize().ok()?;
        // A link must not lead out of the tree.
        (path.starts_with(&tree) && path.is_file()).then_some(path)
    }
}

impl Nix {
    /// Fetches the content that `flake` has now, or at `revision`, into the store. Nix reads none of its files meanwhile.
    pub async fn fetch(
        &self,
        flake: &FlakeReference,
        revision: Option<&SourceRevision>,
    ) -> Result<FetchedFlake, NixError> {
        // Nix would only say that a file of the daemon's cannot be opened.
        check_daemon().map_err(|source| NixError::NoDaemon { action: format!("read the source {flake}"), source })?;
        match revision {
            Some(_) => self.fetch_at(flake, revision).await,
            None => self.fetch_at(flake, self.newest_revision(flake).await?.as_ref()).await,
        }
    }

    /// The same, where it is up to Nix which content is the newest if there is no `revision`.
    async fn fetch_at(
        &self,
        flake: &FlakeReference,
        revision: Option<&SourceRevision>,
    ) -> Result<FetchedFlake, NixError> {
        let action = || format!("read the source {flake}");
        let unexpected = |why: String| NixError::Unexpected { action: action(), why };
        let invalid = |error: Invalid| unexpected(error.to_string());
        let asked = match revision {
            Some(revision) => flake.with_parameter("rev", revision.as_str()).map_err(invalid)?,
            None => flake.clone(),
        };
        let resolved = resolve(&asked).map_err(|source| NixError::Files { action: action(), source })?;
        let fetched = fetch_argument(&resolved);
        let access = self.keys.of(&fetched).map_err(|why| NixError::NoAccess { action: action(), why })?;
        let fetched = fetched.to_string();
        let attributes =
            "builtins.removeAttrs tree [ \"outPath\" \"shortRev\" \"dirtyShortRev\" \"lastModifiedDate\" ]";
        let expression = format!(
            "let tree = builtins.fetchTree (builtins.fromJSON {}); in {attributes} // {{ path = tree.outPath; }}",
            NixString(&fetched)
        );
        let run = self
            .evaluating(Invocation::new("nix-instantiate"), &expression)
            // Query the branch each time, because Nix would otherwise use an answer of the last hour.
            .args(["--option", "tarball-ttl", "0"]);
        let output = self.run_fetch(&action(), run, access).await?;
        if is_stale(&output.stderr) {
            return Err(NixError::Stale { action: action(), words: excerpt(output.stderr.trim(), MAX_WORDS) });
        }
        let mut locked: Map<String, Value> =
            serde_json::from_slice(&output.stdout).map_err(|error| unexpected(error.to_string()))?;
        let tree: Tree =
            serde_json::from_value(locked.clone().into()).map_err(|error| unexpected(error.to_string()))?;
        locked.remove("path");
        locked.insert("type".to_owned(), resolved.fetcher().into());
        if let Some(folder) = resolved.folder() {
            locked.insert("dir".to_owned(), folder.into());
        }
        let reference = tree.reference(resolved.folder().as_deref()).map_err(invalid)?;
        let source = LockedSource { flake: flake.clone(), locked: reference, hash: tree.nar_hash, revision: tree.rev };
        Ok(FetchedFlake { source, tree: tree.path, locked })
    }

    /// Whether `flake` still has this content. Nix is not asked where the revision says it.
    pub async fn has_content(&self, flake: &FlakeReference, before: &LockedSource) -> Result<bool, NixError> {
        match (self.newest_revision(flake).await?, &before.revision) {
            (Some(now), Some(before)) => Ok(now == *before),
            (newest, _) => Ok(self.fetch_at(flake, newest.as_ref()).await?.source == *before),
        }
    }

    /// Reads the lock of `flake`, of version 7 or earlier. In the cage nothing can be fetched for it.
    pub async fn read_lock(&self, flake: &FetchedFlake) -> Result<Value, NixError> {
        let whole = self.read_lock_at(flake, flake.source.locked.as_str()).await;
        match (&whole, flake.locked.get("dir").and_then(Value::as_str)) {
            // Nix 2.8 accepts no `dir` with a path. The folder by itself has the same lock, unless an input is outside of it.
            (Err(_), Some(folder)) => self.read_lock_at(flake, &format!("path:{}/{folder}", flake.tree)).await,
            (Ok(_) | Err(_), _) => whole,
        }
    }

    async fn read_lock_at(&self, flake: &FetchedFlake, reference: &str) -> Result<Value, NixError> {
        /// The field of `nix flake metadata --json` that Clavel reads.
        #[derive(Deserialize)]
        struct FlakeMetadata {
            locks: Value,
        }
        let action = || format!("read the source {}", flake.source.flake);
        let run = Invocation::nix(&["flake", "metadata", "--json"], self.deadline)
            // The flake.lock of the owner decides: a stale one is an error and is never replaced.
            .arg("--no-update-lock-file")
            // Nix says in the trace alone that it was about to change the lock.
            .arg("--show-trace")
            .args(["--option", "accept-flake-config", "false"])
            .within_memory(MAX_MEMORY_FOR_LOCK)
            .arg(reference);
        let output = self.caged(run, None).await?.run().await;
        let output = output.map_err(|failure| {
            let is_stale = is_about_a_stale_lock(failure.stderr());
            match NixError::failed(action(), failure, self.detail) {
                NixError::Failed { action, source } if is_stale => NixError::StaleLock { action, source },
                other => other,
            }
        })?;
        let metadata: Result<FlakeMetadata, _> = serde_json::from_slice(&output.stdout);
        let metadata = metadata.map_err(|error| NixError::Unexpected { action: action(), why: error.to_string() })?;
        Ok(metadata.locks)
    }
}

/// Whether Nix failed because the lock lacks an input. It then tries to fetch that input, which it cannot do in the cage, or says
/// that it may not write the lock.
fn is_about_a_stale_lock(stderr: &str) -> bool {
    let signs = ["while updating the lock file of flake", "requires lock file changes", "--no-update-lock-file"];
    signs.iter().any(|sign| stderr.contains(sign))
}

/// The reference with the scheme that Nix's command line would choose for it: a path in a git repository stands for the
/// repository, another path for itself, and a name for an entry of the registry (Nix's manual, "nix flake").
fn resolve(flake: &FlakeReference) -> std::io::Result<FlakeReference> {
    let invalid = |invalid: Invalid| std::io::Error::other(invalid.to_string());
    if flake.scheme().is_some() {
        return Ok(flake.clone());
    }
    let (front, query) = flake.as_str().split_once('?').unwrap_or((flake.as_str(), ""));
    if !front.starts_with(['/', '.']) {
        return format!("flake:{}", flake.as_str()).parse().map_err(invalid);
    }
    let path = Path::new(front).canonicalize()?;
    let Some(repository) = path.ancestors().find(|folder| folder.join(".git").exists()) else {
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        return format!("path:{}{query}", path.display()).parse().map_err(invalid);
    };
    let reference = flake.at_path(repository).map_err(invalid)?;
    match path.strip_prefix(repository).ok().filter(|inside| !inside.as_os_str().is_empty()) {
        Some(inside) if flake.folder().is_none() => {
            reference.with_parameter("dir", &inside.to_string_lossy()).map_err(invalid)
        }
        _ => Ok(reference),
    }
}

/// The argument of `fetchTree` for the whole tree of a reference. Before 2.9, it takes only a URL with `://` as text, and the
/// attributes of every other reference (Nix's manual, "nix flake").
fn fetch_argument(flake: &FlakeReference) -> Value {
    let whole = flake.without_folder();
    let (front, query) = whole.split_once('?').unwrap_or((&whole, ""));
    let Some((scheme, location)) = front.split_once(':').filter(|_| !front.contains("://")) else {
        return whole.into();
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut attributes = Map::new();
    attributes.insert("type".to_owned(), flake.fetcher().into());
    let mut set = |name: &str, value: &str| drop(attributes.insert(name.to_owned(), decoded(value).into()));
    // A part that is no revision is the name of a branch.
    let version = |text: &str| if text.parse::<SourceRevision>().is_ok() { "rev" } else { "ref" };
    match scheme {
        "path" => set("path", location),
        "flake" => {
            let mut parts = location.splitn(3, '/');
            parts.next().into_iter().for_each(|id| set("id", id));
            parts.for_each(|part| set(version(part), part));
        }
        "github" | "gitlab" | "sourcehut" => {
            let mut parts = location.splitn(3, '/');
            parts.next().into_iter().for_each(|owner| set("owner", owner));
            parts.next().into_iter().for_each(|repository| set("repo", repository));
            parts.next().into_iter().for_each(|part| set(version(part), part));
        }
        _ => {
            return format!(
                "{scheme}://{location}{}",
                if query.is_empty() { String::new() } else { format!("?{query}") }
            )
            .into();
        }
    }
    for (name, value) in query.split('&').filter_map(|parameter| parameter.split_once('=')) {
        let value = decoded(value);
        // These are numbers in a lock.
        let number = ["lastModified", "revCount"].contains(&name).then(|| value.parse::<u64>().ok()).flatten();
        attributes.insert(name.to_owned(), number.map_or_else(|| value.into(), Value::from));
    }
    attributes.into()
}

impl Tree {
    /// The reference that a pure evaluation accepts, and that always means this content.
    fn reference(&self, folder: Option<&str>) -> Result<FlakeReference, Invalid> {
        let mut reference: FlakeReference = format!("path:{}", self.path).parse()?;
        let parameters = [
            ("narHash", Some(self.nar_hash.to_string())),
            ("lastModified", self.last_modified.map(|seconds| seconds.to_string())),
            ("rev", self.rev.as_ref().map(ToString::to_string)),
            ("revCount", self.rev_count.map(|count| count.to_string())),
            ("dir", folder.map(ToOwned::to_owned)),
        ];
        for (key, value) in parameters {
            if let Some(value) = value {
                reference = reference.with_parameter(key, &value)?;
            }
        }
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_form_of_a_reference_has_an_argument_that_old_versions_take() {
        let rev = "ae6b0437f48df0c54a69d616f4d8d7139dd99f52";
        for (reference, expected) in [
            ("git+file:///x?ref=main&dir=a", json!("git+file:///x?ref=main")),
            ("git+file:/x", json!("git+file:///x")),
            ("https://x/y.tar.gz", json!("https://x/y.tar.gz")),
            ("path:/a%20b?lastModified=3", json!({ "type": "path", "path": "/a b", "lastModified": 3 })),
            ("github:a/b", json!({ "type": "github", "owner": "a", "repo": "b" })),
            (&format!("gitlab:a/b/{rev}"), json!({ "type": "gitlab", "owner": "a", "repo": "b", "rev": rev })),
            (
                "github:a/b/c/d?host=h",
                json!({ "type": "github", "owner": "a", "repo": "b", "ref": "c/d", "host": "h" }),
            ),
            ("flake:nixpkgs/main", json!({ "type": "indirect", "id": "nixpkgs", "ref": "main" })),
        ] {
            assert_eq!(fetch_argument(&reference.parse().unwrap()), expected, "{reference}");
        }
    }

    #[test]
    fn a_tree_gets_the_reference_of_its_copy_in_the_store() {
        let json = r#"{"lastModified":12,"narHash":"sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4=","revCount":2,
            "path":"/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source","rev":"ae6b0437f48df0c54a69d616f4d8d7139dd99f52"}"#;
        let tree: Tree = serde_json::from_str(json).unwrap();
        assert_eq!(
            tree.reference(Some("a b")).unwrap().to_string(),
            "path:/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source?narHash=sha256-JnZRLUoTJsju6pyJ16dH7On0s3OGZimYHbDPEt6g1E4%3D\
             &lastModified=12&rev=ae6b0437f48df0c54a69d616f4d8d7139dd99f52&revCount=2&dir=a%20b"
        );
    }
}
