//! Promise: keys in files, in systemd's credentials, in an ssh-agent and of OpenSSH sign; Clavel verifies OpenSSH's signatures
//! and OpenSSH verifies Clavel's; and a signer that lies, refuses or is absent is reported.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clavel::model::{Approval, BinCount, BinDigests, Deployment, Epoch, FileDigest, Index, PublicKey, RoleKey};
use clavel::signers::Signers;
use clavel::trust::{KeyLocation, Signed, SshSignature, TrustedRoot, digest};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use crate::support::openssh::{SshAgent, new_key};
use crate::support::world::World;

/// Replaces the key file in claveld's configuration by these keys.
fn sign_with(world: &World, keys: &str) {
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &text.replace("secret-key-file = \"claveld-1.secret\"", keys));
}

/// Loads claveld's key into an ssh-agent, and removes its file.
fn in_an_agent(world: &World) -> SshAgent {
    let public = world.public_key("claveld-1");
    let agent = SshAgent::start(world);
    world.clavel(&["key", "to-ssh", &world.at("claveld-1.secret"), "--output", &world.at("claveld-1")]).good();
    agent.add(world, &["-q", &world.at("claveld-1")]).good();
    std::fs::remove_file(world.path("claveld-1")).unwrap();
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    let table = format!("secret-key-agent = {{ socket = \"agent.sock\", public-key = \"{public}\" }}");
    sign_with(world, &table);
    agent
}

/// The bytes that a signature of `file` is over (DSSE).
fn signed_bytes(file: &str, kind: &str) -> String {
    let signed = serde_json::from_str::<Value>(file).unwrap()["signed"].to_string();
    let kind = format!("application/vnd.clavel.{kind}.v1+json");
    format!("DSSEv1 {} {kind} {} {signed}", kind.len(), signed.len())
}

#[test]
fn what_ssh_keygen_signs_makes_a_root_and_comes_back_as_it_was() {
    let world = World::new();
    let key = new_key(&world, "ed25519", "bob@laptop");
    for made in ["root.json", "root-1.secret"] {
        std::fs::remove_file(world.path(made)).unwrap();
    }
    let public = format!("{key}.pub");
    let publisher = world.at("claveld-1.secret");
    let init = ["init", &world.at(""), "--publisher-key", &publisher, "--root-key", &public];
    assert!(world.clavel(&init).good().contains("The root does not count yet"));
    // With enough signatures, the command prints the next steps.
    let said = world.clavel(&["root", "sign", &world.root(), "--ssh-key", &key]).good();
    assert!(said.contains(&format!("root = \"{}\"", world.fleet())) && said.contains("`claveld once`"), "{said}");
    world.publish().good();
    world.verify().good();

    // The signature in the document is one that ssh-keygen itself verifies.
    let root = world.read_file("root.json");
    let document: Value = serde_json::from_str(&root).unwrap();
    let signature = &document["signatures"][0];
    assert_eq!(signature["keyid"], "bob@laptop");
    let body = signature["sig"].as_str().unwrap();
    let armored = format!("-----BEGIN SSH SIGNATURE-----\n{body}\n-----END SSH SIGNATURE-----\n");
    world.write_file("sig", &armored);
    world.write_file("signed", &signed_bytes(&root, "root"));
    let line = world.read_file("bob@laptop.pub");
    world.write_file("allowed", &format!("bob@laptop namespaces=\"clavel\" {line}"));
    let verify = format!(
        "ssh-keygen -Y verify -n clavel -f {} -I bob@laptop -s {} < {}",
        world.at("allowed"),
        world.at("sig"),
        world.at("signed")
    );
    world.run("sh", &["-c", &verify]).good();

    // A signature in another namespace, or over other bytes, does not count.
    let sign = |namespace: &str, message: &str| {
        world.write_file("message", message);
        let _ = std::fs::remove_file(world.path("message.sig"));
        world.run("ssh-keygen", &["-q", "-Y", "sign", "-n", namespace, "-f", &key, &world.at("message")]).good();
        let armored = world.read_file("message.sig");
        armored.lines().filter(|line| !line.starts_with('-')).collect::<String>()
    };
    let message = signed_bytes(&root, "root");
    let with = |signature: &str| {
        world.write_file("other.json", &root.replace(body, signature));
        world.clavel(&["verify", "--repository", &world.at("fleet.git"), "--root", &world.at("other.json")])
    };
    with(&sign("clavel", &message)).good();
    with(&sign("file", &message)).refused(3, "it was made for `file`");
    with(&sign("clavel", &format!("{message} "))).refused(3, "no valid signature by a trusted key");
    let blob = STANDARD.decode(body).unwrap();
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    with(&STANDARD.encode(flipped)).refused(3, "no valid signature by a trusted key");
    with(&STANDARD.encode([blob, vec![0]].concat())).refused(3, "not in the one encoding that ssh-keygen writes");
    with(body.trim_end_matches('=').split_at(8).1).refused(3, "neither the base64");
}

