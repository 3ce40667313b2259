//! Runs programs from the PATH, without this machine's settings.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// The settings of Nix: no public cache, no build users and no sandbox, because a fresh machine has none of them.
pub(crate) const NIX_CONFIG: &str =
    "extra-experimental-features = nix-command flakes\nsubstituters =\nsandbox = false\nbuild-users-group =";

/// A command that runs a program from the PATH.
#[expect(clippy::disallowed_methods, reason = "the tests run programs beside Clavel, not through it")]
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    Command::new(name)
}

/// Runs `command` to its end and returns its standard output. Panics with its standard error when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    String::from_utf8(output(command).stdout).expect("the output is UTF-8")
}

/// Like [`run`], and returns both outputs.
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed, {}:\n{said}", output.status);
    output
}

/// Makes git in `command` the same on every machine: no settings but the repository's own, `home` for a home, and the
/// same person at the same time behind every commit.
pub(crate) fn hermetic_git<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    const DATE: &str = "2026-01-01T00:00:00Z";
    // A test that runs from a git hook would otherwise work on the hook's repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_QUARANTINE_PATH", "GIT_OBJECT_DIRECTORY"] {
        command.env_remove(variable);
    }
    command
        .env("HOME", home)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org"), ("GIT_AUTHOR_DATE", DATE)])
        .envs([("GIT_COMMITTER_NAME", "Ada"), ("GIT_COMMITTER_EMAIL", "ada@example.org"), ("GIT_COMMITTER_DATE", DATE)])
}
