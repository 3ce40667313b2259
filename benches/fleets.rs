//! Compares the evaluation of a fleet by Clavel with one `nix eval` of the same, as ratios within one run: `make bench`.
//!
//! Both take turns, so that other load on the machine affects both. The figures are medians. Where everything is new, the time is that from
//! the start of the program to the last answer of Nix; documents are made of the answers afterwards. Otherwise it is that until the documents
//! are printed. Claveld is ended then, unless its learning is measured too.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::cell::Cell;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../tests/support/command.rs"]
mod command;
#[path = "../tests/support/fleet/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod fleet;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use command::{NIX_CONFIG, hermetic_git, program};
use fleet::{Break, DeviceEdit, Edit, Fleet, Mix, Options, Sharing, Weight};
use measure::processes::{ProcessorTime, peak_memory};
use measure::{format_time, median, ratio};

const PROCESSES: &str = "2";
const MEMORY: &str = "2GiB";
const HOSTS: &str = "nixosConfigurations";
/// The derivation of `host`, in an expression.
const DERIVATION: &str = "host.config.system.build.toplevel.drvPath";
/// The pause between two looks at the processes that run.
const LOOK: Duration = Duration::from_millis(10);
/// The most that an answer may take, in times of its peer and on top of it.
const ALL_NEW: Goal = Goal { times: 1.0, more: Duration::from_millis(150) };
const ONE_HOST: Goal = Goal { times: 1.4, more: Duration::ZERO };
const ONE_DEVICE: Goal = Goal { times: 1.2, more: Duration::from_millis(150) };
const PROCESSOR_TIME: Goal = Goal { times: 1.3, more: Duration::ZERO };
/// So many hosts are not learnt about here, which would take minutes.
const MANY: u32 = 100;
/// The most that an answer may take where nothing changed.
const NOTHING: Duration = Duration::from_millis(150);

/// The most that something may take.
#[derive(Clone, Copy)]
struct Goal {
    times: f64,
    more: Duration,
}

impl Goal {
    /// How `ours` compares with `peer`, and whether that meets the goal.
    fn compare(self, ours: Duration, peer: Duration) -> String {
        let Self { times, more } = self;
        let most = peer.mul_f64(times) + more;
        let more = if more.is_zero() { String::new() } else { format!(" + {} ms", more.as_millis()) };
        let missed =
            if ours > most { format!(", missed by {}", format_time(ours.saturating_sub(most))) } else { String::new() };
        format!("{:.2} times (goal: {times:.1}{more}{missed})", ratio(ours, peer))
    }
}

/// What a run took.
struct Run {
    /// The time until everything was printed.
    time: Duration,
    /// The processor time of all its processes.
    processor: Duration,
    /// The most memory that the program itself held, without its children, in KiB.
    memory: u64,
    /// How long it went on behind the answer.
    learning: Duration,
    stdout: String,
}

/// When a run of claveld is ended.
#[derive(Clone, Copy, PartialEq)]
enum Until {
    /// At its answer.
    Answer,
    /// When it has learnt what the answer depends on, and ends by itself.
    Learnt,
}

/// A fleet, and the question of the peer about all of it.
struct Bench {
    name: String,
    hosts: u32,
    fleet: Fleet,
    folder: tempfile::TempDir,
    /// The function that gives the peer everything of the flake.
    everything: String,
    /// Counts the folders of records.
    records: Cell<u32>,
}

fn main() {
    // `cargo bench` adds `--bench`.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    row("until the answer", "claveld", "nix eval", "");
    for (part, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|word| word == part) {
            measure();
        }
    }
}

/// The parts of this bench. Those that are named as arguments run; without arguments, all.
const PARTS: [(&str, fn()); 5] = [
    ("few", few),
    ("many", many),
    ("broken", || hosts(10, Weight::Normal, Sharing::Packages).broken(3)),
    ("inventory", inventory),
    ("mixed", || Bench::new(options(8, Weight::Normal, Sharing::Packages, 2_000)).all_new(3)),
];

fn few() {
    hosts(6, Weight::Heavy, Sharing::Packages).all_new(3);
    let mut eight = hosts(8, Weight::Heavy, Sharing::Packages);
    eight.all_new(3);
    eight.one_host(5);
}

fn many() {
    hosts(MANY, Weight::Normal, Sharing::Packages).all_new(1);
    hosts(MANY, Weight::Normal, Sharing::Nothing).all_new(1);
}

fn inventory() {
    let devices = |count| Bench::new(options(0, Weight::Light, Sharing::Nothing, count));
    devices(2_000).all_new(3);
    let mut inventory = devices(10_000);
    inventory.all_new(3);
    inventory.one_device(5);
}

fn hosts(count: u32, weight: Weight, sharing: Sharing) -> Bench {
    Bench::new(options(count, weight, sharing, 0))
}

