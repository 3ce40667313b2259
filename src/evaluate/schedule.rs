//! The schedule: which items share a process, and when each process starts. No I/O.
//!
//! Hosts of one flake share much of their evaluation, so few processes tell many items each, one after the other. An item that ends its
//! process is tried once more alone where Nix did not say why, and the others go on in a new process. Where it was one of a group of plain data that is told at
//! once, each of the group is told by itself first. Every process gets the same share of the memory; an item
//! that needs more alone gets all of it, while nothing else runs. At first, an item has a part of the longest time: one that does not
//! end waits until all others were tried, and has four times as much then.

use std::collections::VecDeque;
use std::time::Duration;

use super::budget::Budget;
use super::outputs::MAX_GROUP;
use super::record::Cost;
use crate::nix::ReachedLimit;

/// The least time that an item has at first. Each item that needs more is evaluated again.
const LEAST_TIME: Duration = Duration::from_secs(10);
/// How many times as much time an item has when it is tried again because it did not end.
const MORE_TIME: u32 = 4;
/// Items that do not end have at first such a part of the time of their source at most.
const PART_OF_SOURCE: u32 = 16;
/// How many times as much as its own part the shared part of a host's evaluation takes, where that was not measured yet. The hosts of
/// one nixpkgs have 1.5 to 4.
const TYPICAL_SHARED: f64 = 3.0;
/// How many times as much processor time as one process for all items several processes may take together.
const MAX_PROCESSOR_TIME: f64 = 1.3;

/// The memory that a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemoryGrant {
    /// An equal share; other processes run beside it.
    Share,
    /// All of the budget; nothing runs beside it.
    All,
}

/// How a process answers for its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobKind {
    /// It tells them one after the other.
    Together,
    /// It has one item, and Nix says what is wrong with it.
    Alone,
}

/// An item to evaluate.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task<T> {
    pub(super) item: T,
    /// Its cost the last time.
    pub(super) before: Option<Cost>,
    /// Whether it failed the last time, or in a job of this time.
    pub(super) failed_before: bool,
    /// Whether it is most likely plain data, which costs next to nothing. It is told with others at once.
    pub(super) is_plain: bool,
    /// Whether it, or one of those that would have been told with it, ended their process. It is told by itself.
    pub(super) is_suspect: bool,
    /// The time that it has at least, since it did not end in less.
    pub(super) least_time: Duration,
}

impl<T> Task<T> {
    /// A task that did not fail before.
    pub(super) fn new(item: T, before: Option<Cost>) -> Self {
        Self { item, before, failed_before: false, is_plain: false, is_suspect: false, least_time: Duration::ZERO }
    }

    /// Whether it is told with others at once.
    pub(super) fn is_grouped(&self) -> bool {
        self.is_plain && !self.is_suspect
    }
}

/// The times that items may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// The longest time of one item.
    pub(super) longest: Duration,
    /// The time of all items of the source together.
    pub(super) source: Duration,
}

impl Times {
    /// The longest time of what is tried for the first time: a tenth of the longest, and never less than ten seconds, unless the source
    /// has little time.
    pub(super) fn first(self) -> Duration {
        (self.longest / 10).max(LEAST_TIME).min(self.source / PART_OF_SOURCE)
    }

    /// The longest time of `task`: at first that of what is tried for the first time, or twice what it took before.
    pub(super) fn of<T>(self, task: &Task<T>) -> Duration {
        let first = self.first();
        let before = task.before.map_or(Duration::ZERO, |cost| cost.time);
        first.max(before * 2).max(task.least_time).min(self.longest)
    }
}

/// The tasks for one process.
#[derive(Debug, PartialEq)]
pub(super) struct Job<T> {
    pub(super) tasks: Vec<Task<T>>,
    pub(super) kind: JobKind,
    pub(super) memory: MemoryGrant,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// All of its tasks have an answer.
    Answered,
    /// The source has used all that it may use, so no process was started or went on.
    NotBegun,
    /// The process failed.
    Failed,
    /// Nix failed at the first of its tasks without an answer, and said why.
    Broken,
    /// The process was ended at this limit.
    AtLimit(ReachedLimit),
}

/// The tasks that wait, and how many jobs run.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    budget: Budget,
    times: Times,
    /// Tasks that share a process, a list for each.
    together: VecDeque<Vec<Task<T>>>,
    /// Tasks that get a process of their own, beside others.
    alone: VecDeque<Task<T>>,
    /// Tasks that get all of the memory.
    all_memory: VecDeque<Task<T>>,
    /// Tasks that failed the last time. Each may take all of its time again, so they come after the others.
    failed: VecDeque<Task<T>>,
    /// Tasks that did not end in their time.
    slow: VecDeque<(Task<T>, MemoryGrant)>,
    running: usize,
    /// Whether the job that runs has all of the memory.
    exclusive: bool,
    /// The most items that a process told before it reached its memory.
    fitting: usize,
}

