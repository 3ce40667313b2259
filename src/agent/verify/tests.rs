use std::collections::BTreeMap;

use super::super::state::{State, StateDirectory};
use super::*;
use crate::branch::Layout;
use crate::branch::fixture::{Listing, index, index_files};
use crate::model::{
    ApprovalPolicy, BinCount, Draft, Folder, Index, IndexEntry, List, Metadata, NarTemplateSpecification, Root,
    TemplateMetadata, Threshold, Tombstone, UnitType, describe_error,
};
use crate::trust::fixture::{self, Fleet};
use crate::trust::{Signed, digest};

/// A branch in memory, signed by one key.
struct World {
    fleet: Fleet,
    files: BTreeMap<String, Vec<u8>>,
    index: Index,
    listing: Listing,
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn branch() -> BranchName {
    "deployments".parse().unwrap()
}

fn revision(n: u64) -> Revision {
    Revision::try_from(n).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn template(path: &str) -> NarTemplateSpecification {
    NarTemplateSpecification {
        metadata: TemplateMetadata::default(),
        nar_id: format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{path}").parse().unwrap(),
        substituters: List::default(),
        substituters_public_keys: List::default(),
    }
}

impl World {
    /// One unit, `web-1`, with its agent and its deployment, all at revision 3.
    fn new() -> Self {
        Self::with_bins(BinCount::ONE)
    }

    /// The same, in so many bins.
    fn with_bins(count: BinCount) -> Self {
        let (fleet, listing) = (Fleet::new(), Listing::empty(count));
        let index = index(&fleet, &listing, now(), IndexVersion::try_from(5).unwrap());
        let mut world = Self { fleet, files: BTreeMap::new(), index, listing };
        world.put("web-1", 3, DeploymentSpecification::new(name("web-1"), template("a")));
        world.put("web-1", 3, AgentSpecification { deployments: List::one(name("web-1")) });
        world.put_unit("web-1", "x86_64-linux");
        world.publish();
        world
    }

    fn put_unit(&mut self, unit: &str, arch: &str) {
        self.put(unit, 3, UnitSpecification { arch: arch.parse().unwrap(), unit_type: UnitType::Nixos });
    }

    fn put<S: Specification>(&mut self, document: &str, at: u64, specification: S) {
        let document = Draft::new(name(document), Metadata::default(), specification).at(revision(at), self.fleet.id());
        let path = DocumentPath::new(S::FOLDER, document.name.clone());
        self.write(&path, Signed::sign(document, &self.fleet.key).render(), at);
    }

    /// Writes a file and lists it as it is.
    fn write(&mut self, path: &DocumentPath, bytes: Vec<u8>, at: u64) {
        let entry = IndexEntry { length: bytes.len() as u64, revision: revision(at), sha256: digest(&bytes) };
        self.listing.documents.insert(path.clone(), entry);
        self.files.insert(Layout::of(self.listing.count).document(path), bytes);
    }

    fn file(&self, path: &DocumentPath) -> &Vec<u8> {
        &self.files[&Layout::of(self.listing.count).document(path)]
    }

    /// Removes a document and its entry.
    fn remove(&mut self, path: &DocumentPath) {
        self.listing.documents.remove(path);
        self.files.remove(&Layout::of(self.listing.count).document(path));
    }

    /// Signs the index as it is now.
    fn publish(&mut self) {
        let now = index(&self.fleet, &self.listing, now(), self.index.version);
        self.index.bins = now.bins;
        self.files.extend(index_files(&self.fleet, &self.listing, self.index.clone()));
    }

    fn verify(&self, trusted: &Trusted) -> Result<Verdict, Refusal> {
        self.verify_as(trusted, None, now())
    }

    fn verify_as(&self, trusted: &Trusted, wanted: Option<&[Name]>, now: Timestamp) -> Result<Verdict, Refusal> {
        let listed = self.listing.documents.keys().filter(|path| path.folder() == Folder::Units);
        let units = listed.map(|path| (path.name().clone(), UnitConfig::default())).collect();
        self.verify_serving(&units, trusted, wanted, now)
    }

    fn verify_serving(
        &self,
        units: &BTreeMap<Name, UnitConfig>,
        trusted: &Trusted,
        wanted: Option<&[Name]>,
        now: Timestamp,
    ) -> Result<Verdict, Refusal> {
        let (branch, root) = (branch(), &self.fleet.root);
        let (agent, system) = (name("web-1"), "x86_64-linux".parse().unwrap());
        let requester =
            Requester { agent: &agent, wanted, units, system: &system, branch: &branch, root, max_index_age: None };
        verify(&self.files, &requester, trusted, Time { clocks: &Clocks { now, uptime: None }, baseline: None })
    }

    fn refusal(&self, trusted: &Trusted) -> String {
        describe_error(&self.verify(trusted).unwrap_err())
    }
}

fn deployment_path() -> DocumentPath {
    "deployments/web-1.json".parse().unwrap()
}

#[test]
fn a_signed_and_listed_deployment_becomes_an_order() {
    let verdict = World::new().verify(&Trusted::default()).unwrap();
    assert_eq!(verdict.orders.len(), 1);
    assert_eq!(verdict.orders[0].deployment.revision, revision(3));
    assert_eq!(verdict.trusted.documents.len(), 3);
    // The same again is still believed.
    assert!(World::new().verify(&Trusted::default()).is_ok());
}

#[test]
fn an_agent_serves_the_units_of_its_configuration_and_no_other() {
    let mut world = World::new();
    world.put("x", 1, DeploymentSpecification::new(name("router-1"), template("x")));
    world.put("web-1", 4, AgentSpecification { deployments: vec![name("web-1"), name("x")].try_into().unwrap() });
    world.put_unit("router-1", "x86_64-linux");
    world.publish();
    let served = |units: &[&str]| {
        let units = units.iter().map(|unit| (name(unit), UnitConfig::default())).collect();
        let verdict = world.verify_serving(&units, &Trusted::default(), None, now()).unwrap();
        let unfit: Vec<String> = verdict.unfit.iter().map(|(_, why)| why.to_string()).collect();
        (verdict.orders.iter().map(|order| order.unit.name.to_string()).collect::<Vec<_>>(), unfit.concat())
    };
    // Without a table, the unit of its own name.
    let (orders, unfit) = served(&[]);
    assert_eq!(orders, ["web-1"]);
    assert!(unfit.contains("it is for the unit `router-1`, and this agent serves `web-1`"), "{unfit}");
    // With tables, those alone.
    let (orders, unfit) = served(&["router-1"]);
    assert_eq!(orders, ["router-1"]);
    assert!(unfit.contains("it is for the unit `web-1`, and this agent serves `router-1`"), "{unfit}");
    assert_eq!(served(&["router-1", "web-1"]), (vec!["web-1".to_owned(), "router-1".to_owned()], String::new()));
}

#[test]
fn a_unit_keeps_its_type_until_the_configuration_says_otherwise() {
    let mut world = World::new();
    let seen = world.verify(&Trusted::default()).unwrap().trusted;
    let moved = UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type: UnitType::SystemManager };
    world.put("web-1", 4, moved);
    world.index.version = IndexVersion::try_from(6).unwrap();
    world.publish();
    let with = |unit_type, trusted: &Trusted| {
        let units = BTreeMap::from([(name("web-1"), UnitConfig { unit_type, ..UnitConfig::default() })]);
        world.verify_serving(&units, trusted, None, now()).unwrap()
    };
    // Without a type in the configuration, the first one that was seen.
    let refused = with(None, &seen);
    assert!(refused.orders.is_empty());
    let why = refused.unfit[0].1.to_string();
    assert!(why.contains("of type system-manager, and this agent serves that unit as type nixos"), "{why}");
    // It does not come through by a second look.
    assert!(with(None, &refused.trusted).orders.is_empty());
    let taken = with(Some(UnitType::SystemManager), &refused.trusted);
    assert_eq!(taken.orders.len(), 1);
    assert_eq!(with(None, &taken.trusted).orders.len(), 1);
    // A type in the configuration counts for a new agent as well.
    assert!(with(Some(UnitType::Command), &Trusted::default()).orders.is_empty());
}

#[test]
fn a_branch_of_another_fleet_is_refused() {
    let mut world = World::new();
    world.files.remove("index.json");
    assert!(world.refusal(&Trusted::default()).contains("not a branch of Clavel"));
    let mut world = World::new();
    world.fleet.key = fixture::key("claveld-1");
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("no valid signature by a trusted key"));
    let mut world = World::new();
    world.fleet.root = Fleet::new().root;
    assert!(world.refusal(&Trusted::default()).contains("valid in its own fleet alone"));
}

