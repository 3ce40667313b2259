//! Compares what a poll and a change cost an agent with what they cost git, over each transport, and what a bundle with closures costs with
//! a copy of it, as ratios within one run: `make bench`.
//!
//! Both take turns, so that other load on the machine affects both. The figures are medians.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark that cannot go on says so by panicking")]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[path = "../tests/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the tests use more of it")]
mod support;

#[expect(dead_code, reason = "others use more of it")]
mod measure;

use measure::processes::peak_memory;
use measure::publication::{REPOSITORY, evaluations, prepare, publish};
use measure::{format_time, median, ratio, timed};
use support::http::HttpServer;
use support::ssh::SshServer;
use support::world::World;
use support::{hermetic_git, program};

/// The number of deployments, each with its unit and its agent.
const COUNT: usize = 10_000;
/// The bytes of the closure that travels: 1 GiB.
const CLOSURE: usize = 1 << 30;
const POLLS: usize = 21;
const CHANGES: usize = 7;
const COPIES: usize = 3;

/// One way to the branch, as an agent is configured for it and as git is.
struct Way {
    name: &'static str,
    url: String,
    /// More lines of the agent's configuration.
    table: String,
    /// Variables of git.
    git: Vec<(&'static str, String)>,
}

fn main() {
    line(format_args!("{:54} {:>10} {:>10}   beside", "", "ours", "peer"));
    polls();
    bundles();
}

fn line(text: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout().lock(), "{text}").unwrap();
}

fn row(what: &str, (ours, peer): (Duration, Duration), goal: &str) {
    let ratio = ratio(ours, peer);
    line(format_args!("{what:54} {:>10} {:>10}   {ratio:.2} times ({goal})", format_time(ours), format_time(peer)));
}

/// Runs a command to its good end.
fn good(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The medians of both sides. The call of `before` ahead of each run is not timed.
fn interleaved(
    rounds: usize,
    mut before: impl FnMut(),
    mut ours: impl FnMut(),
    mut peer: impl FnMut(),
) -> (Duration, Duration) {
    let mut round = || {
        before();
        (timed(&mut ours), timed(&mut peer))
    };
    // The first run of each side fills the caches of the disk.
    round();
    let (ours, peer) = (0..rounds).map(|_| round()).unzip();
    (median(ours), median(peer))
}

/// Measures polls and changes over each transport.
fn polls() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    prepare(at);
    let mut evaluations = evaluations(COUNT, 0);
    let mut content = 0;
    publish(at, &mut evaluations, 0..1);
    let (https, ssh) = (HttpServer::serve_git_over_https(at), SshServer::start());
    let certificate = https.certificate().display().to_string();
    let over_https = |url: &str| format!("[[credentials]]\nurl = \"{url}\"\nca-file = \"{certificate}\"\n");
    let ways = [
        Way {
            name: "file",
            url: format!("file://{}/{REPOSITORY}", at.display()),
            table: String::new(),
            git: Vec::new(),
        },
        Way {
            name: "HTTPS",
            url: format!("{}/{REPOSITORY}", https.url()),
            table: over_https(&https.url()),
            git: vec![("GIT_SSL_CAINFO", certificate.clone())],
        },
        Way {
            name: "SSH",
            url: ssh.url(&at.join(REPOSITORY)),
            table: format!("ssh-command = \"{}\"\n", ssh.command()),
            git: vec![("GIT_SSH_COMMAND", ssh.command())],
        },
    ];
    for way in &ways {
        let agent = |_: &str| pass(at, way.name, &way.url, &way.table);
        let clone = at.join(format!("{}.git", way.name));
        let git = |arguments: &[&str]| {
            let mut git = program("git");
            hermetic_git(&mut git, at);
            good(git.envs(way.git.iter().cloned()).arg("-C").arg(&clone).args(arguments));
        };
        std::fs::create_dir(&clone).unwrap();
        git(&["init", "-q", "--bare", "."]);
        let fetch = ["fetch", "-q", "--depth=1", way.url.as_str(), "+refs/heads/deployments:refs/heads/deployments"];
        agent("");
        git(&fetch);
        let poll =
            interleaved(POLLS, || (), || agent(""), || git(&["ls-remote", "-q", &way.url, "refs/heads/deployments"]));
        row(&format!("{}: a pass, nothing changed / git ls-remote", way.name), poll, "goal: 1.0");
        let mut change = || {
            content += 1;
            publish(at, &mut evaluations, content..content + 1);
        };
        let changed = interleaved(CHANGES, &mut change, || agent(""), || git(&fetch));
        row(&format!("{}: a pass, one changed / git fetch", way.name), changed, "goal: 1.0");
        if way.name == "HTTPS" {
            change();
            let bytes = |run: &dyn Fn()| {
                let before = https.transfers().len();
                run();
                https.transfers()[before..].iter().map(|transfer| transfer.bytes).sum::<u64>()
            };
            let (ours, peer) = (bytes(&|| agent("")), bytes(&|| git(&fetch)));
            line(format_args!("{:54} {:>8} B {:>8} B", "  bytes of one change", ours, peer));
            let listed = || git(&["ls-remote", "-q", &way.url, "refs/heads/deployments"]);
            let (ours, peer) = (bytes(&|| agent("")), bytes(&listed));
            line(format_args!("{:54} {:>8} B {:>8} B", "  bytes of a poll", ours, peer));
        }
    }
    exported(at, || {
        content += 1;
        publish(at, &mut evaluations, content..content + 1);
    });
}

