//! Learning behind the answers: what does each of them depend on?
//!
//! Nix is asked once more for each answer by itself, with the source at another path in the store, while its reads are watched. So it
//! is seen what the answer depends on, and whether it depends on the path of the source: a flake may use the path as text, hash it or cut
//! it, which no system call shows, and every change of the source changes the path. No answer waits for this. An answer of which it was
//! not learnt counts as changed after the next change of the source.

use std::path::Path;

use super::allowance::SourceAllowance;
use super::basis::CurrentSource;
use super::error::EvaluateError;
use super::evaluator::{Evaluator, record_path, write_record};
use super::fingerprint::{SourceFiles, is_in_store};
use super::flake_caller::{FlakeCaller, Look, read_lock};
use super::nix_value::NixValue;
use super::observe::Observation;
use super::outputs::{Grain, Item, ItemAnswer, ItemRun, Told as Asked};
use super::pool::{ItemResult, Pool};
use super::progress::Progress;
use super::record::{Learnt, Record};
use super::schedule::{Schedule, Task};
use super::survey::Survey;
use super::teller::Told;
use super::told::Telling;
use super::warnings::AnswerWarnings;
use crate::model::{FlakeReference, Source, SourceRevision};

/// How many answers each process looks at before the record is written: an interruption loses no more than these.
const CHUNK: usize = 4;

/// What was learnt, with the most bytes of memory that its process had, and all of its warnings, where these are known.
enum Lesson {
    OfSurvey(u64, Learnt<Survey>),
    OfItem(Item, u64, Learnt<NixValue>, Option<AnswerWarnings>),
}

impl Evaluator {
    /// Learns what the recorded answers of `source` depend on. The arguments are those of the call of [`Evaluator::evaluate`] before
    /// it. It may be interrupted at any time.
    pub async fn learn(
        &self,
        source: &Source,
        revision: Option<&SourceRevision>,
        recorded_as: &FlakeReference,
        progress: &dyn Fn(Progress),
    ) -> Result<(), EvaluateError> {
        let Some(path) = self.records.as_deref().map(|folder| record_path(folder, recorded_as)) else {
            return Ok(());
        };
        let record = Record::read(&path);
        if !record.has_unlearnt() {
            return Ok(());
        }
        let (flake, watched) = tokio::join!(self.nix.fetch(&source.flake, revision), self.nix.can_watch());
        let allowance = SourceAllowance::new(self.source_time);
        let flake = flake?;
        let lock = read_lock(&self.nix, &flake).await?;
        let caller = FlakeCaller::open(&self.nix, &self.inputs, flake, lock, allowance).await?;
        if !record.is_of(&caller.tree, caller.environment()) {
            // The source changed since. What was not learnt is evaluated at its next content.
            return Ok(());
        }
        let seen = watched.and_then(|()| caller.observable().map(drop).map_err(ToOwned::to_owned));
        let mut files = SourceFiles::new(caller.files());
        if let Err(why) = seen {
            let of_item = |item: &Item| Lesson::OfItem(item.clone(), 0, Err(why.clone()), None);
            let of_survey = record.has_unlearnt_survey().then(|| Lesson::OfSurvey(0, Err(why.clone())));
            note(&caller, &mut files, &path, record.unlearnt_items().map(of_item).chain(of_survey).collect());
            return Ok(());
        }
        if let Some(survey) = record.last_survey().filter(|_| record.has_unlearnt_survey()) {
            let lesson = self.learn_survey(&caller, survey).await;
            if !note(&caller, &mut files, &path, vec![lesson]) {
                return Ok(());
            }
        }
        let task = |item: &Item| Task::new(item.clone(), record.cost(item));
        let tasks: Vec<Task<Item>> = record.unlearnt_items().map(task).collect();
        let times = self.times();
        let (of, size) = (tasks.len(), CHUNK * self.budget.processes.max(1));
        for (at, tasks) in tasks.chunks(size).enumerate() {
            progress(Progress::Learning { done: at * size, of });
            let pool = Pool {
                caller: &caller,
                look: Look::Learn,
                budget: self.budget,
                times,
                of: tasks.len(),
                progress: &|_| (),
            };
            let schedule = Schedule::singly(self.budget, times, tasks.to_vec());
            let results = pool.run(schedule, None).await;
            let lesson = |(item, result)| match result {
                ItemResult::Answered { value, observed, warnings, cost } => {
                    let learnt = observed.map(|observed| (Some(value), observed));
                    Lesson::OfItem(item, cost.memory, learnt, Some(warnings))
                }
                ItemResult::Failed { message, .. } => {
                    let why = format!("it fails while its reads are watched: {message}");
                    Lesson::OfItem(item, 0, Err(why), None)
                }
            };
            if !note(&caller, &mut files, &path, results.items.into_iter().map(lesson).collect()) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Learns about `before`, a survey.
    async fn learn_survey(&self, caller: &FlakeCaller<'_>, before: &Survey) -> Lesson {
        let outputs = before.names.outputs();
        let run = ItemRun { items: before.told.iter().map(|(item, _)| item.clone()).collect(), grain: Grain::Group };
        let limits = caller.limits(self.budget.memory);
        let mut teller = caller.tell(Look::Learn, &outputs, Asked::Only(std::slice::from_ref(&run)), limits);
        let (mut names, mut told, mut items) = (None, Vec::new(), run.items.iter());
        loop {
            match teller.next().await {
                Told::Telling(Telling::Names(all), _) => names = Some(all),
                Told::Telling(Telling::Begun(_) | Telling::BegunRun(_), _) => {}
                Told::Telling(Telling::Answers(answers), _) => {
                    for (answer, item) in answers.into_iter().zip(items.by_ref()) {
                        if let ItemAnswer::Ok(value) = answer {
                            told.push((item.clone(), value));
                        }
                    }
                }
                Told::Ended(end) => {
                    let elsewhere = names.filter(|_| end.error.is_none()).map(|names| Survey { names, told });
                    let learnt = end.observed.map(|observed: Observation| (elsewhere, observed));
                    return Lesson::OfSurvey(end.cost.memory, learnt);
                }
            }
        }
    }
}

/// Notes `lessons` in the record at `path`. Returns whether it is still the record of this content: another evaluation may have replaced
/// it meanwhile.
fn note(caller: &FlakeCaller<'_>, files: &mut SourceFiles, path: &Path, lessons: Vec<Lesson>) -> bool {
    let record = Record::read(path);
    if !record.is_of(&caller.tree, caller.environment()) {
        return false;
    }
    let mut fingerprint = |read: &_| files.fingerprint(read);
    let mut current = CurrentSource::new(
        (caller.question, caller.environment()),
        caller.tree.clone(),
        caller.observable().ok(),
        &mut fingerprint,
        &is_in_store,
    );
    let mut next = record.resume();
    for lesson in lessons {
        match lesson {
            Lesson::OfSurvey(memory, learnt) => next.learn_survey(memory, learnt, &mut current),
            Lesson::OfItem(item, memory, learnt, warnings) => {
                next.learn_item(&item, memory, learnt, &mut current);
                if let Some(warnings) = warnings {
                    next.learn_warnings(&item, &warnings);
                }
            }
        }
    }
    write_record(&next.finish(), path);
    true
}
