//! Opens the branch that a command reads: in a repository on this machine, or fetched from elsewhere.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::branch::{Branch, BranchWriter, FETCH_DEADLINE, Layout, Proposal, RootChain};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::config::{credentials_of_git, read_credentials};
use crate::git::{
    Change, CommitId, ConfinedFetch, Depth, Fetched, GitError, Identity, ReadError, RefName, Remote, Repository,
    Snapshot, WhenBusy,
};
use crate::model::{
    Bin, BranchFile as _, BranchName, Document, DocumentPath, Folder, Hold, Index, Name, Payload, Specification,
    describe_error,
};
use crate::trust::{Anchor, AnchorLocation, Signed, SignedError, TrustedRoot, parse_bin};

/// The arguments that name a branch.
#[derive(Debug, clap::Args)]
pub(super) struct RepositoryArguments {
    /// The repository: a path, or a URL.
    #[arg(long, value_name = "PATH|URL", env = "CLAVEL_REPOSITORY", default_value = ".", value_parser = repository)]
    repository: Remote,
    /// The branch.
    #[arg(long, default_value = "deployments")]
    branch: BranchName,
    /// A file with [[credentials]] tables, as claveld's configuration has them, for a private repository. Without a table for it,
    /// what git has counts: its credential helpers and ~/.netrc.
    #[arg(long, value_name = "FILE", env = "CLAVEL_CREDENTIALS")]
    credentials: Option<PathBuf>,
}

impl RepositoryArguments {
    /// The repository, and how it is reached.
    fn reached(&self) -> Result<Remote, Exit> {
        let rules = self.credentials.as_deref().map_or_else(|| Ok(credentials_of_git()), read_credentials)?;
        Ok(rules.apply_to(self.repository.clone()))
    }

    /// The repository.
    pub(super) fn remote(&self) -> &Remote {
        &self.repository
    }

    /// The branch.
    pub(super) fn name(&self) -> &BranchName {
        &self.branch
    }

    /// Commits the changes on which `decide` decides, with its message, and pushes them if the repository is on another machine.
    /// `decide` sees the files of the branch, if it exists, and is called again if another writer moved the branch meanwhile.
    pub(super) async fn commit(
        &self,
        decide: impl Fn(Option<&Snapshot>) -> Result<(Vec<Change>, String), Exit>,
    ) -> Result<Option<CommitId>, Exit> {
        let folder = tempfile::tempdir().map_err(Exit::machine)?;
        let copy = folder.path().join("branch.git");
        let remote = self.reached()?;
        let writer = BranchWriter { remote: &remote, branch: &self.branch, copy: &copy };
        let attempt = async |writer: &BranchWriter<'_>| -> Result<_, Exit> {
            let on = writer.open().await?;
            let files = on.files().map_err(|error| Exit::new(Code::Repository, error))?;
            let (changes, message) = decide(files.as_ref())?;
            let by = Identity { name: "clavel".to_owned(), email: "clavel@clavel.invalid".to_owned() };
            Ok(((), Some(Proposal { on, changes, message, by, at: SystemTime::now(), read_back: None })))
        };
        let ((), commit) = writer.commit_with_retry(attempt).await?;
        Ok(commit)
    }
}

/// The arguments that name a branch, and the root that verifies it.
#[derive(Debug, clap::Args)]
pub(super) struct BranchArguments {
    #[command(flatten)]
    place: RepositoryArguments,
    /// The root that verifies the branch: a file with any root of the fleet, or the digest of its first root.
    #[arg(long, value_name = "FILE|DIGEST", env = "CLAVEL_ROOT")]
    root: Option<AnchorLocation>,
}

fn repository(text: &str) -> Result<Remote, String> {
    // A relative path such as `.` is made absolute.
    let absolute = std::path::Path::new(text).canonicalize().ok();
    let text = absolute.as_ref().and_then(|path| path.to_str()).unwrap_or(text);
    text.parse().map_err(|error| format!("{error}"))
}

/// A branch that can be read on this machine.
pub(super) struct View {
    pub(super) repository: Repository,
    pub(super) snapshot: Snapshot,
    /// The roots that verify the branch; `None` without --root, where nothing is verified.
    pub(super) roots: Option<RootChain>,
    name: BranchName,
    // Dropping this removes the repository that was fetched.
    _fetched: Option<tempfile::TempDir>,
}

impl BranchArguments {
    /// The repository and the branch.
    pub(super) fn place(&self) -> &RepositoryArguments {
        &self.place
    }