#[test]
fn an_altered_a_moved_and_an_absent_document_are_refused() {
    let mut world = World::new();
    world.files.get_mut("deployments/web-1.json").unwrap().push(b' ');
    assert!(world.refusal(&Trusted::default()).contains("somebody altered it"));
    // A document in another's place, listed there by an index that is signed all the same.
    let mut world = World::new();
    world.put("web-2", 3, DeploymentSpecification::new(name("web-1"), template("b")));
    let other = world.files["deployments/web-2.json"].clone();
    world.write(&deployment_path(), other, 3);
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("says that it is `web-2`"));
    let mut world = World::new();
    world.files.remove("deployments/web-1.json");
    assert!(world.refusal(&Trusted::default()).contains("not on the branch"));
}

#[test]
fn an_unsigned_document_is_refused_though_it_is_listed() {
    let mut world = World::new();
    let text = String::from_utf8(world.files["deployments/web-1.json"].clone()).unwrap();
    let unsigned = text.replace("sppdcry-a", "sppdcry-b").into_bytes();
    world.write(&deployment_path(), unsigned, 3);
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("no valid signature"));
}

#[test]
fn no_version_and_no_revision_goes_back() {
    let world = World::new();
    let trusted = world.verify(&Trusted::default()).unwrap().trusted;
    let mut older =
        World { index: Index { version: IndexVersion::try_from(4).unwrap(), ..world.index.clone() }, ..world };
    older.publish();
    assert!(older.refusal(&trusted).contains("went back from version 5 to 4"));
    let mut fork = older;
    fork.index.version = IndexVersion::try_from(5).unwrap();
    fork.index.expires = fork.index.expires.plus(std::time::Duration::from_secs(1));
    fork.publish();
    assert!(fork.refusal(&trusted).contains("two indexes of version 5"));
    let mut lower = fork;
    lower.index.version = IndexVersion::try_from(6).unwrap();
    lower.put("web-1", 2, DeploymentSpecification::new(name("web-1"), template("a")));
    lower.publish();
    assert!(lower.refusal(&trusted).contains("went back from revision 3 to 2"));
    let mut other = lower;
    other.put("web-1", 3, DeploymentSpecification::new(name("web-1"), template("other")));
    other.publish();
    assert!(other.refusal(&trusted).contains("two contents of deployments/web-1.json at revision 3"));
    let mut newer = other;
    newer.put("web-1", 4, DeploymentSpecification::new(name("web-1"), template("other")));
    newer.publish();
    assert_eq!(newer.verify(&trusted).unwrap().orders[0].deployment.revision, revision(4));
}

