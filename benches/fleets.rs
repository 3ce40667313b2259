//! Compares the time that Clavel takes to evaluate a fleet with the time of Nix alone, as ratios within one run: `make bench`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

#[path = "../tests/support/command.rs"]
mod command;
#[path = "../tests/support/fleet/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod fleet;

mod measure;

use command::{NIX_CONFIG, hermetic_git, program};
use fleet::{Edit, Fleet, Mix, Options, Weight};
use measure::{format_time, median, timed};

const HOSTS: u32 = 100;
const HOST: &str = "host-0001";
/// How often the short measurements are repeated, and how often the long ones.
const ROUNDS: (usize, usize) = (7, 1);
const PROCESSES: &str = "2";
const MEMORY: u64 = 2 << 30;

/// An evaluation, and how long it took.
struct Evaluated {
    /// The attributes that were evaluated.
    work: Vec<Value>,
    /// The time until the result was there, at which claveld would publish.
    answered: Duration,
    /// The time until every host was evaluated from a second place, and claveld ended.
    ended: Duration,
}

struct Bench {
    fleet: Fleet,
    folder: tempfile::TempDir,
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { hosts: HOSTS, weight: Weight::Heavy, mix: Mix::Plain, below: String::new() };
    let mut bench = Bench { fleet: Fleet::create(&folder.path().join("a"), options), folder };
    row("", "ours", "peer", "beside");
    bench.all();
    bench.in_turn();
    bench.nothing();
    bench.one();
}

impl Bench {
    fn run(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = program(name);
        hermetic_git(&mut command, self.folder.path()).env("NIX_CONFIG", NIX_CONFIG).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Evaluates with claveld, which keeps its records in the folder `records`.
    fn claveld(&self, records: &str, more: &[&str]) -> Evaluated {
        let (flake, memory) = (self.fleet.reference(), MEMORY.to_string());
        let records = self.folder.path().join(records);
        let mut arguments =
            vec!["evaluate", &flake, "--json", "--input", "path", "--processes", PROCESSES, "--memory", &memory];
        if more.is_empty() {
            arguments.extend(["--records", records.to_str().unwrap()]);
        }
        let mut command = program(env!("CARGO_BIN_EXE_claveld"));
        hermetic_git(&mut command, self.folder.path()).env("NIX_CONFIG", NIX_CONFIG).args(arguments).args(more);
        let start = Instant::now();
        let mut claveld = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut printed = serde_json::Deserializer::from_reader(claveld.stdout.take().unwrap()).into_iter();
        let found: Value = printed.next().unwrap().unwrap();
        let answered = start.elapsed();
        assert!(claveld.wait().unwrap().success());
        let work = found["work"]["evaluated"].as_array().unwrap().clone();
        Evaluated { work, answered, ended: start.elapsed() }
    }

    fn nix(&self, attribute: &str, apply: &str) -> String {
        let flake = format!("{}#{attribute}", self.fleet.reference());
        // Both resolve the branch anew, and both evaluate.
        let options = ["--option", "tarball-ttl", "0", "--option", "eval-cache", "false"];
        self.run("nix", &[&["eval", "--json", &flake, "--apply", apply], &options[..]].concat())
    }

    /// Compares an evaluation of every host without records with one `nix eval` of all hosts.
    fn all(&mut self) {
        let (mut ours, mut ended, mut peer, mut memory) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for round in 0..ROUNDS.1 {
            let evaluated = self.claveld(&format!("new-{round}"), &[]);
            assert_eq!(evaluated.work.len(), HOSTS as usize);
            ours.push(evaluated.answered);
            ended.push(evaluated.ended);
            memory = evaluated.work.iter().filter_map(|one| one["memory"].as_u64()).max().unwrap().max(memory);
            let start = Instant::now();
            self.nix("nixosConfigurations", "builtins.mapAttrs (_: host: host.config.system.build.toplevel.drvPath)");
            peer.push(start.elapsed());
        }
        let (ours, peer) = (median(ours), median(peer));
        let times = peer.as_secs_f64() / ours.as_secs_f64();
        let verdict = format!("{times:.2} times as fast (goal: at least 1.7)");
        row(&format!("{HOSTS} hosts, all / one nix eval of all"), &format_time(ours), &format_time(peer), &verdict);
        row("  and until all were seen from a second place", &format_time(median(ended)), "", "after the publication");
        let most = memory * PROCESSES.parse::<u64>().unwrap();
        let verdict = format!("{PROCESSES} times the largest process; the budget is {} MiB", MEMORY >> 20);
        row("  memory", &format!("{} MiB", most >> 20), "", &verdict);
    }

    /// Compares the same with a `nix eval` for each host in turn, as a script would do it.
    fn in_turn(&self) {
        let names: Vec<String> = self.fleet.model().hosts.keys().cloned().collect();
        let ours = self.claveld("in-turn", &[]).answered;
        let peer = timed(|| names.iter().for_each(|name| drop(self.nix_alone(name))));
        let verdict = format!("{:.2} times as fast", peer.as_secs_f64() / ours.as_secs_f64());
        row(
            &format!("{HOSTS} hosts, all / nix eval of each in turn"),
            &format_time(ours),
            &format_time(peer),
            &verdict,
        );
    }

    fn nix_alone(&self, host: &str) -> String {
        self.nix(&format!("nixosConfigurations.{host}.config.system.build.toplevel"), "host: host.drvPath")
    }

    fn nothing(&self) {
        self.claveld("kept", &[]);
        let ours = median((0..ROUNDS.0).map(|_| self.claveld("kept", &[]).ended).collect());
        row(&format!("{HOSTS} hosts, nothing changed"), &format_time(ours), "", "(goal: under 200 ms)");
    }

    /// Edits the file of one host, and compares the evaluation with a `nix eval` of that host alone.
    fn one(&mut self) {
        let (mut ours, mut ended, mut peer) = (Vec::new(), Vec::new(), Vec::new());
        // The first to run has to put the source and its derivations into the store, so they take turns at being first.
        for round in 0..2 * ROUNDS.0 {
            self.fleet.edit(&Edit::ChangeHost(HOST.to_owned()));
            if round % 2 == 0 {
                peer.push(timed(|| drop(self.nix_alone(HOST))));
            }
            let evaluated = self.claveld("kept", &[]);
            ours.push(evaluated.answered);
            ended.push(evaluated.ended);
            assert_eq!(evaluated.work.len(), 1, "{:?}", evaluated.work);
            if round % 2 == 1 {
                peer.push(timed(|| drop(self.nix_alone(HOST))));
            }
        }
        let (ours, peer) = (median(ours), median(peer));
        let beside =
            |ours: Duration| format!("{:.2} times (goal: at most 1.5)", ours.as_secs_f64() / peer.as_secs_f64());
        let what = format!("{HOSTS} hosts, one edited / nix eval of it alone");
        row(&what, &format_time(ours), &format_time(peer), &beside(ours));
        let ended = median(ended);
        row("  and until it was seen from a second place", &format_time(ended), &format_time(peer), &beside(ended));
    }
}

fn row(what: &str, ours: &str, peer: &str, verdict: &str) {
    writeln!(std::io::stdout().lock(), "{what:50} {ours:>9} {peer:>9}   {verdict}").unwrap();
}
