//! Choosing the branch of one mirror. No I/O: it takes what each mirror showed.
//!
//! A mirror that is out of reach, lags behind or is refused does not block another one: the newest believed index counts,
//! whichever mirror it is from. Two mirrors with two indexes of one version are both refused, and so are two mirrors with two
//! contents of one revision: an attacker made at least one of the two, and the agent cannot tell which.
//!
//! Keeping both sides of such a fork belongs to `fork_evidence`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::fetch::BranchFetchError;
use super::freshness::{ClockTrouble, Stale};
use super::verify::{Refusal, Verdict};
use crate::branch::RootsError;
use crate::git::CommitId;
use crate::model::{IndexVersion, Sha256Digest, describe_error};

/// The result of the checks for one mirror.
#[derive(Debug)]
pub(super) enum Finding {
    /// Its branch could not be fetched.
    Unreachable(BranchFetchError),
    /// Its branch is not believed.
    Refused(Refusal),
    /// Its branch is believed.
    Believed(Believed),
}

/// A branch that is believed.
#[derive(Debug)]
pub(super) struct Believed {
    /// The commit of the branch.
    pub(super) tip: CommitId,
    /// The version of its index. The indexes of all believed branches are of the newest root's epoch.
    pub(super) version: Option<IndexVersion>,
    /// The digest of its index.
    pub(super) index: Option<Sha256Digest>,
    /// The result of the checks; `None` where everything at this commit was done before.
    pub(super) verdict: Option<Box<Verdict>>,
    /// The error of this machine's clock, if there is one.
    pub(super) clock: Option<ClockTrouble>,
    /// The commit that was believed before, where this one is not made on top of it.
    pub(super) rewrote: Option<CommitId>,
}

/// The status of a mirror, for people and monitoring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorStatus {
    /// Its branch was taken.
    Taken,
    /// It shows the same index version as the mirror that was taken.
    Level,
    /// It shows an older index than another mirror, or than was believed before.
    Behind,
    /// Its branch is not believed.
    Refused,
    /// Its branch could not be fetched.
    Unreachable,
}

/// The result of a pass for one mirror, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorReport {
    /// The repository, without secrets.
    pub repository: String,
    /// Its status.
    pub status: MirrorStatus,
    /// The version of its index, where the branch is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_version: Option<IndexVersion>,
    /// Why it was not taken; `None` where it could have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl MirrorReport {
    /// Whether it needs no attention.
    pub fn is_good(&self) -> bool {
        matches!(self.status, MirrorStatus::Taken | MirrorStatus::Level)
    }
}

/// The branch that was chosen, and the result for each mirror.
#[derive(Debug)]
pub(super) struct MirrorChoice {
    /// The branch that is taken.
    pub(super) taken: Believed,
    /// Every mirror, in the order of the configuration.
    pub(super) reports: Vec<MirrorReport>,
    /// Why each of the others was rejected.
    pub(super) rejected: Vec<(String, Rejection)>,
}

/// No mirror shows a branch that is believed. The units keep what they run.
#[derive(Debug)]
pub struct NoneBelieved {
    reports: Vec<MirrorReport>,
    rejected: Vec<(String, Rejection)>,
}

/// Why one mirror's branch is not believed.
#[derive(Debug)]
pub(super) enum Rejection {
    Unreachable(BranchFetchError),
    Refused(Refusal),
}

impl NoneBelieved {
    /// Whether one of them showed a branch that was refused, which is graver than showing none.
    pub fn any_refused(&self) -> bool {
        self.rejected.iter().any(|(_, rejection)| matches!(rejection, Rejection::Refused(_)))
    }

    /// The expired document, where that is why one of them is refused.
    pub fn stale(&self) -> Option<&Stale> {
        self.rejected.iter().find_map(|(_, rejection)| match rejection {
            Rejection::Refused(Refusal::Stale(stale)) => Some(&**stale),
            Rejection::Refused(_) | Rejection::Unreachable(_) => None,
        })
    }

    /// Why each of them was rejected.
    pub(super) fn rejected(&self) -> &[(String, Rejection)] {
        &self.rejected
    }

    /// The report of each.
    pub fn reports(&self) -> &[MirrorReport] {
        &self.reports
    }
}

