//! What the promises are tested with: a small world, servers of our own, git without this machine's settings, and
//! patience with an end.
//!
//! Only `world` knows Clavel. Every server is a real one, on a free port of the loopback interface, with all its files
//! in a directory of its own, and ends with the value that stands for it.

pub(crate) mod http;
pub(crate) mod server;
pub(crate) mod ssh;
pub(crate) mod world;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long anything may take that is expected to happen at once. Generous, for machines that do much else.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A program that is looked for on the PATH.
#[expect(clippy::disallowed_methods, reason = "the tests run programs beside Clavel, not through it")]
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    Command::new(name)
}

/// Runs `command` to its end and gives what it wrote to its standard output. Panics with its standard error when it fails.
pub(crate) fn run(command: &mut Command) -> String {
    String::from_utf8(output(command).stdout).expect("the output is UTF-8")
}

/// Like [`run`], with all that the program wrote.
pub(crate) fn output(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed, {}:\n{said}", output.status);
    output
}

/// Waits until `condition` holds, and panics when it still does not after `deadline`.
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port of 127.0.0.1 that nobody listens on, and that no other test of this process was given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().unwrap().port();
        // The kernel may give a port again as soon as this listener is closed, before the server has taken it.
        if GIVEN.lock().unwrap().get_or_insert_default().insert(port) {
            return port;
        }
    }
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

/// Where a server's program is: on the PATH, or where distributions keep what only root runs.
fn find_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: `scripts/setup test` installs it"))
}
