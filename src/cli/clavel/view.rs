//! The branch that a command looks at, wherever it is.

use std::sync::atomic::AtomicBool;

use crate::cli::exit::{Code, Exit};
use crate::model::{Document, Index, Invalid, Name, Payload, PublicKey, Specification};
use crate::repository::{
    BranchName, Depth, FetchRequest, Fetched, GitError, INDEX_PATH, ReadError, RemoteUrl, Repository, Snapshot,
};
use crate::trust::{Authority, Signed};

/// Which branch to look at, and whom to believe.
#[derive(Debug, clap::Args)]
pub(super) struct BranchArguments {
    /// The repository: a path, or a URL that is fetched from.
    #[arg(long, value_name = "PATH|URL", default_value = ".", value_parser = repository)]
    repository: RemoteUrl,
    /// The branch.
    #[arg(long, default_value = "deployments")]
    branch: BranchName,
    /// A key that has to have signed what is shown; may be given more than once.
    // Parsed later than the rest: an error of clap would show what may be somebody's secret key.
    #[arg(long = "trusted-public-key", value_name = "NAME:BASE64")]
    keys: Vec<String>,
}

impl BranchArguments {
    /// Who has to have signed what is shown, where somebody was named.
    pub(super) fn authority(&self) -> Result<Option<Authority>, Exit> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let keys: Result<Vec<PublicKey>, Invalid> = self.keys.iter().map(|key| key.parse()).collect();
        let keys = keys.map_err(|error| Exit::new(Code::Configuration, error))?;
        Authority::any_of(&keys).map(Some).map_err(|error| Exit::new(Code::Configuration, error))
    }
}

fn repository(text: &str) -> Result<RemoteUrl, String> {
    // `.` and the like are what people type; what is kept is absolute.
    let absolute = std::path::Path::new(text).canonicalize().ok();
    let text = absolute.as_ref().and_then(|path| path.to_str()).unwrap_or(text);
    text.parse().map_err(|error| format!("{error}"))
}

/// A branch, fetched where it had to be.
pub(super) struct View {
    pub(super) repository: Repository,
    pub(super) snapshot: Snapshot,
    // What was fetched lives as long as it is looked at.
    _fetched: Option<tempfile::TempDir>,
}

impl BranchArguments {
    /// The branch; of one that is elsewhere, as much history as `depth` says.
    pub(super) fn view(&self, depth: Depth) -> Result<View, Exit> {
        let git = |error: GitError| Exit::new(Code::Repository, error);
        let read = |error: ReadError| Exit::new(Code::Repository, error);
        let (repository, tip, fetched) = if let Some(path) = self.repository.local_path() {
            let repository = Repository::open(&path)?;
            let tip = repository.tip(&self.branch).map_err(git)?;
            (repository, tip, None)
        } else {
            let folder = tempfile::tempdir().map_err(|error| Exit::machine(&error))?;
            let repository = Repository::open_or_create_bare(&folder.path().join("branch.git"))?;
            let request = FetchRequest {
                url: &self.repository,
                branch: &self.branch,
                into: &self.branch.full(),
                depth,
                ssh_command: None,
                interrupt: &AtomicBool::new(false),
            };
            let tip = match repository.fetch(&request)? {
                Fetched::Unchanged(tip) | Fetched::Moved(tip) => Some(tip),
                Fetched::BranchMissing => None,
            };
            (repository, tip, Some(folder))
        };
        let missing = || {
            let message = format!("{} has no branch `{}`; name another with --branch", self.repository, self.branch);
            Exit::new(Code::Repository, message)
        };
        let snapshot = repository.snapshot(tip.ok_or_else(missing)?).map_err(read)?;
        Ok(View { repository, snapshot, _fetched: fetched })
    }
}

impl View {
    /// The index as it stands there, verified or not.
    pub(super) fn index(&self) -> Result<Index, Exit> {
        self.signed::<Index>(INDEX_PATH)
    }

    /// A document as it stands there, verified or not.
    pub(super) fn document<S: Specification>(&self, name: &Name) -> Result<Document<S>, Exit> {
        self.signed::<Document<S>>(&format!("{}/{name}.json", S::FOLDER.as_str()))
    }

    fn signed<P: Payload + Clone>(&self, path: &str) -> Result<P, Exit> {
        let bytes = self.snapshot.read(path, P::LARGEST).map_err(|error| Exit::new(Code::Repository, error))?;
        let bytes = bytes.ok_or_else(|| Exit::new(Code::Refused, format!("the branch has no {path}")))?;
        let signed = Signed::<P>::parse(&bytes);
        signed.map(|s| s.unverified().clone()).map_err(|e| Exit::new(Code::Refused, format!("{path}: {e}")))
    }
}
