//! Promise: an agent reads the branch from a folder of plain files, by one small request where nothing is new; and a folder that is
//! damaged, forged, old or hostile changes nothing.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clavel::model::Sha256Digest;
use serde_json::Value;

use crate::support::http::{HttpServer, Transfer};
use crate::support::world::{Ran, World};

fn export(world: &World, more: &[&str]) -> Ran {
    let (folder, fleet, root) = (world.at("www/fleet"), world.at("fleet.git"), world.root());
    world.clavel(&[&["export", "--static", &folder, "--repository", &fleet, "--root", &root], more].concat())
}

/// A published and exported fleet, and a server of its folder, with `more` in nginx's configuration. The agent reads from there alone.
fn served(more: &str) -> (World, HttpServer) {
    let world = World::published();
    export(&world, &[]).good();
    let server = HttpServer::serve_files_with(&world.path("www"), more);
    world.configure_agent("web-1", &format!("static+{}/fleet/", server.url()), "");
    (world, server)
}

fn pass(world: &World) -> String {
    world.agent("web-1", &["once"]).good()
}

fn mirrors(world: &World) -> Value {
    world.agent("web-1", &["status", "--json"]).json()["lastPass"]["mirrors"].clone()
}

/// The path of an object in the folder of the world.
fn object(world: &World, sha256: &str) -> PathBuf {
    world.path(&format!("www/fleet/objects/{}/{}", &sha256[..2], &sha256[2..]))
}

fn hex(bytes: &[u8]) -> String {
    Sha256Digest::of(bytes).to_string()
}

/// The digest of a file of the branch.
fn digest(world: &World, path: &str) -> String {
    hex(world.on_branch(path).unwrap().as_bytes())
}

/// Reads an exported folder as a stranger who has docs/static-export.md would: every file that the tip leads to. Returns the version of the
/// index, and the number of files.
fn read_as_a_stranger(folder: &Path) -> (u64, usize) {
    let tip = std::fs::read(folder.join("tip")).unwrap();
    let end = tip.iter().position(|byte| *byte == b'\n').unwrap();
    let head: Value = serde_json::from_slice(&tip[..end]).unwrap();
    let index: Value = serde_json::from_slice(&tip[end + 1..]).unwrap();
    let mut files = 0;
    let mut get = |named: &Value| -> Vec<u8> {
        let sha256 = named["sha256"].as_str().unwrap();
        let bytes = std::fs::read(folder.join("objects").join(&sha256[..2]).join(&sha256[2..])).unwrap();
        assert_eq!((hex(&bytes).as_str(), bytes.len() as u64), (sha256, named["length"].as_u64().unwrap()));
        files += 1;
        bytes
    };
    let json = |bytes: Vec<u8>| serde_json::from_slice::<Value>(&bytes).unwrap();
    assert_eq!(head["format"], 1);
    json(get(&head["roots"])).as_array().unwrap().iter().for_each(|root| drop(get(root)));
    for bin in index["signed"]["bins"].as_object().unwrap().values() {
        let documents = json(get(bin))["documents"].clone();
        documents
            .as_object()
            .unwrap()
            .values()
            .flat_map(|names| names.as_object().unwrap().values())
            .for_each(|entry| drop(get(entry)));
    }
    for list in head["approvals"].as_object().into_iter().flat_map(|bins| bins.values()) {
        let list = json(get(list));
        list.as_object()
            .unwrap()
            .values()
            .flat_map(|of| of.as_object().unwrap().values())
            .for_each(|file| drop(get(file)));
    }
    (index["signed"]["version"].as_u64().unwrap(), files)
}

