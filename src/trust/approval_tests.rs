use proptest::prelude::*;

use super::*;
use crate::model::{
    ApprovalPolicy, DeploymentSpecification, Draft, List, Metadata, NarTemplateSpecification, PublicKey, Role, RoleKey,
    Root, TemplateMetadata,
};
use crate::trust::fixture::{first_root, key, role, signed};
use crate::trust::{SecretKey, digest};

/// A fleet in which `db-*` has to be approved, by two of alice, bob and carol.
struct FleetWithApprovers {
    root_key: SecretKey,
    approvers: [SecretKey; 3],
    root: TrustedRoot,
}

fn approved_by(root_key: &SecretKey, approver: Role, approvals: u64) -> Root {
    let policy = ApprovalPolicy { approvals: approvals.try_into().unwrap(), pattern: "db-*".parse().unwrap() };
    let mut root = Root { approvals: List::one(policy), ..first_root(&[root_key], 1) };
    root.roles.approver = approver;
    root
}

impl FleetWithApprovers {
    fn new() -> Self {
        let root_key = key("root-1");
        let approvers = [key("alice"), key("bob"), key("carol")];
        let root = approved_by(&root_key, role(&approvers.each_ref(), 1), 2);
        let root = TrustedRoot::given(&signed(root, &[&root_key])).unwrap();
        Self { root_key, approvers, root }
    }

    fn deployment(&self, name: &str, unit: &str, revision: u64) -> Verified<Deployment> {
        let template = NarTemplateSpecification {
            metadata: TemplateMetadata::default(),
            nar_id: "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x".parse().unwrap(),
            substituters: List::default(),
            substituters_public_keys: List::default(),
        };
        let specification = DeploymentSpecification::new(unit.parse().unwrap(), template);
        let draft = Draft::new(name.parse().unwrap(), Metadata::default(), specification);
        let deployment = draft.at(revision.try_into().unwrap(), self.root.fleet());
        Signed::sign(deployment, &self.root_key).verify(self.root.fleet(), self.root.publisher()).unwrap()
    }

    fn approval(&self, deployment: &Verified<Deployment>) -> Approval {
        Approval::of(deployment, deployment.content_digest(), self.root.root().epoch)
    }

    fn count(&self, deployment: &Verified<Deployment>, left: &[(&str, Vec<u8>)]) -> Approvals {
        let left = left.iter().map(|(by, file)| (by.parse().unwrap(), Ok(file.clone()))).collect();
        Approvals::count(&self.root, deployment, &[], &left).unwrap()
    }
}

#[test]
fn a_deployment_that_no_policy_matches_needs_no_approval() {
    let fleet = FleetWithApprovers::new();
    let web = fleet.deployment("web-1", "web-1", 1);
    assert_eq!(Approvals::count(&fleet.root, &web, &["web-1".parse().unwrap()], &BTreeMap::new()), None);
}

#[test]
fn the_names_of_unit_and_agent_need_approval_too() {
    let fleet = FleetWithApprovers::new();
    let count = |name: &str, unit: &str, agent: &str| {
        let deployment = fleet.deployment(name, unit, 7);
        Approvals::count(&fleet.root, &deployment, &[agent.parse().unwrap()], &BTreeMap::new())
    };
    for (name, unit, agent) in [("db-1", "y", "z"), ("x", "db-1", "z"), ("x", "y", "db-1"), ("x", "Db-1", "z")] {
        let approvals = count(name, unit, agent).unwrap();
        assert!(!approvals.suffice() && approvals.to_string().contains("0 of 2"), "{name} {unit} {agent}: {approvals}");
    }
    assert_eq!(count("x", "y", "z"), None);
}

#[test]
fn the_root_says_how_many_different_approvers_are_needed() {
    let fleet = FleetWithApprovers::new();
    let deployment = fleet.deployment("db-1", "db-1", 7);
    let [alice, bob, _] = &fleet.approvers;
    let by = |key: &SecretKey| signed(fleet.approval(&deployment), &[key]);
    let one = fleet.count(&deployment, &[("alice", by(alice))]);
    assert!(!one.suffice() && one.is_approved_by(alice.id()));
    assert_eq!(
        one.to_string(),
        "revision 7 has 1 of 2 approvals (by alice); bob, carol may give one: `clavel approve db-1`"
    );
    let both = fleet.count(&deployment, &[("alice", by(alice)), ("bob", by(bob))]);
    assert!(both.suffice());
    assert_eq!(both.to_string(), "revision 7 has 2 of 2 approvals (by alice, bob)");
    // An approval does not count in another approver's file, and the file of a stranger does not count at all.
    let moved = fleet.count(&deployment, &[("alice", by(alice)), ("bob", by(alice)), ("mallory", by(&key("mallory")))]);
    assert!(!moved.suffice());
    assert!(moved.to_string().contains("the approval of bob does not count: the key `bob` did not sign it"), "{moved}");
}

