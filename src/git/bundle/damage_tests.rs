//! A bundle that is damaged anywhere, cut off anywhere, or made for readers of another branch changes nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::super::Remote;
use super::super::address::{CommitId, RefName};
use super::super::fetch::{Depth, FetchRequest, Fetched};
use super::super::fixture::{self, TestFolder};
use super::super::repository::Repository;
use crate::model::{BranchPart, describe_error};

fn write(repository: &Repository, tip: CommitId, since: Option<CommitId>) -> Vec<u8> {
    let mut bytes = Vec::new();
    repository.write_bundle(&fixture::branch(), tip, since, &mut bytes).unwrap();
    bytes
}

fn into() -> RefName {
    "refs/clavel/fetched".parse().unwrap()
}

/// Reads the bundle as an agent's fetching process does. The error as text.
fn read(cache: &Repository, path: &Path, bytes: &[u8]) -> Result<Fetched, String> {
    fs::write(path, bytes).unwrap();
    let remote: Remote = path.to_str().unwrap().parse().unwrap();
    let (branch, into, interrupt) = (fixture::branch(), into(), AtomicBool::new(false));
    let request = FetchRequest {
        remote: &remote,
        branch: &branch,
        into: &into,
        depth: Depth::Tip,
        interrupt: &interrupt,
        part: &BranchPart::Whole,
        read_static: |_, _, _| Ok(()),
    };
    cache.fetch(&request).map_err(|error| describe_error(&error))
}

/// Text that hardly compresses.
fn noise(seed: u64, length: usize) -> String {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b' ' + u8::try_from((state >> 33) % 90).unwrap())
    };
    (0..length).map(next).collect()
}

/// A branch of five commits, the first of which the cache has by a bundle of its own.
fn branch_and_reader(dir: &TestFolder, length: usize) -> (Repository, Repository, [CommitId; 2]) {
    let (writer, cache) = (dir.repository("writer.git"), dir.repository("cache.git"));
    let first = fixture::put(&writer, None, &[("index.json", "0"), ("deployments/web-1.json", &noise(1, length))]);
    let mut tip = first;
    for number in 2..6 {
        let text = noise(number, length);
        tip =
            fixture::put(&writer, Some(tip), &[("index.json", &number.to_string()), ("deployments/web-1.json", &text)]);
    }
    let bundle = write(&writer, first, None);
    assert_eq!(read(&cache, &dir.path().join("first.bundle"), &bundle), Ok(Fetched::Moved(first)));
    (writer, cache, [first, tip])
}

#[test]
fn no_flipped_byte_of_a_bundle_gives_anything_but_the_old_or_the_new_branch() {
    let dir = TestFolder::new();
    let (writer, cache, [old, new]) = branch_and_reader(&dir, 2000);
    let path = dir.path().join("x.bundle");
    // One at a time, spread evenly over the file.
    for (since, flips) in [(None, 2000), (Some(old), 200)] {
        let good = write(&writer, new, since);
        let header = good.windows(4).position(|four| four == b"PACK").unwrap();
        assert!(good.len() > flips, "{}", good.len());
        let (mut refused, mut without_effect) = (0, 0);
        for number in 0..flips {
            let (at, bit) = (number * good.len() / flips, number % 8);
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            match read(&cache, &path, &bytes) {
                Err(_) | Ok(Fetched::BranchMissing) => {
                    refused += 1;
                    assert_eq!(cache.tip_of_ref(&into()).unwrap(), Some(old), "byte {at}, bit {bit}");
                }
                Ok(Fetched::Moved(tip)) => {
                    // The name of another ref, or the end of a line that is a comment. The branch is the right one.
                    without_effect += 1;
                    assert!(tip == new && at < header, "byte {at}, bit {bit} of {header}");
                    let found = cache.snapshot(new).unwrap().read("index.json", 9).unwrap();
                    assert_eq!(found.as_deref(), Some(&b"5"[..]), "byte {at}, bit {bit}");
                    fixture::git(&dir.path().join("cache.git"), &["update-ref", into().as_str(), &old.to_string()]);
                }
                Ok(Fetched::Unchanged(tip)) => panic!("byte {at}, bit {bit}: unchanged at {tip}"),
            }
        }
        assert!(refused > flips - 50 && refused + without_effect == flips, "{refused} and {without_effect}");
    }
}

#[test]
fn a_bundle_that_is_cut_off_at_any_64_kib_is_refused() {
    let dir = TestFolder::new();
    let (writer, cache, [old, new]) = branch_and_reader(&dir, 150_000);
    let path = dir.path().join("x.bundle");
    let good = write(&writer, new, Some(old));
    let lengths: Vec<usize> = (0..good.len()).step_by(64 << 10).collect();
    assert!(lengths.len() > 5, "{}", good.len());
    for length in lengths {
        read(&cache, &path, &good[..length]).unwrap_err();
        assert_eq!(cache.tip_of_ref(&into()).unwrap(), Some(old), "the first {length} bytes");
    }
    assert_eq!(read(&cache, &path, &good), Ok(Fetched::Moved(new)));
}

#[test]
fn a_bundle_without_its_prerequisite_is_refused_and_the_common_one_is_the_oldest() {
    let dir = TestFolder::new();
    let (writer, cache, [old, new]) = branch_and_reader(&dir, 200);
    let between = writer.parent_of(new).unwrap().unwrap();
    let error = read(&cache, &dir.path().join("x.bundle"), &write(&writer, new, Some(between))).unwrap_err();
    assert!(error.contains(&format!("it builds on commit {between}, which is not")), "{error}");
    assert_eq!(writer.parent_of(old).unwrap(), None);
    let common = |commits: &[CommitId]| writer.common_prerequisite(new, commits).unwrap();
    assert_eq!((common(&[between, old, new]), common(&[new]), common(&[])), (Some(old), Some(new), None));
    // A commit of another history, or one that this repository does not have, is nothing to build on.
    let other = fixture::put(&dir.repository("other.git"), None, &[("index.json", "other")]);
    assert_eq!(common(&[old, other]), None);
}
