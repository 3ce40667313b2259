//! Promise: an untrusted mirror cannot exhaust the memory, the disk or the time of an agent.

use std::path::Path;

use gix::ObjectId;

use crate::support::hostile::{Good, HostileServer, Malice};
use crate::support::world::{World, until};

const MIB: u64 = 1 << 20;
/// The most memory of the fetching process, without its program: its private memory, as docs/mirrors.md has it, and its stacks.
const MOST_OF_A_FETCH: u64 = 80 * MIB;
/// The most memory of the agent itself, which reads nothing of a mirror before the fetch is complete.
const MOST_OF_THE_AGENT: u64 = 64 * MIB;

/// A published fleet, and the agent of `web-1`, whose first mirror is hostile and whose second is good.
fn beside(malice: Malice, timeout: &str) -> (World, HostileServer) {
    let server = HostileServer::start(malice);
    let world = World::published_with_nix(&["web-1"]);
    configure(&world, &server.url(), timeout);
    (world, server)
}

/// The agent of `web-1` with that mirror before the good one.
fn configure(world: &World, mirror: &str, timeout: &str) {
    let good = world.at("fleet.git");
    world.configure_agent("web-1", mirror, &format!("mirrors = [\"{good}\"]\nfetch.timeout = \"{timeout}\""));
}

/// Asserts that one pass reports the bad mirror with `why`, uses the good one, stays within the memory limit and leaves no files.
#[track_caller]
fn assert_survived(malice: Malice, timeout: &str, why: &[&str]) {
    let (world, server) = beside(malice, timeout);
    assert_reported_and_nothing_left(&world, &server, why);
}

#[track_caller]
fn assert_reported_and_nothing_left(world: &World, server: &HostileServer, why: &[&str]) {
    let said = run_within_memory(world);
    assert!(
        said.contains(&format!("a mirror is not used: cannot fetch branch `deployments` from {}", server.url())),
        "{said}"
    );
    assert!(why.iter().any(|why| said.contains(why)) && said.contains("nothing was kept"), "{said}");
    assert_eq!(left_behind(world), Vec::<String>::new());
    // Further passes use the copy of the good mirror.
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["lastPass"]["mirrors"][0]["status"], "unreachable");
    assert_eq!(status["lastPass"]["mirrors"][1]["status"], "taken");
    assert_eq!(status["lastPass"]["ok"], true);
}

/// Runs one pass. Asserts that it uses the good mirror, and that neither the agent nor a fetching process exceeds its memory
/// limit. Returns the output.
#[track_caller]
fn run_within_memory(world: &World) -> String {
    let arguments = ["once", "--config", &world.at("web-1.toml")];
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &arguments);
    let (mut peak_of_agent, mut peak_of_fetch) = (0, 0);
    until("the pass has ended", || {
        let id = agent.id();
        peak_of_agent = peak_of_agent.max(peak(id).unwrap_or_default());
        peak_of_fetch = fetches_of(id).into_iter().filter_map(peak).fold(peak_of_fetch, u64::max);
        agent.has_ended()
    });
    let said = agent.said();
    assert!(said.contains("web-1: switched to revision 1"), "{said}");
    let (of_agent, of_fetch) = (peak_of_agent / MIB, peak_of_fetch / MIB);
    assert!(peak_of_agent < MOST_OF_THE_AGENT, "the agent held {of_agent} MiB");
    assert!((1..=MOST_OF_A_FETCH).contains(&peak_of_fetch), "a fetch held {of_fetch} MiB");
    said
}

/// The peak memory of a process, in bytes (`proc_pid_status(5)`), without the mapped files that it holds: those are its program, of which
/// a build for tests has three times as much as a released one.
fn peak(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let bytes = |field: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(field))?;
        value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(bytes("VmHWM:")?.saturating_sub(bytes("RssFile:")?))
}

/// Whether all threads of a process have ended, so that its memory is free (`proc_pid_stat(5)`). A process that was not waited
/// for still has its entry.
fn has_ended(id: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| "ZX".contains(state))
    })
}

