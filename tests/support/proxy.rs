//! An HTTP proxy, tinyproxy, that connects to anything on this machine.

use std::fs;

use tempfile::TempDir;

use super::command::program;
use super::find_program;
use super::server::Server;

/// A proxy on a port of its own.
#[derive(Debug)]
pub(crate) struct HttpProxy {
    port: u16,
    _server: Server,
    files: TempDir,
}

impl HttpProxy {
    /// For everybody.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// For `user` with `password` alone.
    pub(crate) fn start_for(user: &str, password: &str) -> Self {
        Self::start_with(&format!("BasicAuth {user} {password}\n"))
    }

    fn start_with(more: &str) -> Self {
        let files = TempDir::new().unwrap();
        let at = |name: &str| files.path().join(name);
        let (server, port) = Server::on_free_port(
            |port| {
                let settings = format!(
                    "Port {port}\nListen 127.0.0.1\nLogFile \"{}\"\nLogLevel Connect\nPidFile \"{}\"\n{more}",
                    at("log").display(),
                    at("pid").display()
                );
                fs::write(at("tinyproxy.conf"), settings).unwrap();
                let mut tinyproxy = program(find_program("tinyproxy"));
                tinyproxy.arg("-d").arg("-c").arg(at("tinyproxy.conf"));
                tinyproxy
            },
            &at("errors"),
        );
        Self { port, _server: server, files }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How often somebody had it connect to `host`, which is a host and a port.
    pub(crate) fn connections_to(&self, host: &str) -> usize {
        let log = fs::read_to_string(self.files.path().join("log")).unwrap();
        log.matches(&format!("CONNECT {host} ")).count()
    }
}
