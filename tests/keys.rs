//! Promise: Clavel uses Nix's keys and Nix uses Clavel's, and a secret key that others can read is refused.

use std::os::unix::fs::PermissionsExt;

use crate::support::world::{World, until};

#[test]
fn keys_of_nix_are_keys_of_clavel_and_the_other_way_round() {
    let world = World::new();
    let secret = world.run("nix", &["key", "generate-secret", "--key-name", "by-nix-1"]).good();
    world.write_file("by-nix-1.secret", &secret);
    std::fs::set_permissions(world.path("by-nix-1.secret"), PermissionsExt::from_mode(0o600)).unwrap();
    let public = |secret: &str| {
        world.write_file("nix-reads", secret);
        world.run("sh", &["-c", &format!("nix key convert-secret-to-public < {}", world.at("nix-reads"))]).good()
    };
    assert_eq!(world.public_key("by-nix-1"), public(&secret));
    assert_eq!(world.public_key("claveld-1"), public(&world.read_file("claveld-1.secret")));

    world
        .run("nix-store", &["--generate-binary-cache-key", "old-1", &world.at("old-1.secret"), &world.at("old-1.pub")])
        .good();
    std::fs::set_permissions(world.path("old-1.secret"), PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(world.public_key("old-1"), world.read_file("old-1.pub").trim());

    // Claveld signs with Nix's key, and an agent accepts the signature.
    std::fs::copy(world.path("by-nix-1.secret"), world.path("claveld-1.secret")).unwrap();
    std::fs::remove_file(world.path("root.json")).unwrap();
    std::fs::remove_file(world.path("root-1.secret")).unwrap();
    world.clavel(&["init", &world.at(""), "--publisher-key", &world.at("by-nix-1.secret")]).good();
    world.publish().good();
    world.verify().good();
}

#[test]
fn a_secret_that_others_can_read_is_refused_by_everybody() {
    let world = World::new();
    std::fs::set_permissions(world.path("claveld-1.secret"), PermissionsExt::from_mode(0o644)).unwrap();
    world.publish().refused(3, "can be read by others (mode 0644)");
    world.clavel(&["key", "public", &world.at("claveld-1.secret")]).refused(3, "chmod 600");
    assert_eq!(world.tip(), "");
}

#[test]
fn a_key_of_the_wrong_kind_is_told_and_never_shown() {
    let world = World::new();
    let public = world.public_key("claveld-1");
    let secret = world.read_file("claveld-1.secret");
    world.write_file("claveld-1.secret", &public);
    std::fs::set_permissions(world.path("claveld-1.secret"), PermissionsExt::from_mode(0o600)).unwrap();
    world.publish().refused(3, "it is a public key; the secret one is 64 bytes long");
    world.write_file("claveld-1.secret", "-----BEGIN OPENSSH PRIVATE KEY-----");
    world.publish().refused(3, "holds no secret key");
    std::fs::remove_file(world.path("claveld-1.secret")).unwrap();
    world.publish().refused(3, "cannot read the secret key");
    // A secret key that is given in place of a public one must not be shown.
    world.clavel(&["init", &world.at("x"), "--publisher-key", &secret]).refused_without(
        3,
        "as long as a secret key",
        &secret[20..],
    );
    // Neither must its file, whole or cut off, nor a part of the key without its name.
    let (_, base64) = secret.trim().split_once(':').unwrap();
    for (text, why) in [
        (&*secret, "as long as a secret key"),
        (&secret[..60], "is not a public key"),
        (base64, "it has to be NAME:BASE64"),
    ] {
        world.write_file("wrong", text);
        let init = ["init", &world.at("x"), "--publisher-key", &world.at("wrong")];
        world.clavel(&init).refused_without(3, why, &base64[..20]);
        let init = ["init", &world.at("x"), "--publisher-key", text];
        world.clavel(&init).refused_without(3, why, &base64[..20]);
    }
    // A key of Nix whose name is the name of an algorithm of OpenSSH.
    world.write_file("wrong", &format!("ssh-1:{base64}\n# mine"));
    let init = ["init", &world.at("x"), "--publisher-key", &world.at("wrong")];
    world.clavel(&init).refused_without(3, "`ssh-1:…` is not a public key", &base64[..20]);
    // A text without a name is most likely a file that does not exist.
    world
        .clavel(&["init", &world.at("x"), "--publisher-key", "missing.pub"])
        .refused(3, "there is no file of that name");
    world.clavel(&["key", "public", secret.trim()]).refused_without(3, "claveld-1:…", &base64[..20]);
}

#[test]
fn a_key_of_another_user_is_refused_by_everybody() {
    let world = World::new();
    // Only root can change the owner of a file. A unit test checks the decision for every user.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    std::os::unix::fs::chown(world.path("claveld-1.secret"), Some(7), None).unwrap();
    world.publish().refused(3, "belongs to the user 7, and has to belong to the user 0");
    world.clavel(&["key", "public", &world.at("claveld-1.secret")]).refused(3, "belongs to the user 7");
    assert_eq!(world.tip(), "");
}

#[test]
fn a_key_is_read_only_from_a_pipe_of_the_same_user() {
    let world = World::new();
    let (key, pipe) = (world.at("claveld-1.secret"), world.at("pipe"));
    let public = world.public_key("claveld-1");
    let piped = format!("clavel key public <(cat {key})");
    assert_eq!(world.run("bash", &["-c", &piped]).good().trim(), public);
    // Nothing writes to the pipe. The program reports that and does not wait.
    world.run("mkfifo", &["-m", "600", &pipe]).good();
    world.clavel(&["key", "public", &pipe]).refused(3, "holds no secret key");
    std::fs::set_permissions(&pipe, PermissionsExt::from_mode(0o622)).unwrap();
    world.clavel(&["key", "public", &pipe]).refused(3, "can be read by others (mode 0622)");
    world.clavel(&["key", "public", "/dev/null"]).refused(3, "it is neither a file nor a pipe");
}

#[test]
fn programs_that_read_a_key_leave_no_core_dump() {
    let world = World::new();
    let run = format!("ulimit -c $(ulimit -H -c); exec claveld run --config {}", world.at("claveld.toml"));
    let claveld = world.start("sh", &["-c", &run]);
    let limit = || std::fs::read_to_string(format!("/proc/{}/limits", claveld.id())).unwrap();
    let of_cores = || limit().lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    until("claveld has begun, and dumps no core", || of_cores().split_whitespace().nth(4) == Some("0"));
}

#[test]
fn a_key_file_is_never_overwritten() {
    let world = World::new();
    let before = world.read_file("claveld-1.secret");
    world
        .clavel(&["key", "generate", "claveld-1", "--output", &world.at("claveld-1.secret")])
        .refused(3, "cannot write");
    assert_eq!(world.read_file("claveld-1.secret"), before);
}
