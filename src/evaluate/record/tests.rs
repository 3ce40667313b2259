use serde_json::Map;

use super::*;
use crate::evaluate::basis::OUT_PATH;
use crate::evaluate::nix_value::tests::nix_value;
use crate::evaluate::outputs::FlakeOutput;

const HERE: &str = "/nix/store/gns2lnaa6k5sisq8c939vrjm3qg0nwlh-source";
const THERE: &str = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-source";

fn environment() -> Sha256Digest {
    Sha256Digest::from_bytes([7; 32])
}

fn question() -> Sha256Digest {
    Sha256Digest::of("question")
}

fn item(name: &str) -> Item {
    FlakeOutput::Units.item(name)
}

fn value(text: &str) -> NixValue {
    nix_value(&text.into())
}

/// The answer for `name` in `record`, where the source is at `tree` and everything else is unchanged.
fn valid_answer(record: &Record, name: &str, tree: &str) -> Result<NixValue, EvalReason> {
    let mut fingerprint = |_: &FileRead| None;
    let own = Map::from_iter([(OUT_PATH.to_owned(), tree.into())]);
    let (tree, inputs) = (tree.parse().unwrap(), BTreeMap::new());
    let (question, environment) = (question(), environment());
    let fingerprint = &mut fingerprint;
    let mut current = CurrentSource { question, environment, tree, own, inputs, fingerprint, in_store: &|_| true };
    record.item(&item(name), &mut current).cloned()
}

/// What was learnt of an answer that used these attributes of `self`.
fn known(own: &[&str], differs_elsewhere: bool) -> Basis {
    let own = own.iter().map(|name| ((*name).to_owned(), HERE.into())).collect();
    Basis::Known(Dependencies { reads: Vec::new(), own, inputs: BTreeMap::new(), differs_elsewhere })
}

/// A record of a source that was at `HERE`.
fn record() -> Record {
    let warnings = EntryWarnings { texts: vec![0], extent: WarningExtent::All };
    let entry = |basis| RecordEntry {
        answer: value("original"),
        cost: (1.0, 1),
        derivation: None,
        warnings: warnings.clone(),
        basis,
    };
    let entries = [
        ("same", known(&[], false)),
        ("differs", known(&[], true)),
        ("unlearnt", Basis::Unlearnt),
        ("uses-path", known(&[OUT_PATH], false)),
        ("unwatched", Basis::Unknown("its reads were not watched".to_owned())),
    ];
    Record {
        environment: Some(environment()),
        tree: Some(HERE.parse().unwrap()),
        warnings: vec![WarningText::new("old")],
        items: entries.map(|(name, basis)| (item(name), entry(basis))).into(),
        broken: BTreeSet::from([FlakeOutput::Units.item("broken")]),
        ..Record::default()
    }
}

#[test]
fn every_answer_holds_about_its_own_tree_and_elsewhere_only_one_of_which_it_was_learnt_that_nothing_changed() {
    let record = record();
    for name in ["same", "differs", "unlearnt", "uses-path", "unwatched"] {
        assert_eq!(valid_answer(&record, name, HERE), Ok(value("original")), "{name}");
    }
    assert_eq!(valid_answer(&record, "same", THERE), Ok(value("original")));
    assert_eq!(valid_answer(&record, "differs", THERE), Err(EvalReason::Location));
    assert_eq!(valid_answer(&record, "unlearnt", THERE), Err(EvalReason::Unlearnt));
    assert_eq!(valid_answer(&record, "uses-path", THERE), Err(EvalReason::Own(OUT_PATH.to_owned())));
    let unobservable = EvalReason::Unobservable("its reads were not watched".to_owned());
    assert_eq!(valid_answer(&record, "unwatched", THERE), Err(unobservable));
    assert_eq!(valid_answer(&record, "broken", HERE), Err(EvalReason::Broken));
    assert_eq!(valid_answer(&record, "absent", HERE), Err(EvalReason::New));
}

