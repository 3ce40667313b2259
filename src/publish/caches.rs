//! Asks the caches whether they have the deployments that are about to be published. This is the I/O; `survey` puts the
//! answers together, and `withhold` decides by them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::survey::{CacheAnswer, CacheAnswers, CacheScope, CacheSurvey};
use crate::model::{Deployment, StorePath, Substituter};
use crate::store::{CacheEntries, Store, StoreError};

/// The number of paths that one process asks for. It asks for one after the other.
const PATHS_A_PROCESS: usize = 50;
/// The number of processes that ask at the same time. They wait for the network, not for this machine.
const PROCESSES: usize = 8;
/// The number of processes that may fail before a cache counts as down. It suffices to find a few bad answers by halving
/// batches.
const FAILURES_A_CACHE: usize = 24;
/// The greatest distance from a deployment's path at which claveld still asks for a path: far more than any system has. A
/// cache that names new references without end is not followed for ever.
const GREATEST_DEPTH: usize = 1000;
/// The number of rounds that ask for whole closures. A cache that did not have one by then leaves it to other caches.
const CLOSURE_ROUNDS: usize = 2;
/// After this time claveld asks no other cache, because all documents wait meanwhile. The next round asks again.
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// Asks the caches by way of a store.
#[derive(Debug)]
pub(super) struct CacheClient {
    store: Arc<dyn Store>,
    scope: CacheScope,
}

/// The paths that one process asks one cache for.
type Batch = (Substituter, Vec<StorePath>);

impl CacheClient {
    pub(super) fn new(store: Arc<dyn Store>, scope: CacheScope) -> Self {
        Self { store, scope }
    }

    /// The store paths that have to be in a cache.
    pub(super) fn scope(&self) -> CacheScope {
        self.scope
    }

    /// Asks until all that each of `deployments` needs was found, or all of its caches were asked. A question that `answers`
    /// answers already is not asked again.
    pub(super) async fn ask_for(&self, deployments: &[Deployment], answers: &mut CacheAnswers) {
        let began = Instant::now();
        for depth in 0..GREATEST_DEPTH {
            let questions = CacheSurvey::of(deployments, self.scope, answers).questions();
            if questions.is_empty() || began.elapsed() > TIME_LIMIT {
                return;
            }
            if self.scope == CacheScope::Closure && depth < CLOSURE_ROUNDS {
                self.ask_for_closures(&questions, answers).await;
            }
            self.ask(questions, answers).await;
        }
    }

    /// Asks for whole closures. A cache that has a complete closure answers with all of it at once. From any other cache
    /// claveld learns nothing here; it then asks for the paths, one level after the other.
    async fn ask_for_closures(
        &self,
        questions: &BTreeMap<Substituter, BTreeSet<StorePath>>,
        answers: &mut CacheAnswers,
    ) {
        let mut open: Vec<Batch> = batches(questions).into();
        let mut running = JoinSet::new();
        loop {
            while running.len() < PROCESSES
                && let Some((cache, paths)) = open.pop()
            {
                let store = Arc::clone(&self.store);
                running.spawn(async move {
                    let found = store.look_up_closure(&cache, &paths).await;
                    (cache, found)
                });
            }
            match running.join_next().await {
                None => return,
                Some(Ok((cache, Ok(found)))) => {
                    answers.extend(
                        found.into_iter().map(|(path, entry)| ((cache.clone(), path), CacheAnswer::Has(entry))),
                    );
                }
                Some(Ok((_, Err(_))) | Err(_)) => {}
            }
        }
    }

