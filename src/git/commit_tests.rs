use std::fs;
use std::time::Duration;

use super::super::fixture::{self, TestFolder};
use super::*;

fn put(path: &str, text: &str) -> Change {
    Change::Put { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn remove(path: &str) -> Change {
    Change::Remove { path: path.to_owned() }
}

#[test]
fn the_first_commit_is_an_orphan_and_clean() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let path = dir.path().join("r.git");
    let commit = fixture::put(&repository, None, &[("a.json", "1\n"), ("deployments/aux.json", "2\n")]);
    assert_eq!(repository.tip(&fixture::branch()).unwrap(), Some(commit));
    assert_eq!(fixture::git(&path, &["rev-list", "--parents", "deployments"]), commit.to_string());
    let shown = fixture::git(&path, &["log", "--format=%an <%ae> %at %cn <%ce> %ct %B", "deployments"]);
    assert_eq!(shown, "Clavel <clavel@example.org> 1700000000 Clavel <clavel@example.org> 1700000000 a test");
    fixture::git(&path, &["fsck", "--strict", "--no-dangling"]);
    assert!(!path.join("logs").exists());
}

#[test]
fn a_commit_keeps_the_files_that_it_does_not_change() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let path = dir.path().join("r.git");
    let first = fixture::put(&repository, None, &[("a.json", "1"), ("d/b.json", "2"), ("d/c.json", "3")]);
    let changes = [put("d/b.json", "4"), remove("a.json"), remove("none/at/all.json")];
    let second = fixture::commit(&repository, Some(first), &changes).unwrap();
    assert_eq!(fixture::git(&path, &["ls-tree", "-r", "--name-only", "deployments"]), "d/b.json\nd/c.json");
    assert_eq!(fixture::git(&path, &["rev-parse", "deployments^"]), first.to_string());
    let third = fixture::commit(&repository, Some(second), &[remove("d/b.json"), remove("d/c.json"), put("e", "")]);
    assert_eq!(fixture::git(&path, &["ls-tree", "--name-only", "deployments"]), "e");
    let snapshot = repository.snapshot(third.unwrap()).unwrap();
    assert_eq!(snapshot.list("", 9).unwrap().len(), 1);
    fixture::git(&path, &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn no_commit_is_made_if_the_files_are_the_same() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let first = fixture::put(&repository, None, &[("a.json", "1")]);
    let again = fixture::commit(&repository, Some(first), &[put("a.json", "1"), remove("b.json")]).unwrap();
    assert_eq!(again, first);
}

#[test]
fn a_branch_that_another_writer_moved_is_an_error() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let first = fixture::put(&repository, None, &[("a.json", "1")]);
    let second = fixture::put(&repository, Some(first), &[("a.json", "2")]);
    for expected in [None, Some(first)] {
        let error = fixture::commit(&repository, expected, &[put("a.json", "3")]).unwrap_err();
        let moved = matches!(error, CommitError::TipMoved { found, .. } if found == Some(second));
        assert!(moved, "{error}");
    }
}

