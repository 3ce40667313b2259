use super::*;

const CACHE: &str = "https://cache.example.org";

fn path(name: &str) -> StorePath {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
}

fn hash(content: char) -> NarHash {
    format!("sha256-{content}AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").parse().unwrap()
}

/// Paths as `NAME CONTENT NEEDED…`.
fn entries(lines: &[&str]) -> Entries {
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
    let pin = pin(&path("top"), &closure(&entries(&GOOD))).unwrap();
    vec![PinnedBy { deployment: "web-1".parse().unwrap(), pin }]
}

fn judged(there: &[&str], here: &[&str]) -> Told {
    judge(&path("top"), &CACHE.parse().unwrap(), (&entries(there), &entries(here)), &pins())
}

fn names(differences: &[Difference]) -> Vec<&str> {
    differences.iter().map(|difference| difference.path.name()).collect()
}

#[test]
fn a_cache_is_judged_by_what_would_be_fetched_from_it() {
    assert_eq!(judged(&GOOD, &[]), Told::AsPinned);
    assert_eq!(judged(&["top B mid", "mid A deep", "deep A"], &[]), Told::Otherwise(hash('B')));
    assert!(matches!(judged(&["top A mid", "mid A deep", "deep B"], &[]), Told::Below(_, told) if told.is_empty()));
    // One path more, or one less, is another closure, with the same content under every path there is.
    assert!(matches!(judged(&["top A mid", "mid A deep", "deep A evil", "evil A"], &[]), Told::Below(..)));
    assert!(matches!(judged(&["top A mid", "mid A"], &[]), Told::Below(..)));
    // What is here is not fetched: a thief has no say in it.
    assert_eq!(judged(&["top A mid", "mid A deep", "deep B"], &["deep A"]), Told::AsPinned);
    assert_eq!(judged(&["top A mid", "mid B evil", "evil B"], &["mid A deep", "deep A"]), Told::AsPinned);
    let Told::WrongHere(_, told) = judged(&GOOD, &["mid A deep", "deep B"]) else { panic!() };
    assert_eq!(names(&told), ["deep"]);
    let Told::Below(_, told) = judged(&["top A mid", "mid B deep", "deep A"], &["deep C"]) else { panic!() };
    assert_eq!(names(&told), ["deep"]);
}

#[test]
fn a_bad_cache_is_left_out_and_a_good_one_asked_alone() {
    let below = || judged(&["top A mid", "mid A deep", "deep B"], &[]);
    let chosen = |told: Vec<Told>| {
        let caches: Vec<(Substituter, Told)> = told
            .into_iter()
            .enumerate()
            .map(|(n, told)| (format!("https://{n}.example").parse().unwrap(), told))
            .collect();
        match choose(&caches) {
            Choice::From(caches) => caches.iter().map(|cache| cache.as_str()[8..9].to_owned()).collect(),
            Choice::Nowhere => "nowhere".to_owned(),
            Choice::WrongHere(..) => "wrong here".to_owned(),
        }
    };
    let down = || Told::OutOfReach("no route".to_owned());
    let wrong_here = || judged(&GOOD, &["deep B"]);
    for (told, expected) in [
        (vec![Told::Otherwise(hash('B')), Told::AsPinned, Told::InPart, Told::AsPinned], "13"),
        (vec![below(), Told::InPart, Told::HasNot], "12"),
        (vec![Told::Otherwise(hash('B')), Told::NotAsked, down()], "12"),
        (vec![Told::Otherwise(hash('B')), below()], "nowhere"),
        (vec![Told::Otherwise(hash('B')), Told::HasNot, down()], "nowhere"),
        (vec![Told::HasNot, down()], "01"),
        (vec![wrong_here(), Told::InPart, below()], "wrong here"),
        (vec![wrong_here(), Told::AsPinned], "1"),
        (vec![], ""),
    ] {
        assert_eq!(chosen(told.clone()), expected, "{told:?}");
    }
}

#[test]
fn every_pin_on_a_path_counts_whoever_has_it() {
    let good = closure(&entries(&GOOD));
    let mut both = pins();
    assert_eq!(check(&path("top"), &good, &both), Ok(()));
    let other = Pin { nar_hash: hash('B'), ..both[0].pin };
    both.push(PinnedBy { deployment: "web-2".parse().unwrap(), pin: other });
    let Err(Some(mismatch)) = check(&path("top"), &good, &both) else { panic!() };
    assert_eq!(mismatch.pinned.deployment.as_str(), "web-2");
    assert_eq!(check(&path("absent"), &good, &both), Err(None));
}

#[test]
fn what_differs_is_told_as_far_as_it_can_be() {
    let told = |here: &[&str], caches: &[&[&str]]| {
        let caches: Vec<(Substituter, Closure)> =
            caches.iter().map(|lines| (CACHE.parse().unwrap(), closure(&entries(lines)))).collect();
        let Diagnosis { differences, suspects } = diagnose(&path("top"), &closure(&entries(here)), &caches, &pins());
        let suspects: Vec<String> = suspects.iter().map(|path| path.name().to_owned()).collect();
        (names(&differences).join(" "), suspects.join(" "))
    };
    let poisoned = ["top A mid", "mid A deep", "deep B"];
    let is = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(told(&poisoned, &[&poisoned, &GOOD]), is("deep", "deep"));
    // No cache has all of it: where two differ, one of them is wrong.
    assert_eq!(told(&poisoned, &[&poisoned, &["deep A"]]), is("deep", "deep"));
    // Nobody says otherwise, so it may be any.
    assert_eq!(told(&poisoned, &[&poisoned]), is("", "deep mid top"));
    assert_eq!(told(&["top B mid", "mid A deep", "deep A"], &[]), is("", "top"));
    // What does not belong to it is as wrong.
    assert_eq!(told(&["top A mid", "mid A deep", "deep A evil", "evil A"], &[&GOOD]), is("evil", "evil"));
}

#[test]
fn an_error_says_what_was_pinned_what_was_found_and_what_to_do() {
    let mismatch = Mismatch { pinned: pins().remove(0), found: Pin { nar_hash: hash('B'), ..pins()[0].pin } };
    for (remains, expected) in [
        (Remains::Deleted, "What was fetched is deleted"),
        (Remains::WasHere, "nix-store --delete /nix/store/"),
        (Remains::Runs, "It is what runs now"),
        (Remains::Stays("it is still alive".to_owned()), "could not be deleted (it is still alive)"),
    ] {
        let found = Elsewise::Here { mismatch: mismatch.clone(), differences: Vec::new(), remains };
        let told = NotAsPinned { path: path("top"), found }.to_string();
        assert!(told.contains(expected) && told.contains(&hash('A').to_string()), "{told}");
        assert!(told.contains(&hash('B').to_string()) && told.contains("`web-1` pins it"), "{told}");
    }
}
