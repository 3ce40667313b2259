use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::Remedy;
use super::super::fixture::{self, TestFolder};
use super::super::lock::STALE_AFTER;
use super::super::objects::ReadError;
use super::*;
use crate::model::describe_error;

fn fetch_with(into: &Repository, url: &str, depth: Depth, ssh_command: Option<&str>) -> Result<Fetched, FetchError> {
    into.fetch(&FetchRequest {
        remote: &reached_by(url, ssh_command),
        branch: &fixture::branch(),
        into: &fetched_ref(),
        depth,
        part: &BranchPart::Whole,
        read_static: |_, _, _| Ok(()),
        interrupt: &AtomicBool::new(false),
    })
}

/// The remote at `url`, reached by this command in place of `ssh`.
fn reached_by(url: &str, command: Option<&str>) -> Remote {
    let ssh = super::super::SshAccess { command: command.map(str::to_owned), ..Default::default() };
    url.parse::<Remote>().unwrap().with_access(super::super::Access { ssh, ..Default::default() })
}

fn fetch(into: &Repository, url: &str) -> Result<Fetched, FetchError> {
    fetch_with(into, url, Depth::Tip, None)
}

fn fetched_ref() -> RefName {
    "refs/clavel/fetched".parse().unwrap()
}

fn file(repository: &Repository, commit: CommitId, path: &str) -> String {
    let bytes = repository.snapshot(commit).unwrap().read(path, 1 << 20).unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

/// A remote and a cache, and the URL of the remote.
fn remote_and_cache(dir: &TestFolder) -> (Repository, Repository, String) {
    let url = format!("file://{}", dir.path().join("remote.git").display());
    (dir.repository("remote.git"), dir.repository("cache.git"), url)
}

#[test]
fn a_branch_is_followed() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let mut tip = fixture::put(&remote, None, &[("a.json", "0"), ("d/b.json", "0")]);
    tip = fixture::put(&remote, Some(tip), &[("a.json", "1")]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(tip));
    assert_eq!(cache.tip_of_ref(&fetched_ref()).unwrap(), Some(tip));
    assert_eq!(file(&cache, tip, "a.json"), "1");
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Unchanged(tip));
    for number in 2..6 {
        tip = fixture::put(&remote, Some(tip), &[("d/b.json", &number.to_string())]);
        assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(tip));
        assert_eq!(file(&cache, tip, "d/b.json"), number.to_string());
    }
    let path = dir.path().join("cache.git");
    // The first fetch brought one commit without the history before it, and no fetch left files behind.
    assert_eq!(fixture::git(&path, &["rev-list", "--count", "refs/clavel/fetched"]), "5");
    assert_eq!(fixture::git(&path, &["for-each-ref", "--format=%(refname)"]), "refs/clavel/fetched");
    assert_eq!(cache.pack_count().unwrap(), 5);
    assert_eq!(kept_packs(&path), 0);
    fixture::git(&path, &["fsck", "--strict"]);
}

fn kept_packs(repository: &Path) -> usize {
    let entries = fs::read_dir(repository.join("objects/pack")).unwrap();
    entries.filter(|e| e.as_ref().unwrap().path().extension().is_some_and(|e| e == "keep")).count()
}

#[test]
fn rewritten_history_is_accepted() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let first = fixture::put(&remote, None, &[("a.json", "1")]);
    let second = fixture::put(&remote, Some(first), &[("a.json", "2")]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(second));
    fixture::git(&dir.path().join("remote.git"), &["update-ref", "-d", "refs/heads/deployments"]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::BranchMissing);
    assert_eq!(cache.tip_of_ref(&fetched_ref()).unwrap(), Some(second));
    let other = fixture::put(&remote, None, &[("a.json", "other")]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(other));
    assert_eq!(file(&cache, other, "a.json"), "other");
    // The branch returns to a commit that the cache still has: the remote sends no objects, and the ref moves all the same.
    let back = ["update-ref", "refs/heads/deployments", &second.to_string()];
    fixture::git(&dir.path().join("remote.git"), &back);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(second));
    fixture::git(&dir.path().join("cache.git"), &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn the_whole_history_is_fetched_when_asked_for() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let first = fixture::put(&remote, None, &[("a.json", "1")]);
    let second = fixture::put(&remote, Some(first), &[("a.json", "2")]);
    let path = dir.path().join("cache.git");
    let count = || fixture::git(&path, &["rev-list", "--count", "refs/clavel/fetched"]);
    assert_eq!(fetch_with(&cache, &url, Depth::Full, None).unwrap(), Fetched::Moved(second));
    assert_eq!(count(), "2");
    let third = fixture::put(&remote, Some(second), &[("a.json", "3")]);
    assert_eq!(fetch_with(&cache, &url, Depth::Full, None).unwrap(), Fetched::Moved(third));
    assert_eq!(count(), "3");
    assert!(!path.join("shallow").exists());
    fixture::git(&path, &["fsck", "--strict"]);
}

