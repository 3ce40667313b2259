use std::collections::BTreeMap;

use super::super::lifecycle::{BackAgain, Proof};
use super::*;
use crate::model::{Timestamp, UnitType};
use crate::trust::digest;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn name() -> Name {
    "web-1".parse().unwrap()
}

fn path(revision: u64) -> StorePath {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-system-{revision}").parse().unwrap()
}

/// Revision 2 in its first attempt, on a unit that `ran` this before.
fn activating(ran: Option<StorePath>) -> Lifecycle {
    let unit = UnitReference { name: name(), unit_type: UnitType::Nixos };
    let candidate = Candidate { revision: 2.try_into().unwrap(), content_digest: digest(b""), nar_id: path(2) };
    Lifecycle::begin(None, unit, candidate).unwrap().realise().unwrap().activate(ran, None, Proof::default()).unwrap()
}

fn fail(state: Lifecycle) -> Lifecycle {
    state.fail("the activation of `web-1` failed:\nno room at https://me:s3cret@h/x", now()).unwrap()
}

fn call(from: &Lifecycle, to: &Lifecycle) -> Option<HookCall> {
    HookCall::of_transition(&name(), from, to)
}

fn variables(call: &HookCall) -> BTreeMap<String, String> {
    let store = crate::store::open(None, std::time::Duration::from_secs(1), crate::store::Output::Capture);
    let text = |text: OsString| text.into_string().unwrap();
    call.environment(&*store).into_iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn a_success_is_told_once_when_it_is_confirmed() {
    let begun = activating(Some(path(1)));
    let on_probation = begun.clone().succeed().unwrap();
    assert_eq!(call(&begun, &on_probation), None);
    let confirmed = on_probation.clone().confirm(now()).unwrap();
    let after = call(&on_probation, &confirmed).unwrap();
    assert_eq!(after.step(), HookStep::After);
    assert_eq!(after.text(), format!("web-1: switched to revision 2: {}\n", path(2)));
    assert_eq!(call(&confirmed, &confirmed), None);
    assert_eq!(call(&begun, &begun.clone().postpone().unwrap()), None);
    assert_eq!(call(&begun, &begun.clone().resume(2, now()).unwrap()), None);
}

#[test]
fn a_failure_is_told_once_with_what_became_of_the_unit() {
    for begun in [activating(Some(path(1))), activating(Some(path(1))).succeed().unwrap()] {
        let failed = fail(begun.clone());
        assert_eq!(call(&begun, &failed), None, "it is not known yet what runs");
        let tried = failed.clone().roll_back().unwrap();
        assert_eq!(call(&failed, &tried), None);
        let back = tried.clone().rolled_back(Ok(BackAgain::Now), now()).unwrap();
        let told = call(&tried, &back).unwrap();
        assert_eq!(variables(&told)["CLAVEL_ROLLBACK"], "restored");
        assert!(told.text().contains(&format!("and the unit runs again what ran before: {}\n", path(1))));
        // A rollback that does not hold is told at its first try, and not at the others.
        let not_back = tried.clone().rolled_back(Err("no".to_owned()), now()).unwrap();
        let told = call(&tried, &not_back).unwrap();
        assert_eq!(variables(&told)["CLAVEL_ROLLBACK"], "pending");
        assert!(told.text().contains("does not hold yet (no); it is tried again at every pass"), "{}", told.text());
        let again = not_back.clone().roll_back().unwrap();
        for end in [Err("no".to_owned()), Ok(BackAgain::Now)] {
            assert_eq!(call(&again, &again.clone().rolled_back(end, now()).unwrap()), None);
        }
    }
    for (ran, word) in [(None, "nothing-before"), (Some(path(2)), "same-before")] {
        let begun = activating(ran);
        let told = call(&begun, &fail(begun.clone())).unwrap();
        assert_eq!(variables(&told)["CLAVEL_ROLLBACK"], word);
    }
}

#[test]
fn a_hook_has_the_variables_of_an_activation_and_its_own() {
    let begun = activating(Some(path(1)));
    let Lifecycle::Activating(rollout) = &begun else { panic!() };
    let before = HookCall::before(&name(), rollout);
    let own = variables(&before);
    let common = [
        ("CLAVEL_ATTEMPT", "1".to_owned()),
        ("CLAVEL_DEPLOYMENT", "web-1".to_owned()),
        ("CLAVEL_PATH", path(2).to_string()),
        ("CLAVEL_PREVIOUS_PATH", path(1).to_string()),
        ("CLAVEL_REVISION", "2".to_owned()),
        ("CLAVEL_STEP", "before".to_owned()),
        ("CLAVEL_STORE_PATH", path(2).to_string()),
        ("CLAVEL_UNIT", "web-1".to_owned()),
        ("CLAVEL_UNIT_TYPE", "nixos".to_owned()),
    ];
    assert_eq!(own, common.map(|(name, value)| (name.to_owned(), value)).into());
    let first = activating(None);
    let told = call(&first, &fail(first.clone())).unwrap();
    let own = variables(&told);
    assert_eq!(own["CLAVEL_ERROR"], "the activation of `web-1` failed: no room at https://h/x");
    assert_eq!((own["CLAVEL_STEP"].as_str(), own["CLAVEL_PREVIOUS_PATH"].as_str()), ("failure", ""));
    assert!(told.text().contains("no room at https://h/x\n") && !told.text().contains("s3cret"), "{}", told.text());
}

#[test]
fn a_warning_is_one_bounded_line_with_the_first_and_the_last_words_of_the_program() {
    let begun = activating(None);
    let Lifecycle::Activating(rollout) = &begun else { panic!() };
    let long = format!("`notify` failed with exit code 3:\n{}\nlast word", "no route\n".repeat(9000));
    let warning = HookWarning::failed(&HookCall::before(&name(), rollout), &long).to_string();
    assert!(warning.starts_with("the hook `before` failed at revision 2 of `web-1`: `notify` failed"), "{warning}");
    assert!(warning.ends_with("last word") && warning.len() < 1200 && !warning.contains('\n'), "{warning}");
}
