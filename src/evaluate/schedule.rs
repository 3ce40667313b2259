//! The schedule: which items share a process, and when each process starts. No I/O.
//!
//! Every process gets the same share of the memory. An item that reaches its limit of memory or time beside others is
//! tried once more with all of the memory, while nothing else runs, before it counts as broken.

use std::collections::VecDeque;
use std::time::Duration;

use super::budget::Budget;

/// How precisely it must be known what each host depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// For each host. Of hosts that share a process only the sum of their reads is seen, so a change of one of them is a
    /// reason to evaluate all of them.
    PerHost,
    /// Not at all: what these answers depend on is not recorded.
    NotNeeded,
}

/// The memory that a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryGrant {
    /// An equal share; other processes run beside it.
    Share,
    /// All of the budget; nothing runs beside it.
    All,
}

/// The purpose of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its answers are waited for.
    Answer,
    /// It checks answers with the source at another path. It only takes processes that nothing else needs.
    RelocationCheck,
}

/// An item to evaluate, and its cost the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task<T> {
    pub(super) item: T,
    pub(super) before: Option<Cost>,
    pub(super) batching: Batching,
}

/// Whether a task may share a process with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Batching {
    /// It may.
    Allowed,
    /// It may not: it must be known what this item alone depends on.
    Forbidden,
}

/// The cost of one evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) time: Duration,
    /// The most memory, in bytes.
    pub(super) memory: u64,
}

/// The tasks for one process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job<T> {
    pub(super) tasks: Vec<Task<T>>,
    pub(super) memory: MemoryGrant,
    pub(super) purpose: Purpose,
}

impl<T> Job<T> {
    fn new(tasks: Vec<Task<T>>, memory: MemoryGrant) -> Self {
        Self { tasks, memory, purpose: Purpose::Answer }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// Nix gave answers, at this cost.
    Answered(Cost),
    /// The process failed as a whole. It is not known which of its tasks made it fail.
    Failed,
    /// The process was ended at a limit of memory or time.
    AtLimit,
}

/// The tasks that wait, and how many jobs run.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    budget: Budget,
    /// Tasks that may share a process.
    waiting: VecDeque<Task<T>>,
    /// Tasks that get a process of their own, beside others.
    single: VecDeque<Task<T>>,
    /// Tasks that get all of the memory.
    all_memory: VecDeque<Task<T>>,
    /// Relocation checks, which run while processes are free.
    checks: VecDeque<Task<T>>,
    running: usize,
    /// Whether the job that runs has all of the memory.
    exclusive: bool,
    batches: BatchModel,
}

impl<T> Schedule<T> {
    /// A schedule for `tasks`. `start` is the time of a process that evaluates no host.
    pub(super) fn new(budget: Budget, precision: Precision, start: Duration, tasks: Vec<Task<T>>) -> Self {
        let fits = |task: &Task<T>| task.before.is_none_or(|cost| cost.memory <= budget.share());
        let (mut fitting, all_memory): (Vec<_>, Vec<_>) = tasks.into_iter().partition(fits);
        // The longest begin first, so that no process is still busy when all others are done. A new one may be the longest.
        fitting.sort_by_key(|task| std::cmp::Reverse(task.before.map_or(Duration::MAX, |cost| cost.time)));
        let mut batches = BatchModel::new(precision, start);
        if precision == Precision::NotNeeded {
            fitting.iter().filter_map(|task| task.before).for_each(|cost| batches.learn(1, cost));
        }
        let (waiting, single): (Vec<_>, Vec<_>) =
            fitting.into_iter().partition(|task| task.batching == Batching::Allowed);
        let (waiting, single, all_memory) = (waiting.into(), single.into(), all_memory.into());
        let checks = VecDeque::new();
        Self { budget, waiting, single, all_memory, checks, running: 0, exclusive: false, batches }
    }