#[test]
fn a_poll_is_one_small_request_and_a_change_is_the_tip_a_bin_and_a_document() {
    let (world, server) = served("");
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
    let is_a_poll = |transfers: &[Transfer]| {
        let [Transfer { path, status, bytes, is_conditional: true, .. }] = transfers else { panic!("{transfers:#?}") };
        assert_eq!((path.as_str(), status.as_str()), ("/fleet/tip", "304"));
        assert!(*bytes < 2048, "{bytes} bytes");
    };
    let first = server.transfers();
    // The tip, the list of roots and the root, the bin, and the documents of the agent, its deployment and its unit; and after the switch
    // a poll, which shows that the folder can still be read.
    let (first, proof) = first.split_at(7);
    is_a_poll(proof);
    assert_eq!(pass(&world), "web-1: up to date at revision 1\n");
    is_a_poll(&server.transfers()[8..]);
    world.change_from_memory("Welcome", "Hello");
    export(&world, &[]).good();
    assert_eq!(pass(&world), "web-1: switched to revision 2\n");
    let changed = server.transfers()[9..].to_vec();
    let (changed, proof) = changed.split_at(3);
    is_a_poll(proof);
    let asked: Vec<&str> = changed.iter().map(|transfer| transfer.path.as_str()).collect();
    let at = |path: &str| {
        let sha256 = digest(&world, path);
        format!("/fleet/objects/{}/{}", &sha256[..2], &sha256[2..])
    };
    assert_eq!(asked, ["/fleet/tip", &at("index/all.json"), &at("deployments/web-1.json")]);
    for pass in [first, changed] {
        assert!(pass.iter().all(|transfer| transfer.status == "200" && transfer.connection == pass[0].connection));
    }
    let sum = |pass: &[Transfer]| pass.iter().map(|transfer| transfer.bytes).sum::<u64>();
    // With three machines; docs/static-export.md has the arithmetic for more.
    assert!(sum(first) < 10_000 && sum(changed) < 6_000, "{} and {} bytes", sum(first), sum(changed));
    assert_eq!(world.motd("web-1").as_deref(), Some("Hello to web-1"));
}

#[test]
fn servers_without_an_etag_with_neither_and_with_compression_are_read_as_well() {
    let gzip = "gzip on; gzip_types *; gzip_min_length 1;";
    for (more, statuses) in [("etag off;", "304"), ("etag off; add_header Last-Modified '';", "200"), (gzip, "304")] {
        let (world, server) = served(more);
        assert_eq!(pass(&world), "web-1: switched to revision 1\n", "{more}");
        let first = server.transfers().len();
        assert_eq!(pass(&world), "web-1: up to date at revision 1\n", "{more}");
        let polled = server.transfers()[first..].to_vec();
        let [Transfer { path, status, .. }] = &polled[..] else { panic!("{more}: {polled:#?}") };
        assert_eq!((path.as_str(), status.as_str()), ("/fleet/tip", statuses), "{more}");
    }
}

#[test]
fn a_private_folder_is_read_with_the_credentials_of_its_url() {
    const SECRET: &str = "dGhlIHN0YXRpYyB0b2tlbg";
    let world = World::published();
    export(&world, &[]).good();
    let server = HttpServer::serve_private_files(&world.path("www"), "git", SECRET);
    let url = format!("static+{}/fleet", server.url());
    world.configure_agent("web-1", &url, "");
    let ca = format!("ca-file = \"{}\"", server.certificate().display());
    let with = |more: &str| {
        let text = world.read_file("web-1.toml");
        let text = text.split("[[credentials]]").next().unwrap().to_owned();
        world.write_file("web-1.toml", &format!("{text}\n[[credentials]]\nurl = \"{}\"\n{ca}\n{more}\n", server.url()));
    };
    world.agent("web-1", &["once"]).refused(4, "certificate");
    with("");
    world.agent("web-1", &["once"]).refused(4, "HTTP status 401");
    world.write_file("token", &format!("{SECRET}x\n"));
    with("token-file = \"token\"");
    world.agent("web-1", &["once"]).refused_without(4, "HTTP status 401", SECRET);
    world.write_file("token", &format!("{SECRET}\n"));
    // A transfer that does not begin with the folder is of this test, which asks without TLS whether all is logged.
    let asked =
        || server.transfers().into_iter().filter(|transfer| transfer.path.starts_with("/fleet")).collect::<Vec<_>>();
    let before = asked().len();
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
    let asked: Vec<String> = asked()[before..].iter().map(|transfer| transfer.status.clone()).collect();
    assert_eq!(asked, [&["200"; 7][..], &["304"]].concat(), "the last one is the poll after the switch");
}

