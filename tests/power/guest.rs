//! A machine that qemu emulates, with a disk of its own. `scripts/power` says how.

#![expect(clippy::print_stdout, reason = "cargo shows it for a test that fails, and with --nocapture")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::install::install;
use crate::points::Writeback;
use crate::support::{program, run, wait_until};

/// The deadline for anything that an emulated machine does. It is long, because the machine that emulates it may be busy.
pub(crate) const SLOW: Duration = Duration::from_mins(5);

/// A machine that is switched off.
pub(crate) struct Guest {
    /// Has its disk and the ends of its serial ports.
    folder: PathBuf,
}

/// A machine that is switched on. Dropping it cuts its power.
pub(crate) struct Powered<'a> {
    guest: &'a Guest,
    qemu: Child,
    shell: Option<UnixStream>,
}

impl Guest {
    /// A machine with Clavel, whose agent is enabled and has this configuration. Its files are in `folder`.
    pub(crate) fn install(folder: PathBuf, configuration: &str) -> Self {
        let files = folder.join("files");
        let clavel = folder.join("clavel");
        install_clavel(&clavel);
        let put = |path: &str, text: &str| {
            let path = files.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("etc/hostname", "web-1\n");
        put("etc/clavel/clavel-agent.toml", configuration);
        for unit in ["test-shell.service", "test-journal.service", "test-network.service"] {
            put(&format!("etc/systemd/system/{unit}"), &std::fs::read_to_string(fixture(unit)).unwrap());
        }
        std::fs::create_dir_all(files.join("usr/sbin")).unwrap();
        std::fs::copy(fixture("boot-loader"), files.join("usr/sbin/boot-loader")).unwrap();
        std::fs::create_dir_all(files.join("var/log/journal")).unwrap();
        let mut disk = program(script());
        disk.arg("disk").arg(folder.join("disk")).arg(files).arg(clavel).arg(materials("debian"));
        run(&mut disk);
        Self { folder }
    }

    /// Switches it on.
    pub(crate) fn start(&self, writeback: Writeback) -> Powered<'_> {
        for port in ["shell", "journal", "console.log"] {
            let _ = std::fs::remove_file(self.folder.join(port));
        }
        let mut command = program("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(script()).arg("boot").arg(materials("qemu")).arg(&self.folder);
        if writeback == Writeback::Early {
            command.args(["sysctl.vm.dirty_expire_centisecs=50", "sysctl.vm.dirty_writeback_centisecs=25"]);
        }
        let log = std::fs::File::create(self.folder.join("qemu.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Powered { guest: self, qemu: command.spawn().unwrap(), shell: None }
    }
}

impl Powered<'_> {
    /// Waits until a shell of the machine answers.
    pub(crate) fn wait_for_shell(&mut self) {
        let mut said = Vec::new();
        wait_until("the guest has a shell", SLOW, || {
            if let Some(status) = self.qemu.try_wait().unwrap() {
                panic!("qemu ended, {status}: {}", self.read("qemu.log"));
            }
            if self.shell.is_none() {
                self.shell = UnixStream::connect(self.guest.folder.join("shell")).ok();
            }
            let Some(shell) = &mut self.shell else { return false };
            shell.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut bytes = [0; 64];
            let read = shell.read(&mut bytes).unwrap_or(0);
            said.extend(&bytes[..read]);
            said.ends_with(b"ready\n")
        });
    }

    /// Runs a line of shell in the machine. Returns its exit code and both its outputs.
    pub(crate) fn run(&mut self, line: &str) -> (u8, String) {
        let shell = self.shell.as_mut().unwrap();
        let wrapped = format!("( {line}\n) </dev/null 2>&1; printf '\\n%s %s %s\\n' the code: $?\n");
        shell.write_all(wrapped.as_bytes()).unwrap();
        let (started, mut said) = (Instant::now(), Vec::new());
        loop {
            let text = String::from_utf8_lossy(&said);
            if let Some((before, code)) = text.rsplit_once("\nthe code: ")
                && let Some(code) = code.strip_suffix('\n')
            {
                return (code.trim().parse().unwrap(), before.to_owned());
            }
            assert!(started.elapsed() < SLOW, "`{line}` has not ended; so far:\n{text}\n{}", self.read("console.log"));
            let mut bytes = [0; 4096];
            match shell.read(&mut bytes) {
                Ok(read) => said.extend(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the guest's shell: {error}"),
            }
        }
    }

    /// Runs a line that has to succeed. Returns what it prints, without white space around it.
    #[track_caller]
    pub(crate) fn sh(&mut self, line: &str) -> String {
        let (code, said) = self.run(line);
        assert_eq!(code, 0, "`{line}`:\n{said}");
        said.trim().to_owned()
    }

    /// `clavel-agent status --json`.
    pub(crate) fn status(&mut self) -> Value {
        let said = self.sh("clavel-agent status --json");
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}:\n{said}"))
    }

    /// What was said on the third serial port since the machine was switched on: the agent's journal and the marks of scripts.
    pub(crate) fn journal(&self) -> Vec<Value> {
        self.read("journal").lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// A file of the machine's folder.
    pub(crate) fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.guest.folder.join(name)).unwrap_or_default()).into_owned()
    }

    /// Cuts the power.
    pub(crate) fn cut(self) {
        drop(self);
    }

    /// Restarts the machine in order, and waits until it has a shell again.
    pub(crate) fn restart(&mut self) {
        self.shell.as_mut().unwrap().write_all(b"systemctl reboot\n").unwrap();
        self.wait_for_shell();
    }
}

impl Drop for Powered<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n{}\n{}", self.read("qemu.log"), self.read("console.log"), self.read("journal"));
        }
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/power").join(name)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/power")
}

/// The folder of the programs under test.
fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_clavel-agent")).parent().unwrap()
}

/// A folder that `make test-power` has laid.
fn materials(name: &str) -> PathBuf {
    let folder = programs().parent().unwrap().join("machines").join(name);
    assert!(folder.with_extension("complete").exists(), "{} is not there: make test-power", folder.display());
    folder
}

/// Installs the agent into `folder`, without what a guest does not need: the other programs, and symbols for a debugger.
fn install_clavel(folder: &Path) {
    install(folder, programs());
    let bin = folder.join("usr/local/bin");
    for name in ["clavel", "claveld"] {
        std::fs::remove_file(bin.join(name)).unwrap();
    }
    run(program("strip").arg(bin.join("clavel-agent")));
    // As `systemctl enable` does.
    let system = folder.join("etc/systemd/system");
    std::fs::create_dir_all(&system).unwrap();
    let wants = [
        ("multi-user.target.wants", "clavel-agent.service", "/usr/local/lib/systemd/system"),
        ("sysinit.target.wants", "clavel-way-back.service", "/usr/local/lib/systemd/system"),
        ("multi-user.target.wants", "test-shell.service", "/etc/systemd/system"),
        ("multi-user.target.wants", "test-journal.service", "/etc/systemd/system"),
        ("multi-user.target.wants", "test-network.service", "/etc/systemd/system"),
    ];
    // There is no udev to say that these devices are there, and nobody to log in.
    for unit in ["serial-getty@ttyS0.service", "getty@tty1.service", "kmod-static-nodes.service"] {
        std::os::unix::fs::symlink("/dev/null", system.join(unit)).unwrap();
    }
    for (target, unit, at) in wants {
        std::fs::create_dir_all(system.join(target)).unwrap();
        std::os::unix::fs::symlink(format!("{at}/{unit}"), system.join(target).join(unit)).unwrap();
    }
}