fn options(hosts: u32, weight: Weight, sharing: Sharing, devices: u32) -> Options {
    Options { hosts, weight, sharing, mix: Mix::Plain, devices, below: String::new() }
}

impl Bench {
    fn new(options: Options) -> Self {
        let (hosts, devices) = (options.hosts, options.devices);
        let shared = if options.sharing == Sharing::Packages { "that share" } else { "that share nothing" };
        let name = match (hosts, devices) {
            (_, 0) => format!("{hosts} hosts {shared}"),
            (0, _) => format!("{devices} devices"),
            _ => format!("{hosts} hosts {shared}, {devices} devices"),
        };
        let folder = tempfile::tempdir().unwrap();
        let fleet = Fleet::create(&folder.path().join("a"), options);
        Self { name, hosts, fleet, folder, everything: everything(DERIVATION), records: Cell::new(0) }
    }

    /// A folder for the records of an evaluation of everything.
    fn new_records(&self) -> String {
        self.records.set(self.records.get() + 1);
        self.folder.path().join(format!("records-{}", self.records.get())).to_str().unwrap().to_owned()
    }

    /// Evaluates with claveld, which keeps its records in the folder `records`.
    fn claveld(&self, records: &str, until: Until) -> Run {
        let mut command = program(env!("CARGO_BIN_EXE_claveld"));
        command.args([
            "evaluate",
            &self.fleet.reference(),
            "--json",
            "--input",
            "path",
            "--input",
            "file",
            "--records",
            records,
        ]);
        command.args(["--processes", PROCESSES, "--memory", MEMORY]);
        run(hermetic_git(&mut command, self.folder.path()).env("NIX_CONFIG", NIX_CONFIG), until)
    }

    /// The time in which claveld starts, before it begins with an evaluation.
    fn start(&self) -> Duration {
        let mut command = program(env!("CARGO_BIN_EXE_claveld"));
        run(hermetic_git(command.arg("--version"), self.folder.path()), Until::Learnt).time
    }

    /// Applies a function to the flake with `nix eval`.
    fn nix(&self, function: &str) -> Run {
        let expression = format!("({function}) (builtins.getFlake \"{}\")", self.fleet.reference());
        let mut command = program("nix");
        // Both resolve the branch anew.
        command.args(["eval", "--json", "--impure", "--option", "tarball-ttl", "0", "--expr", &expression]);
        run(hermetic_git(&mut command, self.folder.path()).env("NIX_CONFIG", NIX_CONFIG), Until::Learnt)
    }

    fn everything_by_nix(&self) -> Run {
        self.nix(&self.everything)
    }

    /// Compares an evaluation without records with one `nix eval` of all.
    fn all_new(&mut self, rounds: usize) {
        // The first runs put the derivations into the store.
        self.everything_by_nix();
        let first = (self.hosts < MANY).then(|| self.claveld(&self.new_records(), Until::Learnt));
        let ours = |bench: &Self| bench.claveld(&bench.new_records(), Until::Answer);
        let both = self.in_turn(rounds, |_| (), ours, Self::everything_by_nix);
        compared_row(&format!("{}, all new", self.name), (both.answered, both.time.1), ALL_NEW);
        row("  until the documents are printed", &format_time(both.time.0), "", "");
        compared_row("  processor time", both.processor, PROCESSOR_TIME);
        if let Some(first) = &first {
            row("  learning, behind the answer", &format_time(first.learning), "", "");
        }
        memory_row(first.map_or(0, |first| first.memory).max(both.memory));
    }

    /// Breaks two hosts, and compares with a `nix eval` that goes on behind each broken one.
    fn broken(&mut self, rounds: usize) {
        for (host, how) in [("host-0003", Break::Throw), ("host-0008", Break::FailedAssertion)] {
            self.fleet.edit(&Edit::Break(host.to_owned(), how));
        }
        self.everything = everything(&format!("builtins.tryEval {DERIVATION}"));
        self.name += ", 2 of them broken";
        self.all_new(rounds);
    }

    /// Changes the file of one host, and compares with a `nix eval` of that host alone.
    fn one_host(&mut self, rounds: usize) {
        const HOST: &str = "host-0001";
        let records = self.learnt();
        let change = |bench: &mut Self| drop(bench.fleet.edit(&Edit::ChangeHost(HOST.to_owned())));
        let alone = format!("flake: let host = flake.{HOSTS}.{HOST}; in {DERIVATION}");
        let peer = |bench: &Self| bench.nix(&alone);
        let both = self.in_turn(rounds, change, |bench| bench.claveld(&records, Until::Answer), peer);
        assert_eq!(both.evaluated, 1, "only one host changed");
        compared_row(&format!("{}, one of them changed", self.name), both.time, ONE_HOST);
    }

