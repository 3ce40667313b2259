//! Measures a publication beyond its evaluation, for fleets of three sizes: `make bench`.
//!
//! The evaluation is made in memory. Each step runs in a process of its own, as `claveld once` does.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clavel::evaluate::{Drafts, EvalWarnings, Evaluation, EvaluationWork};
use clavel::model::{
    AgentSpecification, DeploymentSpecification, DocumentMetadata, Draft, FlakeReference, List, LockedSource, Metadata,
    Name, NarTemplateSpecification, Provenance, PublishPolicy, Specification, System, TemplateMetadata, Timestamp,
    UnitSpecification, UnitType,
};
use clavel::publish::{OrphanPolicy, PublishInput, PublishSettings, Publisher};
use clavel::signers::Signers;
use clavel::store::{self, Output};
use clavel::trust::{Amendment, Anchor, AnchorLocation, KeyLocation, RoleName, SecretKey, Signed};

#[path = "../tests/support/command.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod command;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use command::program;
use measure::processes::peak_memory;
use measure::{format_time, median};

/// The numbers of deployments, each with its unit and its agent; the goals for a change of one of them, and for what that adds to the
/// repository.
const FLEETS: [(usize, &str, &str); 3] =
    [(100, "", ""), (10_000, "at most 150 ms", "at most 64 KiB"), (100_000, "at most 300 ms", "at most 128 KiB")];
const ROUNDS: usize = 5;
/// How many publications of one change the growth is measured over.
const GROWTH: usize = 1000;
/// The variable that makes this program the child process that publishes once.
const ONE_STEP: &str = "CLAVEL_BENCH_PUBLISH";

fn main() {
    if let Ok(step) = std::env::var(ONE_STEP) {
        let [folder, count, content, times] = step.splitn(4, ' ').collect::<Vec<_>>()[..] else { return };
        let content = content.parse::<usize>().unwrap();
        let contents = content..content + times.parse::<usize>().unwrap();
        publish(Path::new(folder), count.parse().unwrap(), contents);
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
        let key = SecretKey::generate("claveld-1".parse().unwrap()).unwrap();
        key.write_new(&folder.path().join("key")).unwrap();
        let add = vec![(RoleName::Root, key.public().into()), (RoleName::Publisher, key.public().into())];
        let year = Duration::from_hours(24 * 365);
        let root =
            Amendment { add, ..Amendment::default() }.first(Timestamp::from(SystemTime::now()).plus(year)).unwrap();
        std::fs::write(folder.path().join("root.json"), Signed::sign(root, &key).render()).unwrap();
        let bench = Self { folder, count };
        bench.git(&["init", "-q", "--bare", "."]);
        bench
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("fleet.git")
    }

    fn git(&self, arguments: &[&str]) {
        std::fs::create_dir_all(self.repository()).unwrap();
        let status = program("git").current_dir(self.repository()).args(arguments).status().unwrap();
        assert!(status.success(), "{arguments:?}");
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

    /// One pass of an agent that fetches and verifies the branch, and runs no deployment.
    fn pass(&self) -> Duration {
        let config = self.folder.path().join("agent.toml");
        let (folder, repository) = (self.folder.path().display(), self.repository());
        let text = format!(
            "name = \"host-000050\"\nrepository = \"file://{}\"\nroot = \"{folder}/root.json\"\ndeployments = []\n\
             state-directory = \"{folder}/agent\"\n",
            repository.display()
        );
        std::fs::write(&config, text).unwrap();
        let start = Instant::now();
        let mut agent = program(env!("CARGO_BIN_EXE_clavel-agent"));
        let run = agent.args(["once", "--config", config.to_str().unwrap()]).output().unwrap();
        let time = start.elapsed();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        time
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
fn publish(folder: &Path, count: usize, contents: std::ops::Range<usize>) {
    let flake: FlakeReference = "git+https://git.example.org/fleet?ref=main".parse().unwrap();
    let mut evaluations = [evaluation(&flake, count, contents.start)];
    let peak = || peak_memory("self").unwrap();
    let memory_before = peak();
    let start = Instant::now();
    let settings = PublishSettings {
        repository: folder.join("fleet.git").to_str().unwrap().parse().unwrap(),
        branch: "deployments".parse().unwrap(),
        validity: Duration::from_hours(24 * 7),
        state_directory: folder.join("state"),
        policy: PublishPolicy::WhenEvaluated,
        author: None,
    };
    let signers = Signers::read(&[KeyLocation::File(folder.join("key"))]).unwrap();
    let anchor = Anchor::read(&AnchorLocation::File(folder.join("root.json"))).unwrap();
    let store = store::open(None, Duration::from_mins(1), Output::Capture);
    let publisher = Publisher::new(settings, signers, anchor, store);
    let configured = [flake];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for content in contents {
        evaluations[0].drafts.deployments[0].specification.template.nar_id = path(0, content);
        let orphans = OrphanPolicy::Withdraw;
        let allowed_withdrawals = 0;
        let input = PublishInput {
            configured: &configured,
            evaluations: &evaluations,
            orphans,
            allowed_withdrawals,
            sources: &[],
        };
        runtime.block_on(publisher.publish(&input)).unwrap();
    }
    println(format_args!("{} {}", start.elapsed().as_micros(), peak().saturating_sub(memory_before)));
}

fn evaluation(flake: &FlakeReference, count: usize, content: usize) -> Evaluation {
    let arch: System = "x86_64-linux".parse().unwrap();
    let mut drafts = Drafts::default();
    for at in 0..count {
        let host: Name = format!("host-{at:06}").parse().unwrap();
        let template = NarTemplateSpecification {
            metadata: TemplateMetadata::default(),
            nar_id: path(at, if at == 0 { content } else { 0 }),
            substituters: List::one("https://cache.example.org".parse().unwrap()),
            substituters_public_keys: List::one(
                "cache.example.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=".parse().unwrap(),
            ),
        };
        drafts.deployments.push(draft(flake, &host, DeploymentSpecification { template, unit: host.clone() }));
        drafts.units.push(draft(flake, &host, UnitSpecification { arch: arch.clone(), unit_type: UnitType::Nixos }));
        drafts.agents.push(draft(flake, &host, AgentSpecification { deployments: List::one(host.clone()) }));
    }
    let source = LockedSource {
        flake: flake.clone(),
        locked: flake.clone(),
        hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        revision: Some("a".repeat(40).parse().unwrap()),
    };
    Evaluation { source, drafts, warnings: EvalWarnings::default(), work: EvaluationWork::default() }
}

fn path(at: usize, content: usize) -> clavel::model::StorePath {
    format!("/nix/store/{at:016}{content:016}-nixos-system-host-24.05").parse().unwrap()
}

fn draft<S: Specification>(flake: &FlakeReference, host: &Name, specification: S) -> Draft<S> {
    let provenance = Provenance {
        attribute: format!("nixosConfigurations.{host}").parse().unwrap(),
        drv_path: None,
        evaluated_at: Timestamp::from(SystemTime::now()),
        source: flake.clone(),
        source_hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        source_revision: Some("a".repeat(40).parse().unwrap()),
    };
    Draft::new(
        host.clone(),
        DocumentMetadata::with_provenance(Metadata::default(), &provenance).unwrap(),
        specification,
    )
}
