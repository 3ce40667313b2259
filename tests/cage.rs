//! Promise: a flake that is evaluated reads nothing but the store, reaches nothing, and writes nothing but its own derivations.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use crate::support::world::{Ran, World};

/// What an attacker is after, in a world whose `main` has the fleet.
struct Prize {
    world: World,
    /// The texts that no output and no new file in the store may have.
    secrets: Vec<String>,
    /// The expressions that try to get them.
    attempts: Vec<(&'static str, String)>,
    /// The service of this machine that nothing may ask.
    service: TcpListener,
    started: SystemTime,
}

const MARKER: (&str, &str) = ("CLAVEL_TEST_TOKEN", "token-of-the-environment");

/// What the attacker knows already. A wrong hash makes Nix tell the right one, and with that a second push gets the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Knows {
    Nothing,
    TheHashes,
}

fn prize(knows: Knows) -> Prize {
    let world = World::new();
    let started = SystemTime::now();
    let text = format!("the secret of {}", world.at(""));
    world.write_file("vault/key", &text);
    let (vault, file) = (world.at("vault"), world.at("vault/key"));
    world.git(&["init", "-q", &world.at("other")]);
    world.write_file("other/text", &format!("other {text}"));
    world.git(&["-C", &world.at("other"), "add", "-A"]);
    world.git(&["-C", &world.at("other"), "commit", "-q", "-m", "Private"]);
    let revision = world.run("git", &["-C", &world.at("other"), "rev-parse", "HEAD"]).good();
    let hash = |arguments: &[&str]| world.run("nix", &[&["hash"], arguments].concat()).good().trim().to_owned();
    let (flat, flat32) = (hash(&["file", &file]), hash(&["file", "--base32", &file]));
    let (nar, tree) = (hash(&["path", &file]), hash(&["path", &vault]));
    let mut secrets = vec![text, MARKER.1.to_owned()];
    let wrong = "0".repeat(52);
    let wrong_sri = format!("sha256-{}=", "A".repeat(43));
    let (flat32, nar, tree) = match knows {
        Knows::TheHashes => (flat32, nar, tree),
        Knows::Nothing => {
            let hashes = [&flat, &flat32, &nar, &tree].map(|hash| hash.trim_start_matches("sha256-").to_owned());
            secrets.extend(hashes);
            (wrong.clone(), wrong_sri.clone(), wrong_sri)
        }
    };
    let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    service.set_nonblocking(true).unwrap();
    let port = service.local_addr().unwrap().port();
    let mut attempts = vec![
        ("readFile", format!("builtins.readFile \"{file}\"")),
        ("readDir", format!("toString (builtins.attrNames (builtins.readDir \"{vault}\"))")),
        ("import", format!("import \"{file}\"")),
        ("fetchurl, for the hash", format!("builtins.fetchurl {{ url = \"file://{file}\"; sha256 = \"{wrong}\"; }}")),
        (
            "fetchurl",
            format!("builtins.readFile (builtins.fetchurl {{ url = \"file://{file}\"; sha256 = \"{flat32}\"; }})"),
        ),
        ("fetchTarball", format!("builtins.fetchTarball {{ url = \"file://{file}\"; sha256 = \"{wrong}\"; }}")),
        (
            "fetchTree of a path",
            format!(
                "builtins.readFile (builtins.fetchTree {{ type = \"path\"; path = \"{vault}\"; narHash = \"{tree}\"; }} + \"/key\")"
            ),
        ),
        (
            "fetchTree of a file",
            format!(
                "builtins.readFile (builtins.fetchTree {{ type = \"file\"; url = \"file://{file}\"; narHash = \"{nar}\"; }})"
            ),
        ),
        ("getFlake", format!("builtins.getFlake \"path:{vault}?narHash={tree}\"")),
        ("path", format!("builtins.readFile (builtins.path {{ path = \"{file}\"; sha256 = \"{nar}\"; }})")),
        ("path, for the hash", format!("builtins.path {{ path = \"{file}\"; sha256 = \"{wrong}\"; }}")),
        (
            "path, for the names",
            format!(
                "builtins.path {{ path = \"{vault}\"; sha256 = \"{wrong}\"; filter = p: t: builtins.trace \"found ${{p}}\" true; }}"
            ),
        ),
        (
            "fetchGit",
            format!(
                "builtins.readFile (builtins.fetchGit {{ url = \"file://{}\"; rev = \"{}\"; }} + \"/text\")",
                world.at("other"),
                revision.trim()
            ),
        ),
        (
            "fetchurl by http",
            format!("builtins.fetchurl {{ url = \"http://127.0.0.1:{port}/\"; sha256 = \"{wrong}\"; }}"),
        ),
        (
            "fetchTree by http",
            format!(
                "builtins.fetchTree {{ type = \"tarball\"; url = \"http://localhost:{port}/x.tar\"; narHash = \"{nar}\"; }}"
            ),
        ),
    ];
    for file in ["/proc/self/environ", "/proc/1/environ", "/proc/self/mountinfo", "/etc/passwd", "/etc/hostname"] {
        attempts.push((
            "path of the system",
            format!("builtins.readFile (builtins.path {{ path = \"{file}\"; sha256 = \"{nar}\"; }})"),
        ));
        attempts.push((
            "fetchurl of the system",
            format!("builtins.fetchurl {{ url = \"file://{file}\"; sha256 = \"{wrong}\"; }}"),
        ));
    }
    Prize { world, secrets, attempts, service, started }
}

