//! Promise: wherever an agent is killed, the next one leads on from there, and nothing of the first is left.
//!
//! strace kills the agent before one of its system calls that change something or wait for something: before the first of a kind, before
//! the second, and so on. So the program that is released is tested, and nothing is compiled into it for this. A plain run tries some of
//! these steps, always the same; `CLAVEL_KILLS=all` tries all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::support::world::{Ran, World};

/// The system calls before which the agent is killed. They create, write, sync, name and remove files, start and end other processes,
/// connect to them, and wait for them.
const CALLS: &str = "rename,renameat,renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,\
                     fchmod,write,fsync,fdatasync,flock,connect,clone,clone3,vfork,fork,execve,kill,wait4,waitid,epoll_wait";
/// The attempts that the agents have at a revision.
const ATTEMPTS: usize = 3;
/// How many steps each test tries in a plain run.
const SAMPLE: usize = 10;
/// How often the next agent is started until it has to be at the end.
const STARTS: usize = 2;

/// The processes that are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// The agent alone. What it started goes on.
    Agent,
    /// The agent and everything that it started, each of them before its own step of that number.
    Everything,
}

/// What the activation of the second revision does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Second {
    Works,
    /// It fails, so that the agent goes back.
    Fails,
}

/// A call, and its number among the calls of that kind of one thread.
type Step = (String, usize);

/// A fleet whose `unit` runs revision 1, and whose second revision is published.
struct Bench {
    world: World,
    unit: &'static str,
    second: Second,
    victim: Victim,
    /// The files that a run leaves that was not killed.
    expected: BTreeSet<String>,
}

impl Bench {
    fn new(unit: &'static str, second: Second, victim: Victim) -> Self {
        let world = World::new();
        let (one, ran, overlaps) = (world.at("one"), world.at("ran"), world.at("overlaps"));
        let end = if second == Second::Fails { "test \"$CLAVEL_REVISION\" != 2" } else { ":" };
        let script = format!(
            "exec 9>>{one}\nflock -n 9 || echo overlap >> {overlaps}\necho \"$CLAVEL_REVISION\" >> {ran}\n\
             cp -f \"$CLAVEL_PATH/etc/motd\" \"$(dirname \"$CLAVEL_PROFILE\")/motd\" 9>&-\n{end}\n"
        );
        world.write_file("activate.sh", &script);
        std::fs::create_dir(world.path("tmp")).unwrap();
        let (host, activate) = (format!("hosts/{unit}.nix"), world.at("activate.sh"));
        let with_line = |text: &str, begin: &str, line: &str| -> String {
            let replaced =
                |old: &str| if old.trim().starts_with(begin) { format!("{line}\n") } else { format!("{old}\n") };
            text.lines().map(replaced).collect()
        };
        let text = world.read_file(&format!("work/{host}"));
        world.write(&host, &with_line(&text, "activate = ", &format!("  activate = \"sh {activate}\";")));
        world.publish_from_memory(&[unit]);
        let more = format!("[activate]\nattempts = {ATTEMPTS}\n");
        world.configure_agent(unit, &format!("file://{}", world.at("fleet.git")), &more);
        let config = world.read_file(&format!("{unit}.toml"));
        let command = format!("command = [\"/bin/sh\", \"{activate}\"]");
        world.write_file(&format!("{unit}.toml"), &with_line(&config, "command = ", &command));
        world.agent(unit, &["once"]).good();
        let text = world.read_file(&format!("work/{host}"));
        world.write(&host, &with_line(&text, "motd = ", "  motd = \"Changed\";"));
        world.publish_from_memory(&[unit]);
        world.run("cp", &["-a", &world.at(unit), &world.at("saved")]).good();
        let mut bench = Self { world, unit, second, victim, expected: BTreeSet::new() };
        let code = if second == Second::Works { 0 } else { 7 };
        assert_eq!(bench.agent().code, Some(code));
        bench.expected = bench.files();
        bench
    }