/// The fetching processes of an agent (`proc_tid_children(5)`). The test asks for them repeatedly, and reading all processes of
/// the machine would take too long.
fn fetches_of(agent: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{agent}/task")) else { return Vec::new() };
    let children = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("children")).ok();
    let children = threads.flatten().filter_map(children).collect::<String>();
    let is_one =
        |id: &u32| std::fs::read_to_string(format!("/proc/{id}/cmdline")).is_ok_and(|line| line.ends_with("\0fetch\0"));
    children.split_whitespace().map(|id| id.parse().unwrap()).filter(is_one).collect()
}

/// The files that a failed fetch left in the copies: parts of packs, and locks.
fn left_behind(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for copy in world.copies("web-1") {
        let is_good = copy.join("refs/clavel/fetched").exists();
        for file in files(&copy) {
            let in_packs = file.parent().is_some_and(|folder| folder.ends_with("objects/pack"));
            let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            let belongs = if in_packs { is_good && matches!(extension, "pack" | "idx") } else { extension != "lock" };
            if !belongs {
                left.push(file.display().to_string());
            }
        }
    }
    left
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.into_iter().chain(folders.iter().flat_map(|folder| self::files(folder))).collect()
}

const TOO_MUCH_MEMORY: &str = "of memory, so it was ended";
const TOO_LARGE: &str = "the mirror sent more than";

#[test]
fn an_endless_pack_is_cut_off() {
    assert_survived(Malice::EndlessPack, "50s", &["the mirror sent more than 256.0 MiB, so it was ended"]);
}

#[test]
fn an_endless_advertisement_is_cut_off() {
    assert_survived(Malice::EndlessRefs, "50s", &[TOO_MUCH_MEMORY]);
    assert_survived(Malice::EndlessCapabilities, "50s", &[TOO_MUCH_MEMORY]);
}

#[test]
fn a_pack_that_unfolds_is_cut_off() {
    // On a slow machine the deadline may come before the limit.
    let too_slow = "it took longer than 8s, so it was ended";
    assert_survived(Malice::Unfolding, "8s", &[TOO_MUCH_MEMORY, too_slow]);
    assert_survived(Malice::EndlessZeros, "8s", &[TOO_LARGE, TOO_MUCH_MEMORY, too_slow]);
}

#[test]
fn ends_of_history_without_number_are_not_held() {
    let world = World::published_with_nix(&["web-1"]);
    let (tip, packed) = (world.tip(), world.path("all.pack"));
    let pack = format!("echo {tip} | git -C $0 pack-objects --revs --stdout -q >$1");
    world.run("sh", &["-euc", &pack, &world.at("fleet.git"), packed.to_str().unwrap()]).good();
    let good = Good { tip, pack: std::fs::read(packed).unwrap() };
    let server = HostileServer::showing(Malice::ManyEnds, good);
    configure(&world, &server.url(), "50s");
    let why =
        "it names so many commits as the ends of its history that the file `shallow` would be larger than 64.0 KiB";
    assert_reported_and_nothing_left(&world, &server, &[why]);
}

#[test]
fn a_hostile_mirror_alone_leaves_what_runs_alone() {
    let (world, server) = beside(Malice::EndlessPack, "50s");
    world.agent("web-1", &["once"]).good();
    let runs = (world.motd("web-1"), std::fs::read_link(world.path("web-1/profile/system")).unwrap());
    world.configure_agent("web-1", &server.url(), "fetch.timeout = \"50s\"");
    let said = world.agent("web-1", &["once"]).refused(4, "the mirror sent more than 256.0 MiB, so it was ended");
    assert!(said.contains(&format!("cannot fetch branch `deployments` from {}", server.url())), "{said}");
    assert_eq!((world.motd("web-1"), std::fs::read_link(world.path("web-1/profile/system")).unwrap()), runs);
    assert_eq!(left_behind(&world), Vec::<String>::new());
}

