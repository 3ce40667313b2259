//! Runs claveld as a user beside a daemon of Nix, whose socket belongs to the group `nix-users`, as on Debian.
//!
//! The socket is in a mount namespace of its own: every other test goes on without a daemon.

use super::world::{Ran, World};

/// The number of claveld's user.
const USER: u32 = 61003;
/// The number of the group.
const GROUP: u32 = 61010;

/// Whether claveld's user is in the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Member {
    Yes,
    No,
}

/// Runs claveld as a user who can write to nothing but its home, with these arguments.
pub(crate) fn claveld_beside_a_nix_daemon(world: &World, member: Member, arguments: &[&str]) -> Ran {
    let groups = match member {
        Member::Yes => format!("--groups {GROUP}"),
        Member::No => "--clear-groups".to_owned(),
    };
    let script = format!(
        "set -eu
        mkdir -p {home} /nix/var/nix/daemon-socket; chown {USER} {home}; chmod a+rx {world}
        cp /etc/group {world}/group; echo nix-users:x:{GROUP}: >> {world}/group; mount --bind {world}/group /etc/group
        mount -t tmpfs none /nix/var/nix/daemon-socket
        chgrp {GROUP} /nix/var/nix/daemon-socket; chmod 750 /nix/var/nix/daemon-socket
        nix-daemon 2> {world}/nix-daemon.log &
        daemon=$!; trap 'kill $daemon' EXIT
        until [ -S /nix/var/nix/daemon-socket/socket ]; do kill -0 $daemon; sleep 0.02; done
        setpriv --reuid {USER} --regid {USER} {groups} env -i HOME={home} PATH=\"$PATH\" \"$@\"",
        home = world.at("home-of-claveld"),
        world = world.at(""),
    );
    let claveld = ["unshare", "--mount", "bash", "-c", &script, "bash", env!("CARGO_BIN_EXE_claveld")];
    world.run(claveld[0], &[&claveld[1..], arguments].concat())
}
