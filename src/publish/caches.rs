//! Asking the caches whether they have what is to be published: the deed behind `ready`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::survey::{Answers, Need, Said, Survey};
use crate::model::{Deployment, StorePath, Substituter};
use crate::store::{Entries, Store, StoreError};

/// How many paths one process asks for. It asks for one after another.
const PATHS_A_PROCESS: usize = 50;
/// How many processes ask at a time. They wait for the network, not for this machine.
const PROCESSES: usize = 8;
/// How many processes may fail before a cache counts as down: enough to find some bad answers by halving a batch.
const FAILURES_A_CACHE: usize = 24;
/// How deep below a deployment's path it is looked for what it needs: far deeper than any system, and no cache that names
/// ever more is followed for ever.
const DEEPEST: usize = 1000;
/// How deep whole closures are asked for in one go. Where a cache did not have one by then, it is for others to have it.
const DEPTHS_AT_ONCE: usize = 2;
/// After so long no other cache is asked: everybody's documents wait meanwhile. What is not known waits for the next round.
const LONGEST: Duration = Duration::from_mins(10);

/// Who asks the caches.
#[derive(Debug)]
pub(super) struct Caches {
    store: Arc<dyn Store>,
    need: Need,
}

/// Paths to ask one cache for in one process.
type Batch = (Substituter, Vec<StorePath>);

impl Caches {
    pub(super) fn new(store: Arc<dyn Store>, need: Need) -> Self {
        Self { store, need }
    }

    /// What has to be in a cache.
    pub(super) fn need(&self) -> Need {
        self.need
    }

    /// Asks until what is needed of each of `deployments` was found, or all of its caches were asked. What is in `answers` is
    /// not asked again.
    pub(super) async fn ask_for(&self, deployments: &[Deployment], answers: &mut Answers) {
        let began = Instant::now();
        for depth in 0..DEEPEST {
            let questions = Survey::of(deployments, self.need, answers).questions();
            if questions.is_empty() || began.elapsed() > LONGEST {
                return;
            }
            if self.need == Need::Closure && depth < DEPTHS_AT_ONCE {
                self.ask_for_closures(&questions, answers).await;
            }
            self.ask(questions, answers).await;
        }
    }

    /// Asks for all that the paths need, in one go where a cache has all of it. Where it has not, nothing is learned: then
    /// the paths are asked for by themselves, and what they need after that.
    async fn ask_for_closures(&self, questions: &BTreeMap<Substituter, BTreeSet<StorePath>>, answers: &mut Answers) {
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
                    answers.extend(found.into_iter().map(|(path, entry)| ((cache.clone(), path), Said::Has(entry))));
                }
                Some(Ok((_, Err(_))) | Err(_)) => {}
            }
        }
    }

    /// Asks all of `questions`; each has an answer afterwards.
    async fn ask(&self, questions: BTreeMap<Substituter, BTreeSet<StorePath>>, answers: &mut Answers) {
        let mut open = batches(&questions);
        open.retain_mut(|(cache, paths)| {
            paths.retain(|path| !answers.contains_key(&(cache.clone(), path.clone())));
            !paths.is_empty()
        });
        // Whatever becomes of a process, what it was to ask for has an answer.
        let lost = || Said::OutOfReach("asking it was broken off".to_owned());
        answers.extend(open.iter().flat_map(|batch| said(batch, |_| lost())));
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
                    let told = |path: &StorePath| found.remove(path).map_or(Said::HasNot, Said::Has);
                    answers.extend(said(&batch, told));
                }
                Some(Ok((batch, Err(error)))) => {
                    let failed = failures.entry(batch.0.clone()).or_default();
                    *failed += 1;
                    let out_of_reach = |batch: &Batch| said(batch, |_| Said::OutOfReach(reason(&error.message())));
                    answers.extend(out_of_reach(&batch));
                    // One that does not answer in time will not do so for half of it.
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

/// Both halves of a batch; none of one that has a single path. One bad answer spoils those of its whole batch.
fn halves((cache, paths): Batch) -> Vec<Batch> {
    let (left, right) = paths.split_at(paths.len() / 2);
    [left, right]
        .into_iter()
        .filter(|half| paths.len() > 1 && !half.is_empty())
        .map(|half| (cache.clone(), half.to_vec()))
        .collect()
}

async fn look_up(store: Arc<dyn Store>, batch: Batch) -> (Batch, Result<Entries, StoreError>) {
    let found = store.look_up(&batch.0, &batch.1).await;
    (batch, found)
}

/// What is said of each path of a batch.
fn said((cache, paths): &Batch, mut told: impl FnMut(&StorePath) -> Said) -> Vec<((Substituter, StorePath), Said)> {
    paths.iter().map(|path| ((cache.clone(), path.clone()), told(path))).collect()
}

/// Nix's own reason for a failure, without the rest of its words.
fn reason(message: &str) -> String {
    let line = message.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let line = line.trim().trim_start_matches("error: ");
    // Nix 2.8 says this where one of its threads failed before another was given its work: the true reason is lost.
    let lost = line.starts_with("cannot enqueue a work item");
    if lost { "Nix does not say why".to_owned() } else { line.to_owned() }
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

    /// What comes of asking a cache that nobody serves for as many paths.
    async fn asked_for(count: u32) -> Answers {
        let path = |n: u32| format!("/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x{n}").parse().unwrap();
        let cache: Substituter = "http://127.0.0.1:1".parse().unwrap();
        let mut answers = Answers::new();
        Caches::new(crate::store::open(None, Duration::from_mins(2), crate::store::Output::Capture), Need::Path)
            .ask(BTreeMap::from([(cache, (0..count).map(path).collect())]), &mut answers)
            .await;
        answers
    }

    #[tokio::test(flavor = "current_thread")]
    async fn each_path_has_an_answer_though_the_cache_is_down() {
        let answers = asked_for(2000).await;
        assert_eq!(answers.len(), 2000);
        assert!(answers.values().all(|said| matches!(said, Said::OutOfReach(why) if !why.contains("broken off"))));
    }
}