/// Makes a folder in the repository `huge` that holds very many files, named by numbers and `suffix`, and then the entry `last`.
fn very_many_files(world: &World, suffix: &str, last: &[u8]) -> ObjectId {
    world.write_file("file", "\n");
    let stored = |kind: &str, file: &str| {
        let id = world.git(&["-C", &world.at("huge.git"), "hash-object", "-t", kind, "-w", &world.at(file)]);
        ObjectId::from_hex(id.trim().as_bytes()).unwrap()
    };
    let blob = stored("blob", "file");
    let mut names: Vec<String> = (0..100_000).map(|number| format!("{number}{suffix}")).collect();
    names.sort_unstable();
    // `git mktree` would take ten times as long.
    let entry = |name: String| [b"100644 ", name.as_bytes(), b"\0", blob.as_bytes()].concat();
    let mut tree: Vec<u8> = names.into_iter().flat_map(entry).collect();
    tree.extend_from_slice(last);
    std::fs::write(world.path("tree"), tree).unwrap();
    stored("tree", "tree")
}

#[test]
fn folders_of_very_many_files_are_not_kept_in_memory() {
    let world = World::published_with_nix(&["web-1"]);
    let huge = world.at("huge.git");
    world.git(&["init", "-q", "--bare", &huge]);
    // The many files are at the top, and in the folder of the roots.
    let roots = very_many_files(&world, ".json", b"");
    let top = very_many_files(&world, "", &[b"40000 roots\0", roots.as_bytes()].concat());
    let commit = world.git(&["-C", &huge, "commit-tree", "-m", "Many files", &top.to_string()]);
    world.git(&["-C", &huge, "update-ref", "refs/heads/deployments", commit.trim()]);
    configure(&world, &huge, "50s");
    let said = run_within_memory(&world);
    assert!(said.contains("bytes, and 2097152 are allowed"), "{said}");
}

#[test]
fn a_server_that_drips_or_stops_is_given_up_in_time() {
    let too_slow = "it took longer than 3s, so it was ended and nothing was kept; if the connection is slow, raise";
    assert_survived(Malice::Dripping, "3s", &[too_slow]);
    assert_survived(Malice::Stopping, "3s", &[too_slow]);
}

#[test]
fn what_an_agent_that_was_killed_left_is_cleared_and_its_fetch_ends_with_it() {
    let (world, server) = beside(Malice::Stopping, "50s");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")]);
    let mut fetches = Vec::new();
    until("a pack is being received, and the good one has ended", || {
        fetches = fetches_of(agent.id());
        fetches.len() == 1 && left_behind(&world).iter().any(|file| file.contains("objects/pack"))
    });
    agent.signal(rustix::process::Signal::KILL);
    agent.wait();
    until("its fetch has ended", || has_ended(fetches[0]));
    assert_ne!(left_behind(&world), Vec::<String>::new());
    drop(server);
    // The server has ended as well.
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: switched to revision 1\n");
    assert_eq!(left_behind(&world), Vec::<String>::new());
}

#[test]
fn an_agent_that_is_told_to_stop_waits_for_no_mirror() {
    let (world, _server) = beside(Malice::Stopping, "1h");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    let mut fetches = Vec::new();
    until("only the bad one is at work", || {
        fetches = fetches_of(agent.id());
        fetches.len() == 1 && left_behind(&world).iter().any(|file| file.contains("objects/pack"))
    });
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(agent.wait(), Some(0), "{}", agent.said());
    until("its fetch has ended", || has_ended(fetches[0]));
}

#[test]
fn an_endless_advertisement_ends_no_other_program_either() {
    for malice in [Malice::EndlessRefs, Malice::EndlessCapabilities] {
        let (world, server) = (World::published_with_nix(&["web-1"]), HostileServer::start(malice));
        let view = ["--repository", &server.url(), "--root", &world.root()];
        let from = format!("repository = \"{}\"", world.at("fleet.git"));
        let to = format!("repository = \"{}\"", server.url());
        world.write_file("hostile.toml", &world.read_file("claveld.toml").replacen(&from, &to, 1));
        for (program, arguments) in [
            (env!("CARGO_BIN_EXE_clavel"), [&["verify"], &view[..]].concat()),
            (env!("CARGO_BIN_EXE_clavel"), [&["diff", "web-1"], &view[..]].concat()),
            (env!("CARGO_BIN_EXE_claveld"), vec!["once", "--config", &world.at("hostile.toml")]),
        ] {
            let mut running = world.start(program, &arguments);
            let mut most = 0;
            until("it has given up", || {
                most = most.max(peak(running.id()).unwrap_or_default());
                running.has_ended()
            });
            let said = running.said();
            assert_eq!(running.wait(), Some(4), "{said}");
            assert!(said.contains(TOO_MUCH_MEMORY) && said.contains(&server.url()), "{said}");
            assert!(most < MOST_OF_THE_AGENT, "{program} held {} MiB", most / MIB);
        }
    }
}

