//! Runs OpenSSH's own programs for keys: ssh-keygen, ssh-agent and ssh-add.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::program;
use super::server::Server;
use super::world::{Ran, World};

/// Makes a key of that type with ssh-keygen, without a passphrase. Its comment is the name of its file.
pub(crate) fn new_key(world: &World, kind: &str, name: &str) -> String {
    let file = world.at(name);
    world.run("ssh-keygen", &["-q", "-t", kind, "-N", "", "-C", name, "-f", &file]).good();
    file
}

/// An ssh-agent, with a socket in the world.
pub(crate) struct SshAgent {
    socket: String,
    _agent: Server,
}

impl SshAgent {
    /// Starts an agent without keys.
    pub(crate) fn start(world: &World) -> Self {
        let socket = world.path("agent.sock");
        let mut agent = program("ssh-agent");
        // The flags keep it in the foreground, on that socket.
        agent.args(["-D", "-a"]).arg(&socket);
        let ready = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        let server = Server::start(&mut agent, &world.path("agent.log"), ready).unwrap();
        Self { socket: socket.to_str().unwrap().to_owned(), _agent: server }
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// Runs `ssh-add`.
    pub(crate) fn add(&self, world: &World, arguments: &[&str]) -> Ran {
        world.run_with(&[("SSH_AUTH_SOCK", &self.socket)], "ssh-add", arguments)
    }

    /// Locks it, or unlocks it with `-X`.
    pub(crate) fn lock(&self, world: &World, flag: &str) {
        world.write_file("askpass", "#!/bin/sh\necho password\n");
        fs::set_permissions(world.path("askpass"), fs::Permissions::from_mode(0o700)).unwrap();
        let askpass = world.at("askpass");
        let environment =
            [("SSH_AUTH_SOCK", self.socket.as_str()), ("SSH_ASKPASS", &askpass), ("SSH_ASKPASS_REQUIRE", "force")];
        world.run_with(&environment, "ssh-add", &[flag]).good();
    }
}
