//! The decision about a revision on probation. No I/O; time is counted from the beginning of the probation.

use std::time::Duration;

use super::files::{CheckReport, CheckStanding};
use crate::model::{Check, CheckMode, Checks, Confirmation, Name, Probation, excerpt};

/// The most bytes of the error of a check.
const MAX_ERROR: usize = 1 << 10;
/// The most checks that a sentence names.
const MAX_NAMED: usize = 4;

/// What the decision rests on.
#[derive(Debug)]
pub(in crate::agent) struct Trial {
    checks: Vec<Tracked>,
    settle: Duration,
    deadline: Duration,
    confirm: Confirmation,
    mirror: Mirror,
    is_confirmed: bool,
}

/// A check, and what was seen of it.
#[derive(Debug)]
struct Tracked {
    name: Name,
    origin: Origin,
    check: Check,
    /// Why it did not hold last; `None` before the first look.
    last: Option<Result<(), String>>,
    /// When it was first and last seen to hold, without a break.
    held: Option<(Duration, Duration)>,
}

/// Who asks for a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Origin {
    /// The signed deployment.
    Deployment,
    /// The configuration of this machine.
    Machine,
}

/// Whether the branch can still be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Mirror {
    /// No mirror answered before the switch.
    NotAsked,
    /// No mirror was read yet; the last reason why not.
    Unread(Option<String>),
    /// A mirror showed a branch that is believed.
    Read,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Decision {
    /// It is not known yet.
    Wait,
    /// All of it holds, and a person has to confirm.
    AskPerson,
    /// The revision stays.
    Confirm,
    /// The machine goes back, for this reason.
    GiveUp(String),
}

impl Trial {
    /// A probation with the checks of the deployment and those of the machine. `asks_mirror` says whether a mirror has to be readable.
    pub(in crate::agent) fn begin(
        of_deployment: &Checks,
        of_machine: &Checks,
        terms: &Probation,
        asks_mirror: bool,
    ) -> Self {
        let all = |origin, checks: &Checks| {
            let track = |(name, check): (&Name, &Check)| Tracked {
                name: name.clone(),
                origin,
                check: check.clone(),
                last: None,
                held: None,
            };
            checks.iter().map(track).collect::<Vec<_>>()
        };
        let (settle, deadline) = terms.times();
        let mut checks = all(Origin::Deployment, of_deployment);
        checks.extend(all(Origin::Machine, of_machine));
        Self {
            checks,
            settle,
            deadline,
            confirm: terms.confirm.unwrap_or(Confirmation::Automatic),
            mirror: if asks_mirror { Mirror::Unread(None) } else { Mirror::NotAsked },
            is_confirmed: false,
        }
    }

    /// The checks, each at its place.
    pub(in crate::agent) fn checks(&self) -> impl ExactSizeIterator<Item = &Check> {
        self.checks.iter().map(|tracked| &tracked.check)
    }

    /// The time after which the machine goes back.
    pub(in crate::agent) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Whether it waits for a person.
    pub(in crate::agent) fn confirmation(&self) -> Confirmation {
        self.confirm
    }

    /// Notes what a look at the check at `place` found. Returns whether that differs from the look before.
    pub(in crate::agent) fn note(&mut self, place: usize, found: Result<(), String>, at: Duration) -> bool {
        let Some(tracked) = self.checks.get_mut(place) else { return false };
        tracked.held = match (&found, tracked.held) {
            (Ok(()), Some((first, _))) => Some((first, at)),
            (Ok(()), None) => Some((at, at)),
            (Err(_), _) => None,
        };
        let found = Some(found.map_err(|error| excerpt(&error, MAX_ERROR)));
        let is_news = tracked.last != found;
        tracked.last = found;
        is_news
    }

    /// Notes whether a mirror could be read. Once one was, that counts. Returns whether it is news.
    pub(in crate::agent) fn note_mirror(&mut self, found: Result<(), String>) -> bool {
        let next = match (&self.mirror, found) {
            (Mirror::Unread(_), Ok(())) => Mirror::Read,
            (Mirror::Unread(_), Err(error)) => Mirror::Unread(Some(excerpt(&error, MAX_ERROR))),
            (known, _) => known.clone(),
        };
        let is_news = next != self.mirror;
        self.mirror = next;
        is_news
    }

    /// Whether a mirror still has to be read.
    pub(in crate::agent) fn asks_mirror(&self) -> bool {
        matches!(self.mirror, Mirror::Unread(_))
    }

    /// Notes that a person confirmed the revision.
    pub(in crate::agent) fn note_confirmation(&mut self) {
        self.is_confirmed = true;
    }

