//! Makes the content of a new root: of the first root of a fleet, or of the next one.

use crate::model::{
    ApprovalPolicy, Epoch, Format, IndexAgePolicy, Invalid, KeyId, Kind, List, Pattern, Role, RoleKey, Roles, Root,
    RootVersion, Schema, Threshold, Timestamp,
};

use super::TrustedRoot;

/// A role of a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleName {
    /// Approves deployments.
    Approver,
    /// Signs the index and the documents.
    Publisher,
    /// Signs the next root.
    Root,
}

/// The differences between a new root and the one before it.
#[derive(Debug, Clone, Default)]
pub struct Amendment {
    /// Keys that get a role.
    pub add: Vec<(RoleName, RoleKey)>,
    /// Keys that lose all their roles.
    pub remove: Vec<KeyId>,
    /// New thresholds of roles.
    pub thresholds: Vec<(RoleName, Threshold)>,
    /// Approval policies to add. Each replaces one with the same pattern.
    pub approvals: Vec<ApprovalPolicy>,
    /// Patterns of the approval policies to remove.
    pub drop_approvals: Vec<Pattern>,
    /// How old an index may be for some agents. Each replaces one with the same pattern.
    pub index_ages: Vec<IndexAgePolicy>,
    /// Patterns of the agents for which an index may be no older than it says itself any more.
    pub drop_index_ages: Vec<Pattern>,
    /// Whether the new root raises the epoch, which makes everything that was signed before invalid.
    pub raise_epoch: bool,
}

