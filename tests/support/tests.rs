//! The scaffolding holds what is built on it.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};

use tempfile::TempDir;

use super::git::{GitFleet, Parent, RawFile};
use super::http::HttpServer;
use super::{SOON, run, wait_until};

fn fleet() -> GitFleet {
    let fixture = TempDir::new().unwrap();
    fs::write(fixture.path().join("flake.nix"), "a = 1;\n").unwrap();
    GitFleet::from_dir(fixture.path())
}

#[test]
fn an_edit_is_committed_and_pushed() {
    let fleet = fleet();
    fleet.edit("flake.nix", "1", "2");
    fleet.write("hosts/web-1.nix", "{ }\n");
    let commit = fleet.commit("web-1: begin");
    assert!(fleet.push().contains("HEAD -> main"));
    assert_eq!(fleet.tip("main"), Some(commit));
    assert_eq!(fleet.tip("deployments"), None);
    let files = fleet.files("main").into_iter().collect::<Vec<_>>();
    let expected = [("flake.nix", "a = 2;\n"), ("hosts/web-1.nix", "{ }\n")].map(|(p, t)| (p.to_owned(), t.to_owned()));
    assert_eq!(files, expected);
}

#[test]
fn what_git_would_not_make_can_be_committed() {
    let fleet = fleet();
    let before = fleet.tip("main").unwrap();
    let mut files = fleet.raw_files("main");
    files.push(RawFile::with_mode("120000", "hosts/link", "/etc/passwd"));
    files.push(RawFile::plain("hosts/../escape", [0, 255]));
    let commit = fleet.raw_commit("main", &files, Parent::Tip);
    assert_eq!(run(fleet.bare_git().args(["rev-parse", "main~"])).trim_end(), before);
    let mut read = fleet.raw_files("main");
    read.sort_by(|a, b| a.path.cmp(&b.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!((fleet.tip("main"), read), (Some(commit), files));

    let orphan = fleet.raw_commit("main", &[RawFile::plain("only", "this")], Parent::None);
    assert_eq!(run(fleet.bare_git().args(["rev-list", "main"])).trim_end(), orphan);
}

#[test]
fn files_are_served_and_requests_are_told_until_the_server_is_dropped() {
    let fleet = fleet();
    run(fleet.bare_git().arg("update-server-info"));
    let server = HttpServer::serve_files(&fleet.root());
    let url = server.url();
    let port: u16 = url.rsplit_once(':').unwrap().1.parse().unwrap();
    let listing = run(fleet.work_git().args(["ls-remote", &format!("{url}/fleet.git")]));
    assert!(listing.starts_with(&fleet.tip("main").unwrap()), "{listing}");
    assert_eq!(server.requests()[0], "GET /fleet.git/info/refs?service=git-upload-pack 200");
    drop(server);
    wait_until("nobody listens", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
}
