//! Promise: what claveld publishes is what an agent reads, whatever the size of the fleet and however odd its names; and what it
//! remembers of its last round changes nothing of what it publishes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use clavel::branch::{Branch, RootChain, WriteError};
use clavel::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use clavel::git::Repository;
use clavel::model::{
    AgentSpecification, BranchName, DeploymentSpecification, DocumentMetadata, Draft, FlakeReference, Folder, List,
    LockedSource, Metadata, Name, NarTemplateSpecification, Provenance, PublishPolicy, Specification, System,
    TemplateMetadata, Timestamp, UnitSpecification, UnitType,
};
use clavel::publish::{
    Operation, OperatorRequest, OrphanPolicy, PublishError, PublishInput, PublishReport, PublishSettings, Publisher,
};
use clavel::signers::Signers;
use clavel::store::{self, Output};
use clavel::trust::{Amendment, Anchor, AnchorLocation, KeyLocation, RoleName, SecretKey, Signed, TrustedRoot};

use crate::support::fleet::seeded::Seeded;
use crate::support::{hermetic_git, program};

/// How many claveld publish to one branch at once, and how often each of them.
const PUBLISHERS: usize = 4;
const PUBLICATIONS: u64 = 125;

/// A fleet as its source gives it: the content of each deployment.
type Source = BTreeMap<Name, u64>;

/// A publisher with a repository of its own.
struct Publication {
    folder: tempfile::TempDir,
    root: TrustedRoot,
    branch: BranchName,
}

fn flake(source: usize) -> FlakeReference {
    format!("git+https://git.example.org/fleet-{source}").parse().unwrap()
}