#[test]
fn an_index_that_a_stranger_signed_as_well_is_the_same_index() {
    let mut world = World::new();
    let trusted = world.verify(&Trusted::default()).unwrap().trusted;
    let mut index = Signed::sign(world.index.clone(), &world.fleet.key);
    index.add(&fixture::key("stranger")).unwrap();
    world.files.insert("index.json".to_owned(), index.render());
    assert_eq!(world.verify(&trusted).unwrap().trusted, trusted);
}

#[test]
fn an_expired_index_is_refused() {
    let world = World::new();
    let late = now().plus(std::time::Duration::from_hours(1));
    let refusal = world.verify_as(&Trusted::default(), None, late).unwrap_err();
    assert!(refusal.to_string().contains("is stale since 2026-01-01T01:00:00Z"), "{refusal}");
}

#[test]
fn a_withdrawal_needs_a_tombstone() {
    let mut world = World::new();
    world.remove(&deployment_path());
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("is not in the index"));
    world.listing.tombstones.insert(deployment_path(), Tombstone { revision: revision(3) });
    world.publish();
    let verdict = world.verify(&Trusted::default()).unwrap();
    assert!(verdict.orders.is_empty());
    assert_eq!(verdict.withdrawn, [name("web-1")]);
}

#[test]
fn what_was_withdrawn_comes_back_only_with_a_higher_revision() {
    let mut world = World::new();
    let before = world.verify(&Trusted::default()).unwrap().trusted;
    world.remove(&deployment_path());
    let buried_at = |world: &mut World, last: u64| {
        world.listing.tombstones.insert(deployment_path(), Tombstone { revision: revision(last) });
        world.index.version = world.index.version.next().unwrap();
        world.publish();
    };
    buried_at(&mut world, 2);
    assert_eq!(world.refusal(&before), "deployments/web-1.json went back from revision 3 to 2");
    buried_at(&mut world, 5);
    let buried = world.verify(&before).unwrap().trusted;
    assert_eq!(buried.withdrawn, [(deployment_path(), revision(5))].into());
    buried_at(&mut world, 4);
    assert_eq!(world.refusal(&buried), "deployments/web-1.json went back from revision 5 to 4");

    world.listing.tombstones.clear();
    let back_at = |world: &mut World, at: u64| {
        world.put("web-1", at, DeploymentSpecification::new(name("web-1"), template("a")));
        world.index.version = world.index.version.next().unwrap();
        world.publish();
    };
    for at in [3, 5] {
        back_at(&mut world, at);
        let why = format!("was withdrawn after its revision 5, and came back at revision {at}");
        assert!(world.refusal(&buried).contains(&why), "{}", world.refusal(&buried));
    }
    back_at(&mut world, 6);
    let back = world.verify(&buried).unwrap();
    assert_eq!((back.orders[0].deployment.revision, back.trusted.withdrawn.len()), (revision(6), 0));
}

