//! Which mirror's branch is taken. Pure: what each of them showed goes in.
//!
//! A mirror that is out of reach, lags behind or is refused stands in nobody's way: of what is believed the newest index
//! counts, wherever it is from. Two that show two indexes of one version are both refused: of those at least one is an
//! attacker's, and nobody here can tell which.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fetch::BranchFetchError;
use super::freshness::{ClockTrouble, Stale};
use super::verify::{Refusal, Verdict};
use crate::model::{IndexVersion, Sha256Digest};
use crate::repository::{CommitId, RootsError};

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
    /// The SHA-256 of its index.
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

/// The same, where those that show two indexes of one version are refused.
fn without_forks(findings: Vec<(String, Finding)>) -> Vec<(String, Finding)> {
    let indexes: Vec<(String, IndexVersion, Sha256Digest)> = findings
        .iter()
        .filter_map(|(mirror, finding)| match finding {
            Finding::Believed(Believed { version: Some(version), index: Some(index), .. }) => {
                Some((mirror.clone(), *version, *index))
            }
            _ => None,
        })
        .collect();
    let judged = |(mirror, finding): (String, Finding)| {
        let shown = indexes.iter().find(|(shown, ..)| *shown == mirror);
        let other = shown.and_then(|(_, version, index)| {
            indexes.iter().find(|(_, other, digest)| other == version && digest != index)
        });
        match (shown, other) {
            (Some((_, version, found)), Some((other, _, seen))) => {
                let (other, seen, found) = (other.clone(), *seen, *found);
                (mirror, Finding::Refused(Refusal::MirrorFork { version: *version, other, seen, found }))
            }
            _ => (mirror, finding),
        }
    };
    findings.into_iter().map(judged).collect()
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
        Finding::Refused(Refusal::Branch(crate::repository::BranchError::NotClavels))
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
