//! Every state that a deployment can reach on its units, and what has to hold in each of them.
//!
//! The pass and the world around it are modelled as events: how an activation ends, where the agent is killed, what the branch says next.
//! A unit whose machine has to boot first is not modelled. What the units run is modelled beside the record, so that a record that claims something false is found.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::occupancy;
use super::*;
use crate::model::UnitType;
use crate::trust::digest;

/// The attempts at a revision.
const MOST: u32 = 3;
/// The most mishaps of a history: ends of the agent, rollbacks that fail, postponed attempts, and retries. It is enough for the last attempt
/// to be reached and for one more.
const MAX_MISHAPS: u32 = MOST + 1;
/// The revisions that the branch has one after another.
const REVISIONS: u64 = 3;
/// The events after which each state has come to an end, if there is no mishap any more.
const MAX_STEPS: usize = 8;
/// What the units run that ran something before Clavel came: the path of a revision that the branch never has.
const OTHER_TOOL: u64 = 0;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn path(number: u64) -> StorePath {
    format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-system-{number}").parse().unwrap()
}

fn candidate(number: u64) -> Candidate {
    let content_digest = digest(&number.to_be_bytes());
    // The third revision takes back what the second one changed.
    let nar_id = path(if number == 3 { 1 } else { number });
    Candidate { revision: number.try_into().unwrap(), content_digest, nar_id }
}

fn deployment() -> Name {
    "web".parse().unwrap()
}

/// A unit as it really is.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Unit {
    /// What runs, if that is certain: nothing, or this path.
    #[expect(clippy::option_option, reason = "that nothing runs is certain too")]
    runs: Option<Option<StorePath>>,
    /// What its profile leads to.
    profile: Option<StorePath>,
    /// What ran well there last: what Clavel found, or what proved itself.
    good: Option<StorePath>,
}