    /// What follows at this time.
    pub(in crate::agent) fn decide(&self, at: Duration) -> Decision {
        let holds = self.has_settled() && !self.asks_mirror();
        // A check that is only told was looked at once, or its time is over.
        let is_told = at >= self.deadline || self.checks.iter().all(|tracked| tracked.last.is_some());
        if holds && is_told && (self.confirm == Confirmation::Automatic || self.is_confirmed) {
            return Decision::Confirm;
        }
        if at >= self.deadline {
            return Decision::GiveUp(self.reason());
        }
        if holds && self.confirm == Confirmation::Manual && !self.is_confirmed {
            Decision::AskPerson
        } else {
            Decision::Wait
        }
    }

    fn enforced(&self) -> impl Iterator<Item = &Tracked> {
        self.checks.iter().filter(|tracked| tracked.check.mode == CheckMode::Enforce)
    }

    /// What does not hold of the checks that are only told.
    pub(in crate::agent) fn told(&self) -> Vec<String> {
        let told = self.checks.iter().filter(|tracked| tracked.check.mode == CheckMode::Permissive);
        told.filter_map(Tracked::complaint).collect()
    }

    /// Whether all checks that are enforced held together for as long as they have to.
    fn has_settled(&self) -> bool {
        let held: Option<Vec<(Duration, Duration)>> = self.enforced().map(|tracked| tracked.held).collect();
        let Some(held) = held else { return false };
        let together = held.iter().map(|(first, _)| *first).max();
        let until = held.iter().map(|(_, last)| *last).min();
        together.zip(until).is_none_or(|(since, until)| until >= since + self.settle)
    }

    /// Why it is not confirmed at its deadline.
    fn reason(&self) -> String {
        let within = humantime::format_duration(self.deadline);
        let broken: Vec<String> = self.enforced().filter_map(Tracked::complaint).collect();
        let mut reasons = match broken.len() {
            0..=MAX_NAMED => broken,
            count => {
                let others = format!("{} more checks do not hold", count - MAX_NAMED);
                broken.into_iter().take(MAX_NAMED).chain([others]).collect()
            }
        };
        if reasons.is_empty() && !self.has_settled() {
            let settle = humantime::format_duration(self.settle);
            reasons.push(format!("its checks did not all hold for {settle} without a break"));
        }
        if let Mirror::Unread(why) = &self.mirror {
            let why = why.as_deref().unwrap_or("none has answered yet");
            reasons.push(format!("no mirror that answered before the switch shows a branch that is believed: {why}"));
        }
        if reasons.is_empty() {
            reasons.push("nobody confirmed it with `clavel-agent confirm`".to_owned());
        }
        format!("it did not prove itself within {within}: {}", reasons.join("; "))
    }

    /// What is known of each check, for people and monitoring.
    pub(in crate::agent) fn reports(&self) -> Vec<CheckReport> {
        let report = |tracked: &Tracked| CheckReport {
            name: tracked.name.clone(),
            is_of_machine: tracked.origin == Origin::Machine,
            looks_at: tracked.check.to_string(),
            mode: tracked.check.mode,
            standing: match &tracked.last {
                None => CheckStanding::Pending,
                Some(Ok(())) => CheckStanding::Holds,
                Some(Err(_)) => CheckStanding::Fails,
            },
            error: tracked.last.clone().and_then(Result::err),
        };
        self.checks.iter().map(report).collect()
    }

    /// Whether the branch can still be read, and the last reason why not.
    pub(in crate::agent) fn mirror(&self) -> &Mirror {
        &self.mirror
    }
}