impl fmt::Display for NoneBelieved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let describe = |(mirror, rejection): &(String, Rejection)| rejection.describe(mirror);
        match &self.rejected[..] {
            [one] => f.write_str(&describe(one)),
            all => {
                write!(f, "none of the {} mirrors shows a branch that can be believed:", all.len())?;
                all.iter().try_for_each(|one| write!(f, "\n  {}", describe(one)))
            }
        }
    }
}

impl std::error::Error for NoneBelieved {}

impl Rejection {
    fn describe(&self, mirror: &str) -> String {
        match self {
            Self::Unreachable(error) => describe_error(error),
            Self::Refused(refusal) => format!("refused what {mirror} shows: {}", describe_error(refusal)),
        }
    }

    fn report(&self, mirror: &str) -> MirrorReport {
        let status = match self {
            Self::Unreachable(_) => MirrorStatus::Unreachable,
            // An old branch is usually a mirror that was not updated.
            Self::Refused(Refusal::IndexRollback { .. } | Refusal::Roots(RootsError::Rollback { .. })) => {
                MirrorStatus::Behind
            }
            Self::Refused(_) => MirrorStatus::Refused,
        };
        let error = Some(self.describe(mirror));
        MirrorReport { repository: mirror.to_owned(), status, index_version: None, error }
    }
}

/// Takes the believed branch with the newest index, of the first mirror that shows it in the order of the configuration.
pub(super) fn choose(findings: Vec<(String, Finding)>) -> Result<MirrorChoice, NoneBelieved> {
    let findings = refuse_forks(findings);
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
                let status = if first == Some(at) {
                    MirrorStatus::Taken
                } else if Some(believed.version) == newest {
                    MirrorStatus::Level
                } else {
                    MirrorStatus::Behind
                };
                reports.push(report_believed(mirror, status, believed.version, newest.flatten()));
                if status == MirrorStatus::Taken {
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
        Some(taken) => Ok(MirrorChoice { taken, reports, rejected }),
        None => Err(NoneBelieved { reports, rejected }),
    }
}

/// The same findings, where both mirrors of a fork are refused.
fn refuse_forks(findings: Vec<(String, Finding)>) -> Vec<(String, Finding)> {
    let forks: Vec<Option<Refusal>> = findings.iter().map(|(_, finding)| find_fork(finding, &findings)).collect();
    let refused = |((mirror, finding), fork): ((String, Finding), Option<Refusal>)| {
        let finding = fork.map_or(finding, Finding::Refused);
        (mirror, finding)
    };
    findings.into_iter().zip(forks).map(refused).collect()
}

/// The refusal of `finding`, where one of `others` shows another content of a version or revision that both have.
fn find_fork(finding: &Finding, others: &[(String, Finding)]) -> Option<Refusal> {
    let Finding::Believed(found) = finding else { return None };
    others.iter().find_map(|(other, finding)| match finding {
        Finding::Believed(seen) => index_fork(found, other, seen).or_else(|| document_fork(found, other, seen)),
        Finding::Unreachable(_) | Finding::Refused(_) => None,
    })
}

fn index_fork(found: &Believed, other: &str, other_believed: &Believed) -> Option<Refusal> {
    let (version, found, seen) = (found.version?, found.index?, other_believed.index?);
    let is_fork = other_believed.version == Some(version) && found != seen;
    is_fork.then(|| Refusal::MirrorFork { version, other: other.to_owned(), seen, found })
}

/// A revision has only one content, in whichever index it is listed.
fn document_fork(found: &Believed, other: &str, other_believed: &Believed) -> Option<Refusal> {
    let found = &found.verdict.as_ref()?.trusted.documents;
    let others = &other_believed.verdict.as_ref()?.trusted.documents;
    found.iter().find_map(|(path, found)| {
        let seen = others
            .get(path)
            .filter(|seen| seen.revision == found.revision && seen.content_digest != found.content_digest)?;
        let (path, revision, other) = (path.clone(), found.revision, other.to_owned());
        Some(Refusal::MirrorDocumentFork {
            path,
            revision,
            other,
            seen: seen.content_digest,
            found: found.content_digest,
        })
    })
}