#[test]
fn keys_of_another_kind_are_refused_and_no_secret_is_shown() {
    let world = World::new();
    for kind in ["rsa", "ecdsa"] {
        let key = new_key(&world, kind, kind);
        let public = format!("{key}.pub");
        world.clavel(&["init", &world.at("x"), "--root-key", &public]).refused(3, "only ssh-ed25519");
        world.clavel(&["root", "sign", &world.root(), "--ssh-key", &key]).refused(3, "only ssh-ed25519");
    }
    let key = new_key(&world, "ed25519", "bob");
    let secret = world.read_file("bob");
    let line = secret.lines().nth(2).unwrap();
    world.clavel(&["init", &world.at("x"), "--root-key", &key]).refused_without(3, "secret key of OpenSSH", line);
    world.clavel(&["init", &world.at("x"), "--root-key", &secret]).refused_without(3, "secret key of OpenSSH", line);
    world.clavel(&["key", "public", &key]).refused_without(3, "holds no secret key", line);
    // The public half is accepted, under the name in its comment or under a given name.
    let public = world.clavel(&["key", "public", &format!("{key}.pub")]).good();
    assert!(public.starts_with("bob:"), "{public}");
    let renamed = world.clavel(&["key", "public", &format!("robert={key}.pub")]).good();
    assert_eq!(renamed, public.replacen("bob:", "robert:", 1));
    std::fs::remove_file(world.path("bob.pub")).unwrap();
    world.clavel(&["root", "sign", &world.root(), "--ssh-key", &key]).refused(3, "ssh-keygen -y -f");
}

#[test]
fn a_key_of_clavel_is_one_of_openssh_and_signs_from_an_agent() {
    let world = World::new();
    world.clavel(&["key", "to-ssh", &world.at("claveld-1.secret"), "--output", &world.at("as-ssh")]).good();
    let public = world.run("ssh-keygen", &["-y", "-f", &world.at("as-ssh")]).good();
    world.write_file("as-ssh.pub", &public);
    assert_eq!(world.clavel(&["key", "public", &world.at("as-ssh.pub")]).good().trim(), world.public_key("claveld-1"));
    let _agent = in_an_agent(&world);
    world.publish().good();
    world.verify().good();
}

#[test]
fn an_agent_signs_the_digest_of_what_is_too_large_for_it() {
    let world = World::new();
    world.publish().good();
    let key: PublicKey = world.public_key("claveld-1").parse().unwrap();
    let _agent = in_an_agent(&world);
    let socket = world.path("agent.sock");
    let signers = Signers::read(&[KeyLocation::SshAgent { socket, key: key.clone() }]).unwrap();
    let mut index: Index = serde_json::from_value(world.document("index.json")).unwrap();
    // The index of the largest fleets.
    let most = BinCount::every().last().unwrap();
    index.bins = BinDigests::of(most, |bin| FileDigest::of(bin.to_string().as_bytes()));
    let fleet = index.fleet;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let signed = runtime.block_on(signers.sign(index)).unwrap();
    assert!(signed.to_be_signed().len() > 300 << 10);
    let file: Value = serde_json::from_slice(&signed.render()).unwrap();
    // "U1NIU0lH" is "SSHSIG". A small document is signed as it is, in 64 bytes.
    assert!(file["signatures"][0]["sig"].as_str().unwrap().starts_with("U1NIU0lH"));
    let root = TrustedRoot::given(&std::fs::read(world.root()).unwrap()).unwrap();
    Signed::<Index>::verify_file(&signed.render(), fleet, root.publisher()).unwrap();
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("greet");
    world.publish().good();
    let deployment: Value = serde_json::from_str(&world.on_branch("deployments/web-1.json").unwrap()).unwrap();
    assert_eq!(deployment["signatures"][0]["sig"].as_str().unwrap().len(), 88);
    world.verify().good();
}