    /// The same schedule, with relocation checks of `tasks`. Each gets a process of its own while one is free.
    pub(super) fn with_relocation_checks(self, tasks: Vec<Task<T>>) -> Self {
        let share = self.budget.share();
        let fits = |task: &Task<T>| task.before.is_none_or(|cost| cost.memory <= share);
        Self { checks: tasks.into_iter().filter(fits).collect(), ..self }
    }

    /// The job to start now; none where another job has to end first, or nothing is left.
    pub(super) fn next(&mut self) -> Option<Job<T>> {
        if self.exclusive || self.running >= self.budget.processes.max(1) {
            return None;
        }
        let job = if let Some(task) = self.single.pop_front() {
            Job::new(vec![task], MemoryGrant::Share)
        } else if !self.waiting.is_empty() {
            let size = self.batches.size(self.waiting.len(), self.budget).min(self.waiting.len());
            Job::new(self.waiting.drain(..size).collect(), MemoryGrant::Share)
        } else if !self.all_memory.is_empty() {
            if self.running > 0 {
                return None;
            }
            self.exclusive = true;
            Job::new(vec![self.all_memory.pop_front()?], MemoryGrant::All)
        } else {
            let check = Job::new(vec![self.checks.pop_front()?], MemoryGrant::Share);
            Job { purpose: Purpose::RelocationCheck, ..check }
        };
        self.running += 1;
        Some(job)
    }

    /// Notes that a job ended. Returns the tasks that will not be tried again.
    pub(super) fn finish(&mut self, job: Job<T>, end: JobEnd) -> Vec<Task<T>> {
        self.running -= 1;
        self.exclusive = false;
        if job.purpose == Purpose::RelocationCheck {
            return job.tasks;
        }
        match end {
            JobEnd::Answered(cost) => {
                self.batches.learn(job.tasks.len(), cost);
                job.tasks
            }
            JobEnd::Failed if job.tasks.len() > 1 => {
                self.single.extend(job.tasks);
                Vec::new()
            }
            JobEnd::AtLimit if job.memory == MemoryGrant::Share => {
                self.all_memory.extend(job.tasks);
                Vec::new()
            }
            JobEnd::Failed | JobEnd::AtLimit => job.tasks,
        }
    }

    /// Tries `tasks` once more, each in a process of its own, so that Nix says why they fail.
    pub(super) fn retry_singly(&mut self, tasks: Vec<Task<T>>) {
        self.single.extend(tasks);
    }
}

/// Decides how many hosts share a process, from measurements: the time of `n` hosts is taken to be `shared + n * own`.
#[derive(Debug)]
struct BatchModel {
    precision: Precision,
    /// For each job that ended, its number of hosts and its seconds.
    measured: Vec<(f64, f64)>,
    /// The most memory of one host, in bytes.
    memory: u64,
}

impl BatchModel {
    /// The largest batch. Larger ones save little, and cost much where one host in them fails.
    const MAX_BATCH: usize = 64;
    /// A change of one host may cost at most this many times the evaluation of that host alone.
    const DEAREST_CHANGE: f64 = 1.5;
    /// With fewer hosts than this for each process, every host gets a process of its own.
    const MANY: usize = 16;
    /// Where the shared part of a host's time is smaller than this, every host gets a process of its own.
    const WORTHWHILE: f64 = 0.05;

    fn new(precision: Precision, start: Duration) -> Self {
        Self { precision, measured: vec![(0.0, start.as_secs_f64())], memory: 0 }
    }

    fn learn(&mut self, hosts: usize, cost: Cost) {
        #[expect(clippy::cast_precision_loss, reason = "there are at most thousands of hosts")]
        let count = hosts as f64;
        self.measured.push((count, cost.time.as_secs_f64()));
        self.memory = self.memory.max(cost.memory / hosts.max(1) as u64);
    }

