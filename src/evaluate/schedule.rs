//! Who is evaluated when, and with whom. No I/O.
//!
//! Each of `processes` evaluators gets the same share of the memory. What does not fit into a share, or into its time
//! among others, is tried once more when nothing else runs, with all of the memory, before it is called broken.

use std::collections::VecDeque;
use std::time::Duration;

/// What the evaluators may take together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How many run at once; at least one.
    pub processes: usize,
    /// The memory of all of them, in bytes.
    pub memory: u64,
}

impl Budget {
    /// The memory of one that runs beside others, in bytes.
    pub(super) fn share(self) -> u64 {
        self.memory / self.processes.max(1) as u64
    }
}

/// Whether it has to be known what each host alone depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Of hosts that share a process only the sum of what they read is known, so a change to one costs all of them.
    PerHost,
    /// Nothing is recorded.
    None,
}

/// On which terms a job runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// Beside others, with a share of the memory.
    Share,
    /// With all of the memory, and nothing beside it.
    Alone,
    /// As with a share, in a place that nothing else needs.
    Spare,
}

/// Something to evaluate, and what is known of the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task<T> {
    pub(super) item: T,
    pub(super) before: Option<Cost>,
    pub(super) company: Company,
}

/// Whether a task may share a process with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// It may.
    Welcome,
    /// It has to be known what it alone depends on.
    Unwelcome,
}

/// What one evaluation took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) time: Duration,
    /// The most memory, in bytes.
    pub(super) memory: u64,
}

/// Tasks for one process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job<T> {
    pub(super) tasks: Vec<Task<T>>,
    pub(super) terms: Terms,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Its tasks are answered, and it took this.
    Answered(Cost),
    /// It failed as a whole, and its tasks are not told apart.
    Failed,
    /// It was ended at a limit of memory or time.
    AtALimit,
}

/// The jobs that wait and how many run.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    budget: Budget,
    waiting: VecDeque<Task<T>>,
    /// Those that are to be evaluated by themselves, beside others.
    single: VecDeque<Task<T>>,
    /// Those that need everything.
    alone: VecDeque<Task<T>>,
    /// Those that run while a place is free.
    spare: VecDeque<Task<T>>,
    running: usize,
    exclusive: bool,
    sharing: Sharing,
}

impl<T> Schedule<T> {
    /// `tasks`, of which nothing ran yet; `start` is what a process costs that evaluates no host.
    pub(super) fn new(budget: Budget, precision: Precision, start: Duration, tasks: Vec<Task<T>>) -> Self {
        let fits = |task: &Task<T>| task.before.is_none_or(|cost| cost.memory <= budget.share());
        let (mut fitting, alone): (Vec<_>, Vec<_>) = tasks.into_iter().partition(fits);
        // The longest first, so that none of them begins when all others are done; a new one may be the longest.
        fitting.sort_by_key(|task| std::cmp::Reverse(task.before.map_or(Duration::MAX, |cost| cost.time)));
        let mut sharing = Sharing::new(precision, start);
        if precision == Precision::None {
            fitting.iter().filter_map(|task| task.before).for_each(|cost| sharing.learn(1, cost));
        }
        let (waiting, single): (Vec<_>, Vec<_>) =
            fitting.into_iter().partition(|task| task.company == Company::Welcome);
        let (waiting, single, alone) = (waiting.into(), single.into(), alone.into());
        let spare = VecDeque::new();
        Self { budget, waiting, single, alone, spare, running: 0, exclusive: false, sharing }
    }

    /// The same, and `tasks` run beside them while a place is free, one in a process.
    pub(super) fn with_spare(self, tasks: Vec<Task<T>>) -> Self {
        let share = self.budget.share();
        let fits = |task: &Task<T>| task.before.is_none_or(|cost| cost.memory <= share);
        Self { spare: tasks.into_iter().filter(fits).collect(), ..self }
    }

    /// What to start now; none where something has to end first, or nothing is left.
    pub(super) fn next(&mut self) -> Option<Job<T>> {
        if self.exclusive || self.running >= self.budget.processes.max(1) {
            return None;
        }
        let job = if let Some(task) = self.single.pop_front() {
            Job { tasks: vec![task], terms: Terms::Share }
        } else if !self.waiting.is_empty() {
            let size = self.sharing.size(self.waiting.len(), self.budget).min(self.waiting.len());
            Job { tasks: self.waiting.drain(..size).collect(), terms: Terms::Share }
        } else if !self.alone.is_empty() {
            if self.running > 0 {
                return None;
            }
            self.exclusive = true;
            Job { tasks: vec![self.alone.pop_front()?], terms: Terms::Alone }
        } else {
            Job { tasks: vec![self.spare.pop_front()?], terms: Terms::Spare }
        };
        self.running += 1;
        Some(job)
    }