#[test]
fn an_agent_that_is_locked_absent_or_without_the_key_signs_nothing() {
    let world = World::new();
    let agent = in_an_agent(&world);
    agent.lock(&world, "-x");
    world.publish().refused(3, "does not sign with `claveld-1`: it is locked");
    agent.lock(&world, "-X");
    agent.add(&world, &["-q", "-D"]).good();
    world.publish().refused(3, "it does not have that key");
    drop(agent);
    world.publish().refused(3, "cannot talk to the ssh-agent at");
    assert_eq!(world.tip(), "");
}

#[test]
fn an_agent_that_lies_signs_nothing() {
    let world = World::new();
    let public = world.public_key("claveld-1");
    let signature = |algorithm: &[u8], bytes: &[u8]| {
        let blob = [string(algorithm), string(bytes)].concat();
        string([vec![14], string(&blob)].concat())
    };
    for (number, (answer, why)) in [
        (signature(b"ssh-ed25519", &[0; 64]), "not a valid signature of this by the key `claveld-1`"),
        (signature(b"ssh-ed25519", &[7; 65]), "another length"),
        (signature(b"ssh-rsa", &[7; 64]), "it has the algorithm `ssh-rsa`"),
        (string([6]), "it is message number 6"),
        (vec![0xff; 4], "bytes long"),
        (vec![0, 0, 0, 9, 14], "cannot talk to the ssh-agent"),
        (Vec::new(), "cannot talk to the ssh-agent"),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = world.at(&format!("liar-{number}"));
        let listener = UnixListener::bind(&socket).unwrap();
        let liar = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
        });
        world.configure_claveld("");
        sign_with(&world, &format!("secret-key-agent = {{ socket = \"{socket}\", public-key = \"{public}\" }}"));
        world.publish().refused(3, why);
        liar.join().unwrap();
    }
    assert_eq!(world.tip(), "");
}

#[test]
fn two_publishers_sign_together_and_one_alone_does_not() {
    let world = World::new();
    world.clavel(&["key", "generate", "claveld-2", "--output", &world.at("claveld-2.secret")]).good();
    for made in ["root.json", "root-1.secret"] {
        std::fs::remove_file(world.path(made)).unwrap();
    }
    let (one, two) = (world.at("claveld-1.secret"), world.at("claveld-2.secret"));
    let init = ["init", &world.at(""), "--publisher-key", &one, "--publisher-key", &two, "--publisher-threshold", "2"];
    world.clavel(&init).good();
    world.publish().refused(3, "2 keys have to sign");
    assert_eq!(world.tip(), "");
    sign_with(&world, "secret-key-file = \"claveld-1.secret\"\nsecret-key-credential = \"second\"");
    // The program runs outside of a systemd service.
    world.publish().refused(3, "CREDENTIALS_DIRECTORY is not set");
    // Systemd gives the service an access control list, which shows as a right of the group.
    world.write_file("credentials/second", &world.read_file("claveld-2.secret"));
    let credentials = world.at("credentials");
    let publish = |mode| {
        std::fs::set_permissions(world.path("credentials/second"), PermissionsExt::from_mode(mode)).unwrap();
        let (variables, config) = ([("CREDENTIALS_DIRECTORY", credentials.as_str())], world.at("claveld.toml"));
        world.run_with(&variables, env!("CARGO_BIN_EXE_claveld"), &["once", "--config", &config])
    };
    publish(0o444).refused(3, "can be read by others");
    publish(0o440).good();
    world.verify().good();
    let index: Value = serde_json::from_str(&world.on_branch("index.json").unwrap()).unwrap();
    assert_eq!(index["signatures"].as_array().unwrap().len(), 2);
    // One key given twice does not count as two.
    world.write_file("credentials/second", &world.read_file("claveld-1.secret"));
    publish(0o400).refused(3, "two of the keys to sign with are called `claveld-1`");
}