#[test]
fn one_key_under_two_names_counts_once() {
    let (root_key, alice, bob) = (key("root-1"), key("alice"), key("bob"));
    let again: RoleKey = PublicKey::new("alice-2".parse().unwrap(), *alice.public().bytes()).into();
    let keys = vec![alice.public().into(), again, bob.public().into()];
    let approver = Role { keys: keys.try_into().unwrap(), threshold: 1.try_into().unwrap() };
    let root = approved_by(&root_key, approver, 2);
    let root = TrustedRoot::given(&signed(root, &[&root_key])).unwrap();
    let fleet = FleetWithApprovers { root, ..FleetWithApprovers::new() };
    let fleet = FleetWithApprovers { root_key, ..fleet };
    let deployment = fleet.deployment("db-1", "db-1", 1);
    let by = |key: &SecretKey| signed(fleet.approval(&deployment), &[key]);
    assert!(!fleet.count(&deployment, &[("alice", by(&alice)), ("alice-2", by(&alice))]).suffice());
    let three = [("alice", by(&alice)), ("alice-2", by(&alice)), ("bob", by(&bob))];
    assert!(fleet.count(&deployment, &three).suffice());
}

#[test]
fn an_approval_of_anything_else_does_not_count() {
    let fleet = FleetWithApprovers::new();
    let deployment = fleet.deployment("db-1", "db-1", 7);
    let [alice, bob, _] = &fleet.approvers;
    let good = ("bob", signed(fleet.approval(&deployment), &[bob]));
    let count_changed = |change: &dyn Fn(&mut Approval)| {
        let mut approval = fleet.approval(&deployment);
        change(&mut approval);
        let approvals = fleet.count(&deployment, &[("alice", signed(approval, &[alice])), good.clone()]);
        assert!(!approvals.suffice() && !approvals.is_approved_by(alice.id()));
        approvals
    };
    assert!(count_changed(&|a| a.revision = 6.try_into().unwrap()).last_approval_of(alice.id()).is_some());
    let of_another_epoch = count_changed(&|a| (a.epoch, a.revision) = (2.try_into().unwrap(), 6.try_into().unwrap()));
    assert!(of_another_epoch.invalid().is_empty() && of_another_epoch.last_approval_of(alice.id()).is_none());
    let invalid = |change: &dyn Fn(&mut Approval)| count_changed(change).invalid()[0].1.clone();
    assert!(invalid(&|a| a.revision = 8.try_into().unwrap()).contains("for revision 8"));
    assert!(invalid(&|a| a.content_digest = digest(b"another")).contains("another content of revision 7"));
    assert!(invalid(&|a| a.name = "db-2".parse().unwrap()).contains("`db-2`"));
    assert!(invalid(&|a| a.fleet = crate::model::FleetId::of(digest(b"x"))).contains("fleet"));
}

#[test]
fn each_approver_has_a_last_approval_of_their_own() {
    let fleet = FleetWithApprovers::new();
    let [alice, bob, carol] = &fleet.approvers;
    let at = |revision| fleet.deployment("db-1", "db-1", revision);
    let by = |key: &SecretKey, revision| signed(fleet.approval(&at(revision)), &[key]);
    let approvals = fleet.count(&at(7), &[("alice", by(alice, 3)), ("bob", by(bob, 6)), ("carol", by(carol, 7))]);
    let last = |key: &SecretKey| approvals.last_approval_of(key.id()).map(|last| last.revision().to_string());
    assert_eq!((last(alice).as_deref(), last(bob).as_deref(), last(carol)), (Some("3"), Some("6"), None));
    // A file that another approver signed is no earlier approval, and neither is one of a later revision.
    let of_others = fleet.count(&at(7), &[("alice", by(bob, 3)), ("bob", by(bob, 8))]);
    assert_eq!((of_others.last_approval_of(alice.id()), of_others.last_approval_of(bob.id())), (None, None));
}