    fn agent(&self) -> Ran {
        let config = self.world.at(&format!("{}.toml", self.unit));
        let agent = env!("CARGO_BIN_EXE_clavel-agent");
        self.world.run_with(&[("TMPDIR", &self.world.at("tmp"))], agent, &["once", "--config", &config])
    }

    /// Makes the unit, its agent and its store as they were before the second revision.
    fn restore(&self) {
        let (unit, saved) = (self.world.at(self.unit), self.world.at("saved"));
        self.world.run("chmod", &["-R", "u+w", &unit]).good();
        self.world.run("rm", &["-rf", &unit, &self.world.at("ran"), &self.world.at("overlaps")]).good();
        self.world.run("cp", &["-a", &saved, &unit]).good();
    }

    /// Runs the agent under strace with these further options, and returns what strace saw.
    fn trace(&self, options: &[&str]) -> String {
        self.restore();
        let follow: &[&str] = if self.victim == Victim::Everything { &["-f"] } else { &[] };
        let (log, config) = (self.world.at("calls"), self.world.at(&format!("{}.toml", self.unit)));
        let calls = format!("trace={CALLS}");
        let agent = [env!("CARGO_BIN_EXE_clavel-agent"), "once", "--config", &config];
        let arguments = [follow, &["-o", &log, "-e", &calls], options, &agent].concat();
        let ran = self.world.run_with(&[("TMPDIR", &self.world.at("tmp"))], "strace", &arguments);
        let log = std::fs::read_to_string(log).unwrap_or_default();
        assert!(log.contains("execve("), "strace cannot watch the agent: {}", ran.stderr);
        log
    }

    /// The steps of a run, by what strace saw of it.
    fn steps(&self) -> Vec<Step> {
        let log = self.trace(&[]);
        let mut by_thread: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in log.lines() {
            let (thread, line) = match self.victim {
                Victim::Everything => line.split_once(' ').unwrap(),
                Victim::Agent => ("", line),
            };
            if let Some((call, _)) =
                line.trim_start().split_once('(').filter(|(call, _)| CALLS.split(',').any(|of| of == *call))
            {
                *by_thread.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<&str, usize> = BTreeMap::new();
        for ((_, call), count) in by_thread {
            let longest = most.entry(call).or_default();
            *longest = count.max(*longest);
        }
        most.into_iter().flat_map(|(call, count)| (1..=count).map(move |number| (call.to_owned(), number))).collect()
    }

    /// What is there of the agent, its profile and its temporary files.
    fn files(&self) -> BTreeSet<String> {
        let mut files = BTreeSet::new();
        for folder in [format!("{}/state", self.unit), format!("{}/profile", self.unit), "tmp".to_owned()] {
            collect(&self.world.path(&folder), &folder, &mut files);
        }
        // A copy of a mirror that is in doubt is fetched afresh, into other packs, and the believed files are saved from it before. Going
        // back once more makes one more generation, and Nix itself leaves a link beside the profile where it is killed.
        let of_profile = format!("{}/profile/", self.unit);
        files.retain(|file| {
            let is_of_nix =
                file.strip_prefix(&of_profile).is_some_and(|name| name.starts_with('.') || name.ends_with("-link"));
            !is_of_nix && !file.contains("/state/believed") && !file.contains("/objects/pack/pack-")
        });
        files
    }

    fn state(&self) -> Value {
        let status = self.world.agent(self.unit, &["status", "--json"]);
        let said = status.stderr.clone();
        let deployment = status.json()["deployments"][self.unit].take();
        assert!(deployment.is_object(), "the state cannot be read: {said}");
        deployment
    }

    /// Kills the agent before this step, starts the next one, and looks what became of it. A run may have fewer steps than the first had.
    /// Returns whether the run had that step.
    fn try_step(&self, (call, number): &Step) -> bool {
        let kill = format!("inject={call}:signal=SIGKILL:when={number}");
        let log = self.trace(&["-e", &kill]);
        let last: Vec<&str> = log.lines().rev().take(3).collect();
        // It can be read at each moment.
        self.state();
        let mut said = String::new();
        let mut state = Value::Null;
        for _ in 0..STARTS {
            let ran = self.agent();
            said = format!("{said}{:?} {}{}", ran.code, ran.stdout, ran.stderr);
            state = self.state();
            if state["state"] == "confirmed" || state["state"] == "rolled-back" {
                break;
            }
        }
        let at = format!("killed before {call} {number} ({last:?}), and then: {said}{state}");
        let has_changed = self.world.motd(self.unit).as_deref() == Some("Changed");
        let works = state["state"] == "confirmed" && state["running"]["revision"] == 2 && has_changed;
        let is_back = state["state"] == "rolled-back" && state["rollback"] == "restored" && !has_changed;
        // An activation that was killed has failed.
        let may_go_back = self.second == Second::Fails || self.victim == Victim::Everything;
        assert!(if self.second == Second::Works && works { true } else { may_go_back && is_back }, "{at}");
        let ran = std::fs::read_to_string(self.world.path("ran")).unwrap_or_default();
        assert!(ran.lines().filter(|revision| *revision == "2").count() <= ATTEMPTS, "{ran}{at}");
        assert!(!self.world.path("overlaps").exists(), "two activations at once: {at}");
        let files = self.files();
        let differing: Vec<&String> = files.symmetric_difference(&self.expected).collect();
        assert!(differing.is_empty(), "{differing:?} is left or missing: {at}");
        assert_eq!(self.processes(), Vec::<String>::new(), "{at}");
        log.contains("killed by SIGKILL")
    }

    /// The processes that have to do with this world.
    fn processes(&self) -> Vec<String> {
        let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            Some(String::from_utf8_lossy(&line).replace('\0', " "))
        });
        lines.filter(|line| line.contains(&self.world.at(""))).collect()
    }
}

