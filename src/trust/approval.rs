//! Counts the approvals of a deployment. No I/O: the caller passes the files of the approvers.

use std::collections::BTreeMap;
use std::fmt;

use super::usable_key::UsableKey;
use super::{Signed, TrustedRoot, Verified};
use crate::model::{Approval, Deployment, KeyId, Name, Revision, Sha256Digest, describe_error, printable_line};

/// The most characters that an error shows of the reason why a file does not count.
const MAX_REASON_CHARACTERS: usize = 240;

/// The file of an approver, or the reason why it could not be read.
pub type ApprovalFile = Result<Vec<u8>, String>;

/// The approvals of one revision of a deployment that needs approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    name: Name,
    revision: Revision,
    needed: usize,
    /// How many different keys approved it.
    count: usize,
    approved: Vec<KeyId>,
    missing: Vec<KeyId>,
    earlier: Vec<(KeyId, EarlierApproval)>,
    last_sufficient: Option<EarlierApproval>,
    invalid: Vec<(KeyId, String)>,
}

/// An earlier revision that an approver signed in this epoch, and the digest of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EarlierApproval {
    revision: Revision,
    content_digest: Sha256Digest,
}

impl EarlierApproval {
    /// The revision.
    pub fn revision(self) -> Revision {
        self.revision
    }

    /// The deployment in `file`, if it has the content that was approved. The signatures of the file do not matter.
    pub fn deployment_in(self, file: &[u8]) -> Option<Deployment> {
        let signed = Signed::<Deployment>::parse(file).ok()?;
        (signed.content_digest() == self.content_digest).then(|| signed.unverified().clone())
    }
}

/// The meaning of one approver's file.
enum Statement {
    /// It approves this very revision.
    Current,
    /// It approves an earlier revision.
    Earlier(EarlierApproval),
    /// It approves a revision of another epoch, which does not count in this one.
    OtherEpoch,
    /// It does not count, for this reason.
    Invalid(String),
}

impl Approvals {
    /// Counts the approvals of `deployment` in `files`, which are by the approvers' names. It is `None` where `root` asks for no
    /// approvals: neither for the deployment's name, nor for that of its unit or of one of the `agents` that take it.
    ///
    /// The key of the approver has to have signed the approver's file. A key counts once, whatever its names are.
    pub fn count(
        root: &TrustedRoot,
        deployment: &Verified<Deployment>,
        agents: &[Name],
        files: &BTreeMap<KeyId, ApprovalFile>,
    ) -> Option<Self> {
        let needed = root.root().approvals_of(deployment, agents)?.get();
        let expected = Approval::of(deployment, deployment.content_digest(), root.root().epoch);
        let (mut points, mut approved, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        let (mut earlier, mut invalid) = (Vec::new(), Vec::new());
        let mut points_of = BTreeMap::<EarlierApproval, Vec<_>>::new();
        // All of them are usable: a trusted root has no other keys.
        for by in root.root().roles.approver.keys.iter().filter_map(UsableKey::of) {
            let id = by.key.id().clone();
            let statement = match files.get(&id) {
                None => None,
                Some(Err(why)) => Some(Statement::Invalid(why.clone())),
                Some(Ok(file)) => Some(read_approval(file, &expected, &by)),
            };
            match statement {
                Some(Statement::Current) => {
                    if !points.contains(&by.point) {
                        points.push(by.point);
                    }
                    approved.push(id);
                    continue;
                }
                Some(Statement::Earlier(approval)) => {
                    earlier.push((id.clone(), approval));
                    let points = points_of.entry(approval).or_default();
                    if !points.contains(&by.point) {
                        points.push(by.point);
                    }
                }
                Some(Statement::Invalid(why)) => {
                    invalid.push((id.clone(), printable_line(&why, MAX_REASON_CHARACTERS)));
                }
                Some(Statement::OtherEpoch) | None => {}
            }
            missing.push(id);
        }
        let (name, revision, count) = (deployment.name.clone(), deployment.revision, points.len());
        let last_sufficient =
            points_of.into_iter().rfind(|(_, points)| points.len() >= needed).map(|(approval, _)| approval);
        Some(Self { name, revision, needed, count, approved, missing, earlier, last_sufficient, invalid })
    }

    /// Whether enough approvers approved it.
    pub fn suffice(&self) -> bool {
        self.count >= self.needed
    }

    /// Whether `approver` approved it.
    pub fn is_approved_by(&self, approver: &KeyId) -> bool {
        self.approved.contains(approver)
    }

    /// The last approval by `approver`, where that is of an earlier revision.
    pub fn last_approval_of(&self, approver: &KeyId) -> Option<EarlierApproval> {
        self.earlier.iter().find(|(by, _)| by == approver).map(|(_, earlier)| *earlier)
    }

    /// The newest earlier revision that enough approvers approved last. Machines may run it meanwhile.
    pub fn last_sufficient(&self) -> Option<EarlierApproval> {
        self.last_sufficient
    }

    /// The approvers whose file does not count, each with the reason.
    pub fn invalid(&self) -> &[(KeyId, String)] {
        &self.invalid
    }
}

impl fmt::Display for Approvals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |ids: &[KeyId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let Self { name, revision, needed, count, approved, missing, invalid, .. } = self;
        write!(f, "revision {revision} has {count} of {needed} approvals")?;
        if !approved.is_empty() {
            write!(f, " (by {})", names(approved))?;
        }
        if !self.suffice() {
            write!(f, "; {} may give one: `clavel approve {name}`", names(missing))?;
        }
        invalid.iter().try_for_each(|(by, why)| write!(f, "; the approval of {by} does not count: {why}"))
    }
}

/// Reads the file of the approver `by`, and compares it with the `expected` approval.
fn read_approval(file: &[u8], expected: &Approval, by: &UsableKey) -> Statement {
    let signed = match Signed::<Approval>::parse(file) {
        Ok(signed) => signed,
        Err(error) => return Statement::Invalid(describe_error(&error)),
    };
    let found = signed.unverified();
    if found.fleet != expected.fleet || found.name != expected.name {
        return Statement::Invalid(format!("it is for `{}` in the fleet {}…", found.name, found.fleet.short()));
    }
    let [signature] = signed.signatures().collect::<Vec<_>>()[..] else {
        return Statement::Invalid("it has to have exactly one signature".to_owned());
    };
    if !signature.is_by(by, &signed.to_be_signed()) {
        return Statement::Invalid(format!("the key `{}` did not sign it", by.key.id()));
    }
    if found.epoch != expected.epoch {
        return Statement::OtherEpoch;
    }
    if found.revision < expected.revision {
        return Statement::Earlier(EarlierApproval { revision: found.revision, content_digest: found.content_digest });
    }
    if found.revision != expected.revision {
        return Statement::Invalid(format!("it is for revision {}", found.revision));
    }
    if found.content_digest != expected.content_digest {
        return Statement::Invalid(format!("it is for another content of revision {}", found.revision));
    }
    Statement::Current
}

#[cfg(test)]
#[path = "approval_tests.rs"]
mod tests;
