//! A booted Debian with Clavel installed, in namespaces of its own. It ends when its value is dropped, or with the tests.

#![expect(clippy::print_stdout, reason = "cargo shows it for a test that fails, and with --nocapture")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::install::install;
use crate::support::program;
use crate::support::world::{Ran, World, until};

/// The environment of a command in a machine.
const ENVIRONMENT: [&str; 4] =
    ["env", "-i", "HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

/// A machine, whose files are in a folder of a world.
pub(crate) struct Machine<'a> {
    world: &'a World,
    /// The name of its control group, which no other machine has.
    name: String,
    process: Child,
    folder: PathBuf,
}

impl<'a> Machine<'a> {
    /// Boots a machine with the hostname `host`, whose folder `HOST/files` in the world has files beside those of Debian and Clavel.
    /// `shared` are folders of the world, each with the path at which the machine may read it.
    pub(crate) fn boot(world: &'a World, host: &str, shared: &[(&str, &str)]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{host}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // A journal in this folder outlives a restart.
        std::fs::create_dir_all(world.path(&format!("{host}/files/var/log/journal"))).unwrap();
        let folder = world.path(host);
        let binds = shared.iter().map(|(from, to)| format!("--bind-ro={}:{to}", world.at(from)));
        let console = File::create(folder.join("console.log")).unwrap();
        let mut command = program("setpriv");
        // The machine ends even if the tests are killed.
        command.args(["--pdeathsig", "KILL"]).arg(script()).arg("boot").arg(&folder).arg(&name);
        command.arg(installed()).arg(debian()).args(["--", &format!("--hostname={host}")]).args(binds);
        let process =
            command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console).spawn().unwrap();
        let mut machine = Self { world, name, process, folder };
        let started = Instant::now();
        machine.wait_until_booted();
        println!("{host} booted within {:?}", started.elapsed());
        machine
    }

    fn wait_until_booted(&mut self) {
        until("the machine has booted", || {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the machine ended, {status}:\n{}", self.console());
            }
            // Until systemd-nspawn has changed the root folder, the process sees this machine and its systemd.
            let ask = "test -e /sbin/boot-loader && exec systemctl is-system-running";
            self.leader().is_some_and(|leader| {
                let state = self.run_below(leader, &["sh", "-c", ask]).stdout;
                ["running", "degraded"].contains(&state.trim())
            })
        });
    }

    /// The process that is the machine's first one.
    pub(crate) fn leader(&self) -> Option<u32> {
        // setpriv became unshare. Below it are the script, systemd-nspawn, and the machine's systemd.
        let script = child(self.process.id())?;
        child(child(script)?)
    }

    fn run_below(&self, leader: u32, command: &[&str]) -> Ran {
        let target = leader.to_string();
        self.world.run("nsenter", &[&["--all", "--target", &target], &ENVIRONMENT[..], command].concat())
    }

    /// Runs a command in the machine, as root.
    #[track_caller]
    pub(crate) fn run(&self, command: &[&str]) -> Ran {
        let leader = self.leader().unwrap_or_else(|| panic!("the machine has ended:\n{}", self.console()));
        self.run_below(leader, command)
    }

    /// Runs a line of shell. Returns what it prints, without the end of the last line.
    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        self.run(&["sh", "-c", line]).good().trim_end().to_owned()
    }

    /// A property of a systemd unit.
    #[track_caller]
    pub(crate) fn property(&self, unit: &str, property: &str) -> String {
        self.sh(&format!("systemctl show --value --property={property} {unit}"))
    }

    /// The journal of a unit, of all boots.
    pub(crate) fn journal(&self, unit: &str) -> String {
        self.run(&["journalctl", "--sync"]).good();
        self.run(&["journalctl", "--quiet", "--no-pager", "--output=cat", "--unit", unit]).good()
    }

    /// Restarts the machine in order, and waits until it has booted.
    pub(crate) fn restart(&mut self) {
        let before = self.leader();
        self.run(&["systemctl", "reboot"]);
        until("the machine goes down", || self.leader() != before);
        self.wait_until_booted();
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.folder.join("console.log")).unwrap_or_default()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The reader of a failed test has no other way into the machine, which ends now.
            let journal = ["journalctl", "--no-pager", "--boot", "--lines=200"];
            let said = self.leader().map(|leader| self.run_below(leader, &journal).stdout);
            println!("{}", said.unwrap_or_else(|| self.console()));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.world.run(script().to_str().unwrap(), &["tidy", &self.name]);
    }
}

/// The only child of a process.
fn child(of: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/machine")
}

/// The folder of the programs under test.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clavel-agent")).parent().unwrap()
}

/// The folder that has what machines are made of.
fn materials() -> PathBuf {
    programs().parent().unwrap().join("machines")
}

fn debian() -> PathBuf {
    let folder = materials().join("debian");
    assert!(folder.with_extension("complete").exists(), "{} is not there: make test-machines", folder.display());
    folder
}

/// The folder with Clavel in it, which `make install` fills with the programs under test.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let folder = materials().join("clavel");
        install(&folder, programs());
        folder
    })
}