fn report_believed(
    repository: String,
    status: MirrorStatus,
    index_version: Option<IndexVersion>,
    newest: Option<IndexVersion>,
) -> MirrorReport {
    let behind = |found: IndexVersion, newest: IndexVersion| {
        format!("{repository} lags behind: it shows index version {found}, and another mirror shows {newest}")
    };
    let error = match (status, index_version, newest) {
        (MirrorStatus::Behind, Some(found), Some(newest)) => Some(behind(found, newest)),
        _ => None,
    };
    MirrorReport { repository, status, index_version, error }
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
        Finding::Refused(Refusal::Branch(crate::branch::BranchError::NoIndex))
    }

    fn choose_of(findings: Vec<Finding>) -> Result<MirrorChoice, NoneBelieved> {
        choose(findings.into_iter().enumerate().map(|(at, finding)| (format!("m{at}"), finding)).collect())
    }

    fn statuses(choice: &MirrorChoice) -> Vec<MirrorStatus> {
        choice.reports.iter().map(|report| report.status).collect()
    }

    #[test]
    fn the_newest_believed_index_is_taken_whichever_mirror_has_it() {
        use MirrorStatus::{Behind, Level, Refused, Taken, Unreachable};
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
            assert_eq!(statuses(&choice), expected);
            let troubled = choice.reports.iter().filter(|report| !report.is_good());
            assert!(troubled.clone().all(|report| report.error.is_some()), "{:?}", choice.reports);
        }
        let choice = choose_of(vec![believed(4), believed(3)]).unwrap();
        let lags = "m1 lags behind: it shows index version 3, and another mirror shows 4";
        assert_eq!(choice.reports[1].error.as_deref(), Some(lags));
    }

    #[test]
    fn two_mirrors_that_do_not_agree_are_both_refused_and_a_third_is_taken() {
        let none = choose_of(vec![believed(6), believed_otherwise(6)]).unwrap_err().to_string();
        assert!(none.contains("index version 6 is") && none.contains(" at m0;") && none.contains(" at m1;"), "{none}");
        // An older index, which nobody contests, is believed, and a newer one resolves the conflict.
        let older = choose_of(vec![believed(6), believed_otherwise(6), believed(5)]).unwrap();
        assert_eq!(older.taken.version, Some(version(5)));
        let newer = choose_of(vec![believed(6), believed_otherwise(6), believed(7)]).unwrap();
        assert_eq!((newer.taken.version, newer.rejected.len()), (Some(version(7)), 2));
    }

    /// An index of that version, where revision 3 of a document has that content.
    fn believed_with(number: u64, content: &[u8]) -> Finding {
        let Finding::Believed(believed) = believed(number) else { panic!() };
        let seen = SeenDocument { revision: 3.try_into().unwrap(), content_digest: crate::trust::digest(content) };
        let documents = [("deployments/web-1.json".parse().unwrap(), seen)].into();
        let trusted = Trusted { documents, ..Trusted::default() };
        let verdict = Verdict { trusted, orders: Vec::new(), withdrawn: Vec::new(), unfit: Vec::new(), clock: None };
        Finding::Believed(Believed { verdict: Some(Box::new(verdict)), ..believed })
    }

    #[test]
    fn a_revision_has_only_one_content_in_whichever_index_it_is() {
        let none = choose_of(vec![believed_with(6, b"a"), believed_with(7, b"b")]).unwrap_err().to_string();
        let text = "deployments/web-1.json at revision 3 is";
        assert_eq!(none.matches(text).count(), 2, "{none}");
        assert!(none.contains(" at m0;") && none.contains(" at m1;"), "{none}");
        assert_eq!(
            choose_of(vec![believed_with(6, b"a"), believed_with(7, b"a")]).unwrap().taken.version,
            Some(version(7))
        );
    }

    #[test]
    fn where_no_mirror_is_believed_the_error_names_all() {
        let one = choose_of(vec![forged()]).unwrap_err();
        assert_eq!(one.to_string(), "refused what m0 shows: this is not a branch of Clavel: it has no index.json");
        let none = choose_of(vec![unreachable(), forged(), rolled_back(2)]).unwrap_err();
        let lines: Vec<String> = none.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "none of the 3 mirrors shows a branch that can be believed:");
        assert!(lines[3].contains("refused what m2 shows: the index went back from version 9 to 2"), "{}", lines[3]);
        assert!(none.any_refused());
        assert_eq!(none.reports().len(), 3);
        assert!(!choose_of(vec![unreachable()]).unwrap_err().any_refused());
    }
}
