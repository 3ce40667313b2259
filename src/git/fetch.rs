//! Fetching one branch of a remote into one ref of a local repository, through gix.
//!
//! The ref moves last, and only to a commit whose objects are all there. The caller decides whether the commit can be trusted.
//! A fetch blocks its thread and has no limit on time, memory or disk. Nobody trusts a remote with those, so only `confined` runs
//! one, in a process of its own.

use std::cell::RefCell;
use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use gix::progress::Discard;
use gix::protocol::transport::client::blocking_io;
use gix::protocol::transport::client::blocking_io::http::Transport;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Status, Tags};
use gix::sec::identity::Account;
use gix::url::Scheme;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::access::quoted;
use super::address::{CommitId, RefName};
use super::commit::sync_file;
use super::complete::{self, CheckedHistory};
use super::explain::{Explanation, Obstacle, explain};
use super::fetch_error::{FetchError, MAX_SHALLOW_BYTES};
use super::host_key::{KNOWN_HOSTS, private_file};
use super::http::GitHttp;
use super::lock::HeldLock;
use super::remote::Remote;
use super::remote_url::RemoteUrl;
use super::repository::{GitError, Repository, in_one_line};
use super::ssh_words::SshWords;
use super::static_files::transfer::ReadStatic;
use crate::model::{BranchName, BranchPart};
use crate::redact::without_users;

/// The threads that check a pack.
const MAX_THREADS: &str = "2";

/// How much of a branch is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Depth {
    /// The newest commit, for a reader. Later fetches add to it.
    Tip,
    /// The whole history, for a writer that commits on top of it and pushes.
    Full,
}

/// One branch to fetch, and the local ref that follows it.
#[derive(Debug)]
pub(super) struct FetchRequest<'a> {
    /// The remote.
    pub(super) remote: &'a Remote,
    /// The branch of the remote. Rewritten history is accepted.
    pub(super) branch: &'a BranchName,
    /// The local ref that follows the branch.
    pub(super) into: &'a RefName,
    /// How much of the branch's history is fetched.
    pub(super) depth: Depth,
    /// The part of the branch that is fetched, from a remote that can send a part.
    pub(super) part: &'a BranchPart,
    /// Reads the branch of a static folder.
    pub(super) read_static: ReadStatic,
    /// The fetch ends early when this becomes true.
    pub(super) interrupt: &'a AtomicBool,
}

/// The result of a fetch.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The local ref was at the branch's tip already.
    Unchanged(CommitId),
    /// The branch had moved, and the local ref now follows it.
    Moved(CommitId),
    /// The remote answered, and has no such branch. The local ref stays where it was.
    BranchMissing,
}

/// A failure of gix, which the words of ssh may explain, or one that needs no explanation.
enum FetchFailure {
    Remote(Stage, gix::Error),
    Known(FetchError),
}

impl<E: Into<FetchError>> From<E> for FetchFailure {
    fn from(error: E) -> Self {
        Self::Known(error.into())
    }
}

/// The files that a fetch wrote, and how to undo them.
struct Received {
    pack: Option<gix::odb::pack::bundle::write::Outcome>,
    /// The `shallow` file as it was before the fetch.
    shallow: (PathBuf, Option<Vec<u8>>),
}

impl Repository {
    /// Moves the local ref to the tip of the remote's branch. If the branch has not moved, the remote sends only its refs.
    pub(super) fn fetch(&self, request: &FetchRequest<'_>) -> Result<Fetched, FetchError> {
        match request.remote {
            Remote::Url(url) => self.fetch_url(request, url),
            Remote::Bundle(files) => self.fetch_bundle(request, files),
            Remote::Static(url) => self.fetch_static(request, url),
        }
    }

