//! Changes a binary cache as a thief of its key can: puts other content under a path, and signs it with the stolen key.

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::world::World;

/// The file of the narinfo of `path` in the cache `folder` of the world.
pub(crate) fn narinfo(folder: &str, path: &str) -> String {
    let hash = path["/nix/store/".len()..].split('-').next().unwrap();
    format!("{folder}/{hash}.narinfo")
}

/// Replaces `from` by `to`, which has the same length, in the content that the cache `folder` has under `path`, and signs it
/// with the stolen `key`.
pub(crate) fn forge(world: &World, folder: &str, path: &str, (from, to): (&str, &str), key: &str) {
    assert_eq!(from.len(), to.len(), "an archive says how long its files are");
    let store = format!("file://{}", world.at(folder));
    let dumped = world.command("nix", &["store", "dump-path", "--store", &store, path]).output().unwrap();
    assert!(dumped.status.success(), "{}", String::from_utf8_lossy(&dumped.stderr));
    let mut archive = dumped.stdout;
    let places: Vec<usize> =
        archive.windows(from.len()).enumerate().filter(|(_, w)| *w == from.as_bytes()).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "{path} has no {from}");
    for at in places {
        archive[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    let hash = format!("sha256:{}", nix_derivation::nixbase32::encode(&Sha256::digest(&archive)));
    let url = format!("nar/{}.nar", &hash["sha256:".len()..]);
    std::fs::write(world.path(&format!("{folder}/{url}")), &archive).unwrap();
    let size = archive.len();
    let entry = narinfo(folder, path);
    let line = |line: &str| match line.split(": ").next() {
        Some("URL") => Some(format!("URL: {url}\n")),
        Some("Compression") => Some("Compression: none\n".to_owned()),
        Some("FileHash") => Some(format!("FileHash: {hash}\n")),
        Some("NarHash") => Some(format!("NarHash: {hash}\n")),
        Some("FileSize") => Some(format!("FileSize: {size}\n")),
        Some("NarSize") => Some(format!("NarSize: {size}\n")),
        Some("Sig") => None,
        _ => Some(format!("{line}\n")),
    };
    let text: String = world.read_file(&entry).lines().filter_map(line).collect();
    world.write_file(&entry, &text);
    let key = world.at(&format!("{key}.secret"));
    world.run("nix", &["store", "sign", "--store", &store, "--key-file", &key, path]).good();
    assert!(world.read_file(&entry).contains("Sig: "), "the thief's signature is there");
}

/// The closure of `path`, as this machine's Nix has it: each path with its hash and size.
pub(crate) fn closure(world: &World, path: &str) -> Vec<(String, String, String)> {
    let query = |what: &str, path: &str| world.run("nix-store", &["--query", what, path]).good().trim().to_owned();
    let entry = |path: &str| {
        let hash = query("--hash", path);
        let bytes = nix_derivation::nixbase32::decode(hash.trim_start_matches("sha256:").as_bytes()).unwrap();
        let sri = format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(bytes));
        (path.to_owned(), sri, query("--size", path))
    };
    query("--requisites", path).lines().map(entry).collect()
}