#[test]
fn a_document_is_not_both_listed_and_withdrawn() {
    for count in BinCount::every().take(2) {
        let mut world = World::with_bins(count);
        world.listing.tombstones.insert(deployment_path(), Tombstone { revision: revision(2) });
        world.publish();
        let refusal = world.refusal(&Trusted::default());
        assert!(refusal.contains("lists deployments/web-1.json and says that it was withdrawn"), "{refusal}");
    }
}

#[test]
fn an_agent_gets_the_deployments_of_its_document_for_a_unit_of_this_machine() {
    let mut world = World::new();
    let refused = world.verify_as(&Trusted::default(), Some(&[name("web-2")]), now()).unwrap_err();
    assert!(refused.to_string().contains("may not ask for the deployment `web-2`"), "{refused}");
    world.put("web-1b", 1, DeploymentSpecification::new(name("web-1"), template("b")));
    let both = vec![name("web-1"), name("web-1b")];
    world.put("web-1", 4, AgentSpecification { deployments: List::try_from(both).unwrap() });
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("are both for the unit `web-1`"));
    assert!(world.verify_as(&Trusted::default(), Some(&[name("web-1b")]), now()).is_ok());
    world.put_unit("web-1", "aarch64-linux");
    world.publish();
    let unfit = |world: &World| {
        let verdict = world.verify_as(&Trusted::default(), Some(&[name("web-1b")]), now()).unwrap();
        verdict.unfit.first().map(|(name, why)| format!("{name}: {why}"))
    };
    assert!(unfit(&world).unwrap().contains("of arch aarch64-linux, and this machine is x86_64-linux"));
    for (unit_type, fits) in [
        (UnitType::Darwin, false),
        (UnitType::HomeManager, true),
        (UnitType::SystemManager, true),
        (UnitType::Container, true),
        (UnitType::Command, true),
    ] {
        world.put("web-1", 3, UnitSpecification { arch: "x86_64-linux".parse().unwrap(), unit_type });
        world.publish();
        let unfit = unfit(&world);
        assert_eq!(unfit.is_none(), fits, "{unit_type}");
        assert!(unfit.is_none_or(|why| why.contains("of type darwin, and this machine is x86_64-linux")));
    }
}

#[test]
fn a_deployment_that_does_not_fit_harms_no_other() {
    let mut world = World::new();
    world.put("arm", 1, DeploymentSpecification::new(name("arm"), template("b")));
    world.put_unit("arm", "aarch64-linux");
    world.put("new", 1, DeploymentSpecification::new(name("web-1"), template("c")));
    let future = world.file(&"deployments/new.json".parse().unwrap());
    let future = String::from_utf8(future.clone()).unwrap().replace("clavel/v1", "clavel/v2");
    world.write(&"deployments/new.json".parse().unwrap(), future.into_bytes(), 1);
    let all = vec![name("arm"), name("new"), name("web-1")];
    world.put("web-1", 4, AgentSpecification { deployments: List::try_from(all).unwrap() });
    world.publish();
    let verdict = world.verify(&Trusted::default()).unwrap();
    assert_eq!(verdict.orders.iter().map(|order| order.deployment.name.as_str()).collect::<Vec<_>>(), ["web-1"]);
    let unfit: Vec<String> =
        verdict.unfit.iter().map(|(name, why)| format!("{name}: {}", describe_error(why))).collect();
    assert!(unfit[0].starts_with("arm: it is for the unit `arm` of arch aarch64-linux"), "{unfit:?}");
    assert!(unfit[1].contains("deployments/new.json is written for a newer Clavel"), "{unfit:?}");
    assert!(unfit[1].contains("the schema `clavel/v2`") && unfit[1].contains("upgrade"), "{unfit:?}");
}