    fn fetch_url(&self, request: &FetchRequest<'_>, url: &RemoteUrl) -> Result<Fetched, FetchError> {
        if let Some(path) = url.local_path().filter(|path| !path.exists()) {
            let why = format!("{} does not exist", path.display());
            return Err(request.stopped_by(Obstacle::NoRepository, why, "correct the URL"));
        }
        let listened = request.remote.is_ssh().then(SshWords::listen).transpose();
        let words = listened.map_err(|error| GitError::io("listen to ssh", &error))?;
        let is_http = matches!(url.parsed().scheme, Scheme::Http | Scheme::Https);
        let http = is_http.then(|| GitHttp::new(url)).transpose().map_err(|why| request.refused(why))?;
        // The connection ends in here, and ssh with it.
        self.fetch_listening(request, url, words.as_ref(), http.clone()).map_err(|error| match error {
            FetchFailure::Remote(stage, error) => {
                let mut failed = request.failed(url, stage, &error, &words.map(SshWords::take).unwrap_or_default());
                if let FetchError::Unreachable { retry_after, .. } = &mut failed {
                    *retry_after = http.and_then(|http| http.retry_after());
                }
                failed
            }
            FetchFailure::Known(error) => error,
        })
    }

    fn fetch_listening(
        &self,
        request: &FetchRequest<'_>,
        url: &RemoteUrl,
        words: Option<&SshWords>,
        http: Option<GitHttp>,
    ) -> Result<Fetched, FetchFailure> {
        let known = self.tip_of_ref(request.into)?;
        // ssh reads the file before it asks for anything.
        let known_hosts = url.access().ssh.known_hosts_of(url.parsed()).map_err(|why| request.refused(why))?;
        let known_hosts = known_hosts.map(|text| private_file(&text)).transpose();
        let known_hosts = known_hosts.map_err(|error| GitError::io("write the keys of the host", &error))?;
        let local = self.configured_for(url, words, known_hosts.as_ref())?;
        let remote = request.gix_remote(url, &local)?;
        let failed = |stage| move |error: gix::Error| FetchFailure::Remote(stage, error);
        // Why this machine has no credentials, where the server asks for some.
        let unreadable = RefCell::new(None);
        let connection = FetchRequest::connect(&remote, http)?;
        let prepared = connection
            .with_credentials(|action| {
                Ok(answer(url, action).unwrap_or_else(|why| {
                    unreadable.replace(Some(why));
                    None
                }))
            })
            .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
            .map_err(|error| match unreadable.take() {
                Some(why) => request.refused(why).into(),
                None => failed(Stage::Connect)(error),
            })?;
        let tip = prepared.ref_map().mappings.first().and_then(|mapping| mapping.remote.as_id());
        let Some(tip) = tip.map(|id| CommitId::from(id.to_owned())) else { return Ok(Fetched::BranchMissing) };
        if known == Some(tip) {
            return Ok(Fetched::Unchanged(tip));
        }
        let mut received = Received { pack: None, shallow: shallow_file(&local)? };
        let outcome =
            prepared
                .with_shallow(self.shallow(&local, request.depth)?)
                .receive(Discard, request.interrupt)
                .map_err(|error| self.locked(request).map_or_else(|| failed(Stage::Receive)(error), Into::into))?;
        if let Status::Change { write_pack_bundle, .. } = outcome.status {
            received.pack = Some(write_pack_bundle);
        }
        Ok(self.accept(request, &local, received, (known, tip))?)
    }