impl<T> Schedule<T> {
    /// A schedule for `tasks`, in their order. `shared` is how many times as much as its own part the shared part of a host's evaluation
    /// took the last time.
    pub(super) fn new(budget: Budget, times: Times, shared: Option<f64>, tasks: Vec<Task<T>>) -> Self {
        let mut schedule = Self::nothing(budget, times);
        let tasks = schedule.take_apart(tasks);
        let processes = processes_for(tasks.iter().filter(|task| !task.is_plain).count(), shared, budget.processes);
        schedule.together = dealt(tasks, processes).into();
        schedule
    }

    /// A schedule in which each of `tasks` gets a process of its own.
    pub(super) fn singly(budget: Budget, times: Times, tasks: Vec<Task<T>>) -> Self {
        let mut schedule = Self::nothing(budget, times);
        schedule.alone = schedule.take_apart(tasks).into();
        schedule
    }

    fn nothing(budget: Budget, times: Times) -> Self {
        let (together, alone, all_memory) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (failed, slow) = (VecDeque::new(), VecDeque::new());
        let (running, exclusive, fitting) = (0, false, usize::MAX);
        Self { budget, times, together, alone, all_memory, failed, slow, running, exclusive, fitting }
    }

    /// Puts those of `tasks` apart that may not share a process. Returns the others.
    fn take_apart(&mut self, tasks: Vec<Task<T>>) -> Vec<Task<T>> {
        let share = self.budget.share();
        let (failed, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.failed_before);
        self.failed = failed.into();
        let fits = |task: &Task<T>| task.before.is_none_or(|cost| cost.memory <= share);
        let (fitting, all_memory): (Vec<_>, Vec<_>) = others.into_iter().partition(fits);
        self.all_memory = all_memory.into();
        fitting
    }

    /// The job to start now; none where another job has to end first, or nothing is left.
    pub(super) fn next(&mut self) -> Option<Job<T>> {
        if self.exclusive || self.running >= self.budget.processes.max(1) {
            return None;
        }
        let job = self.choose()?;
        self.exclusive = job.memory == MemoryGrant::All;
        self.running += 1;
        Some(job)
    }

    /// Whether another process would tell some items now.
    pub(super) fn has_more_together(&self) -> bool {
        !self.together.is_empty()
    }

    /// The next job, where it may start beside those that run.
    fn choose(&mut self) -> Option<Job<T>> {
        let job = |tasks, kind, memory| Job { tasks, kind, memory };
        if let Some(mut tasks) = self.together.pop_front() {
            if tasks.len() > self.fitting {
                self.together.push_front(tasks.split_off(self.fitting));
            }
            return Some(job(tasks, JobKind::Together, MemoryGrant::Share));
        }
        if let Some(task) = self.alone.pop_front() {
            return Some(job(vec![task], JobKind::Alone, MemoryGrant::Share));
        }
        if !self.all_memory.is_empty() {
            if self.running > 0 {
                return None;
            }
            return Some(job(vec![self.all_memory.pop_front()?], JobKind::Alone, MemoryGrant::All));
        }
        if let Some(task) = self.failed.pop_front() {
            return Some(job(vec![task], JobKind::Alone, MemoryGrant::Share));
        }
        let (_, memory) = self.slow.front()?;
        if self.running > 0 && *memory == MemoryGrant::All {
            return None;
        }
        let (task, memory) = self.slow.pop_front()?;
        Some(job(vec![task], JobKind::Alone, memory))
    }

