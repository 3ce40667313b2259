//! The deed: what a source has, what of it still holds, and the rest evaluated.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::assemble::{Answers, assemble};
use super::fingerprint::Files;
use super::lock::Inputs;
use super::observe::Observed;
use super::outputs::{Item, Names, Question};
use super::pool::{self, Outcome, Outcomes};
use super::record::{Answered, Now, Record, SecondLook, Why};
use super::schedule::{Budget, Cost, Precision, Schedule, Task};
use super::select::{Selected, select};
use super::session::{Place, Session};
use super::{Evaluated, Evaluation, Work};
use crate::model::{FlakeReference, Sha256Digest, Source, SourceRevision, StorePath, Timestamp};
use crate::nix::{Nix, NixError};
use crate::process::machine_memory;

/// Under which key the record has the names.
pub(super) const NAMES: &str = "";

/// Why a source could not be evaluated at all.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix could not say what the source is, or which hosts it has.
    #[error("{0}")]
    Source(#[from] NixError),
    /// The source's `clavel` output has what Clavel does not know.
    #[error("the `clavel` output of {flake} has `{attribute}`, and only deployments, units and agents may stand there")]
    UnknownOutput {
        /// The source.
        flake: String,
        /// The attribute below `clavel`.
        attribute: String,
    },
    /// Nix answered something that no version of it is known to.
    #[error("cannot understand what nix says of {flake}: {why}")]
    Answer {
        /// The source.
        flake: String,
        /// What is wrong with it.
        why: String,
    },
}

impl EvaluateError {
    /// Nix's own message where Nix said something.
    pub fn message(&self) -> String {
        match self {
            Self::Source(error) => error.message(),
            Self::UnknownOutput { .. } | Self::Answer { .. } => self.to_string(),
        }
    }
}

/// What an evaluation is at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Finding out which content the source has.
    Locking,
    /// It is known what there is, and what of it has to be evaluated.
    Found {
        /// The revision of the source, where it has one.
        revision: Option<SourceRevision>,
        /// How many are to be evaluated.
        changed: usize,
        /// How many there are.
        of: usize,
    },
    /// One of them began.
    Started {
        /// Its attribute.
        attribute: String,
        /// How long it took the last time.
        before: Option<Duration>,
    },
    /// One of them is done, well or not.
    Done {
        /// Its attribute.
        attribute: String,
        /// How long it took, or those it shared a process with.
        time: Duration,
        /// How many are done.
        done: usize,
        /// How many are to be evaluated.
        of: usize,
    },
    /// It is being found out what of the answers depends on where the source is. No answer waits for that.
    LookingAgain {
        /// How many were asked about once more.
        done: usize,
        /// How many are to be.
        of: usize,
    },
}

/// What to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// What changed since the last time.
    Changed,
    /// All of it; what would not have been evaluated is compared with the last time.
    Everything,
}

/// Whoever evaluates sources, and with what.
#[derive(Debug)]
pub struct Evaluator {
    /// The Nix of this machine.
    pub nix: Nix,
    /// What all its processes may take together.
    pub budget: Budget,
    /// The folder where it is written down what answers came from; nothing is, where there is none.
    pub records: Option<PathBuf>,
    /// What to evaluate.
    pub demand: Demand,
}

impl Budget {
    /// What is asked for; for what is not, as many processes as the machine has processors, and three quarters of its
    /// memory.
    pub fn of_this_machine(processes: Option<NonZeroUsize>, memory: Option<u64>) -> Self {
        /// Where the machine does not say how much it has.
        const UNKNOWN: u64 = 4 << 30;
        let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let most = || machine_memory().map_or(UNKNOWN, |all| all / 4 * 3);
        Self { processes: processes.map_or_else(processors, NonZeroUsize::get), memory: memory.unwrap_or_else(most) }
    }
}

impl Evaluator {
    /// Evaluates `source` at its newest content, or at the revision `pin`. What is recorded goes under the name
    /// `remembered_as`: the same content may be looked at in another place.
    ///
    /// Every run of Nix has the deadline of `nix`. An attribute that fails is among the failures; the source as a whole
    /// fails only where not even its names can be had.
    pub async fn evaluate(
        &self,
        source: &Source,
        pin: Option<&SourceRevision>,
        remembered_as: &FlakeReference,
        now: Timestamp,
        progress: &dyn Fn(Progress),
    ) -> Result<Evaluation, EvaluateError> {
        progress(Progress::Locking);
        let (flake, watched) = tokio::join!(self.nix.lock(&source.flake, pin), self.watched());
        let session = Session::open(&self.nix, flake?, watched.err()).await?;
        let (excluded, answers, work) = match session.observable() {
            Some(inputs) => {
                let path = self.records.as_deref().map(|folder| record_path(folder, remembered_as));
                self.incrementally(source, path.as_deref(), &session, inputs, progress).await?
            }
            None => self.anew(source, &session, progress).await?,
        };
        let found = assemble(source, &session.source, now, &excluded, answers);
        Ok(Evaluation { source: session.source, found, work })
    }