    /// The shared and the own seconds: the line that fits the measurements best (least squares).
    fn fitted(&self) -> Option<(f64, f64)> {
        #[expect(clippy::cast_precision_loss, reason = "there are at most thousands of hosts")]
        let count = self.measured.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| self.measured.iter().map(of).sum::<f64>() / count;
        let (hosts, seconds) = (mean(|m| m.0), mean(|m| m.1));
        let covariance: f64 = self.measured.iter().map(|m| (m.0 - hosts) * (m.1 - seconds)).sum();
        let variance: f64 = self.measured.iter().map(|m| (m.0 - hosts).powi(2)).sum();
        (variance > 0.0).then(|| {
            let own = (covariance / variance).max(0.000_1);
            ((seconds - own * hosts).max(0.0), own)
        })
    }

    /// How many of the `waiting` hosts the next process evaluates.
    fn size(&self, waiting: usize, budget: Budget) -> usize {
        // Until there is a measurement, every host is measured alone.
        let Some((shared, own)) = self.fitted() else { return 1 };
        let fitting =
            budget.share().checked_div(self.memory).map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX));
        let wanted = match self.precision {
            Precision::PerHost if waiting < Self::MANY * budget.processes => 1,
            Precision::PerHost => whole(Self::DEAREST_CHANGE + (Self::DEAREST_CHANGE - 1.0) * shared / own),
            // Enough jobs are left that all processes end at about the same time.
            Precision::NotNeeded if shared > Self::WORTHWHILE * (shared + own) => {
                waiting.div_ceil(2 * budget.processes.max(1))
            }
            Precision::NotNeeded => 1,
        };
        wanted.min(fitting).clamp(1, Self::MAX_BATCH)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is kept between the bounds first")]
