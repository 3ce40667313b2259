//! Counts the approvals of a deployment. It is pure: the caller passes the files of the approvers.

use std::collections::BTreeMap;
use std::fmt;

use super::signed::content;
use super::usable_key::UsableKey;
use super::{Signed, TrustedRoot, Verified};
use crate::model::{Approval, Deployment, KeyId, Name, Revision, Sha256Digest};

/// The most characters of the reason why a file does not count.
const LONGEST_REASON: usize = 240;

/// The file of an approver, or the reason why it could not be read.
pub type ApprovalFile = Result<Vec<u8>, String>;

/// The approvals of one revision of a deployment that has to be approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    name: Name,
    revision: Revision,
    needed: usize,
    different: usize,
    given: Vec<KeyId>,
    open: Vec<KeyId>,
    earlier: Vec<(KeyId, EarlierApproval)>,
    before: Option<EarlierApproval>,
    bad: Vec<(KeyId, String)>,
}

/// What an approver signed in this epoch before the revision that is asked about: another revision, and the digest of what
/// it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EarlierApproval {
    revision: Revision,
    content: Sha256Digest,
}

impl EarlierApproval {
    /// Which revision it was.
    pub fn revision(self) -> Revision {
        self.revision
    }

    /// The deployment in `file`, where it is the very one that was approved, whoever signed the file.
    pub fn found_in(self, file: &[u8]) -> Option<Deployment> {
        let signed = Signed::<Deployment>::parse(file).ok()?;
        let found = signed.unverified();
        (content(found) == self.content).then(|| found.clone())
    }
}

/// The meaning of one approver's file.
enum Reading {
    /// This very revision is approved.
    Yes,
    /// An earlier revision was approved.
    Earlier(EarlierApproval),
    /// Something was approved in another epoch, which says nothing in this one.
    OtherEpoch,
    /// It does not count, for this reason.
    Nothing(String),
}

impl Approvals {
    /// Counts what the approvers of `root` left beside `deployment`; none where `root` asks for no approvals of it, by its
    /// name, its unit's, or those of the `agents` that take it.
    ///
    /// In the file of each approver the key of that name has to have signed, and a key counts once whatever its names are.
    pub fn count(
        root: &TrustedRoot,
        deployment: &Verified<Deployment>,
        agents: &[Name],
        left: &BTreeMap<KeyId, ApprovalFile>,
    ) -> Option<Self> {
        let needed = root.root().approvals_of(deployment, agents)?.get();
        let expected = Approval::of(deployment, deployment.content(), root.root().epoch);
        let (mut points, mut given, mut open) = (Vec::new(), Vec::new(), Vec::new());
        let (mut earlier, mut bad) = (Vec::new(), Vec::new());
        let mut points_of = BTreeMap::<EarlierApproval, Vec<_>>::new();
        // They are usable, or there would be no such root.
        for by in root.root().roles.approver.keys.iter().filter_map(UsableKey::of) {
            let id = by.key.id().clone();
            let reading = match left.get(&id) {
                None => None,
                Some(Err(why)) => Some(Reading::Nothing(why.clone())),
                Some(Ok(file)) => Some(read_approval(file, &expected, &by)),
            };
            match reading {
                Some(Reading::Yes) => {
                    if !points.contains(&by.point) {
                        points.push(by.point);
                    }
                    given.push(id);
                    continue;
                }
                Some(Reading::Earlier(what)) => {
                    earlier.push((id.clone(), what));
                    let points = points_of.entry(what).or_default();
                    if !points.contains(&by.point) {
                        points.push(by.point);
                    }
                }
                Some(Reading::Nothing(why)) => bad.push((id.clone(), in_one_line(&why))),
                Some(Reading::OtherEpoch) | None => {}
            }
            open.push(id);
        }
        let (name, revision, different) = (deployment.name.clone(), deployment.revision, points.len());
        let before = points_of.into_iter().rfind(|(_, points)| points.len() >= needed).map(|(what, _)| what);
        Some(Self { name, revision, needed, different, given, open, earlier, before, bad })
    }

    /// Whether there are enough.
    pub fn suffice(&self) -> bool {
        self.different >= self.needed
    }

    /// Whether the approver of that name has approved it.
    pub fn has(&self, approver: &KeyId) -> bool {
        self.given.contains(approver)
    }

    /// What the approver of that name approved last, where that is an earlier revision.
    pub fn last_of(&self, approver: &KeyId) -> Option<EarlierApproval> {
        self.earlier.iter().find(|(by, _)| by == approver).map(|(_, earlier)| *earlier)
    }

    /// The newest earlier revision that as many as are needed approved last: what machines may run.
    pub fn that_may_run(&self) -> Option<EarlierApproval> {
        self.before
    }

    /// The approvers whose file counts nothing, and why.
    pub fn bad(&self) -> &[(KeyId, String)] {
        &self.bad
    }
}

impl fmt::Display for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &[KeyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Self { name, revision, needed, different, given, open, bad, .. } = self;
        write!(f, "revision {revision} has {different} of {needed} approvals")?;
        if !given.is_empty() {
            write!(f, " (by {})", names(given))?;
        }
        if !self.suffice() {
            write!(f, "; {} may give one: `clavel approve {name}`", names(open))?;
        }
        bad.iter().try_for_each(|(by, why)| write!(f, "; that of {by} does not count: {why}"))
    }
}

/// A reason in one line: parts of it may come from whoever can write to the branch, and it is read at a terminal.
fn in_one_line(why: &str) -> String {
    why.chars().take(LONGEST_REASON).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What `file` says, which the approver `by` left, where `expected` is asked for.
fn read_approval(file: &[u8], expected: &Approval, by: &UsableKey) -> Reading {
    let signed = match Signed::<Approval>::parse(file) {
        Ok(signed) => signed,
        Err(error) => return Reading::Nothing(error.to_string()),
    };
    let found = signed.unverified();
    if found.fleet != expected.fleet || found.name != expected.name {
        return Reading::Nothing(format!("it is of `{}` in the fleet {}…", found.name, found.fleet.short()));
    }
    let [signature] = signed.signatures() else { return Reading::Nothing("it has to have one signature".to_owned()) };
    if !signature.is_by(by, &signed.to_be_signed()) {
        return Reading::Nothing(format!("the key `{}` did not sign it", by.key.id()));
    }
    if found.epoch != expected.epoch {
        return Reading::OtherEpoch;
    }
    if found.revision < expected.revision {
        return Reading::Earlier(EarlierApproval { revision: found.revision, content: found.content });
    }
    if found.revision != expected.revision {
        return Reading::Nothing(format!("it is of revision {}", found.revision));
    }
    if found.content != expected.content {
        return Reading::Nothing(format!("it is of another content of revision {}", found.revision));
    }
    Reading::Yes
}

#[cfg(test)]
#[path = "approval_tests.rs"]
mod tests;
