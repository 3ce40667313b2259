//! Which mirror's branch is taken. Pure: what each of them showed goes in.
//!
//! A mirror that is out of reach, lags behind or is refused stands in nobody's way: of what is believed the newest index
//! counts, wherever it is from. Two that show two indexes of one version are both refused, and two that show two contents of
//! one revision: of those at least one is an attacker's, and nobody here can tell which.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fetch::BranchFetchError;
use super::freshness::{ClockTrouble, Stale};
use super::verify::{Refusal, Verdict};
use crate::branch::RootsError;
use crate::git::CommitId;
use crate::model::{IndexVersion, Sha256Digest};

/// What one mirror showed, and what was made of it.
#[derive(Debug)]
pub(super) enum Finding {
    /// No branch could be had from it.
    Unreachable(BranchFetchError),
    /// Its branch is not believed.
    Refused(Refusal),
    /// Its branch is believed.
    Believed(Believed),
}

/// A branch that is believed.
#[derive(Debug)]
pub(super) struct Believed {
    /// Where the branch is.
    pub(super) tip: CommitId,
    /// The version of its index. All that are believed are of the newest root's epoch.
    pub(super) version: Option<IndexVersion>,
    /// The digest of what its index says.
    pub(super) index: Option<Sha256Digest>,
    /// What it says; none where all of it was done before.
    pub(super) verdict: Option<Verdict>,
    /// What is wrong with this machine's clock.
    pub(super) clock: Option<ClockTrouble>,
    /// The commit that was believed before, where this one is not made on top of it.
    pub(super) rewrote: Option<CommitId>,
}

/// How a mirror stands, for people and monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// What it shows is what was taken.
    Taken,
    /// It shows an index of the version that was taken from another one.
    Level,
    /// It shows an older index than another mirror, or than was believed before.
    Behind,
    /// What it shows is not believed.
    Refused,
    /// No branch could be had from it.
    Unreachable,
}

/// What became of one mirror in a pass, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorReport {
    /// The repository, without secrets.
    pub repository: String,
    /// How it stands.
    pub standing: Standing,
    /// The version of the index that it shows, where that is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_version: Option<IndexVersion>,
    /// Why it was not taken; nothing where it could have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MirrorReport {
    /// Whether there is something to see to.
    pub fn is_good(&self) -> bool {
        matches!(self.standing, Standing::Taken | Standing::Level)
    }
}

/// What was chosen, and what became of each mirror.
#[derive(Debug)]
pub(super) struct Choice {
    /// The branch that is taken.
    pub(super) taken: Believed,
    /// Every mirror, in the order of the configuration.
    pub(super) reports: Vec<MirrorReport>,
    /// What was refused.
    pub(super) rejected: Vec<(String, Rejection)>,
}

/// No mirror shows a branch that is believed. What runs goes on running.
#[derive(Debug)]
pub struct NoneBelieved {
    rejected: Vec<(String, Rejection)>,
}

/// Why one mirror's branch is not believed.
#[derive(Debug)]
pub(super) enum Rejection {
    Unreachable(BranchFetchError),
    Refused(Refusal),
}

impl NoneBelieved {
    /// Whether one of them showed something that is not to be believed, which is graver than showing nothing.
    pub fn any_refused(&self) -> bool {
        self.rejected.iter().any(|(_, rejection)| matches!(rejection, Rejection::Refused(_)))
    }

    /// What is past its time, where that is why one of them is refused.
    pub fn stale(&self) -> Option<&Stale> {
        self.rejected.iter().find_map(|(_, rejection)| match rejection {
            Rejection::Refused(Refusal::Stale(stale)) => Some(&**stale),
            Rejection::Refused(_) | Rejection::Unreachable(_) => None,
        })
    }

    /// What was refused of each.
    pub(super) fn rejected(&self) -> &[(String, Rejection)] {
        &self.rejected
    }

    /// What became of each.
    pub fn reports(&self) -> Vec<MirrorReport> {
        self.rejected.iter().map(|(mirror, rejection)| rejection.report(mirror)).collect()
    }
}

impl fmt::Display for NoneBelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = |(mirror, rejection): &(String, Rejection)| rejection.told(mirror);
        match &self.rejected[..] {
            [one] => f.write_str(&told(one)),
            all => {
                write!(f, "none of the {} mirrors shows a branch to be believed:", all.len())?;
                all.iter().try_for_each(|one| write!(f, "\n  {}", told(one)))
            }
        }
    }
}

impl std::error::Error for NoneBelieved {}

impl Rejection {
    fn told(&self, mirror: &str) -> String {
        match self {
            Self::Unreachable(error) => error.to_string(),
            Self::Refused(refusal) => format!("refused what {mirror} shows: {refusal}"),
        }
    }

