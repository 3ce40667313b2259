//! Measures a publication beyond its evaluation, for fleets of three sizes: `make bench`.
//!
//! The evaluation is made in memory. Each step runs in a process of its own, as `claveld once` does.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

#[path = "../tests/support/command.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod command;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use command::program;
use measure::processes::{own_time, peak_memory, resident_memory};
use measure::publication::{REPOSITORY, evaluations, prepare, publish};
use measure::{format_time, median};

/// The numbers of deployments, each with its unit and its agent; the goals for a change of one of them, and for what that adds to the
/// repository.
const FLEETS: [(usize, &str, &str); 3] =
    [(100, "", ""), (10_000, "at most 150 ms", "at most 64 KiB"), (100_000, "at most 300 ms", "at most 128 KiB")];
const ROUNDS: usize = 5;
/// How many publications of one change the growth is measured over.
const GROWTH: usize = 1000;
/// How many passes of a resident agent are measured.
const LOOKS: u32 = 10;
/// The pause between two looks at whether there was one.
const LOOK: Duration = Duration::from_millis(5);
/// The variable that makes this program the child process that publishes once.
const ONE_STEP: &str = "CLAVEL_BENCH_PUBLISH";

fn main() {
    if let Ok(step) = std::env::var(ONE_STEP) {
        let [folder, count, content, times] = step.splitn(4, ' ').collect::<Vec<_>>()[..] else { return };
        let content = content.parse::<usize>().unwrap();
        let contents = content..content + times.parse::<usize>().unwrap();
        publish_once(Path::new(folder), count.parse().unwrap(), contents);
        return;
    }
    println(format_args!("{:44} {:>9} {:>9} {:>10}   beside", "", "time", "memory", "written"));
    for (count, time_goal, growth_goal) in FLEETS {
        measure_fleet(count, time_goal, growth_goal);
    }
}

fn println(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
}

fn row(what: &str, step: &Step, goal: &str) {
    let goal = if goal.is_empty() { String::new() } else { format!("(goal: {goal})") };
    let (memory, written) = (step.memory >> 10, step.written >> 10);
    println(format_args!("{what:44} {:>9} {memory:>5} MiB {written:>6} KiB   {goal}", format_time(step.time)));
}

fn agent_row(what: &str, times: &[Duration]) {
    println(format_args!("{what:44} {:>9}", format_time(median(times.to_vec()))));
}

/// What one publication took.
struct Step {
    time: Duration,
    /// The most memory that the process held, in KiB.
    memory: u64,
    /// What the repository grew by, in bytes.
    written: u64,
}

/// A folder with a key, a root and a repository.
struct Bench {
    folder: tempfile::TempDir,
    count: usize,
}

