//! Promise: docs/format.md is enough to write a reader. For each test vector, the agent's own verification and the reader in
//! Python, which was written from that page, accept the same branches, and give the same result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clavel::agent::{Clocks, Refusal, Requester, Time, Trusted, Unfit, Verdict, verify};
use clavel::branch::{BranchError, RootChain, RootsError};
use clavel::config::UnitConfig;
use clavel::trust::{Anchor, Approvals, BinError, DocumentError, RootError, SignedError};
use serde_json::{Map, Value, json};

use crate::support::{program, run};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folders of all vectors.
fn vectors() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("fixtures/format");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn case(vector: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(vector.join("case.json")).unwrap()).unwrap()
}

/// The part of a case that says what is expected.
fn expected(case: &Value) -> Value {
    let keys = ["deployments", "error"].into_iter().filter_map(|key| Some((key.to_owned(), case.get(key)?.clone())));
    keys.collect::<Map<_, _>>().into()
}

/// The files of a branch by their paths.
fn files(branch: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut open) = (BTreeMap::new(), vec![branch.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(branch).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// The verdict of the agent of a case, which has fetched the branch for the first time.
fn verify_as_agent(vector: &Path, case: &Value) -> Result<Verdict, Refusal> {
    let text = |field: &str| case[field].as_str().unwrap();
    let files = files(&vector.join("branch"));
    let roots = RootChain::from_anchor(&files, &Anchor::Digest(text("anchor").parse().unwrap()))?;
    let (agent, branch) = (text("agent").parse().unwrap(), text("branch").parse().unwrap());
    let (system, now) = (text("system").parse().unwrap(), text("now").parse().unwrap());
    // Which units an agent serves is in its configuration, and not in the format.
    let units = files.keys().filter_map(|path| path.strip_suffix(".json")?.rsplit_once("units/"));
    let units =
        units.map(|(_, unit)| unit.rsplit('/').next().unwrap().parse().map(|unit| (unit, UnitConfig::default())));
    let units = units.filter_map(Result::ok).collect();
    let requester = Requester {
        agent: &agent,
        wanted: None,
        units: &units,
        system: &system,
        branch: &branch,
        root: &roots.newest,
        max_index_age: None,
    };
    let clocks = Clocks { now, uptime: None };
    verify(&files, &requester, &Trusted::default(), Time { clocks: &clocks, baseline: None })
}

/// The verdict in the form of a case.
fn described(verdict: Result<Verdict, Refusal>) -> Value {
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(refusal) => return json!({ "error": keyword(&refusal) }),
    };
    let left_out = |(_, why): &(_, Unfit)| {
        matches!(why, Unfit::NewerClavel { .. } | Unfit::OtherArch { .. } | Unfit::NoUnit { .. })
    };
    assert!(verdict.unfit.iter().all(left_out), "{:?}", verdict.unfit);
    let order = |order: &clavel::agent::Order| {
        let waiting = !order.approvals.as_ref().is_none_or(Approvals::suffice);
        let nar_id = order.deployment.specification.template.nar_id.to_string();
        let about = json!({ "narId": nar_id, "revision": order.deployment.revision, "waiting": waiting });
        (order.deployment.name.to_string(), about)
    };
    json!({ "deployments": verdict.orders.iter().map(order).collect::<Map<_, _>>() })
}

fn keyword(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Roots(RootsError::Root { source, .. }) => keyword_of_root(source),
        Refusal::Roots(RootsError::Newest(source)) | Refusal::Branch(BranchError::Index(source)) => keyword_of(source),
        Refusal::Roots(RootsError::OtherFleet { .. }) => "fleet",
        Refusal::Roots(RootsError::Gap { .. } | RootsError::Rollback { .. }) => "roots",
        Refusal::Roots(RootsError::NoNewest | RootsError::NoFirst { .. }) | Refusal::Branch(BranchError::NoIndex) => {
            "missing"
        }
        Refusal::Branch(BranchError::OtherBranch { .. }) => "branch",
        Refusal::Branch(BranchError::OtherEpoch { .. }) => "epoch",
        Refusal::Branch(BranchError::Layout(_)) => "layout",
        Refusal::Branch(BranchError::Bin(error)) => match error {
            BinError::Absent { .. } => "missing",
            BinError::Altered { .. } => "digest",
            BinError::Unreadable { source, .. } => keyword_of(source),
            BinError::OtherBin { .. } => "bins",
            BinError::ListedAndWithdrawn { .. } => "tombstone",
        },
        Refusal::Branch(BranchError::Document(error)) => match error {
            DocumentError::NotListed { .. } | DocumentError::Absent { .. } | DocumentError::Withdrawn { .. } => {
                "missing"
            }
            DocumentError::Altered { .. } => "digest",
            DocumentError::Signed { source, .. } => keyword_of(source),
            DocumentError::OtherDocument { .. } => "document",
        },
        Refusal::Stale(_) => "expired",
        Refusal::SharedUnit { .. } => "units",
        other => panic!("no vector is about this: {other}"),
    }
}