#[test]
fn the_newest_of_git_mirrors_and_static_folders_counts() {
    let (world, server) = served("");
    let (folder, url) = (format!("static+file://{}", world.at("www/fleet")), format!("static+{}/fleet", server.url()));
    let mirrors_line = format!("mirrors = [\"{url}\", \"{folder}\"]");
    world.configure_agent("web-1", &world.at("fleet.git"), &mirrors_line);
    let statuses = || {
        let mirrors = mirrors(&world);
        mirrors
            .as_array()
            .unwrap()
            .iter()
            .map(|mirror| mirror["status"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
    assert_eq!(statuses(), ["taken", "level", "level"]);
    world.change_from_memory("Welcome", "Hello");
    assert_eq!(pass(&world), "web-1: switched to revision 2\n");
    assert_eq!(statuses(), ["taken", "behind", "behind"]);
    // The folders alone are an old branch, which is refused.
    world.configure_agent("web-1", &url, &format!("mirrors = [\"{folder}\"]"));
    world.agent("web-1", &["once"]).refused(5, "went back");
    assert_eq!(statuses(), ["behind", "behind"]);
    export(&world, &[]).good();
    assert_eq!(pass(&world), "web-1: up to date at revision 2\n");
    assert_eq!(statuses(), ["taken", "level"]);
}

#[test]
fn whoever_verifies_and_lists_reads_the_folder_too() {
    let (world, server) = served("");
    let url = format!("static+{}/fleet", server.url());
    world.clavel(&["verify", "--repository", &url, "--root", &world.root()]).good();
    assert!(world.clavel(&["list", "--repository", &url, "--root", &world.root()]).good().contains("web-2"));
    let publish = ["root", "publish", &world.root(), "--repository", &url];
    world.clavel(&publish).refused(3, "a static folder is only read");
}

#[test]
fn a_changed_byte_garbage_and_other_answers_are_refused_and_the_last_state_stays() {
    let (world, server) = served(
        "location /moved/ { return 302 http://me:secret@elsewhere.example/$uri; } location /pages/ { return 200 '<!DOCTYPE html>'; }
         location /denied/ { return 403; } location /broken/ { return 503; }",
    );
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
    world.change_from_memory("Welcome", "Hello");
    export(&world, &[]).good();
    let refused = |code: i32, what: &str| {
        let said = world.agent("web-1", &["once"]).refused(code, what);
        assert!(!said.contains("secret"), "{said}");
        assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"), "{what}");
    };
    for file in ["index/all.json", "deployments/web-1.json"] {
        let path = object(&world, &digest(&world, file));
        let good = std::fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        refused(4, "has other bytes than its name says");
        std::fs::write(&path, [&good[..], b" "].concat()).unwrap();
        refused(4, "is longer than");
        std::fs::remove_file(&path).unwrap();
        refused(4, "which is not there");
        std::fs::write(&path, &good).unwrap();
    }
    let tip = world.path("www/fleet/tip");
    let good = std::fs::read(&tip).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for (bytes, code, why) in [
        (good[..good.len() / 2].to_vec(), 4, "the index in it cannot be read"),
        (b"<!DOCTYPE html><p>Welcome".to_vec(), 4, "its first line is not that of a tip"),
        (vec![b'x'; 3 << 20], 4, "is longer than"),
        (b"{\"format\":2}\n".to_vec(), 4, "a newer Clavel wrote it"),
        (text.replacen("\"version\": 2", "\"version\": 3", 1).into_bytes(), 5, "the index cannot be trusted"),
    ] {
        std::fs::write(&tip, bytes).unwrap();
        refused(code, why);
    }
    for (place, why) in [
        ("moved", "redirects are not followed"),
        ("pages", "its first line is not that of a tip"),
        ("denied", "HTTP status 403"),
        ("broken", "HTTP status 503"),
        ("nowhere", "has no branch"),
    ] {
        world.configure_agent("web-1", &format!("static+{}/{place}", server.url()), "");
        refused(4, why);
    }
    std::fs::write(&tip, good).unwrap();
    world.configure_agent("web-1", &format!("static+{}/fleet/", server.url()), "");
    assert_eq!(pass(&world), "web-1: switched to revision 2\n");
}

/// A server that answers every request with `head`, and then with the same bytes for ever, or with nothing more.
fn liar(head: &'static str, forever: &'static [u8], over: &Arc<AtomicBool>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let over = Arc::clone(over);
    let answer = move |mut connection: TcpStream| -> std::io::Result<()> {
        let _ = connection.read(&mut [0; 4096])?;
        connection.write_all(head.as_bytes())?;
        if forever.is_empty() {
            // It waits until the client hangs up.
            return connection.read_to_end(&mut Vec::new()).map(drop);
        }
        let many = forever.repeat(4096);
        while !over.load(Ordering::SeqCst) {
            connection.write_all(&many)?;
        }
        Ok(())
    };
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            // A client that hangs up causes an error here, which is expected.
            let _ = answer(connection.unwrap());
        }
    });
    format!("static+http://127.0.0.1:{port}/fleet")
}

