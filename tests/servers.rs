//! The branch can be read over file, HTTP and SSH.

use std::fs;

use tempfile::TempDir;

use crate::support::git::GitFleet;
use crate::support::http::HttpServer;
use crate::support::run;
use crate::support::ssh::SshServer;

fn fleet() -> GitFleet {
    let fixture = TempDir::new().unwrap();
    fs::write(fixture.path().join("flake.nix"), "{ outputs = _: { a = 1; }; }\n").unwrap();
    GitFleet::from_dir(fixture.path())
}

/// What `git ls-remote` says that `main` is.
fn remote_tip(fleet: &GitFleet, url: &str, ssh: Option<&SshServer>) -> Option<String> {
    let mut git = fleet.work_git();
    if let Some(ssh) = ssh {
        git.env("GIT_SSH_COMMAND", ssh.command());
    }
    let listing = run(git.args(["ls-remote", url, "refs/heads/main"]));
    listing.split_once('\t').map(|(tip, _)| tip.to_owned())
}

#[test]
fn over_file() {
    let fleet = fleet();
    let url = format!("file://{}", fleet.bare().display());
    assert_eq!(remote_tip(&fleet, &url, None), fleet.tip("main"));
}

#[test]
fn over_http() {
    let fleet = fleet();
    let server = HttpServer::serve_git(&fleet.root());
    let url = format!("{}/fleet.git", server.url());
    assert_eq!(remote_tip(&fleet, &url, None), fleet.tip("main"));
    let asked = server.requests();
    assert_eq!(asked[0], "GET /fleet.git/info/refs?service=git-upload-pack 200");
    assert_eq!(asked[1], "POST /fleet.git/git-upload-pack 200");
}

#[test]
fn over_ssh() {
    let fleet = fleet();
    let server = SshServer::start();
    assert!(server.client_key().is_file());
    let url = server.url(&fleet.bare());
    assert_eq!(remote_tip(&fleet, &url, Some(&server)), fleet.tip("main"));
}