/// A moment of a history.
#[derive(Debug, Clone)]
struct Moment {
    record: Option<Lifecycle>,
    /// The newest revision of the branch, and the unit that it names.
    branch: (u64, &'static str),
    units: BTreeMap<&'static str, Unit>,
    mishaps: u32,
}

/// A moment, and how it came about.
type Next = (&'static str, Moment);

impl Moment {
    fn first(ran: Option<StorePath>) -> Self {
        let unit = Unit { runs: Some(ran.clone()), profile: ran.clone(), good: ran };
        Self { record: None, branch: (1, "a"), units: [("a", unit.clone()), ("b", unit)].into(), mishaps: 0 }
    }

    fn key(&self) -> String {
        let record = serde_json::to_string(&self.record).unwrap();
        format!("{record} {:?} {:?} {}", self.branch, self.units, self.mishaps)
    }

    fn unit_of(name: &str) -> UnitReference {
        UnitReference { name: name.parse().unwrap(), unit_type: UnitType::Nixos }
    }

    /// The same with another record, once a pass has recorded it.
    fn with(&self, record: Result<Lifecycle, TransitionError>) -> Self {
        Self { record: Some(record.unwrap()), ..self.clone() }
    }

    /// The same after a mishap.
    fn after_mishap(self) -> Self {
        Self { mishaps: self.mishaps + 1, ..self }
    }

    /// The same, where the unit of the record runs this, or may be halfway.
    fn running(mut self, runs: Option<StorePath>) -> Self {
        let name = self.record.as_ref().unwrap().unit().to_string();
        let unit = self.units.get_mut(name.as_str()).unwrap();
        unit.profile.clone_from(&runs);
        unit.runs = Some(runs);
        self
    }

    fn halfway(mut self, profile: StorePath) -> Self {
        self = self.running(Some(profile));
        let name = self.record.as_ref().unwrap().unit().to_string();
        self.units.get_mut(name.as_str()).unwrap().runs = None;
        self
    }

    /// Whether the record says that nothing is left to do about what the branch says.
    fn is_done(&self) -> bool {
        let (number, unit) = self.branch;
        match self.record.as_ref() {
            Some(Lifecycle::Confirmed { running }) => {
                running.revision == candidate(number).revision && running.unit == Self::unit_of(unit)
            }
            Some(Lifecycle::RolledBack(failed)) => failed.candidate == candidate(number),
            _ => false,
        }
    }

    /// What a pass does that takes up what the branch says. It ends before the activation.
    fn apply(&self) -> Vec<Next> {
        let (number, unit) = self.branch;
        let running = self.record.as_ref().and_then(Lifecycle::certainly_running);
        if running
            .is_some_and(|running| running.unit == Self::unit_of(unit) && running.nar_id == candidate(number).nar_id)
        {
            return vec![(
                "it is adopted",
                self.with(Ok(Lifecycle::adopt(Self::unit_of(unit), candidate(number), now()))),
            )];
        }
        let known = Lifecycle::begin(self.record.clone(), Self::unit_of(unit), candidate(number)).unwrap();
        let records = self.record.iter().map(|record| (deployment(), record.clone())).collect();
        // The record of a rollback stays until the next attempt.
        let is_going_back = matches!(self.record, Some(Lifecycle::RollingBack(_)));
        let waits = if is_going_back { None } else { Some(("it is fetched", self.with(Ok(known.clone())))) };
        let before: BTreeMap<Name, Lifecycle> =
            if is_going_back { records } else { [(deployment(), known.clone())].into() };
        let ran = occupancy::ran_before(&unit.parse().unwrap(), &before, self.units[unit].profile.clone());
        let activating = known.realise().unwrap().activate(ran, None, Proof::default());
        let is_waiting = matches!(&self.record, Some(Lifecycle::Known(_)));
        waits.filter(|_| !is_waiting).into_iter().chain([("it is activated", self.with(activating))]).collect()
    }

    /// What happens next where nothing goes wrong but what a revision does wrong.
    fn fair(&self) -> Vec<Next> {
        match &self.record {
            Some(state @ Lifecycle::Activating(rollout)) => {
                let path = rollout.candidate.nar_id.clone();
                vec![
                    ("the activation succeeds", self.with(state.clone().succeed()).running(Some(path.clone()))),
                    ("the activation fails", self.with(state.clone().fail("no", now())).halfway(path)),
                ]
            }
            Some(state @ Lifecycle::Probation(rollout)) => {
                let mut proved = self.with(state.clone().confirm(now()));
                let unit = proved.units.get_mut(rollout.unit.name.as_str()).unwrap();
                unit.good = Some(rollout.candidate.nar_id.clone());
                vec![("it proves itself", proved), ("a check fails", self.with(state.clone().fail("no", now())))]
            }
            Some(state @ Lifecycle::RollingBack(rollback)) => {
                let back = state.clone().roll_back().unwrap().rolled_back(Ok(BackAgain::Now), now());
                let back = ("it goes back", self.with(back).running(Some(rollback.to.clone())));
                let is_news = rollback.candidate != candidate(self.branch.0);
                [vec![back], if is_news { self.apply() } else { Vec::new() }].concat()
            }
            _ if self.is_done() => Vec::new(),
            _ => self.apply(),
        }
    }

    /// What else may happen.
    fn mishaps(&self) -> Vec<Next> {
        let Some(state) = self.record.clone() else { return Vec::new() };
        let resumed = || self.with(state.clone().resume(MOST, now()));
        let mut next = Vec::new();
        match &state {
            Lifecycle::Activating(rollout) => {
                let path = rollout.candidate.nar_id.clone();
                let mut killed = resumed();
                if rollout.way_back == WayBack::Nothing {
                    // Where nothing ran well, the record knows the path that failed last, and not the one before it. So this is about an
                    // agent that has moved the profile.
                    killed.units.get_mut(rollout.unit.name.as_str()).unwrap().profile = Some(path.clone());
                }
                next.push(("it is killed before the activation", killed));
                next.push(("the machine ends in the activation", resumed().halfway(path.clone())));
                next.push(("the activation cannot begin", self.with(state.clone().postpone())));
                next.extend(self.taken_back(rollout.target_of_way_back(), &path));
            }
            Lifecycle::Probation(rollout) => {
                next.push(("it is killed on probation", resumed()));
                let paused = state.clone().pause();
                next.push(("it ends in order", self.with(paused.resume(MOST, now()))));
                next.extend(self.taken_back(rollout.target_of_way_back(), &rollout.candidate.nar_id));
            }
            Lifecycle::RollingBack(rollback) => {
                let begun = state.clone().roll_back().unwrap();
                let halfway = |record| self.with(record).halfway(rollback.to.clone());
                next.push(("it is killed in the rollback", halfway(begun.clone().resume(MOST, now()))));
                next.push(("the rollback fails", halfway(begun.rolled_back(Err("no".into()), now()))));
                next.extend(self.taken_back(Some(&rollback.to), &rollback.candidate.nar_id));
            }
            Lifecycle::RolledBack(_) if self.is_done() => next.extend(self.apply()),
            _ => next.push(("it is killed", resumed())),
        }
        next.into_iter().map(|(event, moment)| (event, moment.after_mishap())).collect()
    }

    /// The timer goes back before the agent.
    fn taken_back(&self, to: Option<&StorePath>, halfway: &StorePath) -> Vec<Next> {
        let (Some(to), Some(state)) = (to, &self.record) else { return Vec::new() };
        let taken = |result| self.with(state.clone().take_back(result, now()));
        vec![
            ("the timer goes back", taken(Ok(BackAgain::Now)).running(Some(to.clone()))),
            ("the timer fails to go back", taken(Err("no".into())).halfway(halfway.clone())),
        ]
    }

    fn next(&self) -> Vec<Next> {
        let mut next = self.fair();
        if self.mishaps < MAX_MISHAPS {
            next.extend(self.mishaps());
        }
        let (number, unit) = self.branch;
        if number < REVISIONS {
            next.push(("a new revision", Self { branch: (number + 1, unit), ..self.clone() }));
            if unit == "a" {
                next.push(("a new revision for another unit", Self { branch: (number + 1, "b"), ..self.clone() }));
            }
        }
        next
    }

    /// What does not hold in this moment.
    fn wrong(&self) -> Option<&'static str> {
        let unit = |reference: &UnitReference| &self.units[reference.name.as_str()];
        let state = self.record.as_ref()?;
        // A deployment that moved to another unit while the first was halfway still has the record of what was confirmed there, as its way
        // back. So this is about the unit that the record is for.
        if let Some(running) = state.certainly_running().filter(|running| running.unit.name == *state.unit())
            && unit(&running.unit).runs != Some(Some(running.nar_id.clone()))
        {
            return Some("it says that something certainly runs, which does not");
        }
        match state {
            Lifecycle::Activating(rollout) | Lifecycle::Probation(rollout) => {
                let way_back = unit(&rollout.unit).good.clone().map_or(WayBack::Nothing, WayBack::Path);
                if rollout.way_back != way_back {
                    return Some("the way back is not what ran well before");
                }
                (!(1..=MOST).contains(&rollout.attempts)).then_some("the attempts are beyond their limit")
            }
            Lifecycle::Known(rollout) | Lifecycle::Realised(rollout) => {
                (rollout.attempts > MOST).then_some("the attempts are beyond their limit")
            }
            Lifecycle::RollingBack(rollback) if rollback.to == rollback.candidate.nar_id => {
                Some("it goes back to what failed")
            }
            Lifecycle::RollingBack(rollback) if unit(&rollback.unit).good.as_ref() != Some(&rollback.to) => {
                Some("it goes back to something else than what ran well before")
            }
            Lifecycle::RolledBack(failed) if failed.failure.attempts > MOST => {
                Some("the attempts are beyond their limit")
            }
            Lifecycle::RolledBack(FailedRollout { rollback: RollbackResult::NothingBefore, unit: of, .. }) => {
                unit(of).good.is_some().then_some("something ran before, and it does not go back to it")
            }
            Lifecycle::RolledBack(_)
            | Lifecycle::AwaitingReboot(_)
            | Lifecycle::RollingBack(_)
            | Lifecycle::Confirmed { .. } => None,
        }
    }

    /// The most events until an end, where nothing goes wrong but what a revision does wrong; `None` where there is no end.
    fn steps_to_an_end(&self, most: usize) -> Option<usize> {
        if self.is_done() {
            return Some(0);
        }
        let next = self.fair();
        if most == 0 || next.is_empty() {
            return None;
        }
        next.iter()
            .map(|(_, moment)| moment.steps_to_an_end(most - 1).map(|steps| steps + 1))
            .try_fold(0, |max, steps| steps.map(|steps| steps.max(max)))
    }

    /// Whether it gives up a revision in the end that ends the agent each time, in this way.
    fn gives_up(&self, end: fn(Lifecycle) -> Lifecycle) -> bool {
        let mut state = self.record.clone();
        for _ in 0..=MOST + MAX_PAUSES {
            state = match state {
                Some(state @ (Lifecycle::Activating(_) | Lifecycle::Probation(_))) => {
                    Some(end(state).resume(MOST, now()).unwrap())
                }
                _ => return true,
            };
        }
        !matches!(state, Some(Lifecycle::Activating(_) | Lifecycle::Probation(_)))
    }
}

/// Visits every moment, and returns how many there are. What does not hold fails with the shortest history that leads there.
fn check_all(first: Moment) -> usize {
    let mut seen = BTreeSet::from([first.key()]);
    let mut moments = vec![(first, None::<(usize, &'static str)>)];
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        let moment = moments[at].0.clone();
        let wrong = moment
            .wrong()
            .or_else(|| moment.steps_to_an_end(MAX_STEPS).is_none().then_some("it does not come to an end"))
            .or_else(|| (!moment.gives_up(|state| state)).then_some("it is killed for ever"))
            .or_else(|| (!moment.gives_up(Lifecycle::pause)).then_some("it is ended in order for ever"));
        if let Some(wrong) = wrong {
            let (mut history, mut before) = (Vec::new(), moments[at].1);
            while let Some((earlier, event)) = before {
                history.push(event);
                before = moments[earlier].1;
            }
            history.reverse();
            panic!("{wrong}, in one of {} states, after {history:?}: {moment:?}", seen.len());
        }
        for (event, next) in moment.next() {
            if seen.insert(next.key()) {
                queue.push_back(moments.len());
                moments.push((next, Some((at, event))));
            }
        }
    }
    moments.len()
}

#[test]
fn every_history_of_a_deployment_comes_to_an_end_and_never_loses_its_way_back() {
    for ran in [None, Some(path(OTHER_TOOL))] {
        let count = check_all(Moment::first(ran));
        assert!(count > 1000, "only {count} states were reached");
    }
}
