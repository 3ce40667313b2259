//! Learning behind a push: what makes the next evaluation cheaper is learnt by a process of its own, after git has told the pusher the
//! result.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::getppid;

use super::round::{Target, evaluator, learn_about};
use crate::config::ClaveldConfig;
use crate::disk::FileLock;
use crate::evaluate::EvalMode;
use crate::process::{DetachedStreams, Invocation, ProcessError, ProcessMark, this_program};

/// The least time for learning behind one answer.
const LEAST: Duration = Duration::from_mins(1);
/// How long learning waits for git to take a push in.
const MAX_PUSH: Duration = Duration::from_mins(5);
/// The time between two looks at whether git has ended.
const LOOK: Duration = Duration::from_millis(200);

/// Why nothing is learnt behind a push. The next evaluation then takes longer, and nothing else is lost.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The process could not be started.
    #[error("cannot start the process that learns behind a push")]
    NotStarted(#[from] ProcessError),
    /// A file could not be opened.
    #[error("cannot prepare the process that learns behind a push")]
    Files(#[from] io::Error),
}

/// How long claveld learns behind an answer that took so long: the rest is learnt behind a later one.
pub fn learning_time(answer: Duration) -> Duration {
    answer.max(LEAST)
}

/// Starts the process that learns behind the push whose hook this process is, for as long as the answer took. It outlives the push, and
/// nothing of it reaches the pusher.
pub fn start_learning(config: &Path, answer: Duration) -> Result<(), LearnError> {
    let nowhere = || File::options().read(true).write(true).open("/dev/null");
    let streams = DetachedStreams { stdin: nowhere()?, stdout: nowhere()?, stderr: nowhere()? };
    let git = getppid().map(|parent| parent.as_raw_nonzero().to_string()).unwrap_or_default();
    let within = learning_time(answer).as_secs().to_string();
    let run = Invocation::new(this_program()?)
        .args(["learn", "--after", &git, "--within", &within, "--config"])
        .arg(std::path::absolute(config)?.into_os_string())
        // The variables of the hook name a quarantine that ends with the push.
        .outside_any_repository();
    drop(run.start_detached(streams)?);
    Ok(())
}

/// Learns what is not known yet about the sources of `config`, for no longer than `within`, once the process `after` has ended. One process
/// at a time does so; it goes on with a push that comes meanwhile.
pub async fn learn(config: &ClaveldConfig, after: Option<ProcessMark>, within: Duration) -> io::Result<()> {
    let folder = &config.publish.state_directory;
    let (lock, asked) = (folder.join("learning.lock"), folder.join("learning.asked"));
    let push_is_over = async {
        while after.is_some_and(|process| process.runs()) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let _ = tokio::time::timeout(MAX_PUSH, push_is_over).await;
    File::create(&asked)?;
    while asked.exists() {
        let _lock = match FileLock::try_take(&lock) {
            Ok(lock) => lock,
            // That process finds the file.
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        };
        std::fs::remove_file(&asked)?;
        let evaluator = evaluator(&config.evaluate, EvalMode::Changed);
        let targets: Vec<Target<'_>> = config.sources.iter().map(Target::newest).collect();
        let _ = tokio::time::timeout(within, learn_about(&evaluator, &targets, &|_| ())).await;
    }
    Ok(())
}
