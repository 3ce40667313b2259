//! Opens the branch that a command reads: in a repository on this machine, or fetched from elsewhere.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::branch::{Branch, BranchWriter, FETCH_DEADLINE, Layout, Proposal, RootChain};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::config::{credentials_of_git, read_credentials};
use crate::git::{
    Authorship, BundleFiles, Change, CommitId, ConfinedFetch, Depth, Fetched, Identity, RefName, Remote, Repository,
    Snapshot, WhenBusy, git_author,
};
use crate::model::{
    Bin, BranchFile as _, BranchName, BranchPart, Document, DocumentPath, Folder, Hold, Index, IndexSource, Name,
    Payload, Specification, describe_error,
};
use crate::trust::{Anchor, AnchorError, AnchorLocation, Signed, SignedError, TrustedRoot, parse_bin};

/// The arguments that name a branch.
#[derive(Debug, clap::Args)]
pub(super) struct RepositoryArguments {
    /// The repository: a path, or a URL. A path that ends in .bundle is that of a git bundle, and a URL that begins with static+ that of a
    /// static folder.
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
        if let Some(files) = self.repository.bundle() {
            let one = files.find_one().map_err(|error| Exit::new(Code::Repository, error))?;
            return Ok(Remote::Bundle(one));
        }
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

    /// Commits the changes on which `decide` decides, with its message and the person as git knows it, and pushes them if the repository is on another machine.
    /// `decide` sees the files of the branch, if it exists, and is called again if another writer moved the branch meanwhile.
    pub(super) async fn commit(
        &self,
        decide: impl Fn(Option<&Snapshot>) -> Result<(Vec<Change>, String), Exit>,
    ) -> Result<Option<CommitId>, Exit> {
        if let Some(bundle) = self.repository.bundle() {
            let why = format!("cannot write to {bundle}: a bundle is only read; name the repository with --repository");
            return Err(Exit::new(Code::Configuration, why));
        }
        if let Some(folder) = self.repository.static_url() {
            let why = format!(
                "cannot write to {folder}: a static folder is only read; name the repository with --repository"
            );
            return Err(Exit::new(Code::Configuration, why));
        }
        let folder = tempfile::tempdir().map_err(Exit::machine)?;
        let copy = folder.path().join("branch.git");
        let remote = self.reached()?;
        let writer = BranchWriter { remote: &remote, branch: &self.branch, copy: &copy };
        let by = Authorship::for_person(git_author().await, Identity::of_program("clavel", "clavel"));
        let attempt = async |writer: &BranchWriter<'_>| -> Result<_, Exit> {
            let on = writer.open().await?;
            let files = on.files().map_err(|error| Exit::new(Code::Repository, error))?;
            let (changes, message) = decide(files.as_ref())?;
            let by = by.clone();
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
    // A relative path such as `.` is made absolute. A bundle is not looked for through a link.
    let path = std::path::Path::new(text);
    let is_bundle = !text.contains("://") && path.extension().is_some_and(|extension| extension == "bundle");
    let absolute = if is_bundle { std::path::absolute(path).ok() } else { path.canonicalize().ok() };
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

    /// Opens the branch, and verifies its roots where there is --root.
    pub(super) async fn view(&self, depth: Depth) -> Result<View, Exit> {
        let mut view = self.open(depth).await?;
        view.roots = self.anchor()?.map(|anchor| RootChain::from_anchor(&view.snapshot, &anchor)).transpose()?;
        Ok(view)
    }

    /// Reads the root; `None` without --root.
    pub(super) fn anchor(&self) -> Result<Option<Anchor>, AnchorError> {
        self.root.as_ref().map(Anchor::read).transpose()
    }

    /// Opens the branch, and verifies nothing. From a repository elsewhere, it fetches as much history as `depth` says.
    pub(super) async fn open(&self, depth: Depth) -> Result<View, Exit> {
        self.place.open(depth).await
    }
}

impl RepositoryArguments {
    /// Opens the branch, and verifies nothing.
    pub(super) async fn open(&self, depth: Depth) -> Result<View, Exit> {
        match self.repository.local_path() {
            Some(path) => {
                let repository = Repository::open(&path)?;
                let tip = repository.tip(&self.branch).map_err(|error| Exit::new(Code::Repository, error))?;
                View::of(repository, tip, &self.repository, &self.branch, None)
            }
            None => fetch_all(&[self.reached()?], &self.branch, depth).await,
        }
    }
}

/// Fetches the branch from each of these, which may build on those before it, and opens it as the last one has it.
async fn fetch_all(remotes: &[Remote], branch: &BranchName, depth: Depth) -> Result<View, Exit> {
    let folder = tempfile::tempdir().map_err(Exit::machine)?;
    let copy = folder.path().join("branch.git");
    Repository::open_or_create_bare(&copy)?;
    let (into, within, when_busy) = (RefName::of(branch), FETCH_DEADLINE, WhenBusy::Refuse);
    let mut last = None;
    for remote in remotes {
        let part = &BranchPart::Whole;
        let fetch = ConfinedFetch { remote, branch, copy: &copy, into: &into, depth, part, within, when_busy };
        let tip = match fetch.run().await? {
            Fetched::Unchanged(tip) | Fetched::Moved(tip) => Some(tip),
            Fetched::BranchMissing => None,
        };
        last = Some((tip, remote));
    }
    let (tip, remote) = last.ok_or_else(|| Exit::new(Code::Configuration, "no repository is named"))?;
    View::of(Repository::open(&copy)?, tip, remote, branch, Some(folder))
}

/// The arguments that name bundles.
#[derive(Debug, clap::Args)]
pub(super) struct BundleArguments {
    /// The bundle. Where it builds on others, name those before it, the earliest first.
    #[arg(required = true, value_name = "FILE", value_parser = bundle)]
    files: Vec<BundleFiles>,
    /// The branch.
    #[arg(long, default_value = "deployments")]
    branch: BranchName,
}

impl BundleArguments {
    /// The last bundle that is named.
    pub(super) fn last(&self) -> Result<BundleFiles, Exit> {
        let last = self.files.last().ok_or_else(|| Exit::new(Code::Configuration, "no bundle is named"))?;
        last.find_one().map_err(|error| Exit::new(Code::Repository, error))
    }