#[test]
fn a_shallow_cache_grows_to_the_whole_history() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let first = fixture::put(&remote, None, &[("a.json", "1")]);
    let second = fixture::put(&remote, Some(first), &[("a.json", "2")]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(second));
    let third = fixture::put(&remote, Some(second), &[("a.json", "3")]);
    assert_eq!(fetch_with(&cache, &url, Depth::Full, None).unwrap(), Fetched::Moved(third));
    let path = dir.path().join("cache.git");
    assert_eq!(fixture::git(&path, &["rev-list", "--count", "refs/clavel/fetched"]), "3");
}

#[test]
fn a_missing_branch_is_no_error_and_a_missing_repository_is() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::BranchMissing);
    let change = [super::super::Change::Put { path: "a".to_owned(), bytes: vec![] }];
    fixture::commit(&remote, None, &change).unwrap();
    let path = dir.path().join("remote.git");
    fixture::git(&path, &["update-ref", "refs/heads/deployments-2", "deployments"]);
    fixture::git(&path, &["update-ref", "-d", "refs/heads/deployments"]);
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::BranchMissing);
    let error = fetch(&cache, "file:///nowhere/at-all.git").unwrap_err();
    assert!(matches!(error, FetchError::RepositoryNotFound { .. }), "{error}");
    let error = fetch(&cache, &dir.path().display().to_string()).unwrap_err();
    assert!(matches!(error, FetchError::RepositoryNotFound { .. }), "{error}");
    assert_eq!(error.remedy(), Remedy::Operator);
}

#[test]
fn an_unreachable_remote_is_named_without_its_secret() {
    let dir = TestFolder::new();
    let cache = dir.repository("cache.git");
    for url in ["https://127.0.0.1:1/x.git", "git://127.0.0.1:1/x.git"] {
        let error = fetch(&cache, url).unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("127.0.0.1:1/x.git"), "{error}");
        assert!(error.to_string().contains("`deployments`"), "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        assert_eq!(error.remedy(), Remedy::TryAgain);
    }
    let error = fetch_with(&cache, "ssh://host.invalid/x.git", Depth::Tip, Some("false")).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
}

#[test]
fn an_interrupted_fetch_is_reported() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    fixture::put(&remote, None, &[("a.json", "1")]);
    let interrupted = cache.fetch(&FetchRequest {
        remote: &url.parse().unwrap(),
        branch: &fixture::branch(),
        into: &fetched_ref(),
        depth: Depth::Tip,
        part: &BranchPart::Whole,
        read_static: |_, _, _| Ok(()),
        interrupt: &AtomicBool::new(true),
    });
    assert!(matches!(interrupted, Err(FetchError::Interrupted { .. })), "{interrupted:?}");
    assert_eq!(cache.tip_of_ref(&fetched_ref()).unwrap(), None);
    assert!(matches!(fetch(&cache, &url), Ok(Fetched::Moved(_))));
}

/// The path of a script that takes the place of `ssh` and serves `repository`. It packs the objects whose names the shell
/// command `packs` prints.
fn fake_ssh(dir: &TestFolder, repository: &Path, packs: &str) -> String {
    let script = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    };
    let hook = script("hook", format!("cat > /dev/null; {packs} | git pack-objects --stdout -q"));
    let repository = repository.display();
    script("server", format!("exec git -c uploadpack.packObjectsHook={hook} upload-pack {repository}"))
}

