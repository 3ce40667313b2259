//! What the promises are tested with: a small world, servers of our own, git without this machine's settings, and
//! patience with an end.
//!
//! Only `world` knows Clavel. Every server is a real one, on a free port of the loopback interface, with all its files
//! in a directory of its own, and ends with the value that stands for it.

pub(crate) mod attacker;
pub(crate) mod command;
pub(crate) mod fleet;
pub(crate) mod hostile;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod openssh;
pub(crate) mod server;
pub(crate) mod ssh;
pub(crate) mod thief;
pub(crate) mod world;

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) use command::{hermetic_git, program, run};

/// How long anything may take that is expected to happen at once. Generous, for machines that do much else.
pub(crate) const SOON: Duration = Duration::from_secs(30);

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
