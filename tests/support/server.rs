//! Runs the process of a server in the foreground, waits until it accepts connections, and ends it when its value is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{SOON, free_port};

/// A process with its children. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts `command`, whose output goes to the file `log`, and waits until `ready`. Returns the log as an error when the process
    /// ends before that. Panics when neither happens in time.
    pub(crate) fn start(command: &mut Command, log: &Path, ready: impl Fn() -> bool) -> Result<Self, String> {
        let file = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        // It gets a process group of its own, so that its children end with it.
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut server = Self { child };
        let start = Instant::now();
        loop {
            // The order matters: an answer counts only while the process lives, because another process may have the port.
            let answered = ready();
            if let Some(status) = server.child.try_wait().unwrap() {
                let log = std::fs::read_to_string(log).unwrap();
                return Err(format!("{command:?} ended, {status}:\n{log}"));
            }
            if answered {
                return Ok(server);
            }
            assert!(start.elapsed() < SOON, "{command:?} cannot be connected to after {SOON:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts the command that `command` gives for a free port. It tries again with another port, because another process can take
    /// a port after it was chosen.
    pub(crate) fn on_free_port(command: impl FnMut(u16) -> Command, log: &Path) -> (Self, u16) {
        Self::on_free_port_of(Ipv4Addr::LOCALHOST, command, log)
    }

    /// The same for a server at another address of this machine.
    pub(crate) fn on_free_port_of(
        address: Ipv4Addr,
        mut command: impl FnMut(u16) -> Command,
        log: &Path,
    ) -> (Self, u16) {
        let mut refusal = String::new();
        for _ in 0..3 {
            let port = free_port();
            match Self::start(&mut command(port), log, || TcpStream::connect((address, port)).is_ok()) {
                Ok(server) => return (server, port),
                Err(log) => refusal = log,
            }
        }
        panic!("{refusal}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Until this process has waited for it, the kernel gives its id to no other process.
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}