    /// Evaluates again without a change. Then changes one device, and compares with a `nix eval` of all.
    fn one_device(&mut self, rounds: usize) {
        let records = self.learnt();
        let nothing = median((0..rounds).map(|_| self.claveld(&records, Until::Answer).time).collect());
        let what = format!("{}, nothing changed", self.name);
        row(&what, &format_time(nothing), "", &format!("(goal: {} ms)", NOTHING.as_millis()));
        let change = |bench: &mut Self| drop(bench.fleet.edit(&Edit::ChangeDevice(1, DeviceEdit::Change)));
        let ours = |bench: &Self| bench.claveld(&records, Until::Answer);
        let both = self.in_turn(rounds, change, ours, Self::everything_by_nix);
        compared_row(&format!("{}, one of them changed", self.name), both.time, ONE_DEVICE);
        memory_row(both.memory);
    }

    /// The folder of new records in which it is learnt what all answers depend on.
    fn learnt(&self) -> String {
        let records = self.new_records();
        self.claveld(&records, Until::Learnt);
        records
    }

    /// Runs both after `before`. They take turns at being first, since the first has to put the source and its derivations into the
    /// store.
    fn in_turn(
        &mut self,
        rounds: usize,
        before: impl Fn(&mut Self),
        ours: impl Fn(&Self) -> Run,
        peer: impl Fn(&Self) -> Run,
    ) -> Compared {
        let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            before(self);
            if round % 2 == 0 {
                of_peer.push(peer(self));
            }
            of_ours.push(ours(self));
            if round % 2 == 1 {
                of_peer.push(peer(self));
            }
        }
        let of = |runs: &[Run], figure: fn(&Run) -> Duration| median(runs.iter().map(figure).collect());
        let found: Value = serde_json::from_str(&of_ours[0].stdout).unwrap();
        assert!(found["deployments"].is_array(), "claveld gave no answer: {found:#}");
        Compared {
            answered: median(of_ours.iter().map(|run| self.start() + answered(&run.stdout)).collect()),
            time: (of(&of_ours, |run| run.time), of(&of_peer, |run| run.time)),
            processor: (of(&of_ours, |run| run.processor), of(&of_peer, |run| run.processor)),
            memory: of_ours.iter().map(|run| run.memory).max().unwrap(),
            evaluated: found["work"]["evaluated"].as_array().unwrap().len(),
        }
    }
}

/// The medians of claveld, and then of its peer.
struct Compared {
    /// The time of claveld until the last answer of Nix.
    answered: Duration,
    /// The times until everything was printed.
    time: (Duration, Duration),
    processor: (Duration, Duration),
    /// The most memory that claveld itself held, in KiB.
    memory: u64,
    /// How many attributes claveld evaluated.
    evaluated: usize,
}

/// The time from the beginning of an evaluation, which printed `stdout`, to the last answer of Nix.
fn answered(stdout: &str) -> Duration {
    let found: Value = serde_json::from_str(stdout).unwrap();
    Duration::from_secs_f64(found["work"]["seconds"].as_f64().unwrap())
}

/// A function that gives the derivation of each host of a flake, as `of_host` gives it, and everything that is declared.
fn everything(of_host: &str) -> String {
    format!("flake: {{ hosts = builtins.mapAttrs (_: host: {of_host}) flake.{HOSTS}; inherit (flake) clavel; }}")
}

fn compared_row(what: &str, (ours, peer): (Duration, Duration), goal: Goal) {
    row(what, &format_time(ours), &format_time(peer), &goal.compare(ours, peer));
}

fn memory_row(peak: u64) {
    row("  memory of claveld itself", &format!("{} MiB", peak >> 10), "", "(goal with 10000: 300 MiB)");
}

/// Runs `command`, whose answer ends with the line `}`, or with its output.
fn run(command: &mut Command, until: Until) -> Run {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (id, output) = (child.id(), child.stdout.take().unwrap());
    let mut processor = ProcessorTime::default();
    let (stdout, time) = std::thread::scope(|both| {
        let reader = both.spawn(|| (answer(output), start.elapsed()));
        while !reader.is_finished() {
            processor.look(id);
            std::thread::sleep(LOOK);
        }
        reader.join().unwrap()
    });
    processor.look(id);
    let mut memory = peak_memory(&id.to_string()).unwrap_or_default();
    if until == Until::Answer {
        // It may have ended by itself.
        let _ = child.kill();
    }
    // A process that ended has none.
    while let Some(peak) = peak_memory(&id.to_string()) {
        memory = peak;
        std::thread::sleep(LOOK);
    }
    child.wait().unwrap();
    Run { time, processor: processor.total(), memory, learning: start.elapsed().saturating_sub(time), stdout }
}

/// Reads an answer.
fn answer(output: impl Read) -> String {
    let mut answer = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.unwrap();
        answer += &line;
        if line == "}" {
            break;
        }
    }
    answer
}

fn row(what: &str, ours: &str, peer: &str, verdict: &str) {
    writeln!(std::io::stdout().lock(), "{what:50} {ours:>9} {peer:>9}   {verdict}").unwrap();
}