#[test]
fn no_commit_of_concurrent_writers_is_lost() {
    const WRITERS: usize = 4;
    const COMMITS: usize = 8;
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    fixture::put(&repository, None, &[("base", "1")]);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            // Each writer opens the repository for itself, as another process would.
            let repository = Repository::open(&dir.path().join("r.git")).unwrap();
            scope.spawn(move || {
                for number in 0..COMMITS {
                    let change = [put(&format!("{writer}/{number}"), "x")];
                    loop {
                        let tip = repository.tip(&fixture::branch()).unwrap();
                        match fixture::commit(&repository, tip, &change) {
                            Ok(_) => break,
                            Err(CommitError::TipMoved { .. } | CommitError::Locked { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    let path = dir.path().join("r.git");
    let count = (WRITERS * COMMITS + 1).to_string();
    assert_eq!(fixture::git(&path, &["rev-list", "--count", "deployments"]), count);
    assert_eq!(fixture::git(&path, &["ls-tree", "-r", "deployments"]).lines().count().to_string(), count);
    fixture::git(&path, &["fsck", "--strict", "--no-dangling"]);
}

#[test]
fn a_lock_is_named_and_never_removed() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let first = fixture::put(&repository, None, &[("a.json", "1")]);
    let lock = dir.path().join("r.git/refs/heads/deployments.lock");
    fs::write(&lock, "").unwrap();
    let error = fixture::commit(&repository, Some(first), &[put("a.json", "2")]).unwrap_err();
    assert!(matches!(error, CommitError::Locked { .. }), "{error}");
    let old = SystemTime::now() - Duration::from_mins(11);
    File::options().write(true).open(&lock).unwrap().set_modified(old).unwrap();
    let error = fixture::commit(&repository, Some(first), &[put("a.json", "2")]).unwrap_err();
    assert!(matches!(error, CommitError::StaleLock { .. }), "{error}");
    assert!(error.to_string().contains("deployments.lock is 11m"), "{error}");
    assert!(lock.exists());
    assert_eq!(repository.tip(&fixture::branch()).unwrap(), Some(first));
}

#[test]
fn paths_that_git_does_not_accept_are_refused() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    for bad in ["", "/a", "a/", "a//b", ".", "../a", "a/..", ".git/config", "a/.GIT", "a\nb", "a\\b", "a\0"] {
        let error = fixture::commit(&repository, None, &[put(bad, "x")]).unwrap_err();
        assert!(matches!(error, CommitError::BadPath { .. }), "{bad:?}: {error}");
    }
}

#[test]
fn a_commit_has_an_author_and_a_committer() {
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let (author, committer) = ("Ada Ł <ada@example.org>".parse().unwrap(), "Bot <bot@example.org>".parse().unwrap());
    let by = Authorship { author, committer };
    let changes = [put("a", "x")];
    let branch = fixture::branch();
    let new = NewCommit { branch: &branch, expected: None, changes: &changes, message: "x", by: &by, at: UNIX_EPOCH };
    repository.commit(&new).unwrap();
    let log = fixture::git(&dir.path().join("r.git"), &["log", "--format=%an <%ae>, %cn <%ce>", "deployments"]);
    assert_eq!(log, "Ada Ł <ada@example.org>, Bot <bot@example.org>");
}

#[test]
fn a_shared_repository_stays_writable_for_its_group() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = TestFolder::new();
    fixture::git(dir.path(), &["init", "-q", "--bare", "--shared=group", "r.git"]);
    let path = dir.path().join("r.git");
    let repository = Repository::open(&path).unwrap();
    let first = fixture::put(&repository, None, &[("a.json", "1")]);
    // Many objects are written as one pack.
    let many: Vec<(String, String)> = (0..300).map(|n| (format!("{n}.json"), n.to_string())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    fixture::put(&repository, Some(first), &many);
    let mut open = vec![path];
    let mut seen = 0;
    while let Some(path) = open.pop() {
        let about = fs::metadata(&path).unwrap();
        let mode = about.permissions().mode() & 0o7777;
        if about.is_dir() {
            assert_eq!(mode & 0o2770, 0o2770, "{}: {mode:o}", path.display());
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.starts_with(dir.path().join("r.git/objects")) || path.starts_with(dir.path().join("r.git/refs"))
        {
            // Nobody writes to an object, and everybody of the group reads it.
            assert_eq!(mode & 0o440, 0o440, "{}: {mode:o}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn the_superuser_shuts_no_owner_out() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = TestFolder::new();
    let repository = dir.repository("r.git");
    let path = dir.path().join("r.git");
    std::os::unix::fs::chown(&path, Some(54_321), None).unwrap();
    let (changes, branch) = ([put("a.json", "1")], fixture::branch());
    let by = Authorship::of("c <c@c.invalid>".parse().unwrap());
    let new = NewCommit { branch: &branch, expected: None, changes: &changes, message: "m", by: &by, at: UNIX_EPOCH };
    let error = repository.commit(&new).unwrap_err().to_string();
    assert!(error.contains("sudo -u '#54321'"), "{error}");
    assert_eq!(repository.tip(&branch).unwrap(), None);
    fixture::git(
        dir.path(),
        &["-c", "safe.directory=*", "--git-dir=r.git", "config", "core.sharedRepository", "group"],
    );
    Repository::open(&path).unwrap().commit(&new).unwrap();
}