    /// Whether what Nix reads can be watched, where that is of any use; else why not.
    async fn watched(&self) -> Result<(), String> {
        match self.records {
            Some(_) => self.nix.can_watch().await,
            None => Err("nothing is recorded".to_owned()),
        }
    }

    /// Evaluates everything, without a record.
    async fn anew(
        &self,
        source: &Source,
        session: &Session<'_>,
        progress: &dyn Fn(Progress),
    ) -> Result<(Excluded, Answers, Work), EvaluateError> {
        let names = session.ask::<Names>(Place::Own, &Question::Names, self.budget.memory).await?;
        let (items, excluded) = taken(source, names.answer)?;
        let why = session.why_unobservable().unwrap_or_default().to_owned();
        let why = if self.records.is_some() { Why::Unobservable(why) } else { Why::New };
        let stale = items.into_iter().map(|item| (item, why.clone())).collect();
        let plan = Plan { stale, ..Plan::default() };
        let record = Record::default();
        let outcomes = self.outcomes(session, &plan, &record, names.cost, Precision::None, progress).await;
        let (answers, work) = plan.settle(outcomes.of_all, |_, _| ());
        Ok((excluded, answers, work))
    }

    /// Evaluates what does not hold any more, and records what it came from.
    async fn incrementally(
        &self,
        source: &Source,
        path: Option<&Path>,
        session: &Session<'_>,
        inputs: &Inputs,
        progress: &dyn Fn(Progress),
    ) -> Result<(Excluded, Answers, Work), EvaluateError> {
        let record = path.map(Record::read).unwrap_or_default();
        let mut files = Files::of(session.files());
        let in_store = |path: &StorePath| Path::new(&path.to_string()).exists();
        let mut look = |read: &_| files.fingerprint(read);
        let mut now = Now::new(session.environment(), inputs, &mut look, &in_store);

        let names = self.names(session, &record, &mut now).await?;
        let (items, excluded) = taken(source, names.names)?;
        let plan = Plan::make(&record, items, &mut now, self.demand);
        let outcomes = self.outcomes(session, &plan, &record, names.cost, Precision::PerHost, progress).await;
        let Outcomes { of_all: outcomes, moved } = outcomes;

        let mut kept = record.kept(plan.keys_held(names.asked.is_none()), &now);
        if let Some((answered, observed)) = &names.asked {
            kept.add(NAMES, answered, observed.as_ref().map_err(Clone::clone), &mut now);
        }
        let (answers, work) = plan.settle(outcomes, |item, outcome| {
            let key = item.to_string();
            let Outcome::Answered { value, observed, cost, alone } = outcome else { return kept.add_broken(&key) };
            let second = moved.get(item);
            let second_look = second.map_or(SecondLook::Pending, |second| SecondLook::of(value, Some(second)));
            let answered = Answered { answer: value.clone(), cost: *cost, second_look, alone: *alone };
            kept.add(&key, &answered, observed.as_ref().map_err(Clone::clone), &mut now);
        });
        if let Some(path) = path
            && let Err(error) = kept.finish().write(path)
        {
            // What is not remembered costs time alone.
            tracing::warn!(path = %path.display(), %error, "cannot record what was evaluated");
        }
        Ok((excluded, answers, work))
    }

    /// The names of all there is: those of the record where they hold.
    async fn names(
        &self,
        session: &Session<'_>,
        record: &Record,
        now: &mut Now<'_>,
    ) -> Result<KnownNames, EvaluateError> {
        if self.demand == Demand::Changed
            && let Ok(known) = record.holds(NAMES, now)
            && let Ok(names) = serde_json::from_value(known.clone())
        {
            let cost = record.cost(NAMES).unwrap_or_default();
            return Ok(KnownNames { names, cost, asked: None });
        }
        let asked = session.ask::<Value>(Place::Own, &Question::Names, self.budget.memory).await?;
        let second_look = SecondLook::Pending;
        let answered = Answered { answer: asked.answer.clone(), cost: asked.cost, second_look, alone: true };
        let unknown = |error: serde_json::Error| EvaluateError::Answer {
            flake: session.source.flake.to_string(),
            why: error.to_string(),
        };
        let names = serde_json::from_value(asked.answer).map_err(unknown)?;
        Ok(KnownNames { names, cost: asked.cost, asked: Some((answered, asked.observed)) })
    }

