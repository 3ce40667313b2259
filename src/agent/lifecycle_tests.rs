use super::*;
use crate::model::UnitType;
use crate::trust::digest;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn path(name: &str) -> StorePath {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
}

fn candidate(number: u64) -> Candidate {
    let content_digest = digest(&number.to_be_bytes());
    Candidate { revision: number.try_into().unwrap(), content_digest, nar_id: path(&format!("system-{number}")) }
}

fn unit() -> UnitReference {
    UnitReference { name: "web-1".parse().unwrap(), unit_type: UnitType::Nixos }
}

fn confirmed(number: u64) -> Lifecycle {
    Lifecycle::adopt(unit(), candidate(number), now())
}

fn begun(before: Option<Lifecycle>, number: u64) -> Lifecycle {
    Lifecycle::begin(before, unit(), candidate(number)).unwrap()
}

/// Revision 2 in its first attempt, over revision 1.
fn activating() -> Lifecycle {
    begun(Some(confirmed(1)), 2).realise().unwrap().activate(Some(path("system-1")), None, Proof::default()).unwrap()
}

fn failed() -> Lifecycle {
    activating().fail("exit code 1", now()).unwrap()
}

/// Revision 2 set for the next boot, over revision 1.
fn awaiting_reboot() -> Lifecycle {
    let next_boot = NextBoot { because: vec!["dbus → dbus-broker".to_owned()], set_in: Some("1".to_owned()) };
    activating().put_off(next_boot).unwrap().succeed().unwrap()
}

/// An example of each state.
fn all() -> [Lifecycle; 8] {
    [
        begun(None, 1),
        begun(None, 1).realise().unwrap(),
        activating(),
        awaiting_reboot(),
        activating().succeed().unwrap(),
        confirmed(1),
        failed(),
        failed().rolled_back(Ok(BackAgain::Now), now()).unwrap(),
    ]
}

type Transition = fn(Lifecycle) -> Result<Lifecycle, TransitionError>;

#[test]
fn each_state_has_its_transitions_and_refuses_the_others() {
    let transitions: [(&str, Transition); 11] = [
        ("begin", |state| Lifecycle::begin(Some(state), unit(), candidate(3))),
        ("realise", Lifecycle::realise),
        ("activate", |state| state.activate(None, None, Proof::default())),
        ("postpone", Lifecycle::postpone),
        ("put_off", |state| state.put_off(NextBoot::default())),
        ("succeed", Lifecycle::succeed),
        ("boot", Lifecycle::boot),
        ("confirm", |state| state.confirm(now())),
        ("fail", |state| state.fail("why", now())),
        ("roll_back", Lifecycle::roll_back),
        ("rolled_back", |state| state.rolled_back(Ok(BackAgain::Now), now())),
    ];
    let mut table = Vec::new();
    for state in all() {
        let possible = transitions.iter().filter_map(|(name, transition)| {
            transition(state.clone()).ok().map(|next| format!("{name}>{}", next.name()))
        });
        table.push(format!("{}: {}", state.name(), possible.collect::<Vec<_>>().join(" ")));
    }
    assert_eq!(
        table,
        [
            "known: begin>known realise>realised",
            "realised: begin>known activate>activating",
            "activating: postpone>known put_off>activating succeed>probation fail>rolling-back",
            "awaiting-reboot: begin>known boot>probation fail>rolling-back",
            "probation: confirm>confirmed fail>rolling-back",
            "confirmed: begin>known",
            "rolling-back: begin>known roll_back>rolling-back rolled_back>rolled-back",
            "rolled-back: begin>known",
        ]
    );
    let refused = confirmed(1).realise().unwrap_err();
    assert_eq!(refused, TransitionError { transition: "realise", state: "confirmed" });
}

#[test]
fn resume_leads_on_from_every_state() {
    let next: Vec<&str> = all().into_iter().map(|state| state.resume(3, now()).unwrap().name()).collect();
    let expected =
        ["known", "realised", "activating", "awaiting-reboot", "probation", "confirmed", "rolling-back", "rolled-back"];
    assert_eq!(next, expected);
}

