use super::*;
use crate::evaluate::outputs::FlakeOutput;

const HERE: &str = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source";
const THERE: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-source";

fn environment() -> Sha256Digest {
    Sha256Digest::from_bytes([7; 32])
}

fn key(name: &str) -> RecordKey {
    RecordKey::Item(FlakeOutput::Units.item(name))
}

/// The answer for `name` in `record`, where the source is at `tree` and everything else is unchanged.
fn valid_answer(record: &Record, name: &str, tree: &str) -> Result<Value, EvalReason> {
    let mut fingerprint = |_: &FileRead| None;
    let own = Map::from_iter([(OUT_PATH.to_owned(), tree.into())]);
    let (tree, inputs) = (tree.parse().unwrap(), BTreeMap::new());
    let environment = environment();
    let mut current =
        CurrentSource { environment, tree, own, inputs, fingerprint: &mut fingerprint, in_store: &|_| true };
    record.valid_answer(&key(name), &mut current).cloned()
}

/// A record of a source that was at `HERE`.
fn record() -> Record {
    let basis = |own: &[&str], relocation| Basis::Known {
        reads: Vec::new(),
        own: own.iter().map(|name| ((*name).to_owned(), HERE.into())).collect(),
        inputs: BTreeMap::new(),
        derivation: None,
        relocation,
    };
    let entry = |basis| RecordEntry { answer: "original".into(), cost: (1.0, 1), alone: true, basis };
    let entries = [
        ("same", basis(&[], RelocationCheck::Same)),
        ("differs", basis(&[], RelocationCheck::Differs)),
        ("pending", basis(&[], RelocationCheck::Pending)),
        ("uses-path", basis(&[OUT_PATH], RelocationCheck::Pending)),
        ("unwatched", Basis::Unknown("its reads were not watched".to_owned())),
    ];
    Record {
        environment: Some(environment()),
        tree: Some(HERE.parse().unwrap()),
        entries: entries.map(|(name, basis)| (key(name), entry(basis))).into(),
        broken: BTreeSet::from([FlakeOutput::Units.item("broken")]),
        ..Record::default()
    }
}

#[test]
fn an_answer_without_a_successful_relocation_check_holds_at_its_own_path_only() {
    let record = record();
    for name in ["same", "differs", "pending", "uses-path"] {
        assert_eq!(valid_answer(&record, name, HERE), Ok("original".into()), "{name}");
    }
    assert_eq!(valid_answer(&record, "same", THERE), Ok("original".into()));
    assert_eq!(valid_answer(&record, "differs", THERE), Err(EvalReason::Location));
    assert_eq!(valid_answer(&record, "pending", THERE), Err(EvalReason::RelocationUnchecked));
    assert_eq!(valid_answer(&record, "uses-path", THERE), Err(EvalReason::Own(OUT_PATH.to_owned())));
    assert_eq!(valid_answer(&record, "broken", HERE), Err(EvalReason::Broken));
    assert_eq!(valid_answer(&record, "absent", HERE), Err(EvalReason::New));
}

#[test]
fn a_relocation_check_is_made_where_it_may_succeed_and_its_result_is_kept() {
    let mut record = record();
    assert_eq!(record.pending(), BTreeSet::from([key("pending")]));
    let names = ["same", "differs", "pending", "uses-path", "unwatched", "new"];
    assert_eq!(names.map(|name| record.may_hold_after_relocation(&key(name))), [true, false, true, false, false, true]);
    for (answer, expected) in [
        (Some(Value::from("original")), Ok("original".into())),
        (Some("other".into()), Err(EvalReason::Location)),
        (None, Err(EvalReason::Location)),
    ] {
        record.note_relocated(&key("pending"), answer.as_ref());
        assert_eq!(valid_answer(&record, "pending", THERE), expected);
        assert_eq!(record.pending(), BTreeSet::new());
    }
}

#[test]
fn a_record_comes_back_from_its_file_with_the_names_apart_from_the_items() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/record.json");
    let mut record = record();
    let names =
        RecordEntry { answer: "names".into(), cost: (1.0, 1), alone: true, basis: Basis::Unknown(String::new()) };
    record.entries.insert(RecordKey::Names, names);
    record.write(&path).unwrap();
    let read = Record::read(&path);
    assert_eq!((read.entries, read.broken), (record.entries, record.broken));
    std::fs::write(&path, "{}x").unwrap();
    assert!(Record::read(&path).entries.is_empty());
}