#[test]
fn a_unit_that_is_not_on_the_branch_harms_no_deployment_for_another() {
    let unit: DocumentPath = "units/gone.json".parse().unwrap();
    let mut world = World::new();
    world.put("gone", 1, DeploymentSpecification::new(name("gone"), template("b")));
    world.put("web-1", 4, AgentSpecification { deployments: vec![name("gone"), name("web-1")].try_into().unwrap() });
    world.publish();
    let publish_next = |world: &mut World| {
        world.index.version = world.index.version.next().unwrap();
        world.publish();
    };
    let left_out = |world: &World, trusted: &Trusted| {
        let verdict = world.verify(trusted).unwrap();
        assert_eq!(verdict.orders.iter().map(|order| order.unit.name.as_str()).collect::<Vec<_>>(), ["web-1"]);
        let why = |(deployment, why): &(Name, Unfit)| format!("{deployment}: {why}");
        (verdict.unfit.iter().map(why).collect::<Vec<_>>().concat(), verdict.trusted)
    };
    let (why, seen) = left_out(&world, &Trusted::default());
    assert!(why.starts_with("gone: it is for the unit `gone`, which is not on the branch"), "{why}");
    world.put_unit("gone", "x86_64-linux");
    publish_next(&mut world);
    let both = world.verify(&seen).unwrap();
    assert_eq!(both.orders.len(), 2);
    // What was seen does not vanish without a tombstone, and what is listed is there.
    let file = world.files.remove("units/gone.json").unwrap();
    assert!(world.refusal(&both.trusted).contains("is in the index and not on the branch"));
    world.files.insert("units/gone.json".to_owned(), file);
    world.remove(&unit);
    publish_next(&mut world);
    assert!(world.refusal(&both.trusted).contains("units/gone.json is not in the index"));
    world.listing.tombstones.insert(unit, Tombstone { revision: revision(3) });
    publish_next(&mut world);
    let (why, _) = left_out(&world, &both.trusted);
    assert!(why.starts_with("gone: it is for the unit `gone`, which was withdrawn"), "{why}");
}

#[test]
fn an_agent_reads_the_bins_of_its_own_names_alone() {
    for count in BinCount::every().take(3) {
        let mut world = World::with_bins(count);
        for other in 0..40 {
            world.put_unit(&format!("other-{other}"), "x86_64-linux");
        }
        world.publish();
        let own = count.bin_of(&name("web-1"));
        for bin in count.bins().filter(|bin| *bin != own) {
            world.files.insert(Layout::bin(bin), b"nobody reads this".to_vec());
        }
        assert_eq!(world.verify(&Trusted::default()).unwrap().orders.len(), 1, "{own}");
        world.files.insert(Layout::bin(own), b"this is read".to_vec());
        assert!(world.refusal(&Trusted::default()).contains("is not the file that the index lists"));
        world.files.remove(&Layout::bin(own));
        assert!(world.refusal(&Trusted::default()).contains("of the index is not on the branch"));
    }
}

#[test]
fn the_agents_own_name_needs_its_approvals_whatever_the_other_names_are() {
    let mut world = World::new();
    let (key, alice) = (&world.fleet.key, fixture::key("alice"));
    let asks = |pattern: &str| {
        let policy = ApprovalPolicy { approvals: Threshold::ONE, pattern: pattern.parse().unwrap() };
        let mut root = Root { approvals: List::one(policy), ..fixture::root_after(&world.fleet.root, &[key]) };
        root.roles.approver = fixture::role(&[&alice], 1);
        world.fleet.root.next(&fixture::signed(root, &[key])).unwrap()
    };
    let (of_web, of_others) = (asks("web-*"), asks("db-*"));
    world.put("x", 3, DeploymentSpecification::new(name("y"), template("a")));
    world.put("web-1", 4, AgentSpecification { deployments: List::one(name("x")) });
    world.put_unit("y", "x86_64-linux");
    world.publish();
    let asked = |world: &World| {
        let orders = world.verify_as(&Trusted::default(), Some(&[name("x")]), now()).unwrap().orders;
        orders[0].approvals.as_ref().map(Approvals::suffice)
    };
    assert_eq!(asked(&world), None);
    world.fleet.root = of_others;
    assert_eq!(asked(&world), None);
    world.fleet.root = of_web;
    assert_eq!(asked(&world), Some(false));
}