fn whole(number: f64) -> usize {
    number.clamp(1.0, 1_000.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { processes: 2, memory: 1000 };

    fn cost(millis: u64, memory: u64) -> Cost {
        Cost { time: Duration::from_millis(millis), memory }
    }

    fn new(item: &'static str) -> Task<&'static str> {
        Task { item, before: None, batching: Batching::Allowed }
    }

    fn known(item: &'static str, millis: u64, memory: u64) -> Task<&'static str> {
        Task { before: Some(cost(millis, memory)), ..new(item) }
    }

    fn schedule(tasks: Vec<Task<&'static str>>) -> Schedule<&'static str> {
        Schedule::new(BUDGET, Precision::PerHost, Duration::from_millis(20), tasks)
    }

    fn names(job: &Job<&'static str>) -> Vec<&'static str> {
        job.tasks.iter().map(|task| task.item).collect()
    }

    #[test]
    fn the_longest_begin_and_no_more_run_than_the_budget_allows() {
        let mut schedule =
            schedule(vec![known("short", 10, 1), known("long", 900, 1), new("new"), known("mid", 500, 1)]);
        let (first, second) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&first), names(&second)), (vec!["new"], vec!["long"]));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.finish(first, JobEnd::Answered(cost(100, 1))), [new("new")]);
        assert_eq!(names(&schedule.next().unwrap()), ["mid"]);
    }

    #[test]
    fn a_task_that_reaches_a_limit_is_retried_alone_before_it_counts_as_broken() {
        let mut schedule = schedule(vec![new("a"), new("b"), known("c", 1, 1)]);
        let (a, b) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!(schedule.finish(a, JobEnd::AtLimit), []);
        let c = schedule.next().unwrap();
        assert_eq!(names(&c), ["c"]);
        assert_eq!(schedule.finish(b, JobEnd::Answered(cost(1000, 1))).len(), 1);
        assert_eq!(schedule.next(), None, "`c` still runs");
        assert_eq!(schedule.finish(c, JobEnd::Failed).len(), 1);
        let alone = schedule.next().unwrap();
        assert_eq!((names(&alone), alone.memory), (vec!["a"], MemoryGrant::All));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.finish(alone, JobEnd::AtLimit), [new("a")]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_task_that_needed_more_than_a_share_runs_alone_at_once() {
        let mut schedule = schedule(vec![known("big", 10, 501), known("small", 1, 500)]);
        let small = schedule.next().unwrap();
        assert_eq!(names(&small), ["small"]);
        assert_eq!(schedule.next(), None);
        schedule.finish(small, JobEnd::Failed);
        assert_eq!(schedule.next().map(|job| job.memory), Some(MemoryGrant::All));
    }

    #[test]
    fn relocation_checks_run_while_nothing_else_can() {
        let mut schedule = schedule(vec![new("a"), known("big", 10, 501)]).with_relocation_checks(vec![
            new("a again"),
            known("big again", 10, 501),
            new("c"),
        ]);
        let a = schedule.next().unwrap();
        assert_eq!((names(&a), schedule.next()), (vec!["a"], None), "`big` has to come first");
        schedule.finish(a, JobEnd::Answered(cost(10, 1)));
        let big = schedule.next().unwrap();
        assert_eq!((names(&big), schedule.next()), (vec!["big"], None), "nothing runs beside it");
        schedule.finish(big, JobEnd::Answered(cost(10, 501)));
        let (again, c) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&again), again.purpose, names(&c)), (vec!["a again"], Purpose::RelocationCheck, vec!["c"]));
        assert_eq!(schedule.finish(again, JobEnd::AtLimit), [new("a again")], "a check is not retried");
        schedule.finish(c, JobEnd::Failed);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn the_tasks_of_a_failed_job_are_retried_one_by_one() {
        let mut schedule = schedule(vec![]);
        schedule.running = 1;
        let job = Job::new(vec![new("a"), new("b")], MemoryGrant::Share);
        assert_eq!(schedule.finish(job, JobEnd::Failed), []);
        let (a, b) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&a), names(&b)), (vec!["a"], vec!["b"]));
    }

    #[test]
    fn a_task_that_forbids_batching_has_a_process_of_its_own() {
        let exact = Task { batching: Batching::Forbidden, ..new("exact") };
        let mut schedule = schedule(vec![new("a"), exact, new("b")]);
        schedule.batches = BatchModel {
            measured: vec![(1.0, 0.022)],
            ..BatchModel::new(Precision::NotNeeded, Duration::from_millis(20))
        };
        assert_eq!(names(&schedule.next().unwrap()), ["exact"]);
    }

    fn size_after(precision: Precision, measured: &[(usize, u64, u64)]) -> usize {
        let mut batches = BatchModel::new(precision, Duration::from_millis(20));
        for (hosts, millis, memory) in measured {
            batches.learn(*hosts, cost(*millis, *memory));
        }
        batches.size(100, BUDGET)
    }

    #[test]
    fn many_hosts_share_a_process_as_long_as_a_change_of_one_stays_cheap() {
        assert_eq!(size_after(Precision::PerHost, &[]), 1);
        // 20 ms of 220 are shared.
        assert_eq!(size_after(Precision::PerHost, &[(1, 220, 1)]), 1);
        // 20 ms of 22 are shared: six together cost 32 ms, which is less than 1.5 times 22.
        assert_eq!(size_after(Precision::PerHost, &[(1, 22, 1)]), 6);
        // Batches measure the shared part better than single hosts do.
        assert_eq!(
            size_after(Precision::PerHost, &[(1, 120, 1), (1, 120, 1), (1, 120, 1), (3, 140, 1), (3, 140, 1)]),
            2
        );
    }

    #[test]
    fn the_costs_of_the_last_time_decide_at_once_how_many_share() {
        let tasks =
            || vec![known("a", 50, 1), known("b", 50, 1), known("c", 50, 1), known("d", 50, 1), known("e", 50, 1)];
        let first = |precision| Schedule::new(BUDGET, precision, Duration::from_millis(20), tasks()).next();
        assert_eq!(names(&first(Precision::NotNeeded).unwrap()), ["a", "b"]);
        assert_eq!(names(&first(Precision::PerHost).unwrap()), ["a"]);
    }

    #[test]
    fn without_a_record_hosts_share_where_it_saves_time_and_fits() {
        assert_eq!(size_after(Precision::NotNeeded, &[(1, 2_000, 1)]), 1);
        assert_eq!(size_after(Precision::NotNeeded, &[(1, 50, 1)]), 25);
        assert_eq!(size_after(Precision::NotNeeded, &[(1, 50, 100)]), 5);
    }
}
