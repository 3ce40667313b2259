//! Runs sshd, for git over SSH.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::server::Server;
use super::{find_program, program, run};

/// An sshd that accepts one key, which it made, as the user who runs the test.
#[derive(Debug)]
pub(crate) struct SshServer {
    port: u16,
    user: String,
    _sshd: Server,
    files: TempDir,
}

impl SshServer {
    /// Starts sshd with new keys.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// The same, with `more` in its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        let files = TempDir::new().unwrap();
        for key in ["host", "client"] {
            let mut keygen = program("ssh-keygen");
            run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"]).arg(files.path().join(key)));
        }
        let user = run(program("id").arg("-un")).trim_end().to_owned();
        if user == "root" {
            // The superuser's sshd needs an empty directory for its unprivileged part. Usually the init system makes it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let sshd = find_program("sshd");
        let log = files.path().join("sshd.log");
        let (server, port) = Server::on_free_port(
            |port| {
                let configuration = files.path().join("sshd_config");
                fs::write(&configuration, sshd_config(files.path(), port, more)).unwrap();
                let mut sshd = program(&sshd);
                // -D: in the foreground. -e: the log goes to standard error.
                sshd.args(["-D", "-e", "-f"]).arg(configuration);
                sshd
            },
            &log,
        );
        let host_key = fs::read_to_string(files.path().join("host.pub")).unwrap();
        fs::write(files.path().join("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        Self { port, user, _sshd: server, files }
    }

    /// The command, for `GIT_SSH_COMMAND`, that runs `ssh` with the accepted key and trusts this server alone.
    pub(crate) fn command(&self) -> String {
        let known_hosts = self.files.path().join("known_hosts");
        format!(
            "ssh -F none -i {key} -p {port} -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes",
            key = self.client_key().display(),
            port = self.port,
            known_hosts = known_hosts.display(),
        )
    }

    /// The file with the server's key.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.files.path().join("known_hosts")
    }

    /// The server's key: its kind, and the key.
    pub(crate) fn host_key(&self) -> String {
        let key = fs::read_to_string(self.files.path().join("host.pub")).unwrap();
        key.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// The secret key that the server accepts.
    pub(crate) fn client_key(&self) -> PathBuf {
        self.files.path().join("client")
    }

    /// The URL of an absolute path of this machine: `ssh://user@127.0.0.1:PORT/path`.
    pub(crate) fn url(&self, path: &Path) -> String {
        assert!(path.is_absolute(), "{} is not absolute", path.display());
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, path.display())
    }
}

fn sshd_config(files: &Path, port: u16, more: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let files = files.display();
    // StrictModes needs a home that nobody else can write to, and PAM an account on this machine, so both are off. The environment
    // replaces the user's own shell and git settings, and has the PATH to the tests' git.
    format!(
        "ListenAddress 127.0.0.1
        Port {port}
        PidFile none
        HostKey \"{files}/host\"
        AuthorizedKeysFile \"{files}/client.pub\"
        AuthenticationMethods publickey
        StrictModes no
        UsePAM no
        PrintMotd no
        MaxStartups 100
        AcceptEnv GIT_PROTOCOL
        SetEnv HOME=\"{files}\" PATH=\"{path}\" GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
        {more}
        "
    )
}
