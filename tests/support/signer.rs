//! Runs `claveld signer`, and asks it for signatures as any client of an ssh-agent can.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::program;
use super::server::Server;
use super::world::World;

/// A process of `claveld signer` that has the world's key, and answers at `signer.sock` in the world.
pub(crate) struct Signer {
    socket: PathBuf,
    log: PathBuf,
    process: Server,
}

impl Signer {
    /// Starts it on a socket of its own.
    pub(crate) fn start(world: &World) -> Self {
        let (key, socket) = (world.at("claveld-1.secret"), world.at("signer.sock"));
        Self::run(world, &[env!("CARGO_BIN_EXE_claveld"), "signer", "--secret-key-file", &key, "--socket", &socket])
    }

    /// Starts it as systemd does: as the user with this number, with the key as a credential, on a socket that is there before and
    /// belongs to the superuser.
    pub(crate) fn activate(world: &World, user: u32) -> Self {
        let user = user.to_string();
        let setpriv = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
        let signer = [env!("CARGO_BIN_EXE_claveld"), "signer", "--secret-key-credential", "claveld-1.secret"];
        let socket = format!("--listen={}", world.at("signer.sock"));
        let credentials = format!("--setenv=CREDENTIALS_DIRECTORY={}", world.at(""));
        let arguments = [&["systemd-socket-activate", &credentials, &socket], &setpriv[..], &signer].concat();
        Self::run(world, &arguments)
    }

    fn run(world: &World, command: &[&str]) -> Self {
        let (socket, log) = (world.path("signer.sock"), world.path("signer.log"));
        // Nothing of this machine's environment.
        let mut process = program(command[0]);
        process.args(&command[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        let ready = || UnixStream::connect(&socket).is_ok();
        let process = Server::start(&mut process, &log, ready).unwrap();
        Self { socket, log, process }
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Connects to it.
    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.socket).unwrap()
    }

    /// Sends these bytes, and returns the first `answer` bytes of what it answers.
    pub(crate) fn ask(&self, bytes: &[u8], answer: usize) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        let mut answered = vec![0; answer];
        stream.read_exact(&mut answered).unwrap();
        answered
    }
}
