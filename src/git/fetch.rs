//! Fetching one branch of a remote into one ref of a local repository, through gix.
//!
//! The ref moves last, and only to a commit that was found complete. Whether the commit is to be believed is not decided
//! here. It blocks, and knows no limit on time, memory or disk; a server that is not trusted with those of this machine is
//! fetched from in a process of its own (`agent/fetch`).

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gix::progress::Discard;
use gix::remote::Direction;
use gix::remote::fetch::{Shallow, Status, Tags};
use serde::{Deserialize, Serialize};

use super::address::{CommitId, RefName, RemoteUrl};
use super::commit::{STALE_AFTER, held_lock, sync_file};
use super::complete::{self, History};
use super::objects::ReadError;
use super::repository::{GitError, Repository, in_one_line};
use crate::model::BranchName;

/// The ssh that is run when no command was given: `BatchMode`, since there is nobody to ask for a password; the others end
/// a connection that hangs, because gix cannot interrupt a read.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15 -o ServerAliveCountMax=4";

/// The largest file `shallow`, in bytes: 64 KiB. An honest one has a line for each branch, of 41 bytes.
const LARGEST_SHALLOW: u64 = 64 << 10;

/// How much of a branch is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The newest commit, for whoever only reads; what a later fetch brings is added to it.
    Tip,
    /// The whole history, for whoever commits on top of it and pushes.
    Full,
}

/// What is to be fetched, and to where.
#[derive(Debug)]
pub struct FetchRequest<'a> {
    /// The remote.
    pub url: &'a RemoteUrl,
    /// Its branch. Rewritten history is accepted.
    pub branch: &'a BranchName,
    /// The local ref that follows it.
    pub into: &'a RefName,
    /// How much of it.
    pub depth: Depth,
    /// The command in place of plain `ssh`. It has to understand OpenSSH's options.
    pub ssh_command: Option<&'a str>,
    /// Ends the fetch early when it becomes true.
    pub interrupt: &'a AtomicBool,
}

/// How a fetch ended.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetched {
    /// The branch is where the local ref is already.
    Unchanged(CommitId),
    /// The branch had moved, and the local ref is there now.
    Moved(CommitId),
    /// The remote answered, and has no such branch. The local ref stays where it was.
    BranchMissing,
}

/// What helps after a fetch failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// To try again later: the network, or the remote.
    TryAgain,
    /// To throw the repository away ([`Repository::start_afresh`]) and fetch again where it is a cache; an operator where
    /// it is more.
    StartAfresh,
    /// An operator: the URL, the credentials, or this machine's disk.
    Operator,
}

/// Why nothing was fetched. The local ref is where it was.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The remote could not be reached, or broke off.
    #[error("cannot fetch branch `{branch}` from {url}: {why}; is it reachable from here?")]
    Unreachable {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What happened, without secrets.
        why: String,
    },
    /// The remote answered that it has no such repository.
    #[error("cannot fetch branch `{branch}` from {url}: there is no git repository: {why}; correct the URL")]
    RepositoryNotFound {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What was answered.
        why: String,
    },
    /// The remote did not let us in.
    #[error("cannot fetch branch `{branch}` from {url}: access was refused: {why}; check the credentials or the key")]
    Refused {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What was answered.
        why: String,
    },
    /// What was received cannot be read to its last file, and was thrown away.
    #[error("cannot use what {url} sent for branch `{branch}`: {source}")]
    Incomplete {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What is missing or damaged.
        source: Box<ReadError>,
    },
    /// The repository itself lacks what it should hold of a commit that it has, and a fetch does not ask for it again.
    #[error("cannot fetch branch `{branch}` from {url}: the local repository is broken: {source}")]
    Broken {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What is missing or damaged.
        source: Box<ReadError>,
    },
    /// It takes more memory to receive than this process may have, or one object is larger than any may be.
    #[error("cannot fetch branch `{branch}` from {url}: what it sent takes too much memory to receive: {why}")]
    TooMuchMemory {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// What was too much, without secrets.
        why: String,
    },
    /// It names more commits as the ends of its history than any branch has.
    #[error(
        "cannot fetch branch `{branch}` from {url}: it names so many commits as the ends of its history that the file \
         `shallow` would be larger than {}, so nothing of it was kept",
        bytesize::ByteSize(LARGEST_SHALLOW)
    )]
    TooManyEnds {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
    },
    /// It was interrupted from outside.
    #[error("the fetch of branch `{branch}` from {url} was interrupted")]
    Interrupted {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
    },
    /// A file of the local repository is locked, by another program or by one that died.
    #[error(
        "cannot fetch branch `{branch}` from {url}: the lock {} is there since {}; \
         if no git program is at work in this repository, delete that file",
        lock.display(), humantime::format_duration(*age)
    )]
    Locked {
        /// The remote, without secrets.
        url: String,
        /// The branch.
        branch: BranchName,
        /// The lock file.
        lock: PathBuf,
        /// How long it has been there.
        age: Duration,
    },
    /// The local repository could not be written.
    #[error(transparent)]
    Local(#[from] GitError),
}