impl Publication {
    fn new(key: &SecretKey, root: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        key.write_new(&folder.path().join("key")).unwrap();
        std::fs::write(folder.path().join("root.json"), root).unwrap();
        Repository::open_or_create_bare(&folder.path().join("fleet.git")).unwrap();
        Self { folder, root: TrustedRoot::given(root).unwrap(), branch: "deployments".parse().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn publisher(&self) -> Publisher {
        self.publisher_with_state("state")
    }

    /// A publisher that remembers what it does in the folder `state`.
    fn publisher_with_state(&self, state: &str) -> Publisher {
        let settings = PublishSettings {
            repository: self.path("fleet.git").to_str().unwrap().parse().unwrap(),
            branch: self.branch.clone(),
            validity: Duration::from_hours(24 * 7),
            state_directory: self.path(state),
            policy: PublishPolicy::WhenEvaluated,
            author: None,
        };
        let signers = Signers::read(&[KeyLocation::File(self.path("key"))]).unwrap();
        let anchor = Anchor::read(&AnchorLocation::File(self.path("root.json"))).unwrap();
        Publisher::new(settings, signers, anchor, store::open(None, Duration::from_mins(1), Output::Capture))
    }

    /// Publishes some of the sources, of which all are configured.
    fn publish(&self, sources: &[Source], evaluated: &[usize], orphans: OrphanPolicy) -> PublishReport {
        let configured: Vec<FlakeReference> = (0..sources.len()).map(flake).collect();
        let evaluations: Vec<Evaluation> = evaluated.iter().map(|at| evaluation(*at, &sources[*at])).collect();
        let input = PublishInput {
            configured: &configured,
            evaluations: &evaluations,
            orphans,
            allowed_withdrawals: usize::MAX,
            sources: &[],
        };
        run(self.publisher().publish(&input)).unwrap()
    }

    fn operate(&self, operation: &Operation) {
        let request = OperatorRequest { operation: operation.clone(), why: "a test".parse().unwrap(), person: None };
        // An operation that is impossible at the moment changes nothing.
        let _ = run(self.publisher().operate(&request));
    }

    /// Claveld forgets its last round, and so looks at everything.
    fn forget(&self) {
        let _ = std::fs::remove_file(self.path("state/settled.json"));
    }

    /// Reads the whole branch as agents do. Returns the revision and the store path of each deployment, and all other names with
    /// their revisions.
    fn read(&self) -> BTreeMap<String, (u64, String)> {
        let repository = Repository::open(&self.path("fleet.git")).unwrap();
        let files = repository.snapshot(repository.tip(&self.branch).unwrap().unwrap()).unwrap();
        let newest = RootChain::walk(&files, &self.root).unwrap().newest;
        let branch = Branch::new(&files, &newest, &self.branch);
        let mut index = branch.whole_index().unwrap();
        let mut found = BTreeMap::new();
        for name in index.names(Folder::Deployments) {
            let read = branch.document::<DeploymentSpecification>(&mut index, &name).unwrap();
            let path = read.specification.template.nar_id.to_string();
            found.insert(format!("deployment {name}"), (read.revision.get(), path));
        }
        for name in index.names(Folder::Units) {
            let read = branch.document::<UnitSpecification>(&mut index, &name).unwrap();
            found.insert(format!("unit {name}"), (read.revision.get(), String::new()));
        }
        for name in index.names(Folder::Agents) {
            let read = branch.document::<AgentSpecification>(&mut index, &name).unwrap();
            found.insert(format!("agent {name}"), (read.revision.get(), String::new()));
        }
        let holds = index.holds().map(|(name, hold)| (format!("hold {name}"), (hold.revision.get(), String::new())));
        found.extend(holds);
        found
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut git = program("git");
        let run = hermetic_git(&mut git, self.folder.path()).args(arguments).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).unwrap()
    }

    fn bins(&self) -> usize {
        let repository = self.path("fleet.git");
        let listed = self.git(&["-C", repository.to_str().unwrap(), "ls-tree", "--name-only", "deployments", "index/"]);
        listed.lines().count()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn evaluation(source: usize, fleet: &Source) -> Evaluation {
    let arch: System = "x86_64-linux".parse().unwrap();
    let mut drafts = Drafts::default();
    for (name, content) in fleet {
        let template = NarTemplateSpecification {
            metadata: TemplateMetadata::default(),
            nar_id: format!("/nix/store/{content:032}-system").parse().unwrap(),
            substituters: List::default(),
            substituters_public_keys: List::default(),
        };
        drafts.deployments.push(draft(source, name, DeploymentSpecification::new(name.clone(), template)));
        drafts.units.push(draft(source, name, UnitSpecification { arch: arch.clone(), unit_type: UnitType::Nixos }));
        drafts.agents.push(draft(source, name, AgentSpecification { deployments: List::one(name.clone()) }));
    }
    let source = LockedSource {
        flake: flake(source),
        locked: flake(source),
        hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        revision: None,
    };
    Evaluation { source, drafts, warnings: EvalWarnings::default(), work: EvaluationWork::default() }
}

fn draft<S: Specification>(source: usize, name: &Name, specification: S) -> Draft<S> {
    let provenance = Provenance {
        attribute: "nixosConfigurations.host".parse().unwrap(),
        drv_path: None,
        evaluated_at: Timestamp::from(SystemTime::now()),
        source: flake(source),
        source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        source_revision: None,
    };
    Draft::new(
        name.clone(),
        DocumentMetadata::with_provenance(Metadata::default(), &provenance).unwrap(),
        specification,
    )
}

fn key_and_root() -> (SecretKey, Vec<u8>) {
    let key = SecretKey::generate("claveld-1".parse().unwrap()).unwrap();
    let add = vec![(RoleName::Root, key.public().into()), (RoleName::Publisher, key.public().into())];
    let expires = Timestamp::from(SystemTime::now()).plus(Duration::from_hours(24));
    let root = Amendment { add, ..Amendment::default() }.first(expires).unwrap();
    let root = Signed::sign(root, &key).render();
    (key, root)
}

/// A name with any of the characters that a name may have, some of them as long as a name may be.
fn odd_name(chance: &mut Seeded) -> Name {
    const FIRST: &[u8] = b"ABZabz059_@";
    const REST: &[u8] = b"ABCXYZabcxyz0189._@-";
    let length = if chance.below(10) == 0 { 127 } else { chance.below(24) };
    let mut name = String::from(char::from(*chance.pick(FIRST)));
    name.extend((0..length).map(|_| char::from(*chance.pick(REST))));
    name.parse().unwrap()
}

fn odd_fleet(chance: &mut Seeded, count: usize) -> Source {
    let mut folded = BTreeSet::new();
    let names = std::iter::repeat_with(|| odd_name(chance)).filter(|name| folded.insert(name.folded()));
    names.take(count).map(|name| (name, 0)).collect()
}

fn hold(name: &Name) -> Operation {
    Operation::Hold { deployments: vec![name.as_str().parse().unwrap()], until: None }
}

fn release(name: &Name) -> Operation {
    Operation::Release { deployments: vec![name.as_str().parse().unwrap()] }
}

#[test]
fn fleets_of_all_sizes_with_odd_names_are_read_as_they_were_published() {
    let (key, root) = key_and_root();
    let mut chance = Seeded::new(7);
    for (count, bins) in [(0, 1), (1, 1), (3, 1), (60, 1), (500, 1), (501, 16), (900, 16)] {
        let world = Publication::new(&key, &root);
        let fleet = odd_fleet(&mut chance, count);
        let _ = world.publish(std::slice::from_ref(&fleet), &[0], OrphanPolicy::Withdraw);
        let read = world.read();
        assert_eq!(read.len(), 3 * count);
        assert!(fleet.keys().all(|name| read.contains_key(&format!("deployment {name}"))));
        assert_eq!(world.bins(), bins, "{count}");
    }
}

#[test]
fn a_fleet_that_outgrows_its_bins_moves_with_its_approvals_and_comes_back() {
    let (key, root) = key_and_root();
    let world = Publication::new(&key, &root);
    let mut fleet = odd_fleet(&mut Seeded::new(8), 490);
    let _ = world.publish(std::slice::from_ref(&fleet), &[0], OrphanPolicy::Withdraw);
    let name = fleet.keys().next().unwrap().clone();
    world.operate(&hold(&name));
    let before = world.read();
    fleet.extend(odd_fleet(&mut Seeded::new(9), 30));
    *fleet.get_mut(&name).unwrap() = 1;
    let _ = world.publish(std::slice::from_ref(&fleet), &[0], OrphanPolicy::Withdraw);
    assert_eq!(world.bins(), 16);
    let after = world.read();
    assert!(before.iter().all(|(name, known)| after.get(name) == Some(known)), "nothing but new names changed");
    // The tombstones of those that left count as names.
    let few: Source = fleet.into_iter().take(40).chain([(name, 1)]).collect();
    let _ = world.publish(std::slice::from_ref(&few), &[0], OrphanPolicy::Withdraw);
    assert_eq!(world.bins(), 16);
    assert_eq!(world.read().keys().filter(|name| name.starts_with("deployment")).count(), few.len());
}

#[test]
fn what_claveld_remembers_changes_nothing_of_what_it_publishes() {
    let (key, root) = key_and_root();
    for seed in 0..2 {
        let mut chance = Seeded::new(100 + seed);
        let (quick, thorough) = (Publication::new(&key, &root), Publication::new(&key, &root));
        let mut sources = [odd_fleet(&mut chance, 520), odd_fleet(&mut chance, 5)];
        for step in 0..12 {
            let at = chance.below(2);
            let names: Vec<Name> = sources[at].keys().cloned().collect();
            let mut operation = None;
            match chance.below(10) {
                0 => drop(sources[at].insert(odd_name(&mut chance), 0)),
                1 if names.len() > 1 => drop(sources[at].remove(chance.pick(&names))),
                // Both sources claim a name.
                2 if !names.is_empty() => drop(sources[1 - at].insert(chance.pick(&names).clone(), 9)),
                3 if !names.is_empty() => operation = Some(hold(chance.pick(&names))),
                4 if !names.is_empty() => operation = Some(release(chance.pick(&names))),
                5 => {}
                _ if !names.is_empty() => *sources[at].get_mut(chance.pick(&names)).unwrap() += 1,
                _ => {}
            }
            let (evaluated, orphans): (&[usize], _) = match chance.below(4) {
                0 => (&[0], OrphanPolicy::Keep),
                1 => (&[1], OrphanPolicy::Keep),
                _ => (&[0, 1], OrphanPolicy::Withdraw),
            };
            let reports = [&quick, &thorough].map(|world| {
                if std::ptr::eq(world, &raw const thorough) {
                    world.forget();
                }
                if let Some(operation) = &operation {
                    world.operate(operation);
                }
                world.publish(&sources, evaluated, orphans)
            });
            let [quick_report, thorough_report] = reports;
            assert_eq!(quick_report.changes, thorough_report.changes, "seed {seed}, step {step}");
            assert_eq!(quick.read(), thorough.read(), "seed {seed}, step {step}");
        }
        assert!(Path::new(&quick.path("state/settled.json")).exists());
        assert_eq!(quick.bins(), 16);
    }
}

#[test]
fn a_bin_that_somebody_touched_is_looked_at_again() {
    let (key, root) = key_and_root();
    let world = Publication::new(&key, &root);
    let fleet = odd_fleet(&mut Seeded::new(11), 520);
    for _ in 0..2 {
        let _ = world.publish(std::slice::from_ref(&fleet), &[0], OrphanPolicy::Withdraw);
    }
    let (repository, work) = (world.path("fleet.git"), world.path("work"));
    world.git(&["clone", "-q", "-b", "deployments", repository.to_str().unwrap(), work.to_str().unwrap()]);
    let listed = world.git(&["-C", work.to_str().unwrap(), "ls-files", "deployments"]);
    let victim = listed.lines().next().unwrap();
    std::fs::write(work.join(victim), "{}\n").unwrap();
    world.git(&["-C", work.to_str().unwrap(), "commit", "-qam", "evil"]);
    world.git(&["-C", work.to_str().unwrap(), "push", "-q", "origin", "deployments"]);
    let report = world.publish(std::slice::from_ref(&fleet), &[0], OrphanPolicy::Withdraw);
    assert_eq!(report.changes.len(), 1);
    assert!(report.changes[0].repaired);
    world.read();
}

#[test]
fn four_that_publish_at_once_lose_nothing_and_publish_nothing_twice() {
    let (key, root) = key_and_root();
    let world = Publication::new(&key, &root);
    let configured: Vec<FlakeReference> = (0..PUBLISHERS).map(flake).collect();
    let name = |at: usize| -> Name { format!("host-{at}").parse().unwrap() };
    let publish_all = |at: usize| {
        let publisher = world.publisher_with_state(&format!("state-{at}"));
        for content in 1..=PUBLICATIONS {
            let evaluations = [evaluation(at, &Source::from([(name(at), content)]))];
            let input = PublishInput {
                configured: &configured,
                evaluations: &evaluations,
                orphans: OrphanPolicy::Keep,
                allowed_withdrawals: 0,
                sources: &[],
            };
            // One that was overtaken at each attempt tries again in its next round.
            let report = loop {
                match run(publisher.publish(&input)) {
                    Err(PublishError::Write(WriteError::Raced { .. })) => {}
                    result => break result.unwrap(),
                }
            };
            assert!(report.commit.is_some(), "{report:?}");
        }
    };
    std::thread::scope(|all| {
        for at in 0..PUBLISHERS {
            all.spawn(move || publish_all(at));
        }
    });
    let read = world.read();
    for at in 0..PUBLISHERS {
        let expected = (PUBLICATIONS, format!("/nix/store/{PUBLICATIONS:032}-system"));
        assert_eq!(read[&format!("deployment {}", name(at))], expected);
    }
    let repository = world.path("fleet.git");
    let repository = repository.to_str().unwrap();
    let commits = world.git(&["-C", repository, "rev-list", "--count", "deployments"]);
    assert_eq!(commits.trim(), (PUBLISHERS as u64 * PUBLICATIONS).to_string());
    world.git(&["-C", repository, "fsck", "--strict"]);
}
