//! Promise: without systemd's journal, what the agent says is what it always was. `tests/machines/journal.rs` has the journal.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use crate::support::world::World;

/// One pass of a new agent, whose standard error is a file that `JOURNAL_STREAM` describes by `stream`. No socket of a journal is there.
fn said(world: &World, stream: impl Fn(&File) -> Option<String>) -> String {
    let _ = std::fs::remove_dir_all(world.path("web-1/state"));
    let log = File::create(world.path("said.log")).unwrap();
    let hidden = ["--dev-bind", "/", "/", "--tmpfs", "/run", "--"];
    let agent = [env!("CARGO_BIN_EXE_clavel-agent"), "once", "--config", &world.at("web-1.toml")];
    let mut command = world.command("bwrap", &[&hidden[..], &agent].concat());
    command.env_remove("JOURNAL_STREAM").envs(stream(&log).map(|stream| ("JOURNAL_STREAM", stream)));
    let ran = command.stdout(Stdio::null()).stderr(log).status().unwrap();
    assert!(ran.success(), "{}", world.read_file("said.log"));
    world.read_file("said.log")
}

#[test]
fn without_a_journal_nothing_is_lost_nothing_is_said_twice_and_nothing_is_different() {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "[units.web-2]\ntype = \"nixos\"\n");
    let plain = said(&world, |_| None);
    let branch = format!("the branch is at {}\n", &world.tip()[..10]);
    assert!(plain.starts_with(&branch) && plain.contains("\nweb-1: activating\n"), "{plain}");
    assert_eq!(plain.matches("warning: the configuration has [units.\"web-2\"]").count(), 1, "{plain}");
    // A program inherits the variable from a service, and writes elsewhere.
    assert_eq!(said(&world, |_| Some("8:12345".to_owned())), plain);
    // It writes there, and the journal is not there.
    let matching = |log: &File| {
        let about = log.metadata().unwrap();
        Some(format!("{}:{}", about.dev(), about.ino()))
    };
    assert_eq!(said(&world, matching), plain);
}