impl FetchError {
    /// What helps.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable { .. }
            | Self::TooMuchMemory { .. }
            | Self::TooManyEnds { .. }
            | Self::Interrupted { .. } => Remedy::TryAgain,
            Self::Locked { age, .. } if *age < STALE_AFTER => Remedy::TryAgain,
            // Where what came is incomplete, what is here already may have misled the remote: an earlier fetch can have
            // brought a commit whose parents' files are nowhere, and the remote was told that they are known.
            Self::Incomplete { .. } | Self::Broken { .. } | Self::Locked { .. } => Remedy::StartAfresh,
            Self::RepositoryNotFound { .. } | Self::Refused { .. } | Self::Local(_) => Remedy::Operator,
        }
    }
}

/// What a fetch wrote, for throwing it away again.
struct Received {
    pack: Option<gix::odb::pack::bundle::write::Outcome>,
    /// The `shallow` file as it was before.
    shallow: (PathBuf, Option<Vec<u8>>),
}

impl Repository {
    /// Follows one branch of a remote. When it did not move, the remote is asked for that branch's tip and nothing more.
    pub fn fetch(&self, request: &FetchRequest<'_>) -> Result<Fetched, FetchError> {
        if let Some(path) = request.url.local_path().filter(|path| !path.exists()) {
            return Err(request.not_found(format!("there is nothing at {}", path.display())));
        }
        let known = self.tip_of_ref(request.into)?;
        let local = self.for_remote(request)?;
        let remote = request.remote(&local)?;
        let connection = remote.connect(Direction::Fetch).map_err(|error| request.failed(&error))?;
        let prepared = connection
            .with_credentials(|action| Ok(user_alone(request.url, action)))
            .prepare_fetch(Discard, gix::remote::ref_map::Options::default())
            .map_err(|error| request.failed(&error))?;
        let tip = prepared.ref_map().mappings.first().and_then(|mapping| mapping.remote.as_id());
        let Some(tip) = tip.map(|id| CommitId::from(id.to_owned())) else { return Ok(Fetched::BranchMissing) };
        if known == Some(tip) {
            return Ok(Fetched::Unchanged(tip));
        }
        let mut received = Received { pack: None, shallow: shallow_file(&local)? };
        let outcome = prepared
            .with_shallow(self.shallow(&local, request.depth)?)
            .receive(Discard, request.interrupt)
            .map_err(|error| self.locked(request).unwrap_or_else(|| request.failed(&error)))?;
        if let Status::Change { write_pack_bundle, .. } = outcome.status {
            received.pack = Some(write_pack_bundle);
        }
        self.accept(request, &local, received, (known, tip))
    }