#[test]
fn the_third_interrupted_attempt_is_the_last() {
    let mut state = activating();
    for attempts in [2, 3] {
        state = state.resume(3, now()).unwrap();
        let Lifecycle::Activating(rollout) = &state else { panic!("{state:?}") };
        assert_eq!((rollout.attempts, &rollout.way_back), (attempts, &WayBack::Path(path("system-1"))));
    }
    let Lifecycle::RollingBack(rollback) = state.resume(3, now()).unwrap() else { panic!() };
    assert_eq!((rollback.failure.attempts, rollback.tries, rollback.to), (3, 0, path("system-1")));
    assert!(rollback.failure.error.contains("ended during each of 3 attempts"));
}

#[test]
fn a_rollback_is_tried_until_it_holds() {
    let mut state = failed();
    for tries in 1..=20 {
        state = state.roll_back().unwrap().rolled_back(Err("why".to_owned()), now()).unwrap();
        let rollback = state.pending_rollback().unwrap();
        let last = rollback.last_failure.as_ref().unwrap();
        assert_eq!((rollback.tries, last.tries, last.error.as_str()), (tries, tries, "why"));
        assert_eq!(state.clone().resume(3, now()).unwrap(), state);
        assert!(state.is_resumed_before_the_branch() && state.certainly_running().is_none());
    }
    let Lifecycle::RolledBack(failed) = state.roll_back().unwrap().rolled_back(Ok(BackAgain::Now), now()).unwrap()
    else {
        panic!()
    };
    assert_eq!(failed.rollback, RollbackResult::Restored);
}

#[test]
fn after_three_interrupted_tries_the_branch_is_read_first() {
    let mut state = failed();
    for _ in 0..MAX_TRIES {
        assert!(state.is_resumed_before_the_branch());
        state = state.roll_back().unwrap().resume(3, now()).unwrap();
    }
    assert!(!state.is_resumed_before_the_branch());
    // The next revision still goes back to what ran before.
    let next = begun(Some(state.clone()), 3).realise().unwrap();
    let Lifecycle::Activating(rollout) = next.activate(Some(path("system-2")), None, Proof::default()).unwrap() else {
        panic!()
    };
    assert_eq!(rollout.way_back, WayBack::Path(path("system-1")));
    // A try that ends counts anew.
    let ended = state.roll_back().unwrap().rolled_back(Err("why".to_owned()), now()).unwrap();
    assert!(ended.is_resumed_before_the_branch());
}

#[test]
fn nothing_is_activated_again_where_nothing_else_ran_before() {
    for (ran, result) in [(None, RollbackResult::NothingBefore), (Some(path("system-1")), RollbackResult::SameBefore)] {
        let first = begun(None, 1).realise().unwrap().activate(ran, None, Proof::default()).unwrap();
        let Lifecycle::RolledBack(failed) = first.fail("why", now()).unwrap() else { panic!() };
        assert_eq!(failed.rollback, result);
    }
}

#[test]
fn a_postponed_attempt_does_not_count_and_an_interrupted_one_does() {
    let Lifecycle::Known(rollout) = activating().postpone().unwrap() else { panic!() };
    assert_eq!(rollout.attempts, 0);
    let interrupted = activating().resume(3, now()).unwrap().postpone().unwrap();
    for (number, attempts) in [(2, 1), (3, 0)] {
        let Lifecycle::Known(rollout) = begun(Some(interrupted.clone()), number) else { panic!() };
        // The way back is never the path that the interrupted attempt left in the profile.
        assert_eq!((rollout.attempts, rollout.way_back), (attempts, WayBack::Path(path("system-1"))));
    }
}

#[test]
fn what_may_be_halfway_does_not_certainly_run() {
    let running = |state: &Lifecycle| state.certainly_running().map(|running| running.revision.to_string());
    let one = || Some("1".to_owned());
    // Revision 1 runs until the machine boots.
    let expected = [None, None, None, one(), None, one(), None, one()];
    assert_eq!(all().each_ref().map(running), expected);
    assert_eq!(running(&begun(Some(confirmed(1)), 2)), Some("1".to_owned()));
    assert_eq!(running(&activating().postpone().unwrap()), None);
    assert_eq!(running(&failed().rolled_back(Err("why".to_owned()), now()).unwrap()), None);
    assert_eq!(failed().last_confirmed().map(|running| running.revision), Some(candidate(1).revision));
}

#[test]
fn a_state_is_read_as_it_is_written_and_nothing_else_is() {
    for state in all() {
        let json = serde_json::to_value(&state).unwrap();
        assert_eq!(json["state"], state.name());
        assert_eq!(serde_json::from_value::<Lifecycle>(json.clone()).unwrap(), state);
        let mut unknown = json;
        unknown["surprise"] = true.into();
        assert!(serde_json::from_value::<Lifecycle>(unknown).is_err(), "{}", state.name());
    }
}