impl Bench {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        Self { folder, count }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join(REPOSITORY)
    }

    /// Publishes in a process of its own, where the first deployment has this content, and so on for as many times.
    fn step(&self, content: usize, times: usize) -> Step {
        let before = size(&self.repository());
        let step = format!("{} {} {content} {times}", self.folder.path().display(), self.count);
        let run = program(std::env::current_exe().unwrap()).env(ONE_STEP, step).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let said = String::from_utf8(run.stdout).unwrap();
        let (time, memory) = said.trim().split_once(' ').unwrap();
        let (time, memory) = (Duration::from_micros(time.parse().unwrap()), memory.parse().unwrap());
        Step { time, memory, written: size(&self.repository()) - before }
    }

    /// The configuration of an agent that runs no deployment, with `more` in it.
    fn configure(&self, more: &str) -> PathBuf {
        let config = self.folder.path().join("agent.toml");
        let (folder, repository) = (self.folder.path().display(), self.repository());
        let text = format!(
            "name = \"host-000050\"\nrepository = \"file://{}\"\nroot = \"{folder}/root.json\"\ndeployments = []\n\
             state-directory = \"{folder}/agent\"\n{more}",
            repository.display()
        );
        std::fs::write(&config, text).unwrap();
        config
    }

    /// One pass of an agent that fetches and verifies the branch, and runs no deployment.
    fn pass(&self) -> Duration {
        let config = self.configure("");
        let start = Instant::now();
        let mut agent = program(env!("CARGO_BIN_EXE_clavel-agent"));
        let run = agent.args(["once", "--config", config.to_str().unwrap()]).output().unwrap();
        let time = start.elapsed();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        time
    }

    /// An agent that goes on and looks each second: its processor time for one look that finds nothing, and the memory that it holds then.
    fn resident(&self) -> (Duration, u64, u64) {
        let metrics = self.folder.path().join("agent.prom");
        let config = self.configure(&format!("interval = \"1s\"\nmetrics-file = \"{}\"\n", metrics.display()));
        let mut command = program(env!("CARGO_BIN_EXE_clavel-agent"));
        command.args(["run", "--config", config.to_str().unwrap()]).stderr(Stdio::null());
        let mut agent = command.spawn().unwrap();
        let written = || std::fs::metadata(&metrics).and_then(|about| about.modified()).ok();
        // Each pass writes the file anew.
        let pass = |before| {
            while written() == before {
                std::thread::sleep(LOOK);
            }
            written()
        };
        let first = pass(pass(written()));
        let before = own_time(agent.id()).unwrap();
        (0..LOOKS).fold(first, |last, _| pass(last));
        let time = own_time(agent.id()).unwrap().saturating_sub(before);
        let (all, own) = resident_memory(&agent.id().to_string()).unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
        (time / LOOKS, all, own)
    }

    /// The median of several steps.
    fn steps(&self, mut content: impl FnMut(usize) -> usize) -> Step {
        let steps: Vec<Step> = (0..ROUNDS).map(|round| self.step(content(round), 1)).collect();
        let time = median(steps.iter().map(|step| step.time).collect());
        let most = |of: fn(&Step) -> u64| steps.iter().map(of).max().unwrap();
        Step { time, memory: most(|step| step.memory), written: most(|step| step.written) }
    }
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| if entry.path().is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }).sum()
}

fn measure_fleet(count: usize, time_goal: &str, growth_goal: &str) {
    let bench = Bench::new(count);
    row(&format!("{count} deployments, all new"), &bench.step(0, 1), if count == 10_000 { "at most 3 s" } else { "" });
    row("  nothing changed", &bench.steps(|_| 0), "");
    agent_row("  an agent's first pass", &[bench.pass()]);
    agent_row("  an agent's pass, nothing changed", &(0..ROUNDS).map(|_| bench.pass()).collect::<Vec<_>>());
    let (time, all, own) = bench.resident();
    println(format_args!(
        "  a resident agent, a pass without a change {:>11} of processor time; holds {} KiB, {own} KiB of them its own (goal: 15 MB)",
        format_time(time),
        all
    ));
    let after_a_change = |round: usize| {
        let _ = bench.step(50 + round, 1);
        bench.pass()
    };
    agent_row("  an agent's pass, one changed", &(0..ROUNDS).map(after_a_change).collect::<Vec<_>>());
    row("  one changed", &bench.steps(|round| round + 1), time_goal);
    let each = bench.step(100, GROWTH).written / GROWTH as u64;
    let goal = if growth_goal.is_empty() { String::new() } else { format!("(goal: {growth_goal})") };
    println(format_args!("  each of {GROWTH} changes, before git collects {:>27} KiB   {goal}", each >> 10));
}

/// Publishes once. Prints the time beyond the evaluation in microseconds, and the peak memory in KiB.
fn publish_once(folder: &Path, count: usize, contents: std::ops::Range<usize>) {
    let mut evaluations = evaluations(count, contents.start);
    let peak = || peak_memory("self").unwrap();
    let memory_before = peak();
    let start = Instant::now();
    publish(folder, &mut evaluations, contents);
    println(format_args!("{} {}", start.elapsed().as_micros(), peak().saturating_sub(memory_before)));
}
