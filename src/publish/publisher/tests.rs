//! Publishes with a store in memory into a real repository, so that waiting for a cache and pinning need no Nix.

use std::path::Path;
use std::sync::Mutex;

use super::super::fixture::{self, DAY, cache_entry, cached_draft, flake, fleet, hash, path, revision};
use super::super::left_out::Awaited;
use super::super::plan::OrphanPolicy;
use super::super::survey::CacheProblem;
use super::*;
use crate::evaluate::{Drafts, Evaluation};
use crate::model::{Deployment, NarTemplateSpecification, StorePath, Substituter};
use crate::store::{CacheEntries, DerivationError, StoreError, StoreFuture};
use crate::trust::{AnchorLocation, KeyLocation, pin_of};

const CACHE: &str = "https://cache.example.org";

/// A store whose one cache has these paths.
#[derive(Debug, Default)]
struct FakeStore(Mutex<CacheEntries>);

impl FakeStore {
    /// Puts a path into the cache, with this content and these references.
    fn put(&self, name: &str, content: u8, references: &[&str]) {
        let entry = cache_entry(name, content, references);
        self.0.lock().unwrap().insert(path(name).parse().unwrap(), entry);
    }

    fn absent<'a, T>(path: &StorePath) -> StoreFuture<'a, T> {
        let (act, why) = (format!("look for {path}"), "it is not there".to_owned());
        Box::pin(async { Err(StoreError::Unexpected { act, why }) })
    }
}

impl Store for FakeStore {
    fn look_up<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        assert_eq!(cache.as_str(), CACHE);
        let entries = self.0.lock().unwrap();
        let found = paths.iter().filter_map(|path| Some((path.clone(), entries.get(path)?.clone()))).collect();
        Box::pin(async { Ok(found) })
    }

    fn look_up_closure<'a>(&'a self, cache: &'a Substituter, paths: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        assert_eq!(cache.as_str(), CACHE);
        let entries = self.0.lock().unwrap();
        let (mut found, mut open) = (CacheEntries::new(), paths.to_vec());
        while let Some(path) = open.pop() {
            let Some(entry) = entries.get(&path) else { return Self::absent(&path) };
            if found.insert(path, entry.clone()).is_none() {
                open.extend(entry.references().iter().cloned());
            }
        }
        Box::pin(async { Ok(found) })
    }

    fn dump(&self, _: &StorePath, _: &mut dyn std::io::Write) -> std::io::Result<()> {
        unreachable!("publishing dumps nothing")
    }

    fn derivation(&self, path: &StorePath) -> Result<Vec<u8>, DerivationError> {
        unreachable!("no deployment has a derivation, but {path} is read")
    }

    fn files_of(&self, path: &StorePath) -> PathBuf {
        unreachable!("a publisher does not look for {path} in the store")
    }

    fn fetch<'a>(&'a self, _: &'a NarTemplateSpecification, _: &'a Path) -> StoreFuture<'a, ()> {
        unreachable!("a publisher fetches nothing")
    }

    fn keep<'a>(&'a self, _: &'a StorePath, _: &'a Path) -> StoreFuture<'a, ()> {
        unreachable!("a publisher keeps nothing")
    }

    fn closures_here<'a>(&'a self, _: &'a [StorePath]) -> StoreFuture<'a, CacheEntries> {
        unreachable!("a publisher asks caches alone")
    }

    fn delete<'a>(&'a self, _: &'a [StorePath]) -> StoreFuture<'a, ()> {
        unreachable!("a publisher deletes nothing")
    }

    fn set_profile<'a>(&'a self, _: &'a Path, _: &'a StorePath) -> StoreFuture<'a, ()> {
        unreachable!("a publisher sets no profile")
    }
}

/// A publisher into a new bare repository.
struct Bench {
    publisher: Publisher,
    store: Arc<FakeStore>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(policy: PublishPolicy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        gix::init_bare(at("fleet.git")).unwrap();
        fleet().key.write_new(&at("claveld.secret")).unwrap();
        std::fs::write(at("root.json"), fleet().root.file()).unwrap();
        let store = Arc::<FakeStore>::default();
        Self { publisher: publisher(folder.path(), &store, policy), store, folder }
    }

    /// The same repository and store, with another policy.
    fn with_policy(self, policy: PublishPolicy) -> Self {
        Self { publisher: publisher(self.folder.path(), &self.store, policy), ..self }
    }

    /// Publishes the deployment `web` of `top`.
    async fn publish(&self) -> PublishReport {
        self.publish_path("top").await
    }

    async fn publish_path(&self, nar_id: &str) -> PublishReport {
        let deployments = vec![cached_draft("web", nar_id, &[CACHE])];
        let evaluations: [Evaluation; 1] = [fixture::evaluation("fleet", Drafts { deployments, ..Drafts::default() })];
        let configured = [flake("fleet")];
        let orphans = OrphanPolicy::Withdraw;
        let input = PublishInput {
            configured: &configured,
            evaluations: &evaluations,
            orphans,
            allowed_withdrawals: 0,
            sources: &[],
        };
        self.publisher.publish(&input).await.unwrap()
    }

