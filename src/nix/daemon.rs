//! Whether this user may talk to the daemon of Nix. On Debian, its socket belongs to a group.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

/// The folder of Nix's state.
const STATE: &str = "/nix/var/nix";

/// The socket of Nix's daemon is there, and this user may not use it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this user may not use the socket of the Nix daemon, {}: {}",
    socket.display(),
    remedy(group.as_deref())
)]
pub struct ForbiddenDaemon {
    /// The socket.
    pub socket: PathBuf,
    /// The group that may use it, where it has a name.
    pub group: Option<String>,
}

fn remedy(group: Option<&str>) -> String {
    match group {
        Some(group) => format!(
            "it is for the group `{group}`; add the user to that group (`usermod --append --groups {group} USER`), and start the \
             service anew"
        ),
        None => "let the user of this service use it, and start the service anew".to_owned(),
    }
}

/// Checks that this user may talk to Nix's daemon, where Nix would do so. It is no error that there is no daemon.
pub fn check_daemon() -> Result<(), ForbiddenDaemon> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let asks_daemon = variable("NIX_REMOTE").is_none_or(|remote| remote == "auto" || remote == "daemon");
    let state = variable("NIX_STATE_DIR").map_or_else(|| STATE.into(), PathBuf::from);
    // Who can write to the store needs no daemon.
    let has_store = rustix::fs::access(&state, Access::READ_OK | Access::WRITE_OK).is_ok();
    if !asks_daemon || has_store {
        return Ok(());
    }
    let socket = variable("NIX_DAEMON_SOCKET_PATH").map_or_else(|| state.join("daemon-socket/socket"), PathBuf::from);
    match UnixStream::connect(&socket) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let group = group_of(&socket).and_then(name_of_group);
            Err(ForbiddenDaemon { socket, group })
        }
        // Nix itself says what else is wrong.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The group of the socket, or of its folder where that hides the socket.
fn group_of(socket: &Path) -> Option<u32> {
    let about = |path: &Path| std::fs::metadata(path).ok().map(|about| about.gid());
    about(socket).or_else(|| about(socket.parent()?))
}

/// The name of a group. That of root is no help to anybody else.
fn name_of_group(id: u32) -> Option<String> {
    let group = uzers::get_group_by_gid(id).filter(|_| id != 0)?;
    Some(group.name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_group_of_the_socket() {
        // Every machine has one of these.
        let known = ["nogroup", "nobody", "daemon"].into_iter().find_map(uzers::get_group_by_name).unwrap();
        assert_eq!(name_of_group(known.gid()).as_deref(), known.name().to_str());
        assert_eq!((name_of_group(0), name_of_group(54321)), (None, None));
        let error = |group| ForbiddenDaemon { socket: "/s".into(), group }.to_string();
        let named = error(Some("nix-users".to_owned()));
        assert!(named.contains("the socket of the Nix daemon, /s: it is for the group `nix-users`"), "{named}");
        assert!(named.contains("usermod --append --groups nix-users USER"), "{named}");
        assert!(error(None).contains("let the user of this service use it"));
    }
}