/// A string as SSH writes it, after its length.
fn string(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// An authenticator with its key in memory: a second implementation of OpenSSH's PROTOCOL.u2f and PROTOCOL.sshsig.
struct Authenticator(SigningKey);

impl Authenticator {
    const ALGORITHM: &str = "sk-ssh-ed25519@openssh.com";

    fn public(&self) -> Vec<u8> {
        [string(Self::ALGORITHM), string(self.0.verifying_key().as_bytes()), string("ssh:")].concat()
    }

    /// The line of its public key.
    fn line(&self, name: &str) -> String {
        format!("{} {} {name}", Self::ALGORITHM, STANDARD.encode(self.public()))
    }

    /// The armoured signature, made with these flags.
    fn sign(&self, flags: u8, message: &[u8]) -> String {
        let hash = [string("clavel"), string(""), string("sha512"), string(Sha512::digest(message))].concat();
        let asked = [b"SSHSIG".as_slice(), &hash].concat();
        let tail = [&[flags], 7_u32.to_be_bytes().as_slice()].concat();
        let signed = [Sha256::digest("ssh:").as_slice(), &tail, Sha256::digest(asked).as_slice()].concat();
        let signature = [string(Self::ALGORITHM), string(self.0.sign(&signed).to_bytes()), tail].concat();
        let blob = [
            b"SSHSIG\0\0\0\x01".to_vec(),
            string(self.public()),
            string("clavel"),
            string(""),
            string("sha512"),
            string(signature),
        ];
        let text = STANDARD.encode(blob.concat());
        let lines: Vec<&str> = text.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    }
}

#[test]
fn a_signature_by_a_hardware_key_counts_as_it_does_for_ssh_keygen() {
    let world = World::new();
    let authenticator = Authenticator(SigningKey::from_bytes(&[9; 32]));
    let line = authenticator.line("alice");
    for made in ["root.json", "root-1.secret"] {
        std::fs::remove_file(world.path(made)).unwrap();
    }
    let publisher = world.at("claveld-1.secret");
    let init =
        ["init", &world.at(""), "--publisher-key", &publisher, "--approver-key", &line, "--approvals", "web-1=1"];
    world.clavel(&init).good();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    assert!(world.agent("web-1", &["once"]).good().contains("alice may give one"));

    let deployment = world.document("deployments/web-1.json");
    let content = digest(deployment.to_string().as_bytes());
    let deployment: Deployment = serde_json::from_value(deployment).unwrap();
    let mut signed = Signed::unsigned(Approval::of(&deployment, content, Epoch::FIRST));
    let message = signed.to_be_signed();
    assert!(SshSignature::from_armor(&authenticator.sign(0, &message)).is_err());
    let armored = authenticator.sign(1, &message);
    let key: RoleKey = line.parse().unwrap();
    signed.add_ssh(&key, SshSignature::from_armor(&armored).unwrap()).unwrap();

    world.write_file("sig", &armored);
    world.write_file("allowed", &format!("alice namespaces=\"clavel\" {line}"));
    std::fs::write(world.path("signed"), &message).unwrap();
    let (allowed, sig, message) = (world.at("allowed"), world.at("sig"), world.at("signed"));
    let verify = format!("ssh-keygen -Y verify -n clavel -f {allowed} -I alice -s {sig} < {message}");
    world.run("sh", &["-c", &verify]).good();

    let file = String::from_utf8(signed.render()).unwrap();
    world.tamper(&BTreeMap::from([("approvals/web-1/alice.json", Some(file))]));
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
}
