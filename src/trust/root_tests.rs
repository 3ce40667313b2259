use super::*;
use crate::model::{ApprovalPolicy, List, Role};
use crate::trust::fixture::{first_root, key, role, root_after, signed};

#[test]
fn the_fleet_of_a_first_root_does_not_depend_on_its_signatures() {
    let (a, b) = (key("a"), key("b"));
    let root = first_root(&[&a, &b], 1);
    let by_a = TrustedRoot::given(&signed(root.clone(), &[&a])).unwrap();
    let by_both = TrustedRoot::given(&signed(root.clone(), &[&a, &b])).unwrap();
    assert_eq!(by_a.fleet(), by_both.fleet());
    assert!(TrustedRoot::first(by_a.file(), by_both.fleet()).is_ok());
    let other = TrustedRoot::given(&signed(first_root(&[&b], 1), &[&b])).unwrap();
    let error = TrustedRoot::first(by_a.file(), other.fleet()).unwrap_err();
    assert!(matches!(error, RootError::OtherFleet { .. }), "{error}");
}

#[test]
fn a_root_needs_its_own_threshold_of_different_keys() {
    let (a, b) = (key("a"), key("b"));
    let root = first_root(&[&a, &b], 2);
    assert!(TrustedRoot::given(&signed(root.clone(), &[&a, &b])).is_ok());
    let twice = {
        let one: serde_json::Value = serde_json::from_slice(&signed(root.clone(), &[&a])).unwrap();
        let mut two = one.clone();
        let mut again = one["signatures"][0].clone();
        again["keyid"] = "b".into();
        two["signatures"].as_array_mut().unwrap().push(again);
        crate::model::json::render(&two)
    };
    for file in [signed(root.clone(), &[]), signed(root.clone(), &[&a]), twice] {
        let error = TrustedRoot::given(&file).unwrap_err();
        assert!(matches!(error, RootError::Signed { by: RequiredSigners::Itself, .. }), "{error}");
    }
}

#[test]
fn a_root_whose_roles_could_never_sign_is_refused() {
    let (a, approver) = (key("a"), key("approver"));
    let renamed = crate::model::PublicKey::new("again".parse().unwrap(), *a.public().bytes());
    let one_key_twice =
        Role { keys: vec![a.public().into(), renamed.into()].try_into().unwrap(), threshold: 2.try_into().unwrap() };
    let mut root = first_root(&[&a], 1);
    root.roles.publisher = one_key_twice;
    let error = TrustedRoot::given(&signed(root.clone(), &[&a])).unwrap_err();
    assert!(matches!(error, RootError::Role { role: "publisher", .. }), "{error}");

    let mut root = first_root(&[&a], 1);
    let policy = ApprovalPolicy { approvals: 2.try_into().unwrap(), pattern: "db-*".parse().unwrap() };
    root.approvals = List::one(policy);
    root.roles.approver = role(&[&approver], 1);
    let error = TrustedRoot::given(&signed(root.clone(), &[&a])).unwrap_err();
    assert_eq!(error.to_string(), "it asks for 2 approvals of `db-*`, and has 1 approvers");
}

#[test]
fn the_next_root_is_signed_by_the_one_before_and_by_itself() {
    let (old, new, stranger) = (key("old"), key("new"), key("stranger"));
    let first = TrustedRoot::given(&signed(first_root(&[&old], 1), &[&old])).unwrap();
    let next = root_after(&first, &[&new]);
    let second = first.next(&signed(next.clone(), &[&old, &new])).unwrap();
    assert_eq!((second.fleet(), second.root().version.get()), (first.fleet(), 2));
    for (keys, by) in [
        (vec![&old], RequiredSigners::Itself),
        (vec![&new], RequiredSigners::PreviousRoot),
        (vec![&new, &stranger], RequiredSigners::PreviousRoot),
    ] {
        let error = first.next(&signed(next.clone(), &keys)).unwrap_err();
        assert!(matches!(error, RootError::Signed { by: found, .. } if found == by), "{error}");
    }
}

#[test]
fn the_chain_has_no_gap_no_repeat_and_no_other_fleet() {
    let a = key("a");
    let first = TrustedRoot::given(&signed(first_root(&[&a], 1), &[&a])).unwrap();
    let next = |change: fn(&mut Root)| {
        let mut next = root_after(&first, &[&a]);
        change(&mut next);
        first.next(&signed(next.clone(), &[&a])).map(drop)
    };
    assert_eq!(next(|_| {}), Ok(()));
    assert_eq!(next(|root| root.epoch = 2.try_into().unwrap()), Ok(()));
    let number = |n: u64| RootVersion::try_from(n).unwrap();
    assert_eq!(
        next(|root| root.version = 3.try_into().unwrap()),
        Err(RootError::NotNext { expected: number(2), found: number(3) })
    );
    assert_eq!(
        next(|root| root.version = RootVersion::FIRST),
        Err(RootError::NotNext { expected: number(2), found: number(1) })
    );
    let epochs = (Epoch::FIRST, Epoch::try_from(3).unwrap());
    let skipped = next(|root| root.epoch = 3.try_into().unwrap());
    assert_eq!(skipped, Err(RootError::Epoch { before: epochs.0, found: epochs.1 }));
    let other = next(|root| root.fleet = Some(FleetId::of(crate::trust::digest(b"other"))));
    assert!(matches!(other, Err(RootError::OtherFleet { .. })), "{other:?}");
    assert_eq!(next(|root| root.fleet = None), Err(RootError::Fleet(number(2))));
}