    /// Notes that `job` ended after `told` of its tasks, which were taken out. Returns the tasks that will not be tried again.
    pub(super) fn finish(&mut self, job: Job<T>, told: usize, end: JobEnd) -> Vec<Task<T>> {
        self.running -= 1;
        self.exclusive = false;
        let Job { mut tasks, kind, memory } = job;
        if end == JobEnd::NotBegun || tasks.is_empty() {
            return tasks;
        }
        if (end, kind) == (JobEnd::AtLimit(ReachedLimit::Memory), JobKind::Together) && told > 0 {
            // It is not this task that needs so much.
            self.fitting = self.fitting.min(told);
            self.together.push_front(tasks);
            return Vec::new();
        }
        // Nobody knows which of a group it was.
        let group = tasks.iter().take(MAX_GROUP).take_while(|task| task.is_grouped()).count();
        let others = tasks.split_off(group.max(1));
        if !others.is_empty() {
            self.together.push_front(others);
        }
        if group > 1 {
            for task in &mut tasks {
                task.is_suspect = true;
            }
            self.together.push_front(tasks);
            return Vec::new();
        }
        for task in &mut tasks {
            task.failed_before = true;
        }
        let has_more_time = |task: &Task<T>| self.times.of(task) < self.times.longest;
        match end {
            JobEnd::AtLimit(ReachedLimit::Memory) if memory == MemoryGrant::Share => self.all_memory.extend(tasks),
            // Nix says only about one that is alone that it did not end.
            JobEnd::AtLimit(ReachedLimit::Time) if kind == JobKind::Together || tasks.iter().all(has_more_time) => {
                for mut task in tasks {
                    task.least_time = self.times.of(&task).saturating_mul(MORE_TIME);
                    self.slow.push_back((task, memory));
                }
            }
            JobEnd::Failed | JobEnd::Answered if kind == JobKind::Together => self.alone.extend(tasks),
            JobEnd::Answered | JobEnd::NotBegun | JobEnd::Failed | JobEnd::Broken | JobEnd::AtLimit(_) => return tasks,
        }
        Vec::new()
    }

    /// Tries `tasks`, which threw, once more, each in a process of its own, so that Nix says why they fail.
    pub(super) fn retry_singly(&mut self, tasks: Vec<Task<T>>) {
        self.alone.extend(tasks);
    }
}

/// How many processes evaluate `hosts` at once. Each of them makes the shared part of the evaluation anew. With `n` hosts, whose shared
/// part takes `s` times as long as their own, `k` processes take `k s + n`, and one `s + n`.
fn processes_for(hosts: usize, shared: Option<f64>, most: usize) -> usize {
    let shared = shared.unwrap_or(TYPICAL_SHARED).max(0.01);
    #[expect(clippy::cast_precision_loss, reason = "there are at most thousands of hosts")]
    let worthwhile = MAX_PROCESSOR_TIME + (MAX_PROCESSOR_TIME - 1.0) * hosts as f64 / shared;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is positive, and too much is cut off"
    )]
    let worthwhile = worthwhile as usize;
    worthwhile.min(hosts).min(most).max(1)
}