    /// Opens the branch. From a repository elsewhere, it fetches as much history as `depth` says.
    pub(super) async fn view(&self, depth: Depth) -> Result<View, Exit> {
        let git = |error: GitError| Exit::new(Code::Repository, error);
        let read = |error: ReadError| Exit::new(Code::Repository, error);
        let (repository, tip, fetched) = if let Some(path) = self.place.repository.local_path() {
            let repository = Repository::open(&path)?;
            let tip = repository.tip(&self.place.branch).map_err(git)?;
            (repository, tip, None)
        } else {
            let folder = tempfile::tempdir().map_err(Exit::machine)?;
            let copy = folder.path().join("branch.git");
            Repository::open_or_create_bare(&copy)?;
            let fetch = ConfinedFetch {
                remote: &self.place.reached()?,
                branch: &self.place.branch,
                copy: &copy,
                into: &RefName::of(&self.place.branch),
                depth,
                within: FETCH_DEADLINE,
                when_busy: WhenBusy::Refuse,
            };
            let tip = match fetch.run().await? {
                Fetched::Unchanged(tip) | Fetched::Moved(tip) => Some(tip),
                Fetched::BranchMissing => None,
            };
            (Repository::open(&copy)?, tip, Some(folder))
        };
        let missing = || {
            let message =
                format!("{} has no branch `{}`; name another with --branch", self.place.repository, self.place.branch);
            Exit::new(Code::Repository, message)
        };
        let snapshot = repository.snapshot(tip.ok_or_else(missing)?).map_err(read)?;
        let anchor = self.root.as_ref().map(Anchor::read).transpose()?;
        let roots = anchor.map(|anchor| RootChain::from_anchor(&snapshot, &anchor)).transpose()?;
        Ok(View { repository, snapshot, roots, name: self.place.branch.clone(), _fetched: fetched })
    }
}

impl View {
    /// The branch, verified by its newest root; without --root `None`, with a warning that nothing is verified.
    pub(super) fn verified_or_warn(&self) -> Option<Branch<'_, Snapshot>> {
        if self.roots.is_none() {
            output::remark("not verified, so this may be forged; --root FILE or --root DIGEST verifies it");
        }
        let roots = self.roots.as_ref()?;
        Some(Branch::new(&self.snapshot, &roots.newest, &self.name))
    }

    /// The branch, verified by its newest root, and that root. Without --root it is an error.
    pub(super) fn verified(&self) -> Result<(Branch<'_, Snapshot>, &TrustedRoot), Exit> {
        let nobody = || {
            Exit::new(
                Code::Configuration,
                "cannot verify the branch without a root: give --root FILE, or --root DIGEST",
            )
        };
        let root = &self.roots.as_ref().ok_or_else(nobody)?.newest;
        Ok((Branch::new(&self.snapshot, root, &self.name), root))
    }

    /// The branch's name.
    pub(super) fn name(&self) -> &BranchName {
        &self.name
    }

    /// Reads the index and its bins without verifying them.
    pub(super) fn unverified_index(&self) -> Result<UnverifiedIndex, Exit> {
        let index = self.read_unverified::<Index>(Layout::INDEX)?;
        let count = index.bins.count();
        let bins = count.bins().map(|bin| {
            let path = Layout::bin(bin);
            parse_bin(&self.read_file(&path, Bin::MAX_BYTES)?).map_err(|error| refused(&path, &error))
        });
        Ok(UnverifiedIndex { layout: Layout::of(count), bins: bins.collect::<Result<_, Exit>>()? })
    }

    /// Reads a document without verifying it.
    pub(super) fn unverified_document<S: Specification>(
        &self,
        index: &UnverifiedIndex,
        name: &Name,
    ) -> Result<Document<S>, Exit> {
        self.read_unverified::<Document<S>>(&index.layout.document(&DocumentPath::new(S::FOLDER, name.clone())))
    }

    fn read_unverified<P: Payload + Clone>(&self, path: &str) -> Result<P, Exit> {
        let signed = Signed::<P>::parse(&self.read_file(path, P::MAX_BYTES)?);
        signed.map(|signed| signed.unverified().clone()).map_err(|error| refused(path, &error))
    }

    fn read_file(&self, path: &str, limit: u64) -> Result<Vec<u8>, Exit> {
        let bytes = self.snapshot.read(path, limit).map_err(|error| Exit::new(Code::Repository, error))?;
        bytes.ok_or_else(|| Exit::new(Code::Refused, format!("the branch has no {path}")))
    }
}

/// An index that was read without --root, and so without verifying it.
pub(super) struct UnverifiedIndex {
    layout: Layout,
    bins: Vec<Bin>,
}

impl UnverifiedIndex {
    /// The names of the deployments.
    pub(super) fn deployments(&self) -> BTreeSet<&Name> {
        let listed = self.bins.iter().flat_map(|bin| bin.documents_in(Folder::Deployments.as_str()));
        listed.map(|(name, _)| name).collect()
    }

    /// The hold of a deployment.
    pub(super) fn hold(&self, deployment: &Name) -> Option<&Hold> {
        self.bins.iter().find_map(|bin| bin.held.get(deployment))
    }
}

fn refused(path: &str, error: &SignedError) -> Exit {
    Exit::new(Code::Refused, format!("{path}: {}", describe_error(error)))
}