#[test]
fn an_incomplete_pack_is_refused_and_the_next_fetch_succeeds() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let path = dir.path().join("remote.git");
    let ssh = "ssh://host/x.git";
    let first = fixture::put(&remote, None, &[("a.json", "1"), ("d/b.json", "1")]);
    let commit_only = fake_ssh(&dir, &path, "git rev-parse deployments");
    // Refused as the first fetch and as a later one, it leaves neither a ref nor a pack behind.
    let refused = |lacking: &str, script: &str| {
        let before = (cache.tip_of_ref(&fetched_ref()).unwrap(), cache.pack_count().unwrap());
        let error = fetch_with(&cache, ssh, Depth::Tip, Some(script)).unwrap_err();
        assert!(
            matches!(&error, FetchError::Incomplete { source, .. } if matches!(**source, ReadError::Missing { .. })),
            "{error}"
        );
        let text = describe_error(&error);
        assert!(text.contains(lacking), "{text}");
        assert_eq!(before, (cache.tip_of_ref(&fetched_ref()).unwrap(), cache.pack_count().unwrap()));
        assert_eq!(kept_packs(&dir.path().join("cache.git")), 0);
    };
    refused("`/`", &commit_only);
    assert!(!dir.path().join("cache.git/shallow").exists());
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(first));
    let second = fixture::put(&remote, Some(first), &[("d/b.json", "2")]);
    refused("`/`", &commit_only);
    let trees_only = "git rev-parse deployments deployments^{tree} deployments:d";
    refused("`d/b.json`", &fake_ssh(&dir, &path, trees_only));
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(second));
    assert_eq!(file(&cache, second, "d/b.json"), "2");
    fixture::git(&dir.path().join("cache.git"), &["fsck", "--strict"]);
}

#[test]
fn a_planted_commit_misleads_a_good_remote_until_the_cache_is_started_afresh() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let [at_remote, at_cache] = ["remote.git", "cache.git"].map(|name| dir.path().join(name));
    let known = fixture::put(&remote, None, &[("a.json", "1"), ("d/b.json", "1")]);
    // A commit on top of the remote's own commit, of which the cache has the commit object and no tree.
    let planted = format!("{}\n", fixture::git(&at_remote, &["cat-file", "commit", "deployments"]));
    fixture::git_with_input(&at_cache, &["hash-object", "-t", "commit", "-w", "--stdin"], &planted);
    let tree = fixture::git_with_input(&at_cache, &["mktree"], "");
    let evil = fixture::git(&at_cache, &["commit-tree", "-m", "evil", "-p", &known.to_string(), &tree]);
    fixture::git(&at_cache, &["update-ref", "refs/clavel/fetched", &evil]);
    let next = fixture::put(&remote, Some(known), &[("a.json", "2")]);
    let error = fetch(&cache, &url).unwrap_err();
    assert!(matches!(error, FetchError::Incomplete { .. }), "{error}");
    assert_eq!(error.remedy(), Remedy::StartAfresh);
    let cache = Repository::start_afresh(&at_cache).unwrap();
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(next));
}

#[test]
fn a_broken_cache_asks_to_be_started_afresh() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let tip = fixture::put(&remote, None, &[("a.json", "1")]);
    // The commit without its tree, as a power cut may leave it.
    let path = dir.path().join("remote.git");
    let (name, bytes) = (tip.to_string(), fixture::git(&path, &["cat-file", "commit", "deployments"]));
    let input = format!("{bytes}\n");
    let copied = ["hash-object", "-t", "commit", "-w", "--stdin"];
    assert_eq!(fixture::git_with_input(&dir.path().join("cache.git"), &copied, &input), name);
    fs::write(dir.path().join("cache.git/shallow"), format!("{name}\n")).unwrap();
    let error = fetch(&cache, &url).unwrap_err();
    assert!(matches!(error, FetchError::Broken { .. }), "{error}");
    assert_eq!(error.remedy(), Remedy::StartAfresh);
    let cache = Repository::start_afresh(&dir.path().join("cache.git")).unwrap();
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(tip));
}