    /// Moves the ref to what was received if that is complete, and throws it away if not.
    fn accept(
        &self,
        request: &FetchRequest<'_>,
        local: &gix::Repository,
        received: Received,
        (known, tip): (Option<CommitId>, CommitId),
    ) -> Result<Fetched, FetchError> {
        if shallow_size(local)? > LARGEST_SHALLOW {
            received.discard()?;
            return Err(FetchError::TooManyEnds { url: request.url.to_string(), branch: request.branch.clone() });
        }
        let history = match request.depth {
            Depth::Tip => History::None,
            Depth::Full => History::Commits,
        };
        if let Err(source) = complete::check(local, tip, known, history).map_err(Box::new) {
            let (url, branch) = (request.url.to_string(), request.branch.clone());
            if received.pack.is_none() {
                return Err(FetchError::Broken { url, branch, source });
            }
            // With its commit gone the next fetch asks for all of it again; else git would think it had it.
            received.discard()?;
            return Err(FetchError::Incomplete { url, branch, source });
        }
        let act = || format!("bring what was fetched into {} to the disk", self.path().display());
        received.sync().map_err(|error| GitError::io(act(), &error))?;
        let moved = self.move_ref(local, request.into, known, tip);
        moved.map_err(|error| self.locked(request).unwrap_or(FetchError::Local(error)))?;
        received.release();
        Ok(Fetched::Moved(tip))
    }

    /// The error for a lock that is in the way, if one is.
    fn locked(&self, request: &FetchRequest<'_>) -> Option<FetchError> {
        let (lock, age) = held_lock(&self.git_dir(), &["shallow", request.into.as_str(), "packed-refs"])?;
        Some(FetchError::Locked { url: request.url.to_string(), branch: request.branch.clone(), lock, age })
    }

    /// A handle whose in-memory configuration is the request's.
    fn for_remote(&self, request: &FetchRequest<'_>) -> Result<gix::Repository, GitError> {
        let mut local = self.apart()?;
        let command = request.ssh_command.unwrap_or(SSH);
        let mut config = local.config_snapshot_mut();
        // The variant is named because gix would guess it from the command's last word.
        for (key, value) in [("core.sshCommand", command), ("ssh.variant", "ssh")] {
            config
                .set_raw_value(key, value)
                .map_err(|error| GitError::new(format!("set {key} for a fetch"), &error))?;
        }
        config.commit().map_err(|error| GitError::new("settle the configuration of a fetch", &error))?;
        Ok(local)
    }

    fn shallow(&self, local: &gix::Repository, depth: Depth) -> Result<Shallow, GitError> {
        let act = || format!("look for refs in {}", self.path().display());
        let is_shallow = local.is_shallow().map_err(|error| GitError::new(act(), &error))?;
        let any_ref = || -> gix::Result<bool> { Ok(local.references()?.all()?.next().is_some()) };
        Ok(match depth {
            Depth::Full if is_shallow => Shallow::undo(),
            Depth::Full => Shallow::NoChange,
            // Once there is history, asking for a depth again would make the boundary grow; what lies between is small.
            Depth::Tip if is_shallow || any_ref().map_err(|error| GitError::new(act(), &error))? => Shallow::NoChange,
            Depth::Tip => Shallow::DepthAtRemote(NonZeroU32::MIN),
        })
    }
}

impl FetchRequest<'_> {
    fn remote<'repo>(&self, local: &'repo gix::Repository) -> Result<gix::Remote<'repo>, GitError> {
        let act = || format!("prepare the fetch of branch `{}` from {}", self.branch, self.url);
        let remote = local
            .remote_at_without_url_rewrite(self.url.parsed().clone())
            .map_err(|error| GitError::new(act(), &error))?;
        // No local side: the ref moves after the check, by our own hand.
        let spec = RefName::of(self.branch);
        remote
            .with_fetch_tags(Tags::None)
            .with_refspecs([spec.as_str()], Direction::Fetch)
            .map_err(|error| GitError::new(act(), &error))
    }

    fn not_found(&self, why: String) -> FetchError {
        FetchError::RepositoryNotFound { url: self.url.to_string(), branch: self.branch.clone(), why }
    }

    /// What gix's error means. Its text may quote the URL with the secrets in it, so it is not kept as it is.
    fn failed(&self, error: &gix::Error) -> FetchError {
        let (url, branch) = (self.url.to_string(), self.branch.clone());
        if self.interrupt.load(Ordering::Relaxed) {
            return FetchError::Interrupted { url, branch };
        }
        let why = if error.is_unauthenticated() {
            // gix speaks of a credential helper here, and there is none.
            "it asks for credentials, and the URL has none that it accepts".to_owned()
        } else {
            self.url.redact(&in_one_line(error))
        };
        let before_any_word = why.contains("handshake failed");
        if let Some(why) = self.url.local_path().filter(|_| before_any_word).and_then(|path| not_ours(&path)) {
            return FetchError::Refused { url, branch, why };
        }
        if error.is_resource_exhausted() {
            return FetchError::TooMuchMemory { url, branch, why };
        }
        let not_a_repository = self.url.local_path().is_some() && error.is_not_found();
        if error.is_unauthenticated() || error.is_permission_denied() || why.contains("HTTP status 403") {
            FetchError::Refused { url, branch, why }
        } else if not_a_repository || why.contains("HTTP status 404") || why.contains("repository not exported") {
            FetchError::RepositoryNotFound { url, branch, why }
        } else {
            FetchError::Unreachable { url, branch, why }
        }
    }
}