/// The record after `change` with the source at `tree`.
fn changed(
    builder: impl FnOnce(&CurrentSource<'_>) -> RecordBuilder,
    tree: &str,
    change: impl FnOnce(&mut RecordBuilder, &mut CurrentSource<'_>),
) -> Record {
    let mut fingerprint = |_: &FileRead| None;
    let own = Map::from_iter([(OUT_PATH.to_owned(), tree.into())]);
    let (tree, inputs) = (tree.parse().unwrap(), BTreeMap::new());
    let (question, environment) = (question(), environment());
    let fingerprint = &mut fingerprint;
    let mut current = CurrentSource { question, environment, tree, own, inputs, fingerprint, in_store: &|_| true };
    let mut builder = builder(&current);
    change(&mut builder, &mut current);
    builder.finish()
}

#[test]
fn what_is_learnt_says_whether_an_answer_holds_elsewhere() {
    assert_eq!(record().unlearnt_items().collect::<Vec<_>>(), [&item("unlearnt")]);
    for (elsewhere, expected) in [
        (Ok((Some(value("original")), Observation::default())), Ok(value("original"))),
        (Ok((Some(value("other")), Observation::default())), Err(EvalReason::Location)),
        (Ok((None, Observation::default())), Err(EvalReason::Location)),
        (Err("odd".to_owned()), Err(EvalReason::Unobservable("odd".to_owned()))),
    ] {
        let learnt = changed(
            |_| record().resume(),
            HERE,
            |builder, current| {
                builder.learn_item(&item("unlearnt"), 9, elsewhere, current);
            },
        );
        assert_eq!(valid_answer(&learnt, "unlearnt", THERE), expected);
        assert_eq!(learnt.unlearnt_items().count(), 0);
        assert_eq!(learnt.cost(&item("unlearnt")).map(|cost| cost.memory), Some(9));
        assert_eq!(learnt.broken().count(), 1, "nothing else is lost");
    }
}

#[test]
fn nothing_is_learnt_again_about_an_answer_that_changes_with_each_content() {
    let before = record();
    let after = |name: &str, reason: EvalReason| {
        let add = |builder: &mut RecordBuilder, current: &mut CurrentSource<'_>| {
            builder.add_item(
                item(name),
                (value("new"), &AnswerWarnings::default()),
                Cost::default(),
                (&before, Some(&reason)),
                current,
            );
        };
        changed(RecordBuilder::new, THERE, add)
    };
    let own = || EvalReason::Own(OUT_PATH.to_owned());
    for (name, reason) in [("differs", EvalReason::Location), ("uses-path", own())] {
        let record = after(name, reason);
        assert_eq!(record.unlearnt_items().count(), 0, "{name}");
        assert_eq!(valid_answer(&record, name, THERE), Ok(value("new")));
        assert!(valid_answer(&record, name, HERE).is_err(), "{name}: the new answer is not that of the content before");
    }
    for (name, reason) in
        [("differs", EvalReason::Changed("x".into())), ("same", own()), ("unlearnt", EvalReason::Unlearnt)]
    {
        assert_eq!(after(name, reason).unlearnt_items().collect::<Vec<_>>(), [&item(name)]);
    }
}

#[test]
fn a_record_comes_back_from_its_file_with_the_survey_apart_from_the_items() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/record.json");
    let mut record = record();
    let survey = Survey { told: vec![(item("same"), value("told"))], ..Survey::default() };
    record.survey = Some(RecordEntry {
        answer: survey,
        cost: (1.0, 1),
        derivation: None,
        warnings: EntryWarnings::default(),
        basis: Basis::Unlearnt,
    });
    record.write(&path).unwrap();
    let read = Record::read(&path);
    assert_eq!(read.warnings(&item("same")), record.warnings(&item("same")));
    assert_eq!((read.survey, read.items, read.broken), (record.survey, record.items, record.broken));
    std::fs::write(&path, "{}x").unwrap();
    assert!(Record::read(&path).items.is_empty());
}

#[test]
fn an_answer_keeps_its_warnings_and_a_new_one_has_its_own() {
    let before = record();
    let warnings = |texts: &[&str], extent| {
        let texts = texts.iter().map(|text| WarningText::new(text)).collect();
        AnswerWarnings { texts, extent }
    };
    let new = warnings(&["new", "old"], WarningExtent::Some);
    let add = |builder: &mut RecordBuilder, current: &mut CurrentSource<'_>| {
        builder.add_item(item("unlearnt"), (value("new"), &new), Cost::default(), (&before, None), current);
        builder.keep_item(&before, &item("same"));
    };
    let record = changed(RecordBuilder::new, THERE, add);
    assert_eq!(record.warnings(&item("unlearnt")), new);
    assert_eq!(record.warnings(&item("same")), warnings(&["old"], WarningExtent::All));
    assert_eq!(record.warnings.len(), 2, "each text is recorded once");
    let alone = warnings(&["old", "alone"], WarningExtent::All);
    let learnt = changed(
        |_| record.resume(),
        THERE,
        |builder, _| {
            builder.learn_warnings(&item("unlearnt"), &alone);
        },
    );
    assert_eq!(learnt.warnings(&item("unlearnt")), alone);
    assert_eq!(learnt.warnings(&item("absent")), AnswerWarnings::default());
}

#[test]
fn only_an_answer_whose_reads_did_not_change_has_the_warnings_that_it_had() {
    let before = record();
    let unchanged = |name: &str, reason: EvalReason| {
        let mut found = None;
        changed(RecordBuilder::new, THERE, |_, current| {
            found = before.unchanged_warnings(&item(name), &reason, current);
        });
        found.is_some()
    };
    assert!(unchanged("differs", EvalReason::Location));
    assert!(!unchanged("differs", EvalReason::Changed("x".into())));
    assert!(!unchanged("unlearnt", EvalReason::Unlearnt));
}

#[test]
fn one_warning_more_than_are_kept_is_recorded() {
    let before = record();
    let many = AnswerWarnings {
        texts: (0..1000).map(|number| WarningText::new(&number.to_string())).collect(),
        extent: WarningExtent::Some,
    };
    let record = changed(RecordBuilder::new, THERE, |builder, current| {
        builder.add_item(item("a"), (value("new"), &many), Cost::default(), (&before, None), current);
    });
    assert_eq!(record.warnings(&item("a")).texts.len(), MAX_WARNINGS + 1);
}