    fn report(&self, mirror: &str) -> MirrorReport {
        let standing = match self {
            Self::Unreachable(_) => Standing::Unreachable,
            // An old branch is as a rule a mirror that was not brought up to date.
            Self::Refused(Refusal::IndexRollback { .. } | Refusal::Roots(RootsError::Rollback { .. })) => {
                Standing::Behind
            }
            Self::Refused(_) => Standing::Refused,
        };
        let error = Some(self.told(mirror));
        MirrorReport { repository: mirror.to_owned(), standing, index_version: None, error }
    }
}

/// Of the mirrors' findings, in the order of the configuration: the believed one whose index is the newest, and of
/// several such the first.
pub(super) fn choose(findings: Vec<(String, Finding)>) -> Result<Choice, NoneBelieved> {
    let findings = without_forks(findings);
    let version = |finding: &Finding| match finding {
        Finding::Believed(believed) => Some(believed.version),
        Finding::Unreachable(_) | Finding::Refused(_) => None,
    };
    let newest = findings.iter().filter_map(|(_, finding)| version(finding)).max();
    let first = findings.iter().position(|(_, finding)| newest.is_some() && version(finding) == newest);
    let (mut taken, mut reports, mut rejected) = (None, Vec::new(), Vec::new());
    for (at, (mirror, finding)) in findings.into_iter().enumerate() {
        let rejection = match finding {
            Finding::Believed(believed) => {
                let standing = if first == Some(at) {
                    Standing::Taken
                } else if Some(believed.version) == newest {
                    Standing::Level
                } else {
                    Standing::Behind
                };
                reports.push(of_believed(mirror, standing, believed.version, newest.flatten()));
                if standing == Standing::Taken {
                    taken = Some(believed);
                }
                continue;
            }
            Finding::Unreachable(error) => Rejection::Unreachable(error),
            Finding::Refused(refusal) => Rejection::Refused(refusal),
        };
        reports.push(rejection.report(&mirror));
        rejected.push((mirror, rejection));
    }
    match taken {
        Some(taken) => Ok(Choice { taken, reports, rejected }),
        None => Err(NoneBelieved { rejected }),
    }
}

/// The same, where those that show two contents under one number are refused.
fn without_forks(findings: Vec<(String, Finding)>) -> Vec<(String, Finding)> {
    let forks: Vec<Option<Refusal>> = findings.iter().map(|(_, finding)| fork(finding, &findings)).collect();
    let refused = |((mirror, finding), fork): ((String, Finding), Option<Refusal>)| {
        let finding = fork.map_or(finding, Finding::Refused);
        (mirror, finding)
    };
    findings.into_iter().zip(forks).map(refused).collect()
}

/// Which of `others` shows another content than `finding` under a number that both have.
fn fork(finding: &Finding, others: &[(String, Finding)]) -> Option<Refusal> {
    let Finding::Believed(found) = finding else { return None };
    others.iter().find_map(|(other, finding)| match finding {
        Finding::Believed(seen) => index_fork(found, other, seen).or_else(|| document_fork(found, other, seen)),
        Finding::Unreachable(_) | Finding::Refused(_) => None,
    })
}

fn index_fork(found: &Believed, other: &str, shown: &Believed) -> Option<Refusal> {
    let (version, found, seen) = (found.version?, found.index?, shown.index?);
    let is_fork = shown.version == Some(version) && found != seen;
    is_fork.then(|| Refusal::MirrorFork { version, other: other.to_owned(), seen, found })
}

/// A revision has one content in whichever index it is listed.
fn document_fork(found: &Believed, other: &str, shown: &Believed) -> Option<Refusal> {
    let (found, shown) = (&found.verdict.as_ref()?.trusted.documents, &shown.verdict.as_ref()?.trusted.documents);
    found.iter().find_map(|(path, found)| {
        let seen = shown.get(path).filter(|seen| seen.revision == found.revision && seen.content != found.content)?;
        let (path, revision, other) = (path.clone(), found.revision, other.to_owned());
        Some(Refusal::MirrorDocumentFork { path, revision, other, seen: seen.content, found: found.content })
    })
}

fn of_believed(
    repository: String,
    standing: Standing,
    index_version: Option<IndexVersion>,
    newest: Option<IndexVersion>,
) -> MirrorReport {
    let behind = |found: IndexVersion, newest: IndexVersion| {
        format!("{repository} lags behind: it shows index version {found}, and another mirror shows {newest}")
    };
    let error = match (standing, index_version, newest) {
        (Standing::Behind, Some(found), Some(newest)) => Some(behind(found, newest)),
        _ => None,
    };
    MirrorReport { repository, standing, index_version, error }
}

#[cfg(test)]
mod tests {
    use super::super::verify::{SeenDocument, Trusted};
    use super::*;

    fn version(number: u64) -> IndexVersion {
        number.try_into().unwrap()
    }

    fn believed(number: u64) -> Finding {
        let tip = format!("{number:040}").parse().unwrap();
        let index = Some(crate::trust::digest(b"index"));
        Finding::Believed(Believed {
            tip,
            version: Some(version(number)),
            index,
            verdict: None,
            clock: None,
            rewrote: None,
        })
    }

