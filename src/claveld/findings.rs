//! What a round found that somebody has to look at, or that waits; and what of it the daemon's log says. No I/O.
//!
//! A round is about some sources. It says nothing about the findings of the others, so these stay open.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Instant;

use super::mirror_state::{FailedAttempt, MirrorReport, MirrorState};
use super::round::{RoundOutcome, SourceFailure};
use crate::evaluate::{EvalWarning, Evaluation, Failure};
use crate::model::{FlakeReference, Name, RootWarning, Timestamp, describe_error, headline};
use crate::news::{News, Standing};
use crate::publish::{
    HeldWithdrawals, KeptBack, LostDeployment, NameConflict, PublishError, PublishReport, Unpublishable, Waiting,
};

/// One thing that a round found.
#[derive(Debug, Clone, Copy)]
pub enum Finding<'a> {
    /// A part of a source gives no document.
    BrokenPart(&'a FlakeReference, &'a Failure),
    /// Hosts of a source warn while they are evaluated.
    Warning(&'a FlakeReference, &'a EvalWarning),
    /// A source could not be evaluated at all.
    BrokenSource(&'a SourceFailure),
    /// Two sources claim a name.
    Conflict(&'a NameConflict),
    /// The document of a deployment is lost.
    Lost(&'a LostDeployment),
    /// Withdrawals wait for an operator.
    Withdrawals(&'a HeldWithdrawals),
    /// The root ends soon, or has ended.
    Root(RootWarning),
    /// No cache can ever have a deployment.
    Unpublishable(&'a Unpublishable),
    /// A deployment waits for a cache.
    Waiting(&'a Waiting),
    /// A hold keeps changes back.
    KeptBack(&'a KeptBack),
    /// Nothing was published.
    PublishFailed(&'a PublishError),
    /// A mirror does not have the newest commit.
    Mirror(&'a MirrorReport),
}

impl<'a> Finding<'a> {
    /// What a round found, the things that wait last.
    pub fn of_round(outcome: &'a RoundOutcome) -> Vec<Self> {
        let broken_sources = outcome.broken_sources.iter().map(Self::BrokenSource);
        Self::of_evaluations(&outcome.evaluations)
            .chain(broken_sources)
            .chain(Self::of_report(&outcome.report))
            .collect()
    }

    /// What these evaluations found.
    pub(super) fn of_evaluations(evaluations: &'a [Evaluation]) -> impl Iterator<Item = Self> {
        let warnings = evaluations.iter().flat_map(|Evaluation { source, warnings, .. }| {
            warnings.each.iter().map(|warning| Self::Warning(&source.flake, warning))
        });
        let broken_parts = evaluations.iter().flat_map(|Evaluation { source, drafts, .. }| {
            drafts.failures.iter().map(|failure| Self::BrokenPart(&source.flake, failure))
        });
        warnings.chain(broken_parts)
    }

    /// What a publication found.
    pub fn of_report(report: &'a PublishReport) -> impl Iterator<Item = Self> {
        let PublishReport { conflicts, lost, withdrawals, root_warning, unready, kept_back, .. } = report;
        let conflicts = conflicts.iter().map(Self::Conflict);
        let lost = lost.iter().map(Self::Lost);
        let withdrawals = withdrawals.iter().map(Self::Withdrawals);
        let root = root_warning.map(Self::Root);
        let unpublishable = unready.unpublishable.iter().map(Self::Unpublishable);
        let waiting = unready.waiting.iter().map(Self::Waiting);
        let kept_back = kept_back.iter().map(Self::KeptBack);
        conflicts.chain(lost).chain(withdrawals).chain(root).chain(unpublishable).chain(waiting).chain(kept_back)
    }

    /// The mirrors with which something is wrong.
    pub fn of_mirrors(mirrors: &'a [MirrorReport], now: Timestamp) -> impl Iterator<Item = Self> {
        mirrors.iter().filter(move |report| report.state.trouble(now).is_some()).map(Self::Mirror)
    }

    /// What it is about. Two findings of one subject are the same one, at two times.
    fn subject(self) -> Subject {
        match self {
            Self::BrokenPart(source, failure) => Subject::BrokenPart(source.clone(), failure.part.to_string()),
            Self::Warning(source, warning) => Subject::Warning(source.clone(), warning.text.clone()),
            Self::BrokenSource(broken) => Subject::BrokenSource(broken.source.clone()),
            Self::Conflict(conflict) => Subject::Conflict(conflict.path.to_string()),
            Self::Lost(lost) => Subject::Lost(lost.name.clone()),
            Self::Withdrawals(held) => Subject::Withdrawals(held.source.clone()),
            Self::Root(_) => Subject::Root,
            Self::Unpublishable(unpublishable) => Subject::Unpublishable(unpublishable.name.clone()),
            Self::Waiting(waiting) => Subject::Waiting(waiting.name.clone()),
            Self::KeptBack(kept_back) => Subject::KeptBack(kept_back.name.clone()),
            Self::PublishFailed(_) => Subject::Publication,
            Self::Mirror(report) => Subject::Mirror(report.mirror.clone()),
        }
    }

    /// What has to change for it to be said again. It leaves out what differs between two rounds although nothing happened: the trace
    /// of an error names the source's path in the store, and a warning the days that are left.
    fn gist(self) -> String {
        match self {
            Self::BrokenPart(_, failure) => headline(&failure.error),
            // How many hosts have it is learnt after it was said.
            Self::Warning(_, warning) => warning.headline(),
            Self::BrokenSource(SourceFailure { unreachable_since: Some(since), .. }) => format!("unreachable {since}"),
            Self::BrokenSource(broken) => headline(&broken.error.message()),
            Self::Conflict(conflict) => conflict.to_string(),
            Self::Lost(lost) => lost.to_string(),
            Self::Withdrawals(held) => format!("{:?}", held.documents),
            Self::Root(warning) => warning.is_expired().to_string(),
            Self::Unpublishable(unpublishable) => unpublishable.to_string(),
            Self::Waiting(waiting) => waiting.to_string(),
            Self::KeptBack(kept_back) => kept_back.to_string(),
            Self::PublishFailed(error) => describe_error(error),
            Self::Mirror(MirrorReport { state: MirrorState::Rewritten { .. }, .. }) => "rewritten".to_owned(),
            Self::Mirror(MirrorReport { state, .. }) => {
                state.failed().map(|FailedAttempt { error, .. }| headline(error)).unwrap_or_default()
            }
        }
    }

    /// Whether it is said again after a day.
    fn standing(self) -> Standing {
        match self {
            // The author of the flake decides whether there is anything to do.
            Self::Warning(..) => Standing::Done,
            _ => Standing::Open,
        }
    }

    /// The rounds that end it by not finding it again: those that read one of these sources, and those that published.
    fn ended_by(self, evaluations: &[Evaluation]) -> EndedBy {
        let sources = |sources: &[&str]| EndedBy::Reading(sources.iter().map(ToString::to_string).collect());
        match self {
            Self::BrokenPart(source, _) | Self::Warning(source, _) => sources(&[source.as_str()]),
            Self::BrokenSource(broken) => sources(&[broken.source.as_str()]),
            Self::Withdrawals(held) => sources(&[&held.source]),
            Self::Conflict(NameConflict { owner, sources, .. }) => {
                let intruders = sources.iter().filter(|source| Some(*source) != owner.as_ref());
                EndedBy::Reading(intruders.cloned().collect())
            }
            Self::Unpublishable(Unpublishable { name, .. })
            | Self::Waiting(Waiting { name, .. })
            | Self::KeptBack(KeptBack { name, .. }) => {
                let flake = |evaluation: &Evaluation| evaluation.source.flake.to_string();
                let givers: BTreeSet<_> = evaluations.iter().filter(|known| known.gives(name)).map(flake).collect();
                // A held deployment that no evaluation has may be of any source.
                let all = || evaluations.iter().map(flake).collect();
                EndedBy::Reading(if givers.is_empty() { all() } else { givers })
            }
            Self::Lost(_) | Self::Root(_) | Self::PublishFailed(_) => EndedBy::Publishing,
            Self::Mirror(_) => EndedBy::Pushing,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    BrokenPart(FlakeReference, String),
    Warning(FlakeReference, String),
    BrokenSource(FlakeReference),
    Conflict(String),
    Lost(Name),
    Withdrawals(String),
    Root,
    Unpublishable(Name),
    Waiting(Name),
    KeptBack(Name),
    Publication,
    Mirror(String),
}

/// Says that it is over.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BrokenPart(source, part) => write!(f, "{part} of {source} is no longer broken"),
            Self::Warning(source, text) => write!(f, "no host of {source} warns any more: {}", headline(text)),
            Self::BrokenSource(source) => write!(f, "{source} can be read again"),
            Self::Conflict(path) => write!(f, "{path} is no longer claimed by several sources"),
            Self::Lost(name) => write!(f, "{name}: its document is no longer lost"),
            Self::Withdrawals(source) => write!(f, "no withdrawal from {source} waits any more"),
            Self::Root => write!(f, "the root is valid for long again"),
            Self::Unpublishable(name) => write!(f, "{name} can be published now"),
            Self::Waiting(name) => write!(f, "{name} no longer waits"),
            Self::KeptBack(name) => write!(f, "{name}: no change of it is kept back any more"),
            Self::Publication => write!(f, "publishing works again"),
            Self::Mirror(mirror) => write!(f, "mirror {mirror} is level again"),
        }
    }
}

#[derive(Debug)]
enum EndedBy {
    /// A round that read one of these sources.
    Reading(BTreeSet<String>),
    /// A round that published.
    Publishing,
    /// A push to that mirror.
    Pushing,
}

#[derive(Debug)]
struct OpenFinding {
    news: News,
    ended_by: EndedBy,
}

/// What the log said of each finding that is open.
#[derive(Debug, Default)]
pub(super) struct FindingLog(BTreeMap<Subject, OpenFinding>);

/// What the log has to say about a round's findings.
#[derive(Debug, Default)]
pub struct RoundNews<'a> {
    /// The findings that are new or changed, or that were said a day ago.
    pub findings: Vec<Finding<'a>>,
    /// What is over: a line for each.
    pub ended: Vec<String>,
}

impl RoundNews<'_> {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.findings.is_empty() && self.ended.is_empty()
    }
}

impl FindingLog {
    /// What is to be said of the findings of a publication of `evaluations`.
    pub(super) fn published<'a>(
        &mut self,
        findings: impl IntoIterator<Item = Finding<'a>>,
        evaluations: &[Evaluation],
        now: Instant,
    ) -> RoundNews<'a> {
        let (mut found, mut news) = (BTreeSet::new(), RoundNews::default());
        for finding in findings {
            found.insert(finding.subject());
            news.findings.extend(self.note(finding, evaluations, now));
        }
        let is_read = |source: &String| evaluations.iter().any(|known| known.source.flake.as_str() == source);
        self.0.retain(|subject, open| {
            let may_end = match &open.ended_by {
                EndedBy::Reading(sources) => sources.iter().any(is_read),
                EndedBy::Publishing => true,
                EndedBy::Pushing => false,
            };
            let has_ended = may_end && !found.contains(subject);
            news.ended.extend(has_ended.then(|| subject.to_string()));
            !has_ended
        });
        news
    }

    /// What is to be said of the mirrors.
    pub(super) fn pushed<'a>(
        &mut self,
        mirrors: &'a [MirrorReport],
        now: Timestamp,
        instant: Instant,
    ) -> RoundNews<'a> {
        let mut news = RoundNews::default();
        for report in mirrors {
            let finding = Finding::Mirror(report);
            if report.state.trouble(now).is_some() {
                news.findings.extend(self.note(finding, &[], instant));
            } else if self.0.remove(&finding.subject()).is_some() {
                news.ended.push(finding.subject().to_string());
            }
        }
        news
    }

    /// What is to be said of a finding of a round that published nothing.
    pub(super) fn failed<'a>(&mut self, finding: Finding<'a>, now: Instant) -> RoundNews<'a> {
        RoundNews { findings: self.note(finding, &[], now).into_iter().collect(), ended: Vec::new() }
    }

    fn note<'a>(&mut self, finding: Finding<'a>, evaluations: &[Evaluation], now: Instant) -> Option<Finding<'a>> {
        let ended_by = finding.ended_by(evaluations);
        let news = self.0.remove(&finding.subject()).map(|open| open.news).unwrap_or_default();
        let mut open = OpenFinding { news, ended_by };
        let is_news = open.news.is_news(&finding.gist(), finding.standing(), now);
        self.0.insert(finding.subject(), open);
        is_news.then_some(finding)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::evaluate::{Drafts, EvalWarnings, EvaluateError, EvaluationWork, FailedPart, Item};
    use crate::model::LockedSource;

    fn flake(name: &str) -> FlakeReference {
        format!("git+https://git.example.org/{name}").parse().unwrap()
    }

    /// An evaluation of a source in which this host is broken.
    fn evaluation(source: &str, broken: &[(&str, &str)]) -> Evaluation {
        let failure = |(name, error): &(&str, &str)| Failure {
            part: FailedPart::Item(Item::try_from(vec!["nixosConfigurations".into(), (*name).into()]).unwrap()),
            error: (*error).to_owned(),
        };
        Evaluation {
            drafts: Drafts { failures: broken.iter().map(failure).collect(), ..Drafts::default() },
            source: LockedSource {
                flake: flake(source),
                locked: flake(source),
                hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
                revision: None,
            },
            warnings: EvalWarnings::default(),
            work: EvaluationWork::default(),
        }
    }

    /// What the log says of a round with these evaluations: the broken hosts, and what is over.
    fn said(log: &mut FindingLog, round: &[Evaluation], now: Instant) -> Vec<String> {
        let RoundNews { findings, ended } = log.published(Finding::of_evaluations(round), round, now);
        findings.iter().map(|finding| finding.gist()).chain(ended).collect()
    }

    #[test]
    fn a_broken_host_is_said_when_it_begins_changes_and_ends_and_once_a_day() {
        let mut log = FindingLog::default();
        let begin = Instant::now();
        let hours = |hours| begin + Duration::from_hours(hours);
        let with = |error| [evaluation("a", &[("web-2", error)])];
        let is_over = "nixosConfigurations.web-2 of git+https://git.example.org/a is no longer broken";
        for (round, at, expected) in [
            (&with("error: no\n  at /nix/store/1-source/x.nix")[..], 0, &["error: no"][..]),
            (&with("error: no\n  at /nix/store/2-source/x.nix"), 1, &[]),
            // A round about another source says nothing about it.
            (&[evaluation("b", &[])], 2, &[]),
            (&with("error: why"), 3, &["error: why"]),
            (&with("error: why"), 26, &[]),
            (&with("error: why"), 27, &["error: why"]),
            (&[evaluation("a", &[])], 28, &[is_over]),
            (&[evaluation("a", &[])], 29, &[]),
            (&with("error: why"), 30, &["error: why"]),
        ] {
            assert_eq!(said(&mut log, round, hours(at)), expected, "after {at} h");
        }
    }

    #[test]
    fn a_warning_is_said_when_it_begins_and_when_it_ends_and_not_again_when_its_hosts_are_learnt() {
        let mut log = FindingLog::default();
        let begin = Instant::now();
        let with = |text: &str, hosts, is_exact| {
            let warning = EvalWarning { text: text.to_owned(), hosts, is_exact, names: Vec::new() };
            let warnings = EvalWarnings { each: vec![warning], has_more: false };
            [Evaluation { warnings, ..evaluation("a", &[]) }]
        };
        let is_over = "no host of git+https://git.example.org/a warns any more: x is old;";
        for (round, at, expected) in [
            (&with("x is old;\nuse y", 1, false)[..], 0, &["x is old;"][..]),
            (&with("x is old;\nuse y", 9, true), 1, &[]),
            (&[evaluation("b", &[])], 2, &[]),
            (&with("x is old;\nuse y", 9, true), 100, &[]),
            (&with("x is old;\nuse z", 9, true), 101, &["x is old;", is_over]),
            (&[evaluation("a", &[])], 102, &[is_over]),
            (&[evaluation("a", &[])], 103, &[]),
        ] {
            assert_eq!(said(&mut log, round, begin + Duration::from_hours(at)), expected, "after {at} h");
        }
    }

    #[test]
    fn a_broken_source_is_said_once_and_its_broken_hosts_stay_open() {
        let mut log = FindingLog::default();
        let now = Instant::now();
        assert_eq!(said(&mut log, &[evaluation("a", &[("web-2", "error: no")])], now).len(), 1);
        let error = EvaluateError::Answer { flake: "a".to_owned(), why: "no".to_owned() };
        let broken = SourceFailure { source: flake("a"), error, unreachable_since: None };
        assert_eq!(log.published([Finding::BrokenSource(&broken)], &[], now).findings.len(), 1);
        assert!(log.published([Finding::BrokenSource(&broken)], &[], now).is_empty());
        let again = said(&mut log, &[evaluation("a", &[("web-2", "error: no")])], now);
        assert_eq!(again, ["git+https://git.example.org/a can be read again"]);
    }

    #[test]
    fn a_failed_publication_ends_with_the_next_one() {
        let mut log = FindingLog::default();
        let now = Instant::now();
        assert_eq!(log.failed(Finding::PublishFailed(&PublishError::NothingRead), now).findings.len(), 1);
        assert!(log.failed(Finding::PublishFailed(&PublishError::NothingRead), now).is_empty());
        assert_eq!(said(&mut log, &[], now), ["publishing works again"]);
    }

    #[test]
    fn a_mirror_is_told_until_a_push_succeeds_whatever_rounds_come_between() {
        let (mut log, begin) = (FindingLog::default(), Instant::now());
        let commit = "a".repeat(40).parse().unwrap();
        let now = Timestamp::from_seconds(1_000_000).unwrap();
        let mirror = "https://h/fleet.git".to_owned();
        let failed =
            |error: &str| FailedAttempt { commit, error: error.to_owned(), attempts: 1, next: now, not_before: None };
        let behind = |error: &str| MirrorState::Behind { pushed: None, since: now, failed: Some(failed(error)) };
        let rewritten = MirrorState::Rewritten { pushed: None, since: now, failed: failed("other") };
        let level = MirrorState::Level { pushed: commit, at: now };
        for (state, at, expected) in [
            (level.clone(), 0, &[][..]),
            (behind("no route"), 1, &["no route"]),
            (behind("no route"), 2, &[]),
            (behind("no route"), 25, &["no route"]),
            (rewritten.clone(), 26, &["rewritten"]),
            (rewritten.clone(), 49, &[]),
            (rewritten, 50, &["rewritten"]),
            (level.clone(), 51, &["mirror https://h/fleet.git is level again"]),
            (level, 52, &[]),
        ] {
            assert_eq!(said(&mut log, &[], begin), [""; 0]);
            let reports = [MirrorReport { mirror: mirror.clone(), state }];
            let RoundNews { findings, ended } = log.pushed(&reports, now, begin + Duration::from_hours(at));
            let said: Vec<String> = findings.iter().map(|finding| finding.gist()).chain(ended).collect();
            assert_eq!(said, expected, "after {at} h");
        }
    }
}