/// Divides `tasks`, in their order, into `parts` that take about as long as each other. A task that is new takes as long as the mean.
fn dealt<T>(tasks: Vec<Task<T>>, parts: usize) -> Vec<Vec<Task<T>>> {
    let known: Vec<f64> = tasks.iter().filter_map(|task| task.before).map(|cost| cost.time.as_secs_f64()).collect();
    #[expect(clippy::cast_precision_loss, reason = "there are at most thousands of hosts")]
    let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
    let weight = |task: &Task<T>| match task.before {
        _ if task.is_plain => 0.0,
        Some(cost) => cost.time.as_secs_f64(),
        None => mean,
    };
    let all: f64 = tasks.iter().map(weight).sum();
    #[expect(clippy::cast_precision_loss, reason = "there are at most hundreds of parts")]
    let each = all / parts.max(1) as f64;
    let (mut dealt, mut given) = (vec![Vec::new()], 0.0);
    for task in tasks {
        let weight = weight(&task);
        #[expect(clippy::cast_precision_loss, reason = "there are at most hundreds of parts")]
        let is_full = given + weight / 2.0 > each * dealt.len() as f64;
        if is_full && dealt.len() < parts && dealt.last().is_some_and(|part: &Vec<_>| !part.is_empty()) {
            dealt.push(Vec::new());
        }
        given += weight;
        if let Some(part) = dealt.last_mut() {
            part.push(task);
        }
    }
    dealt.retain(|part| !part.is_empty());
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { longest: Duration::from_mins(10), source: Duration::from_hours(1) };
    const BUDGET: Budget = Budget { processes: 2, memory: 1000 };

    fn new(item: &'static str) -> Task<&'static str> {
        Task::new(item, None)
    }

    fn known(item: &'static str, millis: u64, memory: u64) -> Task<&'static str> {
        Task { before: Some(Cost { time: Duration::from_millis(millis), memory }), ..new(item) }
    }

    fn failed(item: &'static str) -> Task<&'static str> {
        Task { failed_before: true, ..new(item) }
    }

    fn schedule(tasks: Vec<Task<&'static str>>, shared: f64) -> Schedule<&'static str> {
        Schedule::new(BUDGET, TIMES, Some(shared), tasks)
    }

    fn names(job: &Job<&'static str>) -> Vec<&'static str> {
        job.tasks.iter().map(|task| task.item).collect()
    }

    /// The job after its first `told` tasks were told.
    fn after(job: Job<&'static str>, told: usize) -> Job<&'static str> {
        Job { tasks: job.tasks.into_iter().skip(told).collect(), ..job }
    }

    #[test]
    fn so_many_processes_run_as_save_time_for_little_more_work() {
        // Hosts of one nixpkgs, whose own part was not measured yet.
        assert_eq!([1, 2, 6, 8, 100].map(|hosts| processes_for(hosts, None, 4)), [1, 1, 1, 2, 4]);
        // Hosts that share nothing.
        assert_eq!([1, 2, 6, 8, 100].map(|hosts| processes_for(hosts, Some(0.0), 4)), [1, 2, 4, 4, 4]);
        // Hosts that share nearly everything.
        assert_eq!([1, 2, 6, 8, 100].map(|hosts| processes_for(hosts, Some(30.0), 4)), [1, 1, 1, 1, 2]);
        assert_eq!(processes_for(0, None, 0), 1);
    }

    #[test]
    fn items_are_dealt_in_their_order_such_that_all_processes_end_at_about_the_same_time() {
        let plain = |item| Task { is_plain: true, ..new(item) };
        let dealt = |tasks| -> Vec<Vec<&str>> {
            dealt(tasks, 2).iter().map(|part| part.iter().map(|task| task.item).collect()).collect()
        };
        assert_eq!(dealt(vec![new("a"), new("b"), new("c"), new("d")]), [["a", "b"], ["c", "d"]]);
        assert_eq!(dealt(vec![known("a", 9, 1), known("b", 2, 1), known("c", 3, 1)]), [vec!["a"], vec!["b", "c"]]);
        assert_eq!(dealt(vec![known("a", 2, 1), known("b", 3, 1), known("c", 9, 1)]), [vec!["a", "b"], vec!["c"]]);
        assert_eq!(dealt(vec![plain("p"), plain("q"), new("a"), new("b")]), [vec!["p", "q", "a"], vec!["b"]]);
        assert_eq!(dealt(vec![plain("p"), plain("q")]), [["p", "q"]]);
        assert_eq!(dealt(vec![]), [[""; 0]; 0]);
    }

    #[test]
    fn an_item_that_ends_its_process_is_tried_alone_and_the_others_go_on() {
        let mut schedule = schedule(vec![new("a"), new("b"), new("c")], 9.0);
        let job = schedule.next().unwrap();
        assert_eq!((names(&job), job.kind), (vec!["a", "b", "c"], JobKind::Together));
        assert_eq!(schedule.finish(after(job, 1), 1, JobEnd::Failed), []);
        let (others, alone) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&others), others.kind), (vec!["c"], JobKind::Together));
        assert_eq!((names(&alone), alone.kind), (vec!["b"], JobKind::Alone));
        assert_eq!(schedule.finish(alone, 0, JobEnd::Failed), [failed("b")]);
        assert_eq!(schedule.finish(after(others, 1), 1, JobEnd::Answered), []);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn an_item_of_which_nix_said_why_it_ended_the_process_is_not_tried_again() {
        let mut schedule = schedule(vec![new("a"), new("b"), new("c")], 9.0);
        let job = schedule.next().unwrap();
        assert!(!schedule.has_more_together());
        assert_eq!(schedule.finish(after(job, 1), 1, JobEnd::Broken), [failed("b")]);
        assert!(schedule.has_more_together());
        let others = schedule.next().unwrap();
        assert_eq!((names(&others), schedule.next()), (vec!["c"], None));
    }

    #[test]
    fn a_group_of_plain_data_that_ends_its_process_is_told_one_by_one() {
        let plain = |item| Task { is_plain: true, ..new(item) };
        let mut schedule = schedule(vec![plain("a"), plain("b"), plain("c"), new("host")], 9.0);
        let job = schedule.next().unwrap();
        assert_eq!(schedule.finish(after(job, 1), 1, JobEnd::Failed), []);
        let (suspects, others) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&suspects), names(&others)), (vec!["b", "c"], vec!["host"]));
        assert!(suspects.tasks.iter().all(|task| !task.is_grouped() && !task.failed_before));
        schedule.finish(after(others, 1), 1, JobEnd::Answered);
        assert_eq!(schedule.finish(after(suspects, 1), 1, JobEnd::Failed), []);
        let alone = schedule.next().unwrap();
        assert_eq!((names(&alone), alone.kind), (vec!["c"], JobKind::Alone));
        assert_eq!(schedule.finish(alone, 0, JobEnd::Failed).len(), 1);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_process_that_reaches_its_memory_goes_on_where_it_was() {
        let mut schedule = schedule(vec![new("a"), new("b"), new("c"), new("d"), new("e")], 99.0);
        let job = schedule.next().unwrap();
        assert_eq!(schedule.finish(after(job, 2), 2, JobEnd::AtLimit(ReachedLimit::Memory)), []);
        let job = schedule.next().unwrap();
        assert_eq!(names(&job), ["c", "d"], "two fit");
        assert_eq!(schedule.finish(job, 0, JobEnd::AtLimit(ReachedLimit::Memory)), []);
        let others = schedule.next().unwrap();
        assert_eq!(names(&others), ["d"]);
        schedule.finish(after(others, 1), 1, JobEnd::Answered);
        let others = schedule.next().unwrap();
        assert_eq!((names(&others), schedule.next()), (vec!["e"], None), "`c` gets all of the memory later");
        schedule.finish(after(others, 1), 1, JobEnd::Answered);
        let alone = schedule.next().unwrap();
        assert_eq!((names(&alone), alone.memory, alone.kind), (vec!["c"], MemoryGrant::All, JobKind::Alone));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.finish(alone, 0, JobEnd::AtLimit(ReachedLimit::Memory)), [failed("c")]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_task_that_needed_more_than_a_share_runs_alone_at_once() {
        let mut schedule = schedule(vec![known("big", 10, 501), known("small", 1, 500)], 0.0);
        let small = schedule.next().unwrap();
        assert_eq!((names(&small), schedule.next()), (vec!["small"], None));
        schedule.finish(after(small, 1), 1, JobEnd::Answered);
        assert_eq!(schedule.next().map(|job| job.memory), Some(MemoryGrant::All));
    }

    #[test]
    fn a_task_that_does_not_end_waits_until_all_others_were_tried_and_has_more_time_then() {
        let mut schedule = schedule(vec![failed("broken"), new("endless"), known("long", 50_000, 1)], 99.0);
        let job = schedule.next().unwrap();
        assert_eq!(names(&job), ["endless", "long"]);
        assert_eq!([0, 1].map(|at| TIMES.of(&job.tasks[at]).as_secs()), [60, 100]);
        assert_eq!(schedule.finish(job, 0, JobEnd::AtLimit(ReachedLimit::Time)), []);
        let (long, broken) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&long), names(&broken)), (vec!["long"], vec!["broken"]));
        schedule.finish(after(long, 1), 1, JobEnd::Answered);
        for minutes in [4, 10] {
            let again = schedule.next().unwrap();
            assert_eq!((names(&again), TIMES.of(&again.tasks[0])), (vec!["endless"], Duration::from_mins(minutes)));
            let given_up = schedule.finish(again, 0, JobEnd::AtLimit(ReachedLimit::Time));
            assert_eq!(given_up.len(), usize::from(minutes == 10));
        }
        let mut all_at_once = Schedule::new(BUDGET, Times { longest: LEAST_TIME, ..TIMES }, None, vec![new("a")]);
        let job = all_at_once.next().unwrap();
        assert_eq!(all_at_once.finish(job, 0, JobEnd::AtLimit(ReachedLimit::Time)), []);
        let job = all_at_once.next().unwrap();
        assert_eq!(all_at_once.finish(job, 0, JobEnd::AtLimit(ReachedLimit::Time)).len(), 1);
        let little = Times { source: Duration::from_secs(16), ..TIMES };
        assert_eq!(little.of(&new("a")), Duration::from_secs(1));
    }

    #[test]
    fn each_gets_a_process_of_its_own_where_that_is_wanted() {
        let mut schedule = Schedule::singly(BUDGET, TIMES, vec![new("a"), known("big", 1, 501), new("b")]);
        let (a, b) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&a), a.kind, names(&b)), (vec!["a"], JobKind::Alone, vec!["b"]));
        schedule.finish(a, 0, JobEnd::Failed);
        schedule.finish(after(b, 1), 1, JobEnd::Answered);
        assert_eq!(names(&schedule.next().unwrap()), ["big"]);
    }

    #[test]
    fn nothing_is_tried_again_where_the_source_has_used_all_that_it_may_use() {
        let mut schedule = schedule(vec![new("a"), new("b")], 9.0);
        let job = schedule.next().unwrap();
        assert_eq!(schedule.finish(job, 0, JobEnd::NotBegun), [new("a"), new("b")]);
        assert_eq!(schedule.next(), None);
    }
}