#[test]
fn a_document_of_another_kind_is_refused() {
    let mut world = World::new();
    let unit = world.files["units/web-1.json"].clone();
    world.write(&deployment_path(), unit, 3);
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("`Unit` is not the kind asked for"));
}

#[test]
fn an_index_of_another_branch_or_epoch_is_refused() {
    let mut world = World::new();
    world.index.branch = "staging".parse().unwrap();
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("is of the branch `staging`, and this is `deployments`"));
    let mut world = World::new();
    world.index.epoch = 2.try_into().unwrap();
    world.publish();
    assert!(world.refusal(&Trusted::default()).contains("signed in epoch 2, and the root is at epoch 1"));
}

#[test]
fn an_expired_root_is_refused() {
    let refusal = World::new().verify_as(&Trusted::default(), None, "2100-01-01T00:00:00Z".parse().unwrap());
    assert!(matches!(&refusal, Err(Refusal::Stale(stale)) if stale.what == "the root (version 1)"), "{refusal:?}");
}

#[test]
fn a_later_epoch_begins_to_count_anew() {
    let mut world = World::new();
    world.index.version = IndexVersion::try_from((1 << 53) - 1).unwrap();
    world.put("web-1", (1 << 53) - 1, DeploymentSpecification::new(name("web-1"), template("evil")));
    world.publish();
    let driven = world.verify(&Trusted::default()).unwrap().trusted;
    let back = {
        let mut world = World::new();
        world.index.version = IndexVersion::FIRST;
        world.publish();
        world
    };
    // The same numbers in the same epoch are refused.
    assert!(back.refusal(&driven).contains("went back"));
    let mut back = back;
    let next = Root { epoch: 2.try_into().unwrap(), ..fixture::root_after(&back.fleet.root, &[&back.fleet.key]) };
    back.fleet.root = back.fleet.root.next(&fixture::signed(next, &[&back.fleet.key])).unwrap();
    back.index.epoch = 2.try_into().unwrap();
    back.publish();
    let verdict = back.verify(&driven).unwrap();
    assert_eq!(verdict.orders[0].deployment.revision, revision(3));
    assert_eq!(verdict.trusted.documents.len(), 3);
    // An agent that believed the later epoch believes nothing of the earlier one.
    let refusal = World::new().refusal(&verdict.trusted);
    assert!(refusal.contains("the root is at epoch 1, and epoch 2 was believed before"), "{refusal}");
}

#[test]
fn the_number_of_remembered_documents_is_limited_and_that_many_can_be_read() {
    let seen = SeenDocument { revision: revision((1 << 53) - 1), content_digest: digest(b"") };
    let path = |number: usize| format!("deployments/{number:0>128}.json").parse().unwrap();
    let mut world = World::new();
    let mut trusted = world.verify(&Trusted::default()).unwrap().trusted;
    let free = MAX_DOCUMENTS - trusted.documents.len();
    trusted.documents.extend((0..free).map(|number| (path(number), seen)));
    trusted = world.verify(&trusted).unwrap().trusted;
    let folder = tempfile::tempdir().unwrap();
    let folder = StateDirectory::open(folder.path()).unwrap();
    let state = State { trusted: trusted.clone(), ..State::default() };
    folder.save(&state).unwrap();
    assert_eq!(folder.load().unwrap(), state);

    world.index.version = IndexVersion::try_from(6).unwrap();
    world.put("new-1", 1, DeploymentSpecification::new(name("web-1"), template("b")));
    world.put("web-1", 4, AgentSpecification { deployments: List::one(name("new-1")) });
    world.publish();
    assert!(world.refusal(&trusted).contains("more than 10000 documents"), "{}", world.refusal(&trusted));
}