/// The reason why a root cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmendError {
    /// No role has a key of that name.
    #[error("no role has a key `{0}`")]
    NoSuchKey(KeyId),
    /// The role has another key of that name, and people could not tell the two apart.
    #[error("the role has another key `{0}` already; give the new key another name, such as `{0}-2`")]
    NameTaken(KeyId),
    /// No policy has that pattern.
    #[error("no approval policy has the pattern `{0}`")]
    NoSuchPolicy(Pattern),
    /// The root says of no agents of that pattern how old an index may be.
    #[error("the root says of no agents `{0}` how old an index may be for them")]
    NoSuchIndexAge(Pattern),
    /// A counter cannot be raised.
    #[error("cannot raise the {0}: it is at the largest number there is")]
    CounterExhausted(&'static str),
    /// A list has more items than a root holds.
    #[error(transparent)]
    TooMany(#[from] Invalid),
}

impl Amendment {
    /// Makes the first root of a fleet from these keys and policies alone.
    pub fn first(&self, expires: Timestamp) -> Result<Root, AmendError> {
        let empty_role = || Role { keys: List::default(), threshold: Threshold::ONE };
        let empty = Root {
            approvals: List::default(),
            epoch: Epoch::FIRST,
            expires,
            fleet: None,
            format: Format::FIRST,
            index_ages: List::default(),
            kind: Kind::THIS,
            roles: Roles { approver: empty_role(), publisher: empty_role(), root: empty_role() },
            schema: Schema::V1,
            version: RootVersion::FIRST,
        };
        self.apply(empty)
    }

    /// Makes the root after `before`, with these differences.
    pub fn next(&self, before: &TrustedRoot, expires: Timestamp) -> Result<Root, AmendError> {
        let root = before.root();
        let version = root.version.next().ok_or(AmendError::CounterExhausted("root's version"))?;
        let epoch =
            if self.raise_epoch { root.epoch.next().ok_or(AmendError::CounterExhausted("epoch"))? } else { root.epoch };
        self.apply(Root { epoch, expires, fleet: Some(before.fleet()), version, ..root.clone() })
    }

    fn apply(&self, mut root: Root) -> Result<Root, AmendError> {
        for id in &self.remove {
            let roles = [&mut root.roles.approver, &mut root.roles.publisher, &mut root.roles.root];
            let mut found = false;
            for role in roles {
                let kept: Vec<RoleKey> = role.keys.iter().filter(|key| key.id() != id).cloned().collect();
                found |= kept.len() < role.keys.len();
                role.keys = kept.try_into()?;
            }
            if !found {
                return Err(AmendError::NoSuchKey(id.clone()));
            }
        }
        for (name, key) in &self.add {
            let role = role_of(&mut root.roles, *name);
            match role.keys.iter().find(|known| known.id() == key.id()) {
                Some(known) if known == key => continue,
                Some(_) => return Err(AmendError::NameTaken(key.id().clone())),
                None => {}
            }
            let mut keys = role.keys.to_vec();
            keys.push(key.clone());
            keys.sort_by(|a, b| a.id().cmp(b.id()));
            role.keys = keys.try_into()?;
        }
        for (name, threshold) in &self.thresholds {
            role_of(&mut root.roles, *name).threshold = *threshold;
        }
        let (drop, add) = (&self.drop_approvals, &self.approvals);
        root.approvals = amended(&root.approvals, drop, add, |policy| &policy.pattern)
            .map_err(AmendError::NoSuchPolicy)?
            .try_into()?;
        let (drop, add) = (&self.drop_index_ages, &self.index_ages);
        root.index_ages = amended(&root.index_ages, drop, add, |policy| &policy.pattern)
            .map_err(AmendError::NoSuchIndexAge)?
            .try_into()?;
        Ok(root)
    }
}

/// The policies without those of the patterns in `drop`, and with `add` in place of those of the same patterns. The error is a pattern that
/// none has.
fn amended<P: Clone>(
    policies: &[P],
    drop: &[Pattern],
    add: &[P],
    pattern: impl Fn(&P) -> &Pattern,
) -> Result<Vec<P>, Pattern> {
    let mut all = policies.to_vec();
    for dropped in drop {
        let before = all.len();
        all.retain(|policy| pattern(policy) != dropped);
        if all.len() == before {
            return Err(dropped.clone());
        }
    }
    for added in add {
        all.retain(|known| pattern(known) != pattern(added));
        all.push(added.clone());
    }
    all.sort_by(|a, b| pattern(a).cmp(pattern(b)));
    Ok(all)
}

fn role_of(roles: &mut Roles, name: RoleName) -> &mut Role {
    match name {
        RoleName::Approver => &mut roles.approver,
        RoleName::Publisher => &mut roles.publisher,
        RoleName::Root => &mut roles.root,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::fixture::{Fleet, key, signed};

    fn expires() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_first_root_has_the_roles_of_its_amendment() {
        let (root, publisher) = (key("root-1"), key("claveld-1"));
        let amendment = Amendment {
            add: vec![(RoleName::Root, root.public().into()), (RoleName::Publisher, publisher.public().into())],
            ..Amendment::default()
        };
        let file = signed(amendment.first(expires()).unwrap(), &[&root]);
        let trusted = TrustedRoot::given(&file).unwrap();
        assert!(trusted.publisher().suffices(&[publisher.public()]));
        assert!(!trusted.publisher().suffices(&[root.public()]));
    }

    #[test]
    fn the_next_root_keeps_everything_but_the_changes() {
        let fleet = Fleet::new();
        let new = key("claveld-2");
        let policy = ApprovalPolicy { approvals: Threshold::ONE, pattern: "db-*".parse().unwrap() };
        let amendment = Amendment {
            add: vec![(RoleName::Publisher, new.public().into()), (RoleName::Approver, key("alice").public().into())],
            approvals: vec![policy.clone()],
            raise_epoch: true,
            ..Amendment::default()
        };
        let next = amendment.next(&fleet.root, expires()).unwrap();
        assert_eq!((next.version.get(), next.epoch.get(), next.fleet), (2, 2, Some(fleet.id())));
        assert_eq!(next.roles.publisher.keys.len(), 2);
        assert_eq!(next.roles.root, fleet.root.root().roles.root);
        let second = fleet.root.next(&signed(next, &[&fleet.key])).unwrap();
        let undo = Amendment {
            remove: vec![new.public().id().clone()],
            drop_approvals: vec![policy.pattern],
            ..Amendment::default()
        };
        let third = undo.next(&second, expires()).unwrap();
        assert_eq!(third.roles.publisher, fleet.root.root().roles.publisher);
        assert!(third.approvals.is_empty());
    }

    #[test]
    fn an_impossible_amendment_is_refused() {
        let fleet = Fleet::new();
        let next = |amendment: Amendment| amendment.next(&fleet.root, expires()).unwrap_err().to_string();
        let none = Amendment { remove: vec!["nobody".parse().unwrap()], ..Amendment::default() };
        assert_eq!(next(none), "no role has a key `nobody`");
        let taken =
            Amendment { add: vec![(RoleName::Publisher, key("claveld-1").public().into())], ..Amendment::default() };
        assert!(next(taken).contains("another key `claveld-1` already"));
        let policy = Amendment { drop_approvals: vec!["db-*".parse().unwrap()], ..Amendment::default() };
        assert_eq!(next(policy), "no approval policy has the pattern `db-*`");
    }
}