#[test]
fn a_lock_is_named_and_never_removed() {
    for name in ["shallow.lock", "refs/clavel/fetched.lock"] {
        let dir = TestFolder::new();
        let (remote, cache, url) = remote_and_cache(&dir);
        let tip = fixture::put(&remote, None, &[("a.json", "1")]);
        let lock = dir.path().join("cache.git").join(name);
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(&lock, "").unwrap();
        let error = fetch(&cache, &url).unwrap_err();
        assert!(matches!(&error, FetchError::Locked { lock: named, .. } if named.file == lock), "{error}");
        assert_eq!(error.remedy(), Remedy::TryAgain);
        let old = std::time::SystemTime::now() - STALE_AFTER;
        fs::File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
        let error = fetch(&cache, &url).unwrap_err();
        assert_eq!(error.remedy(), Remedy::StartAfresh, "{error}");
        fs::remove_file(&lock).unwrap();
        assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(tip));
    }
}

#[test]
fn a_cache_of_many_packs_is_started_afresh() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let mut tip = None;
    for number in 0..=24 {
        assert!(!cache.has_many_packs().unwrap());
        tip = Some(fixture::put(&remote, tip, &[("a.json", &number.to_string())]));
        assert!(matches!(fetch(&cache, &url), Ok(Fetched::Moved(_))));
    }
    assert!(cache.has_many_packs().unwrap());
    let cache = Repository::start_afresh(&dir.path().join("cache.git")).unwrap();
    assert_eq!(fetch(&cache, &url).unwrap(), Fetched::Moved(tip.unwrap()));
    assert_eq!(cache.pack_count().unwrap(), 1);
}

#[test]
fn a_full_fetch_can_be_committed_to_and_pushed() {
    let dir = TestFolder::new();
    let (remote, cache, url) = remote_and_cache(&dir);
    let first = fixture::put(&remote, None, &[("a.json", "1")]);
    assert_eq!(fetch_with(&cache, &url, Depth::Full, None).unwrap(), Fetched::Moved(first));
    let path = dir.path().join("cache.git");
    fixture::git(&path, &["update-ref", "refs/heads/deployments", &first.to_string()]);
    let second = fixture::put(&cache, Some(first), &[("a.json", "2")]);
    fixture::git(&path, &["push", "-q", &url, "deployments"]);
    assert_eq!(remote.tip(&fixture::branch()).unwrap(), Some(second));
}

/// A `git daemon` that serves a folder, and ends with the test.
struct GitDaemon(std::process::Child, u16);

impl GitDaemon {
    fn serve(folder: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Not `git daemon`, which starts this program: the kill would end `git` alone and leave the server running.
        let program = Path::new(&fixture::git(folder, &["--exec-path"])).join("git-daemon");
        #[expect(clippy::disallowed_methods, reason = "a server that runs beside the test")]
        let child = std::process::Command::new(program)
            .args(["--export-all", "--listen=127.0.0.1", "--reuseaddr", &format!("--port={port}")])
            .arg(format!("--base-path={}", folder.display()))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        for _ in 0..500 {
            if listens() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Self(child, port)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The URL of an HTTP server that answers its first request with this status line.
fn http_server(status: &'static str) -> String {
    use std::io::{Read as _, Write as _};
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/fleet.git", server.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    url
}

#[test]
fn a_missing_repository_is_recognised_by_the_text_of_the_server() {
    let dir = TestFolder::new();
    let (remote, cache, _) = remote_and_cache(&dir);
    fixture::put(&remote, None, &[("a.json", "1")]);
    let daemon = GitDaemon::serve(dir.path());
    let at = |name: &str| format!("git://127.0.0.1:{}/{name}", daemon.1);
    assert!(matches!(fetch(&cache, &at("remote.git")), Ok(Fetched::Moved(_))));
    for url in [at("none.git"), http_server("404 Not Found")] {
        let error = fetch(&cache, &url).unwrap_err();
        assert!(matches!(error, FetchError::RepositoryNotFound { .. }), "{error}");
    }
    let error = fetch(&cache, &http_server("403 Forbidden")).unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    let error = fetch(&cache, &http_server("503 Service Unavailable")).unwrap_err();
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
}