    /// Moves the ref to the received commit if the commit is complete; otherwise deletes the received files.
    fn accept(
        &self,
        request: &FetchRequest<'_>,
        local: &gix::Repository,
        received: Received,
        (known, tip): (Option<CommitId>, CommitId),
    ) -> Result<Fetched, FetchError> {
        if shallow_size(local)? > MAX_SHALLOW_BYTES {
            received.discard()?;
            return Err(FetchError::TooShallow { remote: request.remote.to_string(), branch: request.branch.clone() });
        }
        let history = match request.depth {
            Depth::Tip => CheckedHistory::TipOnly,
            Depth::Full => CheckedHistory::AllCommits,
        };
        if let Err(source) = complete::check(local, tip, known, history).map_err(Box::new) {
            let (remote, branch) = (request.remote.to_string(), request.branch.clone());
            if received.pack.is_none() {
                return Err(FetchError::Broken { remote, branch, source });
            }
            // While the commit is here, git assumes that all of its objects are here too. Without the commit, the next fetch
            // asks for all of them again.
            received.discard()?;
            return Err(FetchError::Incomplete { remote, branch, source });
        }
        let act = || format!("sync the pack that was fetched into {}", self.path().display());
        received.sync().map_err(|error| GitError::io(act(), &error))?;
        let moved = self.move_ref(local, request.into, known, tip);
        moved.map_err(|error| self.locked(request).unwrap_or(FetchError::Local(error)))?;
        received.release();
        Ok(Fetched::Moved(tip))
    }

    /// The error for a lock file that blocks the fetch, if there is one.
    fn locked(&self, request: &FetchRequest<'_>) -> Option<FetchError> {
        let lock = HeldLock::first_of(&self.git_dir(), &["shallow", request.into.as_str(), "packed-refs"])?;
        Some(FetchError::Locked { remote: request.remote.to_string(), branch: request.branch.clone(), lock })
    }

    /// A handle on the repository with the settings of the URL, which are kept in memory only.
    fn configured_for(
        &self,
        url: &RemoteUrl,
        words: Option<&SshWords>,
        known_hosts: Option<&NamedTempFile>,
    ) -> Result<gix::Repository, GitError> {
        let mut local = self.separate_handle()?;
        let mut command = url.access().ssh.command();
        if let Some(known_hosts) = known_hosts {
            // The shell expands it in the command, so it has to be set before.
            command = format!("{KNOWN_HOSTS}={}; {command}", quoted(&known_hosts.path().to_string_lossy()));
        }
        let command = words.map_or_else(|| command.clone(), |words| words.of(&command));
        let mut config = local.config_snapshot_mut();
        // The variant is named because gix would guess it from the command's last word.
        // Each thread that checks a pack has buffers and a stack, and a fetch has little memory, however many processors there are.
        let settings = [("core.sshCommand", command.as_str()), ("ssh.variant", "ssh"), ("pack.threads", MAX_THREADS)];
        for (key, value) in settings {
            config
                .set_raw_value(key, value)
                .map_err(|error| GitError::new(format!("set {key} for a fetch"), &error))?;
        }
        config.commit().map_err(|error| GitError::new("apply the configuration of a fetch", &error))?;
        Ok(local)
    }

    /// How much history to ask the remote for.
    fn shallow(&self, local: &gix::Repository, depth: Depth) -> Result<Shallow, GitError> {
        let act = || format!("look for refs in {}", self.path().display());
        let is_shallow = local.is_shallow().map_err(|error| GitError::new(act(), &error))?;
        let any_ref = || -> gix::Result<bool> { Ok(local.references()?.all()?.next().is_some()) };
        Ok(match depth {
            Depth::Full if is_shallow => Shallow::undo(),
            Depth::Full => Shallow::NoChange,
            // A second fetch with a depth would cut the history off at another commit; the commits in between are few and
            // small.
            Depth::Tip if is_shallow || any_ref().map_err(|error| GitError::new(act(), &error))? => Shallow::NoChange,
            Depth::Tip => Shallow::DepthAtRemote(NonZeroU32::MIN),
        })
    }
}

/// A connection by any protocol.
type Connection<'a, 'repo> = gix::remote::Connection<'a, 'static, 'repo, Box<dyn blocking_io::Transport + Send>>;

/// The stage that a fetch had reached when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The remote had not listed its refs yet.
    Connect,
    /// The remote had listed its refs, and was sending objects.
    Receive,
}