    /// Evaluates what the plan has to be evaluated, and where there are places for that, at once with the source elsewhere.
    async fn outcomes(
        &self,
        session: &Session<'_>,
        plan: &Plan,
        record: &Record,
        start: Cost,
        precision: Precision,
        progress: &dyn Fn(Progress),
    ) -> Outcomes {
        let changed = plan.stale.len();
        let of = changed + plan.held.len();
        progress(Progress::Found { revision: session.source.revision.clone(), changed, of });
        let task = |(item, why): &(Item, Why)| Task {
            item: item.clone(),
            before: record.cost(&item.to_string()),
            company: why.company(),
        };
        let tasks: Vec<_> = plan.stale.iter().map(task).collect();
        // Where both looks go at once, the second takes no more time than the first. Of more, many share a process when
        // they are looked at afterwards.
        let is_place_free = 2 * tasks.len() <= self.budget.processes && precision == Precision::PerHost;
        let again = |task: &&Task<Item>| is_place_free && record.may_hold_elsewhere(&task.item.to_string());
        let again = tasks.iter().filter(again).cloned().collect();
        let schedule = Schedule::new(self.budget, precision, start.time, tasks).with_spare(again);
        pool::run(session, Place::Own, self.budget, schedule, changed, progress).await
    }
}

/// The names of the deployments that a source leaves out.
type Excluded = BTreeSet<String>;

/// What `source` takes of all there is, and the names of what it leaves out.
fn taken(source: &Source, names: Names) -> Result<(Vec<Item>, Excluded), EvaluateError> {
    let Selected { items, excluded, idle } = select(source, names.items(&source.flake)?);
    for pattern in idle {
        tracing::warn!(flake = %source.flake, %pattern, "nothing in this flake is like this pattern");
    }
    Ok((items, excluded))
}

/// The names, and what asking for them took.
struct KnownNames {
    names: Names,
    cost: Cost,
    /// What there is to record, where they were asked for just now.
    asked: Option<(Answered, Result<Observed, String>)>,
}

/// What holds and what has to be evaluated.
#[derive(Debug, Default)]
struct Plan {
    held: BTreeMap<Item, Value>,
    stale: Vec<(Item, Why)>,
    /// What held, where everything is evaluated nevertheless: it has to come out the same.
    expected: BTreeMap<Item, Value>,
}

impl Plan {
    fn make(record: &Record, items: Vec<Item>, now: &mut Now<'_>, demand: Demand) -> Self {
        let mut plan = Self::default();
        for item in items {
            match (record.holds(&item.to_string(), now), demand) {
                (Ok(value), Demand::Changed) => drop(plan.held.insert(item, value.clone())),
                (Ok(value), Demand::Everything) => {
                    plan.expected.insert(item.clone(), value.clone());
                    plan.stale.push((item, Why::Full));
                }
                (Err(why), _) => plan.stale.push((item, why)),
            }
        }
        plan
    }

    /// The keys of the record that still hold.
    fn keys_held(&self, names_held: bool) -> impl Iterator<Item = String> {
        self.held.keys().map(Item::to_string).chain(names_held.then(|| NAMES.to_owned()))
    }

    /// All answers, and what was done for them. `record` is shown every outcome that is new.
    fn settle(self, outcomes: BTreeMap<Item, Outcome>, mut record: impl FnMut(&Item, &Outcome)) -> (Answers, Work) {
        let mut work = Work { unchanged: self.held.len(), ..Work::default() };
        let mut whys: BTreeMap<Item, Why> = self.stale.into_iter().collect();
        let mut answers: Answers = self.held.into_iter().map(|(item, value)| (item, Ok(value))).collect();
        for (item, outcome) in outcomes {
            let attribute = item.to_string();
            let expected = self.expected.get(&item);
            record(&item, &outcome);
            let (cost, same) = match &outcome {
                Outcome::Answered { value, cost, .. } => {
                    (Some(*cost), expected.is_none_or(|expected| expected == value))
                }
                Outcome::Failed(_) => (None, expected.is_none()),
            };
            if !same {
                work.differences.push(attribute.clone());
            }
            let why = whys.remove(&item).unwrap_or(Why::New);
            let seconds = cost.map(|cost| cost.time.as_secs_f64());
            let memory = cost.map(|cost| cost.memory).filter(|memory| *memory > 0);
            work.evaluated.push(Evaluated { attribute, why, seconds, memory });
            answers.insert(item, outcome.into_answer());
        }
        (answers, work)
    }
}

/// Where the record of `source` is below `folder`.
pub(super) fn record_path(folder: &Path, source: &FlakeReference) -> PathBuf {
    let name = Sha256Digest::from_bytes(Sha256::digest(source.as_str()).into());
    folder.join(format!("{name}.json"))
}
