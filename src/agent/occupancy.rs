//! What the records of all deployments say about one unit: what it ran before, and which deployment has it. No I/O.
//!
//! A deployment may move from one unit to another, and a unit from one deployment to another, so the record of one deployment
//! alone does not say what a unit runs. The states and their transitions belong to `lifecycle`.

use std::collections::BTreeMap;

use super::lifecycle::{FailedRollout, Lifecycle, Rollback, RollbackResult, Rollout, WayBack};
use crate::model::{Name, StorePath};

/// What the record of one deployment says about a unit.
enum Claim<'a> {
    /// An attempt may have left the unit halfway, and this ran before it.
    Before(&'a WayBack),
    /// A rollback goes to this path.
    BackTo(&'a StorePath),
    /// The unit runs this.
    Runs(&'a StorePath),
    /// This failed on the unit, where nothing ran before.
    Failed(&'a StorePath),
}

/// The store path that `unit` ran before the attempt that begins now, where its profile leads to `profile`.
pub(super) fn ran_before(
    unit: &Name,
    deployments: &BTreeMap<Name, Lifecycle>,
    profile: Option<StorePath>,
) -> Option<StorePath> {
    let claims: Vec<Claim<'_>> = deployments.values().filter_map(|known| claim(known, unit)).collect();
    let back = claims.iter().find_map(|claim| match claim {
        Claim::Before(way_back) => Some(way_back.path().cloned()),
        Claim::BackTo(to) => Some(Some((*to).clone())),
        Claim::Runs(_) | Claim::Failed(_) => None,
    });
    if let Some(back) = back {
        return back;
    }
    let runs = claims.iter().find_map(|claim| match claim {
        Claim::Runs(path) => Some((*path).clone()),
        Claim::Before(_) | Claim::BackTo(_) | Claim::Failed(_) => None,
    });
    let failed =
        |path: &StorePath| claims.iter().any(|claim| matches!(claim, Claim::Failed(failed) if *failed == path));
    runs.or_else(|| profile.filter(|path| !failed(path)))
}

/// The records once `deployment` takes `unit`: what the others say about it is over.
pub(super) fn take(
    unit: &Name,
    deployment: &Name,
    deployments: BTreeMap<Name, Lifecycle>,
) -> BTreeMap<Name, Lifecycle> {
    let others = |(name, known): (Name, Lifecycle)| {
        let known = if name == *deployment { Some(known) } else { without(known, unit) };
        known.map(|known| (name, known))
    };
    deployments.into_iter().filter_map(others).collect()
}

fn claim<'a>(known: &'a Lifecycle, unit: &Name) -> Option<Claim<'a>> {
    let running = || known.last_confirmed().filter(|running| running.unit.name == *unit);
    let runs = || running().map(|running| Claim::Runs(&running.nar_id));
    match known {
        Lifecycle::Activating(rollout)
        | Lifecycle::AwaitingReboot(rollout)
        | Lifecycle::Probation(rollout)
        | Lifecycle::Known(rollout)
        | Lifecycle::Realised(rollout)
            if rollout.unit.name == *unit =>
        {
            match &rollout.way_back {
                WayBack::NotRecorded => runs().or_else(|| rollout.not_back_to.as_ref().map(Claim::Failed)),
                way_back => Some(Claim::Before(way_back)),
            }
        }
        Lifecycle::RollingBack(rollback) if rollback.unit.name == *unit => Some(Claim::BackTo(&rollback.to)),
        Lifecycle::RolledBack(failed) if failed.unit.name == *unit => match &failed.rollback {
            RollbackResult::NothingBefore => Some(Claim::Failed(&failed.candidate.nar_id)),
            RollbackResult::AfterReboot(to) => Some(Claim::BackTo(to)),
            RollbackResult::Restored | RollbackResult::SameBefore => runs(),
        },
        _ => runs(),
    }
}

/// The record of a deployment that has lost `unit` to another one; `None` where it was about nothing else.
fn without(known: Lifecycle, unit: &Name) -> Option<Lifecycle> {
    let rollout = |rollout: Rollout| {
        let running = rollout.running.filter(|running| running.unit.name != *unit);
        if rollout.unit.name == *unit {
            Rollout { running, way_back: WayBack::NotRecorded, not_back_to: None, ..rollout }
        } else {
            Rollout { running, ..rollout }
        }
    };
    match known {
        Lifecycle::Known(begun) => Some(Lifecycle::Known(rollout(begun))),
        Lifecycle::Realised(begun) => Some(Lifecycle::Realised(rollout(begun))),
        Lifecycle::Activating(begun) if begun.unit.name != *unit => Some(Lifecycle::Activating(rollout(begun))),
        Lifecycle::AwaitingReboot(begun) if begun.unit.name != *unit => Some(Lifecycle::AwaitingReboot(rollout(begun))),
        Lifecycle::Probation(begun) if begun.unit.name != *unit => Some(Lifecycle::Probation(rollout(begun))),
        Lifecycle::RolledBack(failed) if failed.unit.name != *unit => {
            let running = failed.running.filter(|running| running.unit.name != *unit);
            Some(Lifecycle::RolledBack(FailedRollout { running, ..failed }))
        }
        Lifecycle::RollingBack(rollback) if rollback.unit.name != *unit => {
            let last_confirmed = rollback.last_confirmed.filter(|running| running.unit.name != *unit);
            Some(Lifecycle::RollingBack(Rollback { last_confirmed, ..rollback }))
        }
        Lifecycle::Confirmed { running } if running.unit.name != *unit => Some(Lifecycle::Confirmed { running }),
        Lifecycle::Activating(_)
        | Lifecycle::AwaitingReboot(_)
        | Lifecycle::Probation(_)
        | Lifecycle::RolledBack(_)
        | Lifecycle::RollingBack(_)
        | Lifecycle::Confirmed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::lifecycle::{Candidate, Proof, UnitReference};
    use crate::model::{Timestamp, UnitType};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn path(name: &str) -> StorePath {
        format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap()
    }

    fn unit(text: &str) -> UnitReference {
        UnitReference { name: name(text), unit_type: UnitType::Nixos }
    }

    fn candidate(system: &str) -> Candidate {
        let content_digest = crate::trust::digest(system.as_bytes());
        Candidate { revision: crate::model::Revision::FIRST, content_digest, nar_id: path(system) }
    }

    fn runs(on: &str, system: &str) -> Lifecycle {
        Lifecycle::adopt(unit(on), candidate(system), now())
    }

    /// An attempt to bring `system` to a unit that ran `before`.
    fn attempt(on: &str, system: &str, before: Option<&str>) -> Lifecycle {
        let begun = Lifecycle::begin(None, unit(on), candidate(system)).unwrap().realise().unwrap();
        begun.activate(before.map(path), None, Proof::default()).unwrap()
    }

    fn all(known: Vec<(&str, Lifecycle)>) -> BTreeMap<Name, Lifecycle> {
        known.into_iter().map(|(deployment, known)| (name(deployment), known)).collect()
    }

    #[test]
    fn what_a_unit_ran_is_asked_of_every_record_about_it_and_then_of_its_profile() {
        let failed = |before| attempt("a", "bad", before).fail("why", now()).unwrap();
        let moved = |before, to| Lifecycle::begin(Some(before), unit(to), candidate("new")).unwrap();
        for (case, known, profile, ran) in [
            ("nothing", all(vec![]), None, None),
            ("another tool", all(vec![]), Some("other"), Some("other")),
            ("confirmed", all(vec![("x", runs("a", "one"))]), Some("other"), Some("one")),
            ("on another unit", all(vec![("x", runs("b", "one"))]), None, None),
            ("moved away", all(vec![("x", moved(runs("a", "one"), "b"))]), Some("one"), Some("one")),
            ("moved here", all(vec![("x", moved(runs("b", "one"), "a"))]), Some("other"), Some("other")),
            ("halfway", all(vec![("x", attempt("a", "bad", Some("one")))]), Some("bad"), Some("one")),
            ("halfway, first", all(vec![("x", attempt("a", "bad", None))]), Some("bad"), None),
            ("going back", all(vec![("x", failed(Some("one")))]), Some("bad"), Some("one")),
            ("failed, first", all(vec![("x", failed(None))]), Some("bad"), None),
            ("failed and mended by hand", all(vec![("x", failed(None))]), Some("good"), Some("good")),
            ("failed, next", all(vec![("x", moved(failed(None), "a"))]), Some("bad"), None),
            ("failed elsewhere", all(vec![("x", moved(failed(None), "b"))]), Some("bad"), Some("bad")),
        ] {
            assert_eq!(ran_before(&name("a"), &known, profile.map(path)), ran.map(path), "{case}");
        }
    }

    #[test]
    fn a_unit_that_another_deployment_takes_is_forgotten_by_the_first() {
        let waiting = Lifecycle::begin(Some(runs("a", "one")), unit("b"), candidate("new")).unwrap();
        let taken = take(
            &name("a"),
            &name("y"),
            all(vec![
                ("confirmed", runs("a", "one")),
                ("failed", attempt("a", "bad", Some("one")).fail("why", now()).unwrap()),
                ("elsewhere", runs("b", "one")),
                ("waiting", waiting),
                ("y", attempt("a", "two", Some("one"))),
            ]),
        );
        assert_eq!(taken.keys().map(Name::as_str).collect::<Vec<_>>(), ["elsewhere", "waiting", "y"]);
        assert_eq!(taken[&name("waiting")].last_confirmed(), None);
        assert_eq!(ran_before(&name("a"), &taken, None), Some(path("one")));
    }
}