impl FetchRequest<'_> {
    fn gix_remote<'repo>(
        &self,
        url: &RemoteUrl,
        local: &'repo gix::Repository,
    ) -> Result<gix::Remote<'repo>, GitError> {
        let act = || format!("prepare the fetch of branch `{}` from {}", self.branch, self.remote);
        let remote =
            local.remote_at_without_url_rewrite(url.parsed().clone()).map_err(|error| GitError::new(act(), &error))?;
        // The refspec has no local side, because `Repository::accept` moves the ref itself, after its check.
        let spec = RefName::of(self.branch);
        remote
            .with_fetch_tags(Tags::None)
            .with_refspecs([spec.as_str()], Direction::Fetch)
            .map_err(|error| GitError::new(act(), &error))
    }

    /// Connects by gix's own means, or over HTTP.
    fn connect<'a, 'repo>(
        remote: &'a gix::Remote<'repo>,
        http: Option<GitHttp>,
    ) -> Result<Connection<'a, 'repo>, FetchFailure> {
        let failed = |error| FetchFailure::Remote(Stage::Connect, error);
        let Some(http) = http else { return remote.connect(Direction::Fetch).map_err(failed) };
        let (url, version) = remote.sanitized_url_and_version(Direction::Fetch).map_err(failed)?;
        Ok(remote.to_connection_with_transport(Box::new(Transport::new_http(http, url, version, false))))
    }

    fn refused(&self, why: String) -> FetchError {
        self.stopped_by(Obstacle::Refused, why, "check the credentials or the key")
    }

    /// The error for an obstacle.
    fn stopped_by(&self, obstacle: Obstacle, why: String, advice: &'static str) -> FetchError {
        let (remote, branch) = (self.remote.to_string(), self.branch.clone());
        match obstacle {
            Obstacle::NoRepository => FetchError::RepositoryNotFound { remote, branch, why, advice },
            Obstacle::Refused => FetchError::Refused { remote, branch, why, advice },
            Obstacle::Fault => FetchError::Unreachable { remote, branch, why, advice, retry_after: None },
        }
    }

    /// Converts an error of gix. Its text and the words of ssh may quote a URL that a server named, so the users of URLs are taken
    /// out.
    fn failed(&self, url: &RemoteUrl, stage: Stage, error: &gix::Error, words: &str) -> FetchError {
        let (remote, branch) = (self.remote.to_string(), self.branch.clone());
        if self.interrupt.load(Ordering::Relaxed) {
            return FetchError::Interrupted { remote, branch };
        }
        if let (Stage::Connect, Some(path)) = (stage, url.local_path())
            && let Some(why) = owned_by_another_user(&path)
        {
            return self.refused(why);
        }
        if error.is_unauthenticated() {
            // The text of gix is about a credential helper.
            let why =
                "it asks for credentials, and [[credentials]] has none that it accepts (HTTP status 401)".to_owned();
            let advice =
                "name a token that is still good, in a [[credentials]] table whose url the repository begins with";
            return self.stopped_by(Obstacle::Refused, why, advice);
        }
        let why = without_users(&if words.is_empty() { in_one_line(error) } else { format!("ssh said: {words}") });
        if error.is_resource_exhausted() {
            return FetchError::TooMuchMemory { remote, branch, why };
        }
        if let Some(Explanation { obstacle, advice }) = explain(&why, url.access()) {
            self.stopped_by(obstacle, why, advice)
        } else if error.is_permission_denied() {
            self.refused(why)
        } else if url.local_path().is_some() && error.is_not_found() {
            self.stopped_by(Obstacle::NoRepository, why, "correct the URL")
        } else {
            self.stopped_by(Obstacle::Fault, why, "check that this machine can reach it")
        }
    }
}

