//! Promise: the signing key can be kept from the process that evaluates and from its user: `claveld signer` has it, and signs a
//! publisher's documents and nothing else.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use clavel::model::{BinCount, BinDigests, FileDigest, Index, PublicKey};
use clavel::signers::Signers;
use clavel::trust::{KeyLocation, Signed, TrustedRoot};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::signer::Signer;
use crate::support::world::{Ran, World, until};

/// Numbers of users that no machine has.
const SIGNER: u32 = 61_001;
const CLAVELD: u32 = 61_002;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Replaces the key file in claveld's configuration by the signer.
fn use_signer(world: &World) {
    let text = world.read_file("claveld.toml");
    let text = text.replace("secret-key-file = \"claveld-1.secret\"", "secret-key-signer = \"signer.sock\"");
    world.write_file("claveld.toml", &text);
}

/// Runs a program with less rights: `setpriv` with these arguments.
fn with_less(world: &World, less: &[&str], command: &[&str]) -> Ran {
    world.run("setpriv", &[less, command].concat())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn claveld_publishes_with_a_key_that_its_user_cannot_read() {
    let world = World::new();
    // Only root can change the owner of a file.
    if !is_root() {
        return;
    }
    let key = world.at("claveld-1.secret");
    set_mode(&world.path(""), 0o711);
    set_mode(&world.path("claveld-1.secret"), 0o400);
    chown(&key, Some(SIGNER), Some(SIGNER)).unwrap();
    let signer = Signer::activate(&world, SIGNER);
    set_mode(&world.path("signer.sock"), 0o600);
    use_signer(&world);
    until("the signer has its key", || signer.said().contains("signing with claveld-1:"));

    // A superuser without capabilities is a user like any other. It owns the store, so it can evaluate. The one that is left is for
    // the cage, since the kernel asks for it to make a namespace with the user 0.
    let no_rights = ["--bounding-set=-all,+setfcap", "--inh-caps=-all"];
    with_less(&world, &no_rights, &["cat", &key]).refused(1, "Permission denied");
    let config = world.at("claveld.toml");
    let once = [env!("CARGO_BIN_EXE_claveld"), "once", "--config", &config];
    with_less(&world, &no_rights, &once).good();
    world.verify().good();
    assert_eq!(world.document("index.json")["version"], 1);

    // Another user signs a hold, which needs no evaluation.
    for path in ["fleet.git", "claveld", "signer.sock"] {
        world.run("chown", &["-R", &CLAVELD.to_string(), &world.at(path)]).good();
    }
    let number = CLAVELD.to_string();
    let claveld = ["--reuid", &number, "--regid", &number, "--clear-groups"];
    with_less(&world, &claveld, &["cat", &key]).refused(1, "Permission denied");
    let hold = [env!("CARGO_BIN_EXE_clavel"), "hold", "web-1", "--config", &config];
    with_less(&world, &claveld, &hold).good();
    // Git refuses the repository of another user.
    world.run("chown", &["-R", "0", &world.at("fleet.git")]).good();
    world.verify().good();
    assert_eq!(world.document("index.json")["version"], 2);

    // No other process of the signer's user can look into it.
    let number = SIGNER.to_string();
    let same_user = ["--reuid", &number, "--regid", &number, "--clear-groups"];
    let memory = format!("/proc/{}/maps", signer.id());
    with_less(&world, &same_user, &["cat", &memory]).refused(1, "Permission denied");
    let limits = fs::read_to_string(format!("/proc/{}/limits", signer.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
}

/// A string as SSH writes it, after its length.
fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// A request to sign `message` with the key of these bytes.
fn request(key: &[u8], message: impl AsRef<[u8]>) -> Vec<u8> {
    let blob = [string("ssh-ed25519"), string(key)].concat();
    string([vec![13], string(blob), string(message), vec![0; 4]].concat())
}

/// The bytes that a signature of `signed` is over (DSSE).
fn to_sign(signed: &Value, kind: &str) -> String {
    let text = signed.to_string();
    let kind = format!("application/vnd.clavel.{kind}.v1+json");
    format!("DSSEv1 {} {kind} {} {text}", kind.len(), text.len())
}

const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

#[test]
fn it_signs_the_documents_of_a_publisher_with_its_own_key_and_nothing_else() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    let signer = Signer::start(&world);
    assert_eq!(fs::metadata(world.path("signer.sock")).unwrap().mode() & 0o777, 0o600);
    let public: PublicKey = world.public_key("claveld-1").parse().unwrap();
    let key = public.bytes();

    let deployment = world.document("deployments/web-1.json");
    let good = request(key, to_sign(&deployment, "deployment"));
    let answer = signer.ask(&good, 4 + 88);
    assert_eq!(answer[..5], [0, 0, 0, 88, 14]);
    assert!(!signer.said().contains("refused"), "{}", signer.said());
    // OpenSSH's client lists the key.
    let socket = world.at("signer.sock");
    let listed = world.run_with(&[("SSH_AUTH_SOCK", &socket)], "ssh-add", &["-L"]).good();
    assert!(listed.starts_with("ssh-ed25519 ") && listed.trim().ends_with(" claveld-1"), "{listed}");
    world.run_with(&[("SSH_AUTH_SOCK", &socket)], "ssh-add", &["-D"]).refused(1, "");

    let root: Value = serde_json::from_str(&world.read_file("root.json")).unwrap();
    let approval = json!({ "kind": "Approval" });
    let mut reordered = to_sign(&deployment, "deployment");
    reordered.push(' ');
    for (bad, why) in [
        (request(key, to_sign(&root["signed"], "root")), "this has the type `application/vnd.clavel.root.v1+json`"),
        (request(key, to_sign(&root["signed"], "deployment")), "no valid Deployment"),
        (request(key, to_sign(&approval, "approval")), "this has the type `application/vnd.clavel.approval.v1+json`"),
        (request(key, to_sign(&deployment, "unit")), "no valid Unit"),
        (request(key, reordered), "not in the one form"),
        (request(key, "SSHSIG\0\0\0\x06clavel"), "no document of Clavel"),
        (request(key, ""), "no document of Clavel"),
        (request(&[7; 32], to_sign(&deployment, "deployment")), "the signature of another key"),
        (request(&[7; 31], to_sign(&deployment, "deployment")), "its key has another length"),
        (string([13, 0xff, 0xff, 0xff, 0xff]), "no request that a signer answers"),
        (string([19]), "it is message number 19"),
        (string(""), "it is empty"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "a message is 1195725856 bytes long, and at most 1048576 are allowed"),
        (vec![0xff; 100_000], "a message is 4294967295 bytes long"),
    ] {
        let before = signer.said().len();
        assert_eq!(signer.ask(&bad, 5), FAILURE, "{why}");
        until("it is in the log", || signer.said()[before..].contains(why));
    }
    // A client that goes away in the middle.
    let before = signer.said().len();
    drop(std::io::Write::write(&mut signer.connect(), &[0, 0, 1, 0, 13]));
    until("it is in the log", || signer.said()[before..].contains("the connection failed"));
    // After all of that, it signs as before. A signature of ed25519 has no chance in it.
    assert_eq!(signer.ask(&good, 4 + 88), answer);
}

#[test]
fn the_index_of_the_largest_fleet_is_signed_as_a_whole() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    let _signer = Signer::start(&world);
    let signers = Signers::read(&[KeyLocation::Signer(world.path("signer.sock"))]).unwrap();
    let mut index: Index = serde_json::from_value(world.document("index.json")).unwrap();
    let most = BinCount::every().last().unwrap();
    index.bins = BinDigests::of(most, |bin| FileDigest::of(bin.to_string().as_bytes()));
    let fleet = index.fleet;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signed = runtime.block_on(signers.sign(index)).unwrap();
    assert!(signed.to_be_signed().len() > 300 << 10);
    let root = TrustedRoot::given(&fs::read(world.root()).unwrap()).unwrap();
    Signed::<Index>::verify_file(&signed.render(), fleet, root.publisher()).unwrap();
    // A plain signature, and not that of a digest, which would not tell the signer what it signs.
    let file: Value = serde_json::from_slice(&signed.render()).unwrap();
    assert_eq!(file["signatures"][0]["sig"].as_str().unwrap().len(), 88);
}

#[test]
fn connections_that_say_nothing_keep_nobody_from_signing() {
    let world = World::new();
    let signer = Signer::start(&world);
    use_signer(&world);
    let mut idle: Vec<_> = (0..400).map(|_| signer.connect()).collect();
    world.publish().good();
    world.verify().good();
    for stream in &mut idle {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    // Nor do those that begin a request, and do not end it.
    let mut begun: Vec<_> = (0..8).map(|_| signer.connect()).collect();
    for stream in &mut begun {
        stream.write_all(&[0, 0]).unwrap();
    }
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    world.publish().good();
    for stream in &mut begun {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
    assert!(signer.said().contains("the connection was still open after"), "{}", signer.said());
}

#[test]
fn a_signer_that_was_killed_is_reported_and_the_branch_stays() {
    let world = World::new();
    let signer = Signer::start(&world);
    use_signer(&world);
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the fleet is published", || claveld.said().contains("published as index version 1"));
    drop(signer);
    let tip = world.tip();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("greet");
    until("claveld says it", || claveld.said().contains("cannot talk to the signer at"));
    assert_eq!(world.tip(), tip);
    assert!(!claveld.has_ended());
    world.verify().good();
    world.publish().refused(3, "does `claveld signer` run?");

    // The next signer replaces the socket that the killed one left.
    let _signer = Signer::start(&world);
    world.edit("hosts/web-1.nix", "Hello", "Good day");
    world.push("greet again");
    until("the change is published", || claveld.said().contains("published as index version 2"));
    world.verify().good();
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}

#[test]
fn a_signer_takes_no_place_that_is_not_free() {
    let world = World::new();
    let (key, socket) = (world.at("claveld-1.secret"), world.at("signer.sock"));
    let signer = |arguments: &[&str]| world.claveld(&[&["signer"], arguments].concat());
    signer(&["--secret-key-file", &key]).refused(3, "there is no socket: systemd passed none");
    signer(&["--socket", &socket]).refused(2, "--secret-key-file");
    signer(&["--secret-key-credential", "key", "--socket", &socket]).refused(3, "CREDENTIALS_DIRECTORY is not set");
    world.write_file("signer.sock", "a file");
    signer(&["--secret-key-file", &key, "--socket", &socket]).refused(3, "something that is no socket is there");
    assert_eq!(world.read_file("signer.sock"), "a file");
    fs::remove_file(&socket).unwrap();
    let _running = Signer::start(&world);
    signer(&["--secret-key-file", &key, "--socket", &socket]).refused(3, "another process listens there");
    set_mode(Path::new(&key), 0o440);
    let other = world.at("other.sock");
    signer(&["--secret-key-file", &key, "--socket", &other]).refused(3, "can be read by others");
    assert!(!Path::new(&other).exists());
}

#[test]
fn the_status_says_which_process_has_the_key() {
    let world = World::new();
    let status = |more: &[&str]| world.claveld(&[&["status", "--config", &world.at("claveld.toml")], more].concat());
    let said = status(&[]).good();
    assert!(said.contains("claveld-1.secret, read by claveld itself, which evaluates as the same user"), "{said}");
    assert_eq!(status(&["--json"]).json()["keys"][0]["kind"], "claveld");
    use_signer(&world);
    let said = status(&[]).good();
    assert!(said.contains(&format!("key         in the signer at {}", world.at("signer.sock"))), "{said}");
    assert_eq!(status(&["--json"]).json()["keys"][0]["kind"], "signer");
}

#[test]
fn the_units_of_the_signer_are_valid_and_the_service_is_confined() {
    let world = World::new();
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    for unit in ["claveld-signer.service", "claveld-signer.socket"] {
        let text = fs::read_to_string(systemd.join(unit)).unwrap();
        world.write_file(unit, &text.replace("/usr/local/bin/claveld", env!("CARGO_BIN_EXE_claveld")));
    }
    let (service, socket) = (world.at("claveld-signer.service"), world.at("claveld-signer.socket"));
    let ran = world.run("systemd-analyze", &["verify", "--man=no", &service, &socket]).also_good();
    assert_eq!(ran.stderr, "");
    // From 0, nothing to reach, to 10. The threshold is in tenths.
    world.run("systemd-analyze", &["security", "--offline=yes", "--threshold=10", &service]).good();
}