#[test]
fn an_error_is_recorded_with_its_beginning_and_its_end() {
    let error = format!("failed: {} the end", "\u{1b}[2J".repeat(50_000));
    let Lifecycle::RollingBack(rollback) = activating().fail(&error, now()).unwrap() else { panic!() };
    let kept = &rollback.failure.error;
    assert!(kept.len() <= MAX_ERROR && kept.starts_with("failed: ") && kept.ends_with(" the end"), "{kept}");
    assert!(!kept.contains('\u{1b}'), "{kept}");
    let failed = Lifecycle::RollingBack(rollback).rolled_back(Err(error), now()).unwrap();
    assert!(failed.pending_rollback().unwrap().last_failure.as_ref().unwrap().error.len() <= MAX_ERROR);
}

#[test]
fn a_record_is_obsolete_where_nothing_was_attempted_or_runs() {
    let first = begun(None, 1);
    let never_ran =
        first.clone().realise().unwrap().activate(None, None, Proof::default()).unwrap().fail("no", now()).unwrap();
    assert!(first.is_obsolete());
    // Its path is in the profile, and no way back for the next deployment of the unit.
    for needed in [never_ran, confirmed(1), begun(Some(confirmed(1)), 2), activating(), failed()] {
        assert!(!needed.is_obsolete(), "{needed:?}");
    }
}

#[test]
fn a_probation_that_ends_in_order_is_no_attempt_a_few_times() {
    let attempts = |state: &Lifecycle| match state {
        Lifecycle::Probation(rollout) => rollout.attempts,
        other => panic!("{other:?}"),
    };
    let mut state = activating().succeed().unwrap();
    for _ in 0..MAX_PAUSES {
        state = state.pause().resume(2, now()).unwrap();
        assert_eq!(attempts(&state), 1);
    }
    state = state.pause().resume(2, now()).unwrap();
    assert_eq!(attempts(&state), 2);
    let Lifecycle::RollingBack(rollback) = state.pause().resume(2, now()).unwrap() else { panic!() };
    assert!(rollback.failure.error.contains("ended during each of 2 attempts"), "{}", rollback.failure.error);
    assert_eq!(activating().pause(), activating(), "an activation goes on by itself");
}

#[test]
fn what_is_set_for_the_next_boot_is_proved_after_it_or_leaves_alone_what_runs() {
    let waiting = awaiting_reboot();
    assert_eq!(waiting.next_boot(), Some(&path("system-2")));
    let Lifecycle::Probation(rollout) = waiting.clone().boot().unwrap() else { panic!() };
    assert_eq!((&rollout.next_boot, &rollout.way_back), (&None, &WayBack::Path(path("system-1"))));
    // After the boot it fails as any other.
    let Lifecycle::RollingBack(rollback) = Lifecycle::Probation(rollout).fail("why", now()).unwrap() else { panic!() };
    assert!(!rollback.never_ran);
    let Lifecycle::RollingBack(rollback) = waiting.fail("booted elsewhere", now()).unwrap() else { panic!() };
    assert!(rollback.never_ran && rollback.to == path("system-1"));
    // A revision that comes while another one waits goes back to what runs, and not to what waits.
    let next = begun(Some(awaiting_reboot()), 3).realise().unwrap();
    let next = next.activate(Some(path("system-2")), None, Proof::default()).unwrap();
    let Lifecycle::Activating(rollout) = next else { panic!() };
    assert_eq!((rollout.way_back, rollout.next_boot), (WayBack::Path(path("system-1")), None));
}

#[test]
fn what_comes_back_with_the_next_boot_runs_after_it() {
    let later = failed().roll_back().unwrap().rolled_back(Ok(BackAgain::AfterReboot), now()).unwrap();
    assert_eq!((later.next_boot(), later.certainly_running()), (Some(&path("system-1")), None));
    let next = begun(Some(later.clone()), 3).realise().unwrap();
    let Lifecycle::Activating(rollout) = next.activate(Some(path("system-2")), None, Proof::default()).unwrap() else {
        panic!()
    };
    assert_eq!(rollout.way_back, WayBack::Path(path("system-1")));
    let back = later.boot().unwrap();
    assert_eq!(back.certainly_running().map(|running| &running.nar_id), Some(&path("system-1")));
    assert!(back.next_boot().is_none() && back.boot().is_err());
}
