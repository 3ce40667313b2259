//! Evaluates with the machine's Nix: fetch a flake and its inputs, read its lock, evaluate an expression.
//!
//! `flake` and `inputs` fetch, with the network and claveld's credentials, and evaluate nothing of the flake. All else runs in a
//! cage (`process/cage.rs`), unless the configuration turns it off.
//!
//! A comment beside each option says why it is set; docs/design/evaluation.md has them in one table. Deciding what to
//! evaluate, and what follows from the answer, belongs to `evaluate`. The store of Nix belongs to `store`.

mod access;
mod daemon;
mod egress;
mod evaluate;
mod flake;
mod inputs;
mod newest;
mod settings;
mod string;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

pub use access::{FetchAccess, FetchKeys};
pub use daemon::{ForbiddenDaemon, check_daemon};
pub use evaluate::{EvalOutput, EvalRequest, SystemCalls, Watch};
pub use flake::FetchedFlake;
pub use inputs::LockedInput;
pub use newest::SourceAnswer;
pub use string::NixString;

use crate::model::{Isolation, describe_error};
use crate::process::{Cage, CageError, Invocation, ProcessError, ProcessOutput, TraceDetail};

/// Why a request to Nix failed.
#[derive(Debug, thiserror::Error)]
pub enum NixError {
    /// The program of Nix failed. The message is that of Nix, without anything about Clavel's own expression.
    #[error("cannot {action}")]
    Failed {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// How the program failed.
        source: NixFailure,
    },
    /// Its flake.lock lacks an input of its flake.nix.
    #[error(
        "cannot {action}: its flake.lock does not fit its flake.nix (run `nix flake lock` in the flake, and commit the flake.lock)"
    )]
    StaleLock {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// How Nix failed with this lock.
        source: NixFailure,
    },
    /// The credentials for it cannot be read, or the certificates.
    #[error("cannot {action}: {why}")]
    NoAccess {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// The reason, without secrets.
        why: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action}")]
    Files {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The repository of the source does not answer, or does not let claveld in.
    #[error("cannot {action}: its repository does not answer{advice}. What is published stays")]
    Unreachable {
        /// The action and its object, such as `read the source git+https://x`.
        action: String,
        /// What to do, as the end of a sentence, where the words of git are known.
        advice: String,
        /// The failure of git, in its own words.
        source: ProcessError,
    },
    /// Nix could not ask for the newest content, and went on with a copy.
    #[error("cannot {action}: Nix went on with an old copy. What is published stays. It said:\n{words}")]
    Stale {
        /// The action and its object, such as `read the source github:a/b`.
        action: String,
        /// Nix's own words.
        words: String,
    },
    /// The repository has no such branch.
    #[error("cannot {action}: its repository has no {name}; correct the `ref` of the [[source]]")]
    NoBranch {
        /// The action and its object, such as `read the source git+https://x`.
        action: String,
        /// The full name of the ref.
        name: String,
    },
    /// This user may not use Nix's daemon.
    #[error("cannot {action}")]
    NoDaemon {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// Why, and what to do.
        source: ForbiddenDaemon,
    },
    /// There is no cage on this machine.
    #[error("cannot evaluate a flake")]
    NoCage(#[from] CageError),
    /// Nix printed something of an unknown form.
    #[error(
        "cannot {action}: nix printed something that Clavel does not understand ({why}); use a Nix from 2.8 to 2.34"
    )]
    Unexpected {
        /// The action and its object, such as `read the source path:/x`.
        action: String,
        /// The first thing that is wrong with it.
        why: String,
    },
}

/// A limit at which a program was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReachedLimit {
    /// Its memory.
    Memory,
    /// Its time.
    Time,
}

/// A failed run of a program of Nix, in Nix's own words. It has no source: the text of [`ProcessError`] would say it again.
#[derive(Debug, thiserror::Error)]
#[error("{}", failure.nix_message(*detail))]
pub struct NixFailure {
    failure: ProcessError,
    detail: TraceDetail,
}

impl NixError {
    fn failed(action: String, failure: ProcessError, detail: TraceDetail) -> Self {
        Self::Failed { action, source: NixFailure { failure, detail } }
    }

    /// The message of Nix itself, or Clavel's own where Nix printed none.
    pub fn message(&self) -> String {
        match self {
            Self::Failed { source, .. } => source.to_string(),
            Self::NoAccess { why, .. } => why.clone(),
            Self::Files { .. }
            | Self::StaleLock { .. }
            | Self::NoDaemon { .. }
            | Self::Unreachable { .. }
            | Self::Stale { .. }
            | Self::NoBranch { .. }
            | Self::NoCage(_)
            | Self::Unexpected { .. } => describe_error(self),
        }
    }

