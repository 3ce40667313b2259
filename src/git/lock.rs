//! The lock files that git holds while it changes a file, and their age.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A lock older than this belongs to a process that is gone: ten minutes.
pub(super) const STALE_AFTER: Duration = Duration::from_mins(10);

/// A lock file that a program holds, or left behind when it died.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldLock {
    /// The lock file.
    pub file: PathBuf,
    /// Its age, in whole seconds.
    pub age: Duration,
}

impl HeldLock {
    /// The lock of the first of these files in `git_dir` that is locked.
    pub(super) fn first_of(git_dir: &Path, names: &[&str]) -> Option<Self> {
        names.iter().find_map(|name| {
            let file = git_dir.join(format!("{name}.lock"));
            let age = age(&file)?;
            Some(Self { file, age })
        })
    }

    /// Whether the program that took it is gone.
    pub(super) fn is_stale(&self) -> bool {
        self.age >= STALE_AFTER
    }
}

/// For the error that an operator reads: the file, its age, and what to do.
impl fmt::Display for HeldLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, age) = (self.file.display(), humantime::format_duration(self.age));
        write!(f, "the lock {file} is {age} old; if no git program is at work in this repository, delete that file")
    }
}

/// The age of the file; `None` if it does not exist.
fn age(file: &Path) -> Option<Duration> {
    let modified = fs::metadata(file).and_then(|metadata| metadata.modified()).ok()?;
    let age = SystemTime::now().duration_since(modified).unwrap_or_default();
    Some(Duration::from_secs(age.as_secs()))
}