impl Prize {
    /// A flake whose hosts are the attempts.
    fn attack(&self) {
        let host = |(at, (_, attempt)): (usize, &(&str, String))| {
            format!("nixosConfigurations.h{at} = throw \"got ${{toString ({attempt})}}\";\n")
        };
        let hosts: String = self.attempts.iter().enumerate().map(host).collect();
        self.world.write("flake.nix", &format!("{{ outputs = {{ self }}: {{ {hosts} }}; }}"));
        let _ = std::fs::remove_file(self.world.path("work/flake.lock"));
    }

    #[track_caller]
    fn found_nothing(&self, ran: &Ran) {
        let said = format!("{}{}", ran.stdout, ran.stderr);
        // Nix may quote the flake.
        let quotes = |line: &&str| line.contains("builtins.") || line.contains("throw \"got ${");
        let said: String = said.lines().filter(|line| !quotes(line)).collect::<Vec<_>>().join("\n");
        for secret in &self.secrets {
            assert!(!said.contains(secret), "{secret} is in:\n{said}");
        }
        assert!(!said.contains("got ") && !said.contains("found "), "{said}");
        let asked = self.service.accept();
        assert!(asked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "the service was asked");
        let flake = std::fs::read_to_string(self.world.path("work/flake.nix")).unwrap();
        new_files(Path::new("/nix/store"), self.started, &mut |text| {
            let is_theirs = self.secrets.iter().any(|secret| text.contains(secret));
            assert!(!is_theirs || text == flake, "it is in the store: {text}");
        });
    }
}

/// Gives each small text file below `folder` that changed since `started`.
fn new_files(folder: &Path, started: SystemTime, give: &mut dyn FnMut(&str)) {
    let since = started.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = entry.path().symlink_metadata() else { continue };
        if about.ctime() < since {
            continue;
        }
        if about.is_dir() {
            new_files(&entry.path(), started, give);
        } else if about.is_file()
            && about.len() < 64 << 10
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            give(&text);
        }
    }
}

#[test]
fn a_flake_reads_no_file_and_asks_no_service() {
    for knows in [Knows::Nothing, Knows::TheHashes] {
        reads_nothing(&prize(knows));
    }
}

fn reads_nothing(prize: &Prize) {
    prize.attack();
    let ran = prize.world.run_with(
        &[MARKER],
        env!("CARGO_BIN_EXE_claveld"),
        &["evaluate", &format!("path:{}", prize.world.at("work")), "--json"],
    );
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["failures"].as_array().unwrap().len(), prize.attempts.len(), "{found:#}");
    prize.found_nothing(&ran);
}

#[test]
fn whoever_pushes_to_the_gate_learns_nothing() {
    for knows in [Knows::Nothing, Knows::TheHashes] {
        let prize = prize(knows);
        prize.world.install_gate();
        prize.attack();
        let ran = prize.world.try_push("An attack");
        assert_ne!(ran.code, Some(0));
        prize.found_nothing(&ran);
    }
}

#[test]
fn an_input_that_is_not_locked_or_not_allowed_is_not_fetched() {
    let prize = prize(Knows::TheHashes);
    let flake = |url: &str| {
        format!(
            "{{ inputs.x = {{ url = \"{url}\"; flake = false; }}; outputs = {{ self, x }}: {{ nixosConfigurations.a = throw \"got ${{builtins.readFile (x + \"/key\")}}\"; }}; }}"
        )
    };
    prize.world.write("flake.nix", &flake(&format!("path:{}", prize.world.at("vault"))));
    let evaluated = || {
        prize.world.run_with(
            &[MARKER],
            env!("CARGO_BIN_EXE_claveld"),
            &["evaluate", &format!("path:{}", prize.world.at("work"))],
        )
    };
    let ran = evaluated();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    prize.found_nothing(&ran);
    // Locked, with the right hash.
    let tree = prize.world.run("nix", &["hash", "path", &prize.world.at("vault")]).good();
    let lock = serde_json::json!({ "root": "root", "version": 7, "nodes": {
        "root": { "inputs": { "x": "x" } },
        "x": { "flake": false, "original": { "type": "path", "path": prize.world.at("vault") },
            "locked": { "type": "path", "path": prize.world.at("vault"), "narHash": tree.trim() } },
    } });
    prize.world.write("flake.lock", &lock.to_string());
    let ran = evaluated();
    assert!(ran.stderr.contains("`evaluate.inputs` does not have `path`"), "{}", ran.stderr);
    prize.found_nothing(&ran);
}

#[test]
fn a_file_that_is_too_large_for_the_store_breaks_its_host_alone() {
    let world = World::new();
    let large =
        "builtins.toFile \"large\" (builtins.foldl' (a: _: a + a) \"0123456789abcdef\" (builtins.genList (n: n) 25))";
    world.edit("hosts/web-2.nix", "version = \"1\";", &format!("version = builtins.readFile ({large});"));
    let found = world.claveld(&["evaluate", &format!("path:{}", world.at("work")), "--json"]).json();
    let failures: Vec<&str> =
        found["failures"].as_array().unwrap().iter().map(|failure| failure["name"].as_str().unwrap()).collect();
    assert_eq!(failures, ["web-2"], "{found:#}");
}

#[test]
fn without_a_cage_nothing_is_evaluated_unless_the_operator_says_so() {
    let world = World::new();
    let programs = world.path("programs");
    std::fs::create_dir(&programs).unwrap();
    for folder in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name() != "bwrap" {
                let _ = std::os::unix::fs::symlink(entry.path(), programs.join(entry.file_name()));
            }
        }
    }
    let path = [("PATH", programs.to_str().unwrap())];
    let evaluate = ["evaluate", &format!("path:{}", world.at("work"))];
    let claveld = env!("CARGO_BIN_EXE_claveld");
    world.run_with(&path, claveld, &evaluate).refused(1, "install bubblewrap");
    world.run_with(&path, claveld, &[&evaluate[..], &["--isolation", "none"]].concat()).good();
}