/// Measures polls and changes of a static folder, beside git over HTTP.
fn exported(at: &Path, mut change: impl FnMut()) {
    let (files, git) = (HttpServer::serve_files(&at.join("www")), HttpServer::serve_git(at));
    let export = || {
        let mut export = program(env!("CARGO_BIN_EXE_clavel"));
        export.args(["export", "--static"]).arg(at.join("www")).arg("--repository").arg(at.join(REPOSITORY));
        good(export.arg("--root").arg(at.join("root.json")));
    };
    export();
    let agent = || pass(at, "static", &format!("static+{}/", files.url()), "");
    agent();
    let listed = || {
        let mut ls_remote = program("git");
        hermetic_git(&mut ls_remote, at);
        let url = format!("{}/{REPOSITORY}", git.url());
        good(ls_remote.args(["ls-remote", "-q", &url, "refs/heads/deployments"]));
    };
    row("static, HTTP: a pass, nothing changed / git ls-remote", interleaved(POLLS, || (), agent, listed), "goal: 1.0");
    let bytes = |run: &dyn Fn()| {
        let before = files.transfers().len();
        run();
        let transfers = files.transfers();
        (transfers.len() - before, transfers[before..].iter().map(|transfer| transfer.bytes).sum::<u64>())
    };
    let (requests, poll) = bytes(&agent);
    line(format_args!("{:54} {poll:>8} B              {requests} request (goal: below 2 KB)", "  bytes of a poll"));
    change();
    export();
    let (requests, change) = bytes(&agent);
    line(format_args!("{:54} {change:>8} B              {requests} requests", "  bytes of one change"));
}

/// One pass of an agent that fetches and verifies the branch, and runs no deployment.
fn pass(at: &Path, name: &str, url: &str, table: &str) {
    let config = at.join(format!("{name}.toml"));
    let (folder, is_table) = (at.display(), table.starts_with('['));
    let (above, below) = if is_table { ("", table) } else { (table, "") };
    let text = format!(
        "name = \"host-000050\"\nrepository = \"{url}\"\nroot = \"{folder}/root.json\"\ndeployments = []\n\
         state-directory = \"{folder}/agent-{name}\"\n{above}{below}"
    );
    std::fs::write(&config, text).unwrap();
    good(program(env!("CARGO_BIN_EXE_clavel-agent")).args(["once", "--config"]).arg(config));
}

/// Measures a bundle with one large closure, beside a copy of the bundle. Both are on the disk at the end.
fn bundles() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "Welcome", &"W".repeat(CLOSURE));
    world.publish_from_memory(&["web-1"]);
    let (file, copy) = (world.at("x.bundle"), world.at("copy.bundle"));
    let (fleet, root, store) = (world.at("fleet.git"), world.root(), world.at("writer"));
    let create = ["bundle", "create", &file, "--repository", &fleet, "--root", &root, "--store", &store];
    let create = [&create[..], &["--closures", "web-1"]].concat();
    // The closure is in the writer's store from the first run on.
    world.clavel(&create).good();
    let mut memory = 0;
    let copied = || {
        let _ = std::fs::remove_file(&copy);
        std::fs::copy(&file, &copy).unwrap();
        File::open(&copy).unwrap().sync_all().unwrap();
    };
    let written = interleaved(
        COPIES,
        || (),
        || memory = measured(&world, env!("CARGO_BIN_EXE_clavel"), &create).max(memory),
        copied,
    );
    row("a bundle with 1 GiB, written / copied to the disk", written, "goal: 1.25");
    line(format_args!("{:54} {:>6} KiB              (goal: 65536)", "  the most memory", memory));
    std::fs::rename(world.path("cache"), world.path("gone")).unwrap();
    world.configure_agent("web-1", &file, "");
    let (config, mut memory) = (world.at("web-1.toml"), 0);
    let fresh = || {
        world.run("chmod", &["-R", "u+w", &world.at("web-1")]);
        let _ = std::fs::remove_dir_all(world.path("web-1"));
    };
    let read = interleaved(
        COPIES,
        fresh,
        || memory = measured(&world, env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &config]).max(memory),
        copied,
    );
    row("a bundle with 1 GiB, realised by Nix / copied", read, "goal: 1.25");
    line(format_args!("{:54} {:>6} KiB              (goal: 65536)", "  the most memory, without Nix's own", memory));
}

/// Runs a program to its good end. Returns the most memory that it held, in KiB, as it was seen every few milliseconds.
fn measured(world: &World, program: &str, arguments: &[&str]) -> u64 {
    let mut child = world.command(program, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, mut memory, begun) = (child.id().to_string(), 0, Instant::now());
    while child.try_wait().unwrap().is_none() {
        memory = peak_memory(&id).unwrap_or(0).max(memory);
        assert!(begun.elapsed() < Duration::from_mins(10), "{program} does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    memory
}