impl Tracked {
    /// Why it does not hold.
    fn complaint(&self) -> Option<String> {
        let Self { name, origin, check, last, .. } = self;
        let of = match origin {
            Origin::Deployment => "",
            Origin::Machine => " of this machine",
        };
        let why = match last {
            Some(Ok(())) => return None,
            Some(Err(error)) => error.as_str(),
            None => "it gave no result",
        };
        Some(format!("the check `{name}`{of} ({}) does not hold: {why}", check.target))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn checks(of: serde_json::Value) -> Checks {
        serde_json::from_value(of).unwrap()
    }

    fn terms(of: serde_json::Value) -> Probation {
        serde_json::from_value(of).unwrap()
    }

    fn trial(of: serde_json::Value, asks_mirror: bool) -> Trial {
        let two = json!({ "a": { "tcp": "h:1" }, "b": { "tcp": "h:2" }, "c": { "tcp": "h:3", "mode": "permissive" } });
        Trial::begin(&checks(two), &Checks::default(), &terms(of), asks_mirror)
    }

    fn fails() -> Result<(), String> {
        Err("refused".to_owned())
    }

    #[test]
    fn all_enforced_checks_have_to_hold_together_without_a_break() {
        let mut trial = trial(json!({}), false);
        assert_eq!(trial.decide(seconds(0)), Decision::Wait);
        assert!(trial.note(0, Ok(()), seconds(1)));
        // The other one begins to hold later, and breaks once.
        assert!(trial.note(1, fails(), seconds(2)) && !trial.note(1, fails(), seconds(7)));
        trial.note(1, Ok(()), seconds(12));
        trial.note(0, Ok(()), seconds(41));
        assert_eq!(trial.decide(seconds(41)), Decision::Wait);
        trial.note(1, fails(), seconds(42));
        trial.note(1, Ok(()), seconds(47));
        trial.note(0, Ok(()), seconds(80));
        assert_eq!(trial.decide(seconds(80)), Decision::Wait, "the second was seen at 47 alone");
        trial.note(1, Ok(()), seconds(77));
        trial.note(2, Ok(()), seconds(77));
        assert_eq!(trial.decide(seconds(80)), Decision::Confirm);
        // What is only told decides nothing.
        assert!(trial.note(2, fails(), seconds(80)));
        assert_eq!(trial.decide(seconds(80)), Decision::Confirm);
    }

    #[test]
    fn a_check_that_is_only_told_is_looked_at_once() {
        let told = json!({ "a": { "tcp": "h:1", "mode": "permissive" } });
        let mut trial = Trial::begin(&checks(told), &Checks::default(), &Probation::default(), false);
        assert_eq!(trial.decide(seconds(0)), Decision::Wait);
        assert_eq!(trial.decide(seconds(300)), Decision::Confirm, "it decides nothing");
        trial.note(0, fails(), seconds(1));
        assert_eq!(trial.decide(seconds(1)), Decision::Confirm);
        assert_eq!(trial.told(), ["the check `a` (tcp h:1) does not hold: refused"]);
    }

    #[test]
    fn without_checks_the_mirror_alone_decides() {
        let begin = |asks| Trial::begin(&Checks::default(), &Checks::default(), &Probation::default(), asks);
        assert_eq!(begin(false).decide(seconds(0)), Decision::Confirm);
        let mut asked = begin(true);
        assert_eq!(asked.decide(seconds(299)), Decision::Wait);
        assert!(asked.note_mirror(fails()) && !asked.note_mirror(fails()));
        let Decision::GiveUp(why) = asked.decide(seconds(300)) else { panic!() };
        assert_eq!(
            why,
            "it did not prove itself within 5m: no mirror that answered before the switch shows a branch that is believed: \
             refused"
        );
        assert!(asked.note_mirror(Ok(())));
        assert_eq!(asked.decide(seconds(300)), Decision::Confirm);
        // A mirror that goes away later is an outage like any other.
        assert!(!asked.note_mirror(fails()));
        assert_eq!(asked.decide(seconds(301)), Decision::Confirm);
    }

    #[test]
    fn the_reason_names_what_does_not_hold() {
        let mut trial = trial(json!({ "deadline": "10s", "settle": "5s" }), false);
        let reason = |trial: &Trial| match trial.decide(seconds(10)) {
            Decision::GiveUp(why) => why,
            other => panic!("{other:?}"),
        };
        assert!(reason(&trial).contains("`a` (tcp h:1) does not hold: it gave no result; the check `b`"));
        trial.note(0, Ok(()), seconds(0));
        trial.note(1, fails(), seconds(9));
        let begin = "it did not prove itself within 10s: ";
        assert_eq!(reason(&trial), format!("{begin}the check `b` (tcp h:2) does not hold: refused"));
        trial.note(1, Ok(()), seconds(9));
        assert_eq!(reason(&trial), format!("{begin}its checks did not all hold for 5s without a break"));
        let many = (0..9).map(|n| (format!("c{n}"), json!({ "tcp": "h:1" }))).collect::<serde_json::Map<_, _>>();
        let machine = Trial::begin(&Checks::default(), &checks(many.into()), &Probation::default(), false);
        let Decision::GiveUp(why) = machine.decide(seconds(300)) else { panic!() };
        assert!(why.contains("`c3` of this machine") && why.ends_with("; 5 more checks do not hold"), "{why}");
    }

    #[test]
    fn a_person_is_asked_once_all_of_it_holds() {
        let mut trial = trial(json!({ "confirm": "manual", "settle": "1s" }), true);
        // Who confirms too early is heard once it holds.
        trial.note_confirmation();
        assert_eq!(trial.decide(seconds(5)), Decision::Wait);
        let held = |trial: &mut Trial| {
            for at in [1, 2] {
                trial.note(0, Ok(()), seconds(at));
                trial.note(1, Ok(()), seconds(at));
            }
            trial.note(2, fails(), seconds(2));
            trial.note_mirror(Ok(()));
        };
        held(&mut trial);
        assert_eq!(trial.decide(seconds(5)), Decision::Confirm);
        let mut alone = self::trial(json!({ "confirm": "manual", "settle": "1s" }), true);
        held(&mut alone);
        assert_eq!(alone.decide(seconds(5)), Decision::AskPerson);
        let Decision::GiveUp(why) = alone.decide(seconds(300)) else { panic!() };
        assert!(why.ends_with("nobody confirmed it with `clavel-agent confirm`"), "{why}");
    }
}