    /// The branch's name.
    pub(super) fn name(&self) -> &BranchName {
        &self.branch
    }

    /// Whether it names others before the last one.
    pub(super) fn has_earlier(&self) -> bool {
        self.files.len() > 1
    }

    /// Opens the branch as the last bundle has it, and verifies its roots where there is an anchor.
    pub(super) async fn view(&self, anchor: Option<&Anchor>) -> Result<View, Exit> {
        let one = |files: &BundleFiles| files.find_one().map(Remote::Bundle);
        let remotes: Vec<Remote> =
            self.files.iter().map(one).collect::<Result<_, _>>().map_err(|error| Exit::new(Code::Repository, error))?;
        let mut view = fetch_all(&remotes, &self.branch, Depth::Tip).await?;
        view.roots = anchor.map(|anchor| RootChain::from_anchor(&view.snapshot, anchor)).transpose()?;
        Ok(view)
    }
}

/// A bundle on the command line. A relative path is made absolute.
pub(super) fn bundle(text: &str) -> Result<BundleFiles, String> {
    let absolute = std::path::absolute(text).map_err(|error| error.to_string())?;
    absolute.to_str().unwrap_or(text).parse().map_err(|error| format!("{error}"))
}

impl View {
    fn of(
        repository: Repository,
        tip: Option<CommitId>,
        remote: &Remote,
        branch: &BranchName,
        fetched: Option<tempfile::TempDir>,
    ) -> Result<Self, Exit> {
        let missing =
            || Exit::new(Code::Repository, format!("{remote} has no branch `{branch}`; name another with --branch"));
        let snapshot = repository.snapshot(tip.ok_or_else(missing)?);
        let snapshot = snapshot.map_err(|error| Exit::new(Code::Repository, error))?;
        Ok(Self { repository, snapshot, roots: None, name: branch.clone(), _fetched: fetched })
    }

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
        let bins = bins.collect::<Result<_, Exit>>()?;
        Ok(UnverifiedIndex { layout: Layout::of(count), bins, index })
    }

    /// The keys in the signatures of the index, which are not verified.
    pub(super) fn unverified_publishers(&self) -> Result<Vec<String>, Exit> {
        let signed = Signed::<Index>::parse(&self.read_file(Layout::INDEX, Index::MAX_BYTES)?);
        let signed = signed.map_err(|error| refused(Layout::INDEX, &error))?;
        Ok(signed.signatures().map(|signature| signature.keyid().to_string()).collect())
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
    index: Index,
}

impl UnverifiedIndex {
    /// The names of the deployments.
    pub(super) fn deployments(&self) -> BTreeSet<&Name> {
        let listed = self.bins.iter().flat_map(|bin| bin.documents_in(Folder::Deployments.as_str()));
        listed.map(|(name, _)| name).collect()
    }

    /// The sources.
    pub(super) fn sources(&self) -> &[IndexSource] {
        &self.index.sources
    }

    /// The index itself.
    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    /// The hold of a deployment.
    pub(super) fn hold(&self, deployment: &Name) -> Option<&Hold> {
        self.bins.iter().find_map(|bin| bin.held.get(deployment))
    }
}

fn refused(path: &str, error: &SignedError) -> Exit {
    Exit::new(Code::Refused, format!("{path}: {}", describe_error(error)))
}