/// The processes with `marker` in their environment, but this one's.
fn marked(marker: &str) -> Vec<u32> {
    let is_marked = |id: &u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        !has_ended(*id) && environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_marked).collect()
}

/// An agent whose only mirror hangs: git waits for ever for the other end of a pipe that the mirror has in place of a file, or ssh
/// does by itself. All processes of the agent have the returned variable in their environment.
fn hanging(transport: &str, timeout: &str) -> (World, String) {
    let world = World::new();
    let more = format!("fetch.timeout = \"{timeout}\"");
    let marker = format!("CLAVEL_TEST_MARKER={}", world.at(transport));
    if transport == "ssh" {
        world.write_file("hang", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n");
        world.run("chmod", &["+x", &world.at("hang")]).good();
        let more = format!("{more}\nssh-command = \"{}\"", world.at("hang"));
        world.configure_agent("web-1", "ssh://git@127.0.0.1/fleet.git", &more);
    } else {
        world.run("mkfifo", &[&world.at("fleet.git/packed-refs")]).good();
        world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), &more);
    }
    (world, marker)
}

#[test]
fn a_mirror_that_hangs_leaves_no_process() {
    for transport in ["file", "ssh"] {
        let (world, marker) = hanging(transport, "2s");
        let agent = [&marker, env!("CARGO_BIN_EXE_clavel-agent"), "once", "--config", &world.at("web-1.toml")];
        world.run("env", &agent).refused(4, "it took longer than 2s, so it was ended and nothing was kept");
        until("nothing of the fetch runs", || marked(&marker).is_empty());
    }
}

#[test]
fn what_fetches_from_a_mirror_that_hangs_ends_with_an_agent_that_was_killed() {
    for transport in ["file", "ssh"] {
        let (world, marker) = hanging(transport, "1h");
        let agent = [&marker, env!("CARGO_BIN_EXE_clavel-agent"), "once", "--config", &world.at("web-1.toml")];
        let mut agent = world.start("env", &agent);
        until("git or ssh runs", || marked(&marker).len() >= 3);
        agent.signal(rustix::process::Signal::KILL);
        agent.wait();
        until("nothing of the fetch runs", || marked(&marker).is_empty());
    }
}

#[test]
fn secrets_of_a_repository_stand_in_no_arguments_and_in_no_error() {
    let world = World::new();
    // The server speaks no TLS and never answers.
    let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://{}/fleet.git", listener.local_addr().unwrap());
    let credentials = format!("fetch.timeout = \"3s\"\n[[credentials]]\nurl = \"{url}\"\npassword-file = \"t0ken\"");
    world.configure_agent("web-1", &url, &credentials);
    world.write_file("t0ken", "s3cret\n");
    let mut agent =
        world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["once", "-v", "--config", &world.at("web-1.toml")]);
    until("it fetches", || !fetches_of(agent.id()).is_empty());
    let fetch = fetches_of(agent.id())[0];
    let arguments = std::fs::read(format!("/proc/{fetch}/cmdline")).unwrap();
    let environment = std::fs::read(format!("/proc/{fetch}/environ")).unwrap();
    assert_eq!(arguments.split(|byte| *byte == 0).nth(1), Some(&b"fetch"[..]));
    assert!(!String::from_utf8_lossy(&environment).contains("s3cret"));
    assert_eq!(agent.wait(), Some(4));
    let said = agent.said();
    assert!(said.contains("from https://127.0.0.1") && !said.contains("s3cret") && !said.contains("t0ken"), "{said}");
    assert!(!world.read_file("web-1/state/last-pass.json").contains("s3cret"));
}