#[test]
fn endless_huge_and_silent_answers_are_bounded() {
    let world = World::published();
    let over = Arc::new(AtomicBool::new(false));
    for (head, forever, why) in [
        ("HTTP/1.1 200 OK\r\n\r\n", &b"{\"format\":1}"[..], "is longer than"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"", "is longer than"),
        ("HTTP/1.1 200 OK\r\n", b"X-Y: z\r\n", "is longer than"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"", "it took longer than 3s"),
    ] {
        let url = liar(head, forever, &over);
        world.configure_agent("web-1", &url, "[fetch]\ntimeout = \"3s\"");
        world.agent("web-1", &["once"]).refused(4, why);
    }
    over.store(true, Ordering::SeqCst);
}

#[test]
fn an_export_is_repeated_without_a_trace_and_never_goes_back() {
    let world = World::published();
    export(&world, &[]).good();
    let state = || {
        let mut found = BTreeMap::new();
        let mut folders = vec![world.path("www/fleet")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => drop(found.insert(path, entry.metadata().unwrap().modified().unwrap())),
                }
            }
        }
        found
    };
    let first = state();
    assert!(export(&world, &[]).good().contains("unchanged"));
    assert_eq!(state(), first);
    let (old_branch, old_tip) = (world.tip(), std::fs::read(world.path("www/fleet/tip")).unwrap());
    world.change_from_memory("Welcome", "Hello");
    assert!(export(&world, &[]).good().contains("2 files ("));
    // Nothing goes before its grace is over, and then what the tip does not name.
    let (_, named) = read_as_a_stranger(&world.path("www/fleet"));
    assert!(export(&world, &["--remove-unnamed-after", "1h"]).good().contains("0 files removed"));
    assert!(export(&world, &["--remove-unnamed-after", "0s"]).good().contains("2 files removed"));
    assert_eq!(read_as_a_stranger(&world.path("www/fleet")), (2, named));
    assert_eq!(state().len(), named + 2, "the tip and the lock beside the named files");
    // An older branch, and the folder of another fleet.
    let tip = world.tip();
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &old_branch]);
    export(&world, &[]).refused(4, "has index version 2, and the branch here is at version 1");
    world.git(&["-C", &world.at("fleet.git"), "update-ref", "refs/heads/deployments", &tip]);
    std::fs::write(world.path("www/fleet/tip"), "hello\n").unwrap();
    export(&world, &[]).refused(4, "empty it");
    let other = World::published();
    std::fs::write(other.path("tip"), old_tip).unwrap();
    std::fs::create_dir_all(other.path("www/fleet")).unwrap();
    std::fs::rename(other.path("tip"), other.path("www/fleet/tip")).unwrap();
    export(&other, &[]).refused(4, "another branch or another history");
}

