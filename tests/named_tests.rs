//! Promise: the tests, files and headings that the documents name exist.

use std::collections::BTreeSet;
use std::path::Path;

/// The tests of the files below a folder, each with its module in front where `module` is asked for.
fn tests_below(folder: &Path, module: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let inner = if stem == "mod" { module.to_owned() } else { format!("{module}{stem}::") };
        if path.is_dir() {
            found.extend(tests_below(&path, &inner));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(tests_in(&text).map(|name| format!("{inner}{name}")));
        }
    }
    found
}

fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    let mut is_next = false;
    text.lines().map(str::trim_start).filter_map(move |line| {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_next = true;
        }
        let name = line.split_once("fn ").filter(|_| is_next)?.1.split('(').next()?;
        is_next = false;
        Some(name)
    })
}

/// The words between backticks that look like the name of a test: small letters and underscores, with or without modules before
/// them.
fn named(text: &str) -> impl Iterator<Item = &str> {
    const FEWEST_WORDS: usize = 5;
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c));
    let is_test = |word: &&str| word.rsplit("::").next().is_some_and(|name| name.split('_').count() >= FEWEST_WORDS);
    text.split('`').skip(1).step_by(2).filter(is_name).filter(is_test)
}

#[test]
fn every_test_that_is_named_is_there() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut there = tests_below(&project.join("tests"), "");
    let beside_the_code = tests_below(&project.join("src"), "");
    there.extend(beside_the_code.iter().map(|name| name.rsplit("::").next().unwrap().to_owned()));
    let text = std::fs::read_to_string(project.join("SECURITY.md")).unwrap();
    assert!(named(&text).count() > 60, "SECURITY.md names hardly any test");
    let lost: Vec<&str> = named(&text).filter(|name| !there.contains(*name)).collect();
    assert!(lost.is_empty(), "SECURITY.md names tests that are not there: {lost:#?}");
}

/// The headings of a document, in the form that git hosts use as anchors.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
    titles.map(|title| title.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documents =
        [project.to_owned(), project.join("docs"), project.join("docs/design")].into_iter().flat_map(|folder| {
            let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        });
    let (mut links, mut lost) = (0, Vec::new());
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            if file.starts_with("https://") {
                continue;
            }
            links += 1;
            let there = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let is_there = there.exists()
                && (heading.is_empty() || headings(&std::fs::read_to_string(&there).unwrap()).contains(heading));
            if !is_there {
                lost.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(links > 30, "the documents link to hardly anything");
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn every_file_that_the_architecture_names_is_there() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(project.join("ARCHITECTURE.md")).unwrap();
    let roots = ["src", ".", "tests"];
    let (mut count, mut lost) = (0, Vec::new());
    for line in text.lines() {
        for (at, word) in line.split('`').enumerate().filter(|(at, _)| at % 2 == 1) {
            let is_file =
                word.contains('/') && Path::new(word).extension().is_some_and(|e| e != "git") && !word.contains(' ');
            let rest = line.split('`').nth(at + 1).unwrap_or_default();
            if !is_file || word == "store/ENGINE.rs" || rest.starts_with(" (new)") {
                continue;
            }
            count += 1;
            if !roots.iter().any(|root| project.join(root).join(word).exists()) {
                lost.push(word);
            }
        }
    }
    assert!(count > 20, "ARCHITECTURE.md names hardly any file");
    assert!(lost.is_empty(), "ARCHITECTURE.md names files that are not there: {lost:#?}");
}