    /// The limit at which the program was ended, so that a larger one may help.
    pub fn limit(&self) -> Option<ReachedLimit> {
        match self {
            Self::Failed { source: NixFailure { failure, .. }, .. } => match failure {
                ProcessError::TooMuchMemory { .. } | ProcessError::Killed { .. } => Some(ReachedLimit::Memory),
                ProcessError::TimedOut { .. } => Some(ReachedLimit::Time),
                ProcessError::Failed { stderr, .. } => ran_out_of_memory(stderr).then_some(ReachedLimit::Memory),
                ProcessError::NotStarted { .. }
                | ProcessError::TooMuchOutput { .. }
                | ProcessError::TooManyProcesses { .. }
                | ProcessError::TooMuchWritten { .. }
                | ProcessError::DiskFull { .. }
                | ProcessError::Stalled { .. }
                | ProcessError::Io { .. } => None,
            },
            Self::Unexpected { .. }
            | Self::StaleLock { .. }
            | Self::NoDaemon { .. }
            | Self::Unreachable { .. }
            | Self::Stale { .. }
            | Self::NoBranch { .. }
            | Self::NoAccess { .. }
            | Self::NoCage(_)
            | Self::Files { .. } => None,
        }
    }

    /// Whether Clavel ended the program, because it used too much.
    pub fn is_ended_by_clavel(&self) -> bool {
        let Self::Failed { source: NixFailure { failure, .. }, .. } = self else { return false };
        matches!(failure, ProcessError::TimedOut { .. } | ProcessError::TooMuchWritten { .. })
    }

    /// Whether Nix ended by itself, and said why.
    pub fn is_said_by_nix(&self) -> bool {
        let Self::Failed { source: NixFailure { failure, .. }, .. } = self else { return false };
        matches!(failure, ProcessError::Failed { .. }) && self.limit().is_none()
    }

    /// Whether the server of the source is out of reach, so that nobody knows what the source has now.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Stale { .. })
    }
}

/// Whether Nix or its garbage collector ended because the system gave them no more memory. Both exit with the code of any
/// other failure, so their message is the only sign. The one other decision that reads messages of Nix is in `newest`.
fn ran_out_of_memory(stderr: &str) -> bool {
    let messages = ["Out of memory", "out of memory", "std::bad_alloc", "Too many heap sections"];
    messages.iter().any(|message| stderr.contains(message))
}

/// The most memory of a fetch, in bytes. Nix and git hold some 2 GiB for a repository such as nixpkgs with its history.
const MAX_MEMORY_TO_FETCH: u64 = 4 << 30;

/// The programs that run in the cage.
const PROGRAMS: [&str; 3] = ["nix-instantiate", "nix", "strace"];

/// The Nix of this machine, for evaluations.
#[derive(Debug, Clone)]
pub struct Nix {
    /// The longest time of one command.
    deadline: Duration,
    isolation: Isolation,
    /// How much of a trace its errors show.
    detail: TraceDetail,
    /// What a fetch gets beside git's and Nix's own settings.
    keys: FetchKeys,
    /// The cage, once it is known to work. All clones have the same.
    cage: Arc<OnceCell<Cage>>,
    /// Whether its evaluations let other programs go first.
    is_low_priority: bool,
}

impl Nix {
    /// The Nix on the PATH. No command may take longer than `deadline`.
    pub fn new(deadline: Duration, isolation: Isolation) -> Self {
        // `-v` asks for this level.
        let is_verbose = tracing::enabled!(tracing::Level::DEBUG);
        let detail = if is_verbose { TraceDetail::Full } else { TraceDetail::Short };
        Self { deadline, isolation, detail, keys: FetchKeys::default(), cage: Arc::default(), is_low_priority: false }
    }

    /// The longest time of one command.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The same Nix, whose fetches have these keys. Nothing that evaluates gets them.
    #[must_use]
    pub fn with_keys(self, keys: FetchKeys) -> Self {
        Self { keys, ..self }
    }

    /// The same Nix, whose evaluations let other programs go first.
    #[must_use]
    pub fn at_low_priority(self) -> Self {
        Self { is_low_priority: true, ..self }
    }

    /// Runs a fetch with this access.
    async fn run_fetch(&self, action: &str, run: Invocation, access: FetchAccess) -> Result<ProcessOutput, NixError> {
        let files = |source| NixError::Files { action: action.to_owned(), source };
        let given = access.give_to(run).map_err(files)?;
        let run = given.run.fetching().within_memory(MAX_MEMORY_TO_FETCH);
        run.run().await.map_err(|failure| NixError::failed(action.to_owned(), failure, self.detail))
    }

    /// Puts `run` into the cage, where there is to be one. `folder` is the folder outside that it may write to.
    async fn caged(&self, run: Invocation, folder: Option<&Path>) -> Result<Invocation, NixError> {
        match self.isolation {
            Isolation::None => Ok(run),
            Isolation::Cage => {
                let cage = self.cage.get_or_try_init(|| Cage::open(&PROGRAMS)).await?;
                Ok(run.in_cage(cage, folder))
            }
        }
    }

    /// Tries whether this machine has a cage, where there is to be one.
    pub async fn try_cage(&self) -> Result<(), NixError> {
        self.caged(Invocation::new("nix-instantiate"), None).await.map(drop)
    }

    /// The path of `folder` for a program that [`Nix::caged`] runs.
    fn path_inside<'a>(&self, folder: &'a Path) -> &'a Path {
        match self.isolation {
            Isolation::None => folder,
            Isolation::Cage => Path::new(Cage::WRITABLE),
        }
    }
}