    /// Asks all of `questions`. Afterwards each of them has an answer.
    async fn ask(&self, questions: BTreeMap<Substituter, BTreeSet<StorePath>>, answers: &mut CacheAnswers) {
        let mut open = batches(&questions);
        open.retain_mut(|(cache, paths)| {
            paths.retain(|path| !answers.contains_key(&(cache.clone(), path.clone())));
            !paths.is_empty()
        });
        // Even if a process vanishes, its questions have an answer.
        let interrupted = || CacheAnswer::OutOfReach("the question to it was interrupted".to_owned());
        answers.extend(open.iter().flat_map(|batch| answer_all(batch, |_| interrupted())));
        let (mut running, mut failures) = (JoinSet::new(), BTreeMap::<Substituter, usize>::new());
        loop {
            while running.len() < PROCESSES
                && let Some(batch) = open.pop_front()
            {
                running.spawn(look_up(Arc::clone(&self.store), batch));
            }
            match running.join_next().await {
                None => return,
                Some(Err(_aborted)) => {}
                Some(Ok((batch, Ok(mut found)))) => {
                    let answer = |path: &StorePath| found.remove(path).map_or(CacheAnswer::HasNot, CacheAnswer::Has);
                    answers.extend(answer_all(&batch, answer));
                }
                Some(Ok((batch, Err(error)))) => {
                    let failed = failures.entry(batch.0.clone()).or_default();
                    *failed += 1;
                    let out_of_reach =
                        |batch: &Batch| answer_all(batch, |_| CacheAnswer::OutOfReach(reason(&error.message())));
                    answers.extend(out_of_reach(&batch));
                    // A cache that is too slow for a batch is too slow for half of it.
                    if *failed < FAILURES_A_CACHE && !error.is_timeout() {
                        open.extend(halves(batch));
                    } else {
                        let is_same = |open: &Batch| open.0 == batch.0;
                        answers.extend(open.iter().filter(|open| is_same(open)).flat_map(out_of_reach));
                        open.retain(|open| !is_same(open));
                    }
                }
            }
        }
    }
}

fn batches(questions: &BTreeMap<Substituter, BTreeSet<StorePath>>) -> VecDeque<Batch> {
    let of_one = |(cache, paths): (&Substituter, &BTreeSet<StorePath>)| {
        let paths: Vec<StorePath> = paths.iter().cloned().collect();
        paths.chunks(PATHS_A_PROCESS).map(|paths| (cache.clone(), paths.to_vec())).collect::<Vec<_>>()
    };
    questions.iter().flat_map(of_one).collect()
}

/// Both halves of a batch; none of a batch with a single path. One bad answer spoils the answers of its whole batch.
fn halves((cache, paths): Batch) -> Vec<Batch> {
    let (left, right) = paths.split_at(paths.len() / 2);
    [left, right]
        .into_iter()
        .filter(|half| paths.len() > 1 && !half.is_empty())
        .map(|half| (cache.clone(), half.to_vec()))
        .collect()
}

async fn look_up(store: Arc<dyn Store>, batch: Batch) -> (Batch, Result<CacheEntries, StoreError>) {
    let found = store.look_up(&batch.0, &batch.1).await;
    (batch, found)
}

/// The answer to each question of a batch.
fn answer_all(
    (cache, paths): &Batch,
    mut answer: impl FnMut(&StorePath) -> CacheAnswer,
) -> Vec<((Substituter, StorePath), CacheAnswer)> {
    paths.iter().map(|path| ((cache.clone(), path.clone()), answer(path))).collect()
}

/// The first line of Nix's own message.
fn reason(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = line.trim().trim_start_matches("error: ");
    // Nix 2.8 says this when one of its threads failed before it gave another one its work. The true reason is lost.
    let is_lost = line.starts_with("cannot enqueue a work item");
    if is_lost { "Nix does not say why".to_owned() } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_batch_is_asked_for_in_halves_down_to_a_single_path() {
        let paths: Vec<StorePath> = ["a", "b", "c"]
            .iter()
            .map(|name| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-{name}").parse().unwrap())
            .collect();
        let cache: Substituter = "https://cache.example.org".parse().unwrap();
        let [left, right] = &halves((cache.clone(), paths.clone()))[..] else { panic!() };
        assert_eq!([&left.1[..], &right.1[..]].concat(), paths);
        assert!(!left.1.is_empty() && !right.1.is_empty());
        assert_eq!(halves((cache, paths[..1].to_vec())), []);
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason("error: unable to download 'x'\n\n  at y\n"), "unable to download 'x'");
        assert_eq!(reason("error: cannot enqueue a work item while …"), "Nix does not say why");
    }

    /// Asks a cache that nobody serves for this many paths.
    async fn ask_absent_cache(count: u32) -> CacheAnswers {
        let path = |n: u32| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x{n}").parse().unwrap();
        let cache: Substituter = "http://127.0.0.1:1".parse().unwrap();
        let mut answers = CacheAnswers::new();
        CacheClient::new(
            crate::store::open(None, Duration::from_mins(2), crate::store::Output::Capture),
            CacheScope::Path,
        )
        .ask(BTreeMap::from([(cache, (0..count).map(path).collect())]), &mut answers)
        .await;
        answers
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_path_has_an_answer_though_the_cache_is_down() {
        let answers = ask_absent_cache(2000).await;
        assert_eq!(answers.len(), 2000);
        assert!(
            answers
                .values()
                .all(|answer| matches!(answer, CacheAnswer::OutOfReach(why) if !why.contains("interrupted")))
        );
    }
}