    /// A job ended. Gives back the tasks that will not be tried again.
    pub(super) fn ended(&mut self, job: Job<T>, ended: Ended) -> Vec<Task<T>> {
        self.running -= 1;
        self.exclusive = false;
        if job.terms == Terms::Spare {
            return job.tasks;
        }
        match ended {
            Ended::Answered(cost) => {
                self.sharing.learn(job.tasks.len(), cost);
                job.tasks
            }
            Ended::Failed if job.tasks.len() > 1 => {
                self.single.extend(job.tasks);
                Vec::new()
            }
            Ended::AtALimit if job.terms == Terms::Share => {
                self.alone.extend(job.tasks);
                Vec::new()
            }
            Ended::Failed | Ended::AtALimit => job.tasks,
        }
    }

    /// Tasks that were answered in company without being told why they fail are to be asked alone.
    pub(super) fn again(&mut self, tasks: Vec<Task<T>>) {
        self.single.extend(tasks);
    }
}

/// How many hosts share a process, by what was measured: the cost of `n` of them is taken for `shared + n * own`.
#[derive(Debug)]
struct Sharing {
    precision: Precision,
    /// How many hosts, and the seconds.
    measured: Vec<(f64, f64)>,
    /// The most memory of one host, in bytes.
    memory: u64,
}

impl Sharing {
    /// More in one process gain little and make a failure dear.
    const MOST: usize = 64;
    /// A change to one host may cost this many times the evaluation of that host alone.
    const DEAREST_CHANGE: f64 = 1.5;
    /// Fewer hosts than these for each process are not worth to be known less exactly.
    const MANY: usize = 16;
    /// Where less than this part of a host's time is work that others need too, each has a process of its own.
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

    /// The shared and the own seconds: the line that is nearest to what was measured (least squares).
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