#[test]
fn the_last_sufficient_revision_has_enough_approvals_of_one_content() {
    let fleet = FleetWithApprovers::new();
    let [alice, bob, carol] = &fleet.approvers;
    let by =
        |key: &SecretKey, revision, unit| signed(fleet.approval(&fleet.deployment("db-1", unit, revision)), &[key]);
    let running = |left: &[(&str, Vec<u8>)]| {
        let approvals = fleet.count(&fleet.deployment("db-1", "db-1", 7), left);
        approvals.last_sufficient().map(|what| what.revision().to_string())
    };
    let (three, four) = (|key| by(key, 3, "db-1"), |key| by(key, 4, "db-1"));
    assert_eq!(running(&[("alice", three(alice)), ("bob", three(bob)), ("carol", four(carol))]).as_deref(), Some("3"));
    assert_eq!(running(&[("alice", three(alice)), ("carol", four(carol))]), None);
    assert_eq!(running(&[("alice", three(alice)), ("bob", by(bob, 3, "db-2"))]), None);
}

#[test]
fn an_approved_deployment_is_found_by_its_content() {
    let fleet = FleetWithApprovers::new();
    let [alice, ..] = &fleet.approvers;
    let (first, other) = (fleet.deployment("db-1", "db-1", 3), fleet.deployment("db-1", "db-2", 3));
    let left = [("alice", signed(fleet.approval(&first), &[alice]))];
    let last = fleet.count(&fleet.deployment("db-1", "db-1", 7), &left).last_approval_of(alice.id()).unwrap();
    let file = |deployment: &Verified<Deployment>, by: &SecretKey| Signed::sign((**deployment).clone(), by).render();
    assert_eq!(last.deployment_in(&file(&first, &fleet.root_key)).as_ref(), Some(&*first));
    // Another signer does not matter, since alice signed the digest of the content.
    assert_eq!(last.deployment_in(&file(&first, &key("another"))).as_ref(), Some(&*first));
    // Alice never saw the other content of the same revision.
    assert_eq!(last.deployment_in(&file(&other, &fleet.root_key)), None);
    assert_eq!(last.deployment_in(b"junk"), None);
}

#[test]
fn junk_does_not_hide_valid_approvals() {
    let fleet = FleetWithApprovers::new();
    let deployment = fleet.deployment("db-1", "db-1", 1);
    let [alice, bob, carol] = &fleet.approvers;
    let by = |key: &SecretKey| signed(fleet.approval(&deployment), &[key]);
    let deployments_own = Signed::sign((*deployment).clone(), carol).render();
    for junk in [b"junk".to_vec(), Vec::new(), deployments_own, signed(fleet.approval(&deployment), &[bob, carol])] {
        let approvals = fleet.count(&deployment, &[("alice", by(alice)), ("bob", by(bob)), ("carol", junk)]);
        assert!(approvals.suffice());
        assert_eq!(approvals.invalid().len(), 1, "{approvals}");
    }
    // The reason is shown, and has no characters that control a terminal.
    let steering = fleet.count(&deployment, &[("carol", b"{\n  \"\\u001b[2J\\n\": 1\n}\n".to_vec())]).to_string();
    assert!(steering.contains("carol does not count") && !steering.contains(char::is_control), "{steering}");
    let mut left: BTreeMap<KeyId, ApprovalFile> = BTreeMap::new();
    left.insert(carol.id().clone(), Err("it is no regular file".to_owned()));
    let approvals = Approvals::count(&fleet.root, &deployment, &[], &left).unwrap();
    assert!(
        approvals.to_string().contains("the approval of carol does not count: it is no regular file"),
        "{approvals}"
    );
}

#[test]
fn the_names_of_approvers_are_valid_file_names() {
    let root_key = key("root-1");
    let given = |names: &[&str]| {
        let keys: Vec<SecretKey> = names.iter().map(|name| key(name)).collect();
        let root = approved_by(&root_key, role(&keys.iter().collect::<Vec<_>>(), 1), 1);
        TrustedRoot::given(&signed(root, &[&root_key]))
    };
    given(&["alice@laptop", "bob"]).unwrap();
    for bad in [["../alice", "bob"], [".alice", "bob"], ["alice/1", "bob"], ["alice", "Alice"]] {
        let error = given(&bad).unwrap_err().to_string();
        assert!(error.contains("cannot be used, since an approval"), "{error}");
    }
}

proptest! {
    #[test]
    fn a_changed_approval_does_not_count(at: prop::sample::Index, bit in 0..8_u8) {
        let fleet = FleetWithApprovers::new();
        let deployment = fleet.deployment("db-1", "db-1", 7);
        let [alice, bob, _] = &fleet.approvers;
        let by = |key: &SecretKey| signed(fleet.approval(&deployment), &[key]);
        let mut file = by(alice);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        // The key's name beside the signature is a hint.
        let hint = Signed::<Approval>::parse(&file).is_ok_and(|s| s.signatures().any(|s| s.keyid() != alice.id()));
        prop_assert_eq!(fleet.count(&deployment, &[("alice", file), ("bob", by(bob))]).suffice(), hint);
    }
}