fn collect(folder: &Path, name: &str, files: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &name, files);
        }
        files.insert(name);
    }
}

fn kill_at_each_step(unit: &'static str, second: Second, victim: Victim) {
    let bench = Bench::new(unit, second, victim);
    let steps = bench.steps();
    assert!(steps.len() > 50, "{steps:?}");
    let every = if std::env::var("CLAVEL_KILLS").as_deref() == Ok("all") { 1 } else { steps.len().div_ceil(SAMPLE) };
    // Not from the first: that one is before the program begins.
    let tried: Vec<bool> = steps.iter().skip(every / 2).step_by(every).map(|step| bench.try_step(step)).collect();
    let killed = tried.iter().filter(|killed| **killed).count();
    assert!(killed * 2 > tried.len(), "only {killed} of {} runs were killed", tried.len());
}

#[test]
fn a_killed_agent_of_a_command_unit_switches_after_all() {
    kill_at_each_step("router-1", Second::Works, Victim::Agent);
}

#[test]
fn a_killed_agent_of_a_nixos_unit_goes_back_after_all() {
    kill_at_each_step("web-1", Second::Fails, Victim::Agent);
}

#[test]
fn an_agent_that_is_killed_with_all_that_it_started_switches_or_goes_back() {
    kill_at_each_step("web-1", Second::Works, Victim::Everything);
}

#[test]
fn an_agent_that_is_killed_with_all_that_it_started_goes_back_after_all() {
    kill_at_each_step("router-1", Second::Fails, Victim::Everything);
}

/// `make test-power` cuts the power there. This is the same without root and in a second.
#[test]
fn what_was_fetched_is_synced_before_the_record_that_leads_to_its_activation() {
    let world = World::published();
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let (log, config) = (world.at("calls"), world.at("web-1.toml"));
    let calls = ["-f", "-s", "65536", "-o", &log, "-e", "trace=syncfs,write", env!("CARGO_BIN_EXE_clavel-agent")];
    world.run("strace", &[&calls[..], &["once", "--config", &config]].concat()).good();
    let text = std::fs::read_to_string(log).unwrap();
    let first = |what: &str| text.lines().position(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}"));
    // strace shows a text with its quotation marks escaped.
    assert!(first(" syncfs(") < first("activating\\\""), "the record was first");
}
