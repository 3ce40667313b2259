use super::*;

const CACHE: &str = "https://cache.example.org";

fn path(name: &str) -> StorePath {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
}

fn hash(content: char) -> NarHash {
    format!("sha256-{content}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").parse().unwrap()
}

/// Entries from lines such as `NAME CONTENT REFERENCE…`.
fn entries(lines: &[&str]) -> CacheEntries {
    let entry = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let references: Vec<StorePath> = words[2..].iter().map(|name| path(name)).collect();
        let json = serde_json::json!({
            "narHash": hash(words[1].chars().next().unwrap()), "narSize": 120, "references": references,
        });
        (path(words[0]), serde_json::from_value(json).unwrap())
    };
    lines.iter().map(entry).collect()
}

const GOOD: [&str; 3] = ["top A mid", "mid A deep", "deep A"];

fn pins() -> Vec<PinnedBy> {
    let pin = pin_of(&path("top"), &closure_of(&entries(&GOOD))).unwrap();
    vec![PinnedBy { deployment: "web-1".parse().unwrap(), pin }]
}

fn compared(there: &[&str], here: &[&str]) -> CacheFinding {
    compare_cache(&path("top"), &CACHE.parse().unwrap(), (&entries(there), &entries(here)), &pins())
}

fn names(differing: &[DifferingPath]) -> Vec<&str> {
    differing.iter().map(|differing| differing.path.name()).collect()
}

#[test]
fn a_cache_is_compared_by_what_would_be_fetched_from_it() {
    assert_eq!(compared(&GOOD, &[]), CacheFinding::AsPinned);
    assert_eq!(compared(&["top B mid", "mid A deep", "deep A"], &[]), CacheFinding::OtherContent(hash('B')));
    assert!(matches!(compared(&["top A mid", "mid A deep", "deep B"], &[]), CacheFinding::OtherClosure(_)));
    // One path more, or one less, is another closure, though every path has the same content.
    assert!(matches!(
        compared(&["top A mid", "mid A deep", "deep A evil", "evil A"], &[]),
        CacheFinding::OtherClosure(_)
    ));
    assert!(matches!(compared(&["top A mid", "mid A"], &[]), CacheFinding::OtherClosure(_)));
    // A path that is here is not fetched, so a thief cannot change it.
    assert_eq!(compared(&["top A mid", "mid A deep", "deep B"], &["deep A"]), CacheFinding::AsPinned);
    assert_eq!(compared(&["top A mid", "mid B evil", "evil B"], &["mid A deep", "deep A"]), CacheFinding::AsPinned);
    let CacheFinding::StoreDiffers(_, differing) = compared(&GOOD, &["mid A deep", "deep B"]) else { panic!() };
    assert_eq!(names(&differing), ["deep"]);
}

#[test]
fn a_bad_cache_is_left_out_and_a_good_one_asked_alone() {
    let other_closure = || compared(&["top A mid", "mid A deep", "deep B"], &[]);
    let chosen = |findings: Vec<CacheFinding>| {
        let caches: Vec<(Substituter, CacheFinding)> = findings
            .into_iter()
            .enumerate()
            .map(|(n, finding)| (format!("https://{n}.example").parse().unwrap(), finding))
            .collect();
        match choose_caches(&caches) {
            CacheChoice::From(caches) => caches.iter().map(|cache| cache.as_str()[8..9].to_owned()).collect(),
            CacheChoice::Nowhere => "nowhere".to_owned(),
            CacheChoice::StoreDiffers(..) => "store differs".to_owned(),
        }
    };
    let other = || CacheFinding::OtherContent(hash('B'));
    let down = || CacheFinding::Unreachable("no route".to_owned());
    let store_differs = || compared(&GOOD, &["deep B"]);
    for (findings, expected) in [
        (vec![other(), CacheFinding::AsPinned, CacheFinding::Incomplete, CacheFinding::AsPinned], "13"),
        (vec![other_closure(), CacheFinding::Incomplete, CacheFinding::Absent], "12"),
        (vec![other(), CacheFinding::NotAsked, down()], "12"),
        (vec![other(), other_closure()], "nowhere"),
        (vec![other(), CacheFinding::Absent, down()], "nowhere"),
        (vec![CacheFinding::Absent, down()], "01"),
        (vec![store_differs(), CacheFinding::Incomplete, other_closure()], "store differs"),
        (vec![store_differs(), CacheFinding::AsPinned], "1"),
        (vec![], ""),
    ] {
        assert_eq!(chosen(findings.clone()), expected, "{findings:?}");
    }
}

#[test]
fn every_pin_on_a_path_counts_whichever_deployment_has_it() {
    let good = closure_of(&entries(&GOOD));
    let mut both = pins();
    assert_eq!(check_pins(&path("top"), &good, &both), Ok(()));
    let other = Pin { nar_hash: hash('B'), ..both[0].pin };
    both.push(PinnedBy { deployment: "web-2".parse().unwrap(), pin: other });
    let Err(Some(mismatch)) = check_pins(&path("top"), &good, &both) else { panic!() };
    assert_eq!(mismatch.pinned.deployment.as_str(), "web-2");
    assert_eq!(check_pins(&path("absent"), &good, &both), Err(None));
}

#[test]
fn the_paths_that_differ_from_a_cache_are_named() {
    let differing = |here: &[&str], there: &[&str]| {
        let [here, there] = [here, there].map(|lines| closure_of(&entries(lines)));
        names(&differing_paths(&here, &CACHE.parse().unwrap(), &there)).join(" ")
    };
    let poisoned = ["top A mid", "mid A deep", "deep B"];
    assert_eq!(differing(&poisoned, &GOOD), "deep");
    assert_eq!(differing(&poisoned, &["deep A"]), "deep");
    assert_eq!(differing(&poisoned, &poisoned), "");
    assert_eq!(differing(&["top B mid", "mid A deep", "deep A"], &[]), "");
}

#[test]
fn an_error_has_the_pin_the_found_content_and_the_next_step() {
    let mismatch = Mismatch { pinned: pins().remove(0), found: Pin { nar_hash: hash('B'), ..pins()[0].pin } };
    for (cleanup, expected) in [
        (Cleanup::Deleted, "what was fetched is deleted"),
        (Cleanup::WasHere, "nix-store --delete /nix/store/"),
        (Cleanup::Runs, "it runs now"),
        (Cleanup::Failed("it is still alive".to_owned()), "could not be deleted (it is still alive)"),
    ] {
        let site = MismatchSite::Store { mismatch: mismatch.clone(), differing: Vec::new(), cleanup };
        let message = NotAsPinned { path: path("top"), site }.to_string();
        assert!(message.contains(expected) && message.contains(&hash('A').to_string()), "{message}");
        assert!(message.contains(&hash('B').to_string()) && message.contains("`web-1` pins it"), "{message}");
    }
}
