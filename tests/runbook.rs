//! Promise: the commands of docs/runbooks.md for a stolen key of claveld bring the fleet back.

use std::path::Path;

use serde_json::json;

use crate::support::attacker::{ForgedBranch, MAX_INTEGER, Onto, StolenKey};
use crate::support::world::World;

/// A step of a runbook.
#[derive(Debug)]
enum Step {
    /// Commands, for a shell.
    Do(String),
    /// The lines that the commands print, with `…` for parts that differ each time.
    See(String),
}

/// The fenced blocks of docs/runbooks.md that are marked with the name of that runbook, in their order.
fn steps(runbook: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbooks.md")).unwrap();
    let (mut steps, mut open) = (Vec::new(), None::<(bool, String)>);
    for line in text.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(fence), None) => match fence.split_once(" runbook=") {
                Some((kind, of)) if of == runbook => open = Some((kind == "sh", String::new())),
                _ => {}
            },
            (Some(_), Some((is_commands, block))) => {
                let block = std::mem::take(block);
                steps.push(if *is_commands { Step::Do(block) } else { Step::See(block) });
                open = None;
            }
            (None, Some((_, block))) => block.extend([line, "\n"]),
            (None, None) => {}
        }
    }
    steps
}

/// Whether `line` matches the line `seen` of a runbook.
fn is_seen(line: &str, seen: &str) -> bool {
    let mut rest = line;
    seen.split('…').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Follows a runbook in `world`, with its names set as the runbook says.
fn follow(world: &World, runbook: &str) {
    let mut said = String::new();
    let steps = steps(runbook);
    assert!(!steps.is_empty(), "docs/runbooks.md has no blocks of {runbook}");
    for step in steps {
        match step {
            Step::Do(commands) => {
                let mut shell = world.command("sh", &["-eux", "-c", &commands]);
                let names = [("REPOSITORY", "fleet.git"), ("KEYS", ""), ("CLAVELD", ""), ("AGENT", "web-1.toml")];
                for (name, place) in names {
                    shell.env(name, world.at(place));
                }
                let output = shell.current_dir(world.path("")).output().unwrap();
                let (stdout, stderr) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success(), "{commands}\n{stdout}\n{stderr}");
                said = stdout.into_owned();
            }
            Step::See(lines) => {
                for seen in lines.lines() {
                    assert!(said.lines().any(|line| is_seen(line, seen)), "`{seen}` is not in:\n{said}");
                }
            }
        }
    }
}

#[test]
fn a_fleet_whose_key_was_stolen_is_brought_back() {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world.agent("web-1", &["once"]).good();

    // The thief makes a machine run another system, and raises every number to the largest.
    let thief = StolenKey::read(&world.path("claveld-1.secret"));
    world.build(&["web-2"]);
    let mut stolen = ForgedBranch::of(&world);
    let other = stolen.signed("deployments/web-2.json")["specification"]["template"].clone();
    stolen.edit("deployments/web-1.json", &[&thief], |signed| {
        signed["specification"]["template"] = other;
        signed["revision"] = json!(MAX_INTEGER);
    });
    stolen.reindex(&[&thief], |index| index["version"] = json!(MAX_INTEGER));
    stolen.push(Onto::Tip);
    assert_eq!(world.agent("web-1", &["once"]).good(), format!("web-1: switched to revision {MAX_INTEGER}\n"));
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-2"));

    follow(&world, "stolen-key");

    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // An agent that gets the thief's branch again refuses it, and so does claveld.
    stolen.push(Onto::Nothing);
    world.agent("web-1", &["once"]).refused(5, "the root went back from version 2 to 1");
    world.publish().refused(5, "epoch");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}