#[test]
fn claveld_keeps_the_folder_up_to_date() {
    let world = World::new();
    let with = |mirrors: &str| {
        world.configure_claveld("");
        let text = world.read_file("claveld.toml");
        world.write_file("claveld.toml", &text.replace("[publish]\n", &format!("[publish]\nmirrors = [{mirrors}]\n")));
    };
    let folder = format!("static+file://{}", world.at("www/fleet"));
    with("\"static+https://h/fleet\"");
    world.publish().refused(3, "claveld cannot write to");
    with(&format!("\"{folder}\""));
    let config = world.at("claveld.toml");
    world.claveld(&["check", "--config", &config]).good();
    let reported = |ran: Ran| ran.also_good().json()["mirrors"][0].clone();
    let once = || world.claveld(&["once", "--json", "--config", &config]);
    let first = reported(once());
    assert_eq!((first["mirror"].as_str(), first["status"].as_str()), (Some(folder.as_str()), Some("level")));
    assert_eq!(read_as_a_stranger(&world.path("www/fleet")).0, 1);
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    assert_eq!(reported(once())["pushed"], world.tip());
    assert_eq!(read_as_a_stranger(&world.path("www/fleet")).0, 2);
    world.clavel(&["hold", "web-1", "--config", &config]).good();
    assert_eq!(read_as_a_stranger(&world.path("www/fleet")).0, 3);
    // A folder that cannot be written to is behind, and is tried again.
    std::fs::remove_dir_all(world.path("www")).unwrap();
    world.write_file("www", "in the way");
    world.clavel(&["release", "web-1", "--config", &config]).also_good();
    let status = world.claveld(&["status", "--json", "--config", &config]).json()["mirrors"][0].clone();
    assert_eq!(status["status"], "behind", "{status}");
    std::fs::remove_file(world.path("www")).unwrap();
    world.clavel(&["hold", "web-1", "--config", &config]).good();
    assert_eq!(read_as_a_stranger(&world.path("www/fleet")).0, 5);
}

#[test]
fn a_reader_never_sees_half_of_fifty_publications() {
    let world = World::published();
    export(&world, &[]).good();
    let (over, folder) = (Arc::new(AtomicBool::new(false)), world.path("www/fleet"));
    let is_over = Arc::clone(&over);
    let reader = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            seen.push(read_as_a_stranger(&folder).0);
        }
        seen
    });
    for number in 0..50 {
        let (from, to) = if number % 2 == 0 { ("Welcome", "Hello") } else { ("Hello", "Welcome") };
        world.change_from_memory(from, to);
        export(&world, &[]).good();
    }
    over.store(true, Ordering::SeqCst);
    let seen = reader.join().unwrap();
    assert!(seen.is_sorted() && seen.iter().collect::<std::collections::BTreeSet<_>>().len() > 25, "{seen:?}");
}

#[test]
fn approvals_come_with_the_folder() {
    let world = World::new();
    world.clavel(&["key", "generate", "alice", "--output", &world.at("alice.secret")]).good();
    for made in ["root.json", "root-1.secret"] {
        std::fs::remove_file(world.path(made)).unwrap();
    }
    let (publisher, alice) = (world.at("claveld-1.secret"), world.at("alice.secret"));
    let policy = ["--approver-key", &alice, "--approvals", "web-*=1"];
    world.clavel(&[&["init", &world.at(""), "--publisher-key", &publisher], &policy[..]].concat()).good();
    world.publish_from_memory(&["web-1"]);
    export(&world, &[]).good();
    let server = HttpServer::serve_files_with(&world.path("www"), "");
    world.configure_agent("web-1", &format!("static+{}/fleet", server.url()), "");
    assert!(world.agent("web-1", &["once"]).stdout.contains("approv"));
    let before = server.transfers().len();
    let (repository, root) = (world.at("fleet.git"), world.root());
    world.clavel(&["approve", "web-1", "--repository", &repository, "--root", &root, "--key", &alice, "--yes"]).good();
    export(&world, &[]).good();
    assert_eq!(pass(&world), "web-1: switched to revision 1\n");
    // The tip, the list of the approvals, and the approval; and a poll after the switch.
    assert_eq!(server.transfers().len() - before, 4);
    read_as_a_stranger(&world.path("www/fleet"));
}
