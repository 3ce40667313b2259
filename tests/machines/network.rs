//! A network between a machine and a host with its mirror. The host is a network namespace of the test's own, which a veth pair connects
//! with the machine's; both end with the processes in them.

use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::machine::Machine;
use crate::support::http::{Host, HttpServer};
use crate::support::world::until;
use crate::support::{program, run};

/// The mirror. The machine has a route to it through its router alone.
const MIRROR: Host = Host { address: Ipv4Addr::new(192, 0, 2, 1), name: Some(NAME) };
const NAME: &str = "git.example.org";

/// The line of a shell that sets the machine's default route.
pub(crate) const SET_ROUTE: &str = "ip route replace default via 198.51.100.1";
/// The line that makes the name of the mirror known.
pub(crate) const SET_NAME: &str = "echo 192.0.2.1 git.example.org > /etc/hosts";
/// The line that makes the machine trust the mirror's certificate.
pub(crate) const SET_TRUST: &str = "cp /srv/authority.pem /etc/ssl/certs/ca-certificates.crt";

/// A host whose mirror runs.
pub(crate) struct Network {
    server: HttpServer,
    host: NamespaceHolder,
}

/// The process that keeps a network namespace.
struct NamespaceHolder(Child);

impl Network {
    /// Serves the repositories below `directory`.
    pub(crate) fn serving(directory: &Path) -> Self {
        let mut holder = program("setpriv");
        holder.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]);
        let host = NamespaceHolder(holder.stdin(Stdio::null()).spawn().unwrap());
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        until("the host has a network", || namespace(&host.0.id().to_string()) != namespace("self"));
        host.ip("link set lo up");
        host.ip(&format!("address add {}/32 dev lo", MIRROR.address));
        let file = std::fs::File::open(host.namespace()).unwrap();
        // The server inherits the namespace of the thread that starts it, and this one ends then.
        let server = std::thread::scope(|scope| {
            let start = || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                HttpServer::serve_git_on(MIRROR, directory)
            };
            scope.spawn(start).join().unwrap()
        });
        Self { server, host }
    }

    /// The address of a repository.
    pub(crate) fn url(&self, repository: &str) -> String {
        let url = self.server.url().replace(&MIRROR.address.to_string(), NAME);
        format!("{url}/{repository}")
    }

    /// The certificate that the machine has to trust.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.server.certificate()
    }

    /// Connects a machine with the host, and sets it up as the installation of a machine does.
    pub(crate) fn connect(&self, machine: &Machine<'_>) {
        let leader = machine.leader().unwrap();
        self.host.ip(&format!("link add clavel0 type veth peer name net0 netns {leader}"));
        self.host.ip("address add 198.51.100.1/24 dev clavel0");
        self.host.ip("link set clavel0 up");
        machine.sh("ip address add 198.51.100.2/24 dev net0 && ip link set net0 up");
        machine.sh(&[SET_ROUTE, SET_NAME, SET_TRUST].join(" && "));
        // There is no server to ask for names, and none is waited for.
        machine.sh("echo hosts: files > /etc/nsswitch.conf");
    }
}

impl NamespaceHolder {
    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs ip(8) in the namespace.
    fn ip(&self, arguments: &str) {
        let mut enter = program("nsenter");
        run(enter.arg(format!("--net={}", self.namespace())).arg("ip").args(arguments.split(' ')));
    }
}

impl Drop for NamespaceHolder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