    fn size(&self, waiting: usize, budget: Budget) -> usize {
        // The first ones are measured by themselves.
        let Some((shared, own)) = self.fitted() else { return 1 };
        let fitting =
            budget.share().checked_div(self.memory).map_or(usize::MAX, |most| most.try_into().unwrap_or(usize::MAX));
        let wanted = match self.precision {
            Precision::PerHost if waiting < Self::MANY * budget.processes => 1,
            Precision::PerHost => whole(Self::DEAREST_CHANGE + (Self::DEAREST_CHANGE - 1.0) * shared / own),
            // Enough jobs are left for the processes to end at about the same time.
            Precision::None if shared > Self::WORTHWHILE * (shared + own) => {
                waiting.div_ceil(2 * budget.processes.max(1))
            }
            Precision::None => 1,
        };
        wanted.min(fitting).clamp(1, Self::MOST)
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
        Task { item, before: None, company: Company::Welcome }
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
    fn as_many_run_as_may_and_the_longest_begin() {
        let mut schedule =
            schedule(vec![known("short", 10, 1), known("long", 900, 1), new("new"), known("mid", 500, 1)]);
        let (first, second) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&first), names(&second)), (vec!["new"], vec!["long"]));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.ended(first, Ended::Answered(cost(100, 1))), [new("new")]);
        assert_eq!(names(&schedule.next().unwrap()), ["mid"]);
    }

    #[test]
    fn one_that_hits_a_limit_is_tried_again_alone_before_it_is_broken() {
        let mut schedule = schedule(vec![new("a"), new("b"), known("c", 1, 1)]);
        let (a, b) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!(schedule.ended(a, Ended::AtALimit), []);
        let c = schedule.next().unwrap();
        assert_eq!(names(&c), ["c"]);
        assert_eq!(schedule.ended(b, Ended::Answered(cost(1000, 1))).len(), 1);
        assert_eq!(schedule.next(), None, "`c` still runs");
        assert_eq!(schedule.ended(c, Ended::Failed).len(), 1);
        let alone = schedule.next().unwrap();
        assert_eq!((names(&alone), alone.terms), (vec!["a"], Terms::Alone));
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.ended(alone, Ended::AtALimit), [new("a")]);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn what_did_not_fit_into_a_share_last_time_is_alone_at_once() {
        let mut schedule = schedule(vec![known("big", 10, 501), known("small", 1, 500)]);
        let small = schedule.next().unwrap();
        assert_eq!(names(&small), ["small"]);
        assert_eq!(schedule.next(), None);
        schedule.ended(small, Ended::Failed);
        assert_eq!(schedule.next().map(|job| job.terms), Some(Terms::Alone));
    }

    #[test]
    fn what_is_spare_runs_where_nothing_else_could() {
        let mut schedule = schedule(vec![new("a"), known("big", 10, 501)]).with_spare(vec![
            new("a again"),
            known("big again", 10, 501),
            new("c"),
        ]);
        let a = schedule.next().unwrap();
        assert_eq!((names(&a), schedule.next()), (vec!["a"], None), "`big` has to come first");
        schedule.ended(a, Ended::Answered(cost(10, 1)));
        let big = schedule.next().unwrap();
        assert_eq!((names(&big), schedule.next()), (vec!["big"], None), "nothing runs beside it");
        schedule.ended(big, Ended::Answered(cost(10, 501)));
        let (again, c) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&again), again.terms, names(&c)), (vec!["a again"], Terms::Spare, vec!["c"]));
        assert_eq!(schedule.ended(again, Ended::AtALimit), [new("a again")], "it is not tried again");
        schedule.ended(c, Ended::Failed);
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn those_of_a_job_that_failed_as_a_whole_are_asked_one_by_one() {
        let mut schedule = schedule(vec![]);
        schedule.running = 1;
        let job = Job { tasks: vec![new("a"), new("b")], terms: Terms::Share };
        assert_eq!(schedule.ended(job, Ended::Failed), []);
        let (a, b) = (schedule.next().unwrap(), schedule.next().unwrap());
        assert_eq!((names(&a), names(&b)), (vec!["a"], vec!["b"]));
    }

    #[test]
    fn who_is_to_be_known_exactly_has_a_process_of_its_own() {
        let exactly = Task { company: Company::Unwelcome, ..new("exactly") };
        let mut schedule = schedule(vec![new("a"), exactly, new("b")]);
        schedule.sharing =
            Sharing { measured: vec![(1.0, 0.022)], ..Sharing::new(Precision::None, Duration::from_millis(20)) };
        assert_eq!(names(&schedule.next().unwrap()), ["exactly"]);
    }

    fn size_after(precision: Precision, measured: &[(usize, u64, u64)]) -> usize {
        let mut sharing = Sharing::new(precision, Duration::from_millis(20));
        for (hosts, millis, memory) in measured {
            sharing.learn(*hosts, cost(*millis, *memory));
        }
        sharing.size(100, BUDGET)
    }

    #[test]
    fn many_hosts_share_a_process_only_as_far_as_a_change_to_one_stays_cheap() {
        assert_eq!(size_after(Precision::PerHost, &[]), 1);
        // 20 ms of 220 are shared.
        assert_eq!(size_after(Precision::PerHost, &[(1, 220, 1)]), 1);
        // 20 ms of 22 are shared: six together cost 32 ms, which is less than 1.5 times 22.
        assert_eq!(size_after(Precision::PerHost, &[(1, 22, 1)]), 6);
        // What more of them together took says better what is shared.
        assert_eq!(
            size_after(Precision::PerHost, &[(1, 120, 1), (1, 120, 1), (1, 120, 1), (3, 140, 1), (3, 140, 1)]),
            2
        );
    }

    #[test]
    fn what_is_known_of_the_last_time_tells_at_once_who_shares() {
        let tasks =
            || vec![known("a", 50, 1), known("b", 50, 1), known("c", 50, 1), known("d", 50, 1), known("e", 50, 1)];
        let first = |precision| Schedule::new(BUDGET, precision, Duration::from_millis(20), tasks()).next();
        assert_eq!(names(&first(Precision::None).unwrap()), ["a", "b"]);
        assert_eq!(names(&first(Precision::PerHost).unwrap()), ["a"]);
    }

    #[test]
    fn where_nothing_is_recorded_they_share_as_long_as_it_gains_and_fits() {
        assert_eq!(size_after(Precision::None, &[(1, 2_000, 1)]), 1);
        assert_eq!(size_after(Precision::None, &[(1, 50, 1)]), 25);
        assert_eq!(size_after(Precision::None, &[(1, 50, 100)]), 5);
    }
}