/// Explains why git does not serve the repository at `path`, if the repository belongs to another user. gix discards git's
/// own message.
fn owned_by_another_user(path: &Path) -> Option<String> {
    let owner = fs::metadata(path).ok()?.uid();
    let ours = rustix::process::geteuid().as_raw();
    (owner != ours).then(|| {
        let path = path.display();
        format!(
            "the folder belongs to user {owner}, and git does not serve it to user {ours}, who runs this program; \
             allow it with `git config --system --add safe.directory {path}`"
        )
    })
}

/// Answers a server that asks for credentials: the host of `url`, over HTTPS, and no other, to which it may have sent us on. No
/// person is asked.
fn answer(
    url: &RemoteUrl,
    action: gix::credentials::helper::Action,
) -> Result<Option<gix::credentials::protocol::Outcome>, String> {
    let gix::credentials::helper::Action::Get(context) = action else { return Ok(None) };
    let (access, url) = (url.access(), url.parsed());
    let asking = context.url.as_ref().and_then(|asking| gix::url::parse(asking).ok());
    let is_host = asking.is_some_and(|asking| {
        asking.scheme == Scheme::Https
            && asking.host() == url.host()
            && asking.port_or_default() == url.port_or_default()
    });
    let Some(credentials) = access.credentials.as_ref().filter(|_| is_host) else { return Ok(None) };
    let login = credentials.login(url)?;
    Ok(login.map(|login| gix::credentials::protocol::Outcome {
        identity: Account { username: login.user, password: login.password, oauth_refresh_token: None },
        next: context.into(),
    }))
}

/// The size of the file `shallow` in bytes. Every reader of the history reads all of that file.
fn shallow_size(local: &gix::Repository) -> Result<u64, GitError> {
    let path = shallow_path(local)?;
    match fs::metadata(&path) {
        Ok(about) => Ok(about.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(GitError::io(format!("read the size of {}", path.display()), &error)),
    }
}

fn shallow_path(local: &gix::Repository) -> Result<PathBuf, GitError> {
    local.shallow_file().map_err(|error| GitError::new("find the file `shallow`", &error))
}

/// The path of the file `shallow`, and its content if it exists.
fn shallow_file(local: &gix::Repository) -> Result<(PathBuf, Option<Vec<u8>>), GitError> {
    let path = shallow_path(local)?;
    match fs::read(&path) {
        Ok(bytes) => Ok((path, Some(bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((path, None)),
        Err(error) => Err(GitError::io(format!("read {}", path.display()), &error)),
    }
}

impl Received {
    /// Syncs the pack to the disk. gix does not do so, and after a power cut the ref could point into a pack that is gone.
    fn sync(&self) -> std::io::Result<()> {
        let Some(pack) = &self.pack else { return Ok(()) };
        [&pack.data_path, &pack.index_path].into_iter().flatten().try_for_each(|file| sync_file(file))
    }

    /// Deletes the `.keep` file, which protects a pack from git's garbage collection until a ref points into the pack.
    fn release(&self) {
        if let Some(keep) = self.pack.as_ref().and_then(|pack| pack.keep_path.as_ref())
            && let Err(error) = fs::remove_file(keep)
        {
            // Nothing is lost: the pack only stays longer than needed.
            tracing::warn!(file = %keep.display(), %error, "cannot remove a pack's .keep file");
        }
    }

    /// Deletes everything that the fetch wrote.
    fn discard(self) -> Result<(), GitError> {
        let failed = |path: &PathBuf, error: std::io::Error| {
            GitError::io(format!("remove what an incomplete fetch wrote to {}", path.display()), &error)
        };
        if let Some(pack) = self.pack {
            // The index goes first, because git ignores a pack without one.
            for file in [pack.index_path, pack.data_path, pack.keep_path].into_iter().flatten() {
                fs::remove_file(&file).map_err(|error| failed(&file, error))?;
            }
        }
        let (path, before) = self.shallow;
        let restored = match before {
            Some(bytes) => fs::write(&path, bytes),
            None if path.exists() => fs::remove_file(&path),
            None => Ok(()),
        };
        restored.map_err(|error| failed(&path, error))
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