    fn believed_otherwise(number: u64) -> Finding {
        let Finding::Believed(believed) = believed(number) else { panic!() };
        Finding::Believed(Believed { index: Some(crate::trust::digest(b"another index")), ..believed })
    }

    fn unreachable() -> Finding {
        Finding::Unreachable(BranchFetchError::Busy { repository: "m".to_owned() })
    }

    fn rolled_back(found: u64) -> Finding {
        Finding::Refused(Refusal::IndexRollback { seen: version(9), found: version(found) })
    }

    fn forged() -> Finding {
        Finding::Refused(Refusal::Branch(crate::branch::BranchError::NotClavels))
    }

    fn choose_of(findings: Vec<Finding>) -> Result<Choice, NoneBelieved> {
        choose(findings.into_iter().enumerate().map(|(at, finding)| (format!("m{at}"), finding)).collect())
    }

    fn standings(choice: &Choice) -> Vec<Standing> {
        choice.reports.iter().map(|report| report.standing).collect()
    }

    #[test]
    fn the_newest_that_is_believed_is_taken_wherever_it_is_from() {
        use Standing::{Behind, Level, Refused, Taken, Unreachable};
        for (findings, taken, expected) in [
            (vec![believed(3)], 3, vec![Taken]),
            (vec![believed(3), believed(4)], 4, vec![Behind, Taken]),
            (vec![believed(4), believed(3)], 4, vec![Taken, Behind]),
            (vec![believed(4), believed(4)], 4, vec![Taken, Level]),
            (vec![unreachable(), believed(4), forged(), believed(4)], 4, vec![Unreachable, Taken, Refused, Level]),
            (vec![rolled_back(2), believed(9)], 9, vec![Behind, Taken]),
        ] {
            let choice = choose_of(findings).unwrap();
            assert_eq!(choice.taken.version, Some(version(taken)));
            assert_eq!(standings(&choice), expected);
            let troubled = choice.reports.iter().filter(|report| !report.is_good());
            assert!(troubled.clone().all(|report| report.error.is_some()), "{:?}", choice.reports);
        }
        let choice = choose_of(vec![believed(4), believed(3)]).unwrap();
        let lags = "m1 lags behind: it shows index version 3, and another mirror shows 4";
        assert_eq!(choice.reports[1].error.as_deref(), Some(lags));
    }

    #[test]
    fn two_that_do_not_agree_are_both_refused_and_a_third_is_taken() {
        let none = choose_of(vec![believed(6), believed_otherwise(6)]).unwrap_err().to_string();
        assert!(none.contains("index version 6 is") && none.contains(" at m0;") && none.contains(" at m1;"), "{none}");
        // What both agree on, or what is newer than the quarrel, is believed.
        let older = choose_of(vec![believed(6), believed_otherwise(6), believed(5)]).unwrap();
        assert_eq!(older.taken.version, Some(version(5)));
        let newer = choose_of(vec![believed(6), believed_otherwise(6), believed(7)]).unwrap();
        assert_eq!((newer.taken.version, newer.rejected.len()), (Some(version(7)), 2));
    }

    /// An index of that version, which says `content` of revision 3 of a document.
    fn says(number: u64, content: &[u8]) -> Finding {
        let Finding::Believed(believed) = believed(number) else { panic!() };
        let seen = SeenDocument { revision: 3.try_into().unwrap(), content: crate::trust::digest(content) };
        let documents = [("deployments/web-1.json".parse().unwrap(), seen)].into();
        let trusted = Trusted { index: None, documents };
        let verdict = Verdict { trusted, orders: Vec::new(), withdrawn: Vec::new(), clock: None };
        Finding::Believed(Believed { verdict: Some(verdict), ..believed })
    }

    #[test]
    fn a_revision_has_one_content_in_whichever_index_it_is() {
        let none = choose_of(vec![says(6, b"a"), says(7, b"b")]).unwrap_err().to_string();
        let told = "deployments/web-1.json at revision 3 is";
        assert_eq!(none.matches(told).count(), 2, "{none}");
        assert!(none.contains(" at m0;") && none.contains(" at m1;"), "{none}");
        assert_eq!(choose_of(vec![says(6, b"a"), says(7, b"a")]).unwrap().taken.version, Some(version(7)));
    }

    #[test]
    fn where_none_is_believed_all_are_told() {
        let one = choose_of(vec![forged()]).unwrap_err();
        assert_eq!(one.to_string(), "refused what m0 shows: this is not a branch of Clavel: it has no index.json");
        let none = choose_of(vec![unreachable(), forged(), rolled_back(2)]).unwrap_err();
        let lines: Vec<String> = none.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "none of the 3 mirrors shows a branch to be believed:");
        assert!(lines[3].contains("refused what m2 shows: the index went back from version 9 to 2"), "{}", lines[3]);
        assert!(none.any_refused());
        assert_eq!(none.reports().len(), 3);
        assert!(!choose_of(vec![unreachable()]).unwrap_err().any_refused());
    }
}
