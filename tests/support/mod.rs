//! What the tests share: a small world, servers, git without this machine's settings, and waiting with a deadline.
//!
//! Every server except the hostile one is a real one. It uses a free port of the loopback interface and a directory of its own,
//! and ends when its value is dropped.

pub(crate) mod attacker;
pub(crate) mod authority;
pub(crate) mod command;
pub(crate) mod fleet;
pub(crate) mod hostile;
pub(crate) mod http;
pub(crate) mod memory;
pub(crate) mod nix_daemon;
pub(crate) mod openssh;
pub(crate) mod private_host;
pub(crate) mod proxy;
pub(crate) mod runbook;
pub(crate) mod server;
pub(crate) mod signer;
pub(crate) mod ssh;
pub(crate) mod thief;
pub(crate) mod world;

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(crate) use command::{hermetic_git, program, run};

/// The deadline for anything that is expected to happen at once. It is long, because a machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Waits until `condition` holds, and panics when it still does not after `deadline`.
pub(crate) fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port of 127.0.0.1 on which nothing listens, and which no other test of this process got.
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

/// Finds the program of a server: on the PATH, or in the folders that distributions use for the superuser's programs.
fn find_program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: `scripts/setup test` installs it"))
}
