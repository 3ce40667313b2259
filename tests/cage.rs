//! Promise: a flake that is evaluated reads nothing but the store, reaches nothing, and writes nothing but its own derivations.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use crate::support::nix_daemon::{Member, claveld_beside_a_nix_daemon};
use crate::support::world::{Ran, World, names};

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
    attempts.push(("a program of a repository", repository_with_a_program(&world)));
    Prize { world, secrets, attempts, service, started }
}

/// Puts a repository into the source whose configuration names a program for the content of its files. Returns the expression that
/// fetches it.
fn repository_with_a_program(world: &World) -> String {
    let evil = world.at("evil");
    world.git(&["init", "-q", &evil]);
    world.write_file("evil/text", "harmless");
    world.write_file("evil/.gitattributes", "text filter=evil\n");
    world.git(&["-C", &evil, "add", "-A"]);
    world.git(&["-C", &evil, "commit", "-q", "-m", "Evil"]);
    let revision = world.git(&["-C", &evil, "rev-parse", "HEAD"]);
    world.git(&["-C", &evil, "config", "filter.evil.smudge", "echo found a program"]);
    world.run("tar", &["-C", &world.at(""), "-czf", &world.at("work/evil.tar.gz"), "evil"]).good();
    world.git(&["-C", &world.at("work"), "add", "-A"]);
    let hash = world.run("nix", &["hash", "path", "--base32", &evil]).good();
    format!(
        "(let tree = builtins.fetchTarball {{ url = \"file://${{builtins.unsafeDiscardStringContext (toString ./.)}}/evil.tar.gz\"; sha256 = \"{}\"; }};
          in builtins.readFile (builtins.fetchGit {{ url = \"file://${{builtins.unsafeDiscardStringContext tree}}\"; rev = \"{}\"; }} + \"/text\"))",
        hash.trim(),
        revision.trim()
    )
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
fn a_daemon_of_nix_writes_what_the_hosts_need_and_helps_no_flake() {
    for knows in [Knows::Nothing, Knows::TheHashes] {
        let prize = prize(knows);
        prize.attack();
        prize.world.edit(
            "flake.nix",
            "nixosConfigurations.h0 =",
            "nixosConfigurations.good = import ./lib/host.nix { system = \"x86_64-linux\"; } ./hosts/web-1.nix;
            nixosConfigurations.h0 =",
        );
        let flake = format!("path:{}", prize.world.at("work"));
        let ran = claveld_beside_a_nix_daemon(&prize.world, Member::Yes, &["evaluate", &flake, "--json"]);
        let found: serde_json::Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stderr));
        assert_eq!(names(&found, "deployments"), ["good"], "{found:#}");
        assert_eq!(found["failures"].as_array().unwrap().len(), prize.attempts.len(), "{found:#}");
        prize.found_nothing(&ran);
    }
}

#[test]
fn a_user_who_may_not_use_the_daemon_of_nix_is_told_which_group_may() {
    let world = World::new();
    let flake = format!("path:{}", world.at("work"));
    let ran = claveld_beside_a_nix_daemon(&world, Member::No, &["evaluate", &flake]);
    ran.refused(1, "it is for the group `nix-users`; add the user to that group");
    claveld_beside_a_nix_daemon(&world, Member::Yes, &["evaluate", &flake]).good();
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
    // Forms of a URL that programs read in different ways.
    for (fetcher, url) in [
        ("file", format!("file:{}", prize.world.at("vault/key"))),
        ("git", format!("git+file:{}", prize.world.at("other"))),
    ] {
        let x = serde_json::json!({ "type": fetcher, "url": url, "narHash": tree.trim() });
        let lock = serde_json::json!({ "root": "root", "version": 7, "nodes": {
            "root": { "inputs": { "x": "x" } }, "x": { "flake": false, "original": x, "locked": x },
        } });
        prize.world.write("flake.lock", &lock.to_string());
        let ran = evaluated();
        assert_ne!(ran.code, Some(0), "{url}");
        prize.found_nothing(&ran);
    }
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