fn keyword_of_root(error: &RootError) -> &'static str {
    match error {
        RootError::Signed { source, .. } => keyword_of(source),
        RootError::Role { .. } | RootError::TooFewApprovers { .. } | RootError::ApproverName { .. } => "keys",
        RootError::Epoch { .. } => "epoch",
        RootError::OtherFleet { .. } => "fleet",
        RootError::NotNext { .. } | RootError::Last(_) | RootError::Fleet(_) => "roots",
    }
}

fn keyword_of(error: &SignedError) -> &'static str {
    match error {
        SignedError::Malformed { .. } | SignedError::BeforeRelease => "malformed",
        SignedError::NewerSchema { .. } | SignedError::UnknownCritical { .. } => "newer",
        SignedError::NewerFormat { .. } => "format",
        SignedError::OtherFleet { .. } => "fleet",
        SignedError::NotEnoughSignatures { .. } => "signatures",
    }
}

#[test]
fn the_agent_gives_the_expected_result_for_each_vector() {
    let vectors = vectors();
    assert!(vectors.len() > 80, "{}", vectors.len());
    for vector in vectors {
        let case = case(&vector);
        let found = verify_as_agent(&vector, &case);
        let why = found.as_ref().err().map(ToString::to_string);
        assert_eq!(described(found), expected(&case), "{}: {} ({why:?})", vector.display(), case["about"]);
    }
}

/// What the reader in Python says of each vector.
fn read_in_python(vectors: &[PathBuf]) -> Vec<Value> {
    let script = Path::new(ROOT).join("tests/reader.py");
    let said = run(program("python3").arg("-B").arg(script).args(vectors));
    let results: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(results.len(), vectors.len());
    results
}

#[test]
fn the_reader_in_python_gives_the_expected_result_for_each_vector() {
    let vectors = vectors();
    for (vector, found) in vectors.iter().zip(read_in_python(&vectors)) {
        let case = case(vector);
        assert_eq!(found, expected(&case), "{}: {}", vector.display(), case["about"]);
    }
}

/// Writes copies of a vector to `below`, each with one file altered: it is missing, it is empty, or another file is beside it.
fn altered_copies(vector: &str, below: &Path) -> Vec<PathBuf> {
    let vector = Path::new(ROOT).join("fixtures/format").join(vector);
    let files = files(&vector.join("branch"));
    let mut copies = Vec::new();
    for path in files.keys() {
        let beside = Path::new(path).with_file_name("other.json").to_str().unwrap().to_owned();
        for (altered, bytes) in [(path, None), (path, Some(Vec::new())), (&beside, Some(b"{}\n".to_vec()))] {
            let mut files = files.clone();
            files.remove(altered);
            files.extend(bytes.map(|bytes| (altered.clone(), bytes)));
            let copy = below.join(copies.len().to_string());
            for (path, bytes) in files {
                let file = copy.join("branch").join(path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(file, bytes).unwrap();
            }
            std::fs::copy(vector.join("case.json"), copy.join("case.json")).unwrap();
            copies.push(copy);
        }
    }
    copies
}

#[test]
fn both_readers_agree_about_branches_with_one_file_altered() {
    for vector in ["one-bin", "sixteen-bins", "approved", "three-roots", "unknown-fields"] {
        let folder = tempfile::tempdir().unwrap();
        let copies = altered_copies(vector, folder.path());
        for (copy, found) in copies.iter().zip(read_in_python(&copies)) {
            let agent = described(verify_as_agent(copy, &case(copy)));
            assert_eq!(found, agent, "{vector}: {:?}", files(&copy.join("branch")).keys());
        }
    }
}