/// Git serves no repository of another user, and its words about it are lost: gix discards what a local git says.
fn not_ours(path: &Path) -> Option<String> {
    let owner = fs::metadata(path).ok()?.uid();
    let ours = rustix::process::geteuid().as_raw();
    (owner != ours).then(|| {
        let path = path.display();
        format!(
            "the folder belongs to user {owner}, this is user {ours}, and git serves no other user's repository; \
             allow it with `git config --system --add safe.directory {path}`"
        )
    })
}

/// Hosts take a token as the user without a password; gix sends by itself only what has both. Nobody else is asked: no
/// helper, no prompt.
fn user_alone(
    url: &RemoteUrl,
    action: gix::credentials::helper::Action,
) -> Option<gix::credentials::protocol::Outcome> {
    let gix::credentials::helper::Action::Get(context) = action else { return None };
    let user = url.parsed().user().filter(|_| url.parsed().password().is_none())?;
    let identity =
        gix::sec::identity::Account { username: user.to_owned(), password: String::new(), oauth_refresh_token: None };
    Some(gix::credentials::protocol::Outcome { identity, next: context.into() })
}

/// How many bytes of ends a fetch left in the file `shallow`: everybody who looks into the history reads all of it.
fn shallow_size(local: &gix::Repository) -> Result<u64, GitError> {
    let path = shallow_path(local)?;
    match fs::metadata(&path) {
        Ok(about) => Ok(about.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(GitError::io(format!("look at {}", path.display()), &error)),
    }
}

fn shallow_path(local: &gix::Repository) -> Result<PathBuf, GitError> {
    local.shallow_file().map_err(|error| GitError::new("find the file `shallow`", &error))
}

fn shallow_file(local: &gix::Repository) -> Result<(PathBuf, Option<Vec<u8>>), GitError> {
    let path = shallow_path(local)?;
    match fs::read(&path) {
        Ok(bytes) => Ok((path, Some(bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((path, None)),
        Err(error) => Err(GitError::io(format!("read {}", path.display()), &error)),
    }
}

impl Received {
    /// gix syncs nothing: without this a power cut could leave the ref and take the pack.
    fn sync(&self) -> std::io::Result<()> {
        let Some(pack) = &self.pack else { return Ok(()) };
        [&pack.data_path, &pack.index_path].into_iter().flatten().try_for_each(|file| sync_file(file))
    }

    /// Takes away the file that keeps git's garbage collection from the pack while no ref holds it.
    fn release(&self) {
        if let Some(keep) = self.pack.as_ref().and_then(|pack| pack.keep_path.as_ref())
            && let Err(error) = fs::remove_file(keep)
        {
            // The pack only stays longer than it must.
            tracing::warn!(file = %keep.display(), %error, "cannot remove a pack's .keep file");
        }
    }

    /// Takes away all of it.
    fn discard(self) -> Result<(), GitError> {
        let failed = |path: &PathBuf, error: std::io::Error| {
            GitError::io(format!("throw away {}, which is incomplete", path.display()), &error)
        };
        if let Some(pack) = self.pack {
            // The index first: a pack without one is not looked at.
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