    /// The deployment on the branch, as a publisher reads and verifies it.
    async fn published(&self) -> Option<Deployment> {
        let attempt = self.publisher.context.begin(&self.publisher.writer(), None).await.unwrap();
        let document = attempt.base.branch.deployments.get(&fixture::name("web"))?.known()?;
        Some((**document).clone())
    }
}

fn publisher(folder: &Path, store: &Arc<FakeStore>, policy: PublishPolicy) -> Publisher {
    let at = |name: &str| folder.join(name);
    let settings = PublishSettings {
        repository: at("fleet.git").to_str().unwrap().parse().unwrap(),
        branch: "deployments".parse().unwrap(),
        validity: 7 * DAY,
        state_directory: at("state"),
        policy,
        author: None,
    };
    let signers = Signers::read(&[KeyLocation::File(at("claveld.secret"))]).unwrap();
    let anchor = Anchor::read(&AnchorLocation::File(at("root.json"))).unwrap();
    let store: Arc<dyn Store> = Arc::<FakeStore>::clone(store);
    Publisher::new(settings, signers, anchor, store)
}

/// The store path that `web` waits for, and the path that needs it.
fn awaited(report: &PublishReport) -> (String, Option<String>) {
    let [waiting] = &report.unready.waiting[..] else { panic!("{report:?}") };
    let Awaited::Cache { path, needed_by, caches } = &waiting.awaited else { panic!("{report:?}") };
    assert_eq!(caches.iter().map(|cache| &cache.state).collect::<Vec<_>>(), [&CacheProblem::NotThere]);
    (path.to_string(), needed_by.as_ref().map(ToString::to_string))
}

#[tokio::test(flavor = "current_thread")]
async fn a_deployment_waits_until_its_cache_has_it() {
    let bench = Bench::new(PublishPolicy::WhenCached);
    let report = bench.publish().await;
    assert_eq!(awaited(&report), (path("top"), None));
    assert!(report.commit.is_some() && report.changes.is_empty(), "the first index is published: {report:?}");
    assert_eq!(bench.published().await, None);
    let report = bench.publish().await;
    assert_eq!((awaited(&report), report.commit), ((path("top"), None), None));
    // A deployment that is published when its own path is cached does not wait for what that path needs.
    bench.store.put("top", 1, &["dep"]);
    let report = bench.publish().await;
    assert!(report.commit.is_some() && report.unready.waiting.is_empty(), "{report:?}");
    let web = bench.published().await.unwrap();
    assert_eq!((web.revision, web.specification.template.nar_id.to_string()), (revision(1), path("top")));
    assert_eq!(web.specification.template.metadata.pin().unwrap(), None);
    // Until the next path is cached, the branch keeps the one before it.
    assert_eq!(awaited(&bench.publish_path("next").await), (path("next"), None));
    assert_eq!(bench.published().await, Some(web));
}

#[tokio::test(flavor = "current_thread")]
async fn a_deployment_waits_for_its_whole_closure_and_is_pinned_once() {
    let bench = Bench::new(PublishPolicy::WhenPinned);
    bench.store.put("top", 1, &["dep", "top"]);
    assert_eq!(awaited(&bench.publish().await), (path("dep"), Some(path("top"))));
    assert_eq!(bench.published().await, None);
    bench.store.put("dep", 2, &[]);
    let report = bench.publish().await;
    assert!(report.commit.is_some() && report.unready.waiting.is_empty(), "{report:?}");
    let web = bench.published().await.unwrap();
    let closure = [("top", 1), ("dep", 2)]
        .map(|(name, content)| (path(name).parse().unwrap(), cache_entry(name, content, &[]).content()));
    let pin = pin_of(&path("top").parse().unwrap(), &closure.into()).unwrap();
    assert_eq!((web.revision, web.specification.template.metadata.pin().unwrap()), (revision(1), Some(&pin)));
    assert_eq!(pin.nar_hash, hash(1));
    // The pin stays, although the cache has another content now.
    bench.store.put("top", 3, &[]);
    let report = bench.publish().await;
    assert_eq!((report.commit, report.unready.waiting), (None, Vec::new()));
    assert_eq!(bench.published().await, Some(web));
}

#[tokio::test(flavor = "current_thread")]
async fn a_published_deployment_gets_its_pin_in_a_new_revision() {
    let bench = Bench::new(PublishPolicy::WhenCached);
    bench.store.put("top", 1, &[]);
    bench.publish().await;
    let bench = bench.with_policy(PublishPolicy::WhenPinned);
    bench.publish().await;
    let web = bench.published().await.unwrap();
    assert_eq!(
        (web.revision, web.specification.template.metadata.pin().unwrap().map(|pin| pin.nar_hash)),
        (revision(2), Some(hash(1)))
    );
}
