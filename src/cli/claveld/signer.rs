//! `claveld signer`: reads the key, takes or makes the socket, and prints what is refused.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use rustix::fs::Mode;

use crate::cli::exit::{Code, Exit};
use crate::cli::{output, wait_for_stop_signal};
use crate::signers::{SigningEvent, SigningServer, read_credential};
use crate::stderr;
use crate::trust::SecretKey;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    key: KeyArguments,
    /// The socket to make, for this user alone. Without it, systemd has to pass one (`claveld-signer.socket`).
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct KeyArguments {
    /// The file of the key, which belongs to this user or to root, and which nobody else can read.
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// The systemd credential that is the key.
    #[arg(long, value_name = "NAME")]
    secret_key_credential: Option<String>,
}

/// The reason why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
enum SocketError {
    /// Systemd passed none, and no argument names one.
    #[error("there is no socket: systemd passed none; enable claveld-signer.socket, or name a socket with --socket")]
    None,
    /// Systemd passed something else.
    #[error("systemd has to pass one unix stream socket, and passed {0}")]
    Passed(String),
    /// Something that is no socket has the path.
    #[error("cannot make the socket {}: something that is no socket is there; remove it, or name another path", path.display())]
    NoSocket { path: PathBuf },
    /// Another process listens there.
    #[error("cannot make the socket {}: another process listens there", path.display())]
    InUse { path: PathBuf },
    /// The socket cannot be made or used.
    #[error("cannot {act} the socket {}", path.display())]
    Io { act: &'static str, path: PathBuf, source: io::Error },
}

impl From<SocketError> for Exit {
    fn from(error: SocketError) -> Self {
        let code = if matches!(error, SocketError::Io { .. }) { Code::Machine } else { Code::Configuration };
        Self::new(code, error)
    }
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    forbid_tracing()?;
    stderr::never_wait();
    let server = SigningServer::new(arguments.key.read()?);
    let listener = match &arguments.socket {
        Some(path) => make_socket(path)?,
        None => passed_socket()?,
    };
    listener.set_nonblocking(true).map_err(Exit::machine)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(Exit::machine)?;
    output::remark(format_args!("signing with {}", server.public()));
    tokio::select! {
        ended = server.serve(&listener, &print) => match ended.map_err(Exit::machine)? {},
        stopped = wait_for_stop_signal() => stopped,
    }
}

fn print(event: SigningEvent) {
    match event {
        SigningEvent::Signed(_) => tracing::debug!("{event}"),
        SigningEvent::Refused(_) => output::error(event),
    }
}

impl KeyArguments {
    fn read(&self) -> Result<SecretKey, Exit> {
        match (&self.secret_key_file, &self.secret_key_credential) {
            (Some(path), _) => Ok(SecretKey::read(path)?),
            // clap sees to it that one of them is given.
            (None, name) => {
                let key = read_credential(name.as_deref().unwrap_or_default());
                key.map_err(|error| Exit::new(Code::Configuration, error))
            }
        }
    }
}

/// Forbids that other processes of this user trace this one, or read its memory.
fn forbid_tracing() -> Result<(), Exit> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).map_err(Exit::machine)?;
    Ok(())
}

/// The socket that systemd passes.
fn passed_socket() -> Result<UnixListener, SocketError> {
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => return Err(SocketError::None),
        1 => {}
        more => return Err(SocketError::Passed(format!("{more}"))),
    }
    let other = || SocketError::Passed("something else".to_owned());
    passed.take_unix_listener(0).map_err(|_| other())?.ok_or_else(other)
}

/// Makes a socket at `path` for this user alone. It replaces nothing but a socket on which nobody listens.
fn make_socket(path: &Path) -> Result<UnixListener, SocketError> {
    let io = |act| move |source| SocketError::Io { act, path: path.to_owned(), source };
    // The mode has to hold from the first moment on. Nothing else makes files in this process.
    rustix::process::umask(Mode::from_raw_mode(0o177));
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        bound => return bound.map_err(io("make")),
    }
    if !fs::symlink_metadata(path).map_err(io("look at"))?.file_type().is_socket() {
        return Err(SocketError::NoSocket { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Ok(_) => return Err(SocketError::InUse { path: path.to_owned() }),
        Err(source) => return Err(io("look at")(source)),
    }
    fs::remove_file(path).map_err(io("replace"))?;
    UnixListener::bind(path).map_err(io("make"))
}
