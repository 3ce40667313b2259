//! Promise: an agent notices a stale branch, says since when and by which clock, and distinguishes a wrong clock from a stale
//! branch.

use crate::support::world::{Ran, World};

/// A published fleet, with the agent of `web-1` and its system in the cache.
fn ready() -> World {
    let world = World::new();
    world.publish_from_memory(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    world
}

/// Runs one of Clavel's programs on a machine whose clock is off by `offset`.
fn off_by(world: &World, offset: &str, program: &str, arguments: &[&str]) -> Ran {
    world.run("faketime", &[&["-f", offset, program], arguments].concat())
}

fn agent(world: &World, offset: &str) -> Ran {
    off_by(world, offset, env!("CARGO_BIN_EXE_clavel-agent"), &["once", "--config", &world.at("web-1.toml")])
}

/// Deletes the baseline of the clocks.
fn forget_the_clocks(world: &World) {
    std::fs::remove_file(world.path("web-1/state/last-pass.json")).unwrap();
}

#[test]
fn a_branch_that_nobody_signs_any_more_is_stale_and_what_runs_goes_on() {
    let world = ready();
    world.agent("web-1", &["once"]).good();
    let expires = world.index()["expires"].as_str().unwrap().to_owned();
    forget_the_clocks(&world);
    let said = agent(&world, "+8d").refused(5, &format!("the index (version 1) is stale since {expires}, for 1day"));
    assert!(said.contains("by this machine's clock (") && !said.contains("was set"), "{said}");
    let status = world.agent("web-1", &["status", "--json"]).json();
    assert_eq!(status["lastPass"]["staleSince"], expires.as_str());
    assert_eq!(status["lastPass"]["ok"], false);
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    // So far ahead, the clock is usually wrong.
    forget_the_clocks(&world);
    agent(&world, "+2y").refused(5, "a wrong clock is more likely than an old branch");
}

#[test]
fn the_root_allows_the_agents_of_a_site_an_older_index_and_a_configuration_only_a_younger_one() {
    let world = ready();
    world.agent("web-1", &["once"]).good();
    let (root, next, key) = (world.at("root.json"), world.at("root-2.json"), world.at("root-1.secret"));
    let repository = world.at("fleet.git");
    let clavel = |arguments: &[&str]| world.clavel(arguments).good();
    clavel(&["root", "next", &root, "-o", &next, "--index-age", "WEB-*=45d", "--key", &key]);
    assert!(clavel(&["root", "show", &next]).contains("WEB-*   45d"));
    clavel(&["root", "publish", &next, "--repository", &repository]);
    forget_the_clocks(&world);
    assert_eq!(agent(&world, "+44d").good(), "web-1: up to date at revision 1\n");
    forget_the_clocks(&world);
    agent(&world, "+46d").refused(5, "the root lets this agent believe an index for 45d");
    // What is not signed cannot loosen it, and may be stricter.
    world.configure_agent("web-1", &format!("file://{repository}"), "[fetch]\nmax-index-age = \"60d\"\n");
    forget_the_clocks(&world);
    agent(&world, "+46d").refused(5, "is stale since");
    world.configure_agent("web-1", &format!("file://{repository}"), "[fetch]\nmax-index-age = \"2d\"\n");
    forget_the_clocks(&world);
    agent(&world, "+1d").good();
    forget_the_clocks(&world);
    agent(&world, "+3d").refused(5, "`max-index-age` of this agent's configuration is 2d");
    // The next root takes it back.
    world.configure_agent("web-1", &format!("file://{repository}"), "");
    let third = world.at("root-3.json");
    clavel(&["root", "next", &next, "-o", &third, "--no-index-age", "WEB-*", "--key", &key]);
    clavel(&["root", "publish", &third, "--repository", &repository]);
    forget_the_clocks(&world);
    agent(&world, "+8d").refused(5, "see whether claveld runs");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
}

#[test]
fn everybody_warns_before_a_root_expires_and_says_the_command_afterwards() {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let (claveld, agent, clavel) =
        (env!("CARGO_BIN_EXE_claveld"), env!("CARGO_BIN_EXE_clavel-agent"), env!("CARGO_BIN_EXE_clavel"));
    let (published, asked) = (world.at("claveld.toml"), world.at("web-1.toml"));
    let (repository, root) = (world.at("fleet.git"), world.at("root.json"));
    let all: [(&str, Vec<&str>); 5] = [
        (claveld, vec!["once", "--config", &published]),
        (claveld, vec!["status", "--config", &published]),
        (agent, vec!["once", "--config", &asked]),
        (agent, vec!["status", "--config", &asked]),
        (clavel, vec!["verify", "--repository", &repository, "--root", &root]),
    ];
    let commands = "where the root keys are, run `clavel root next root.json -o root-2.json --key FILE` and then `clavel root publish \
                    root-2.json`";
    for (offset, expected) in [("+1d", None), ("+320d", Some("expires at")), ("+370d", Some("expired at"))] {
        for (program, arguments) in &all {
            let ran = off_by(&world, offset, program, arguments);
            let said = format!("{}{}", ran.stdout, ran.stderr);
            let json = off_by(&world, offset, program, &[&arguments[..], &["--json"]].concat()).stdout;
            let about = format!("{offset} {program} {arguments:?}: {said} {json}");
            match expected {
                None => assert!(!said.contains("clavel root next") && !json.contains("clavel root next"), "{about}"),
                // The pass of an agent is over, and its error is no JSON.
                Some("expired at") if *program == agent && arguments[0] == "once" => {
                    assert_eq!(ran.code, Some(5), "{about}");
                    assert!(said.contains("the root (version 1) is stale since") && said.contains(commands), "{about}");
                }
                Some(said_of_it) => {
                    assert!(said.contains(said_of_it) && said.contains(commands), "{about}");
                    assert!(json.contains(said_of_it) && json.contains("clavel root next"), "{about}");
                }
            }
        }
    }
}

#[test]
fn claveld_signs_the_index_anew_when_half_of_its_time_is_gone() {
    let world = World::new();
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "");
    let claveld = |offset| {
        let config = world.at("claveld.toml");
        off_by(&world, offset, env!("CARGO_BIN_EXE_claveld"), &["once", "--config", &config]).good()
    };
    let tip = world.tip();
    claveld("+3d");
    assert_eq!(world.tip(), tip);
    assert!(claveld("+4d").contains("index version 2"));
    assert_eq!(agent(&world, "+8d").good(), "web-1: switched to revision 1\n");
}

#[test]
fn a_clock_that_is_set_is_told_apart_from_a_branch_that_stands_still() {
    let world = ready();
    world.agent("web-1", &["once"]).good();
    let said = agent(&world, "+8d").refused(5, "is stale since");
    assert!(said.contains("; but this machine's clock was set ahead by 8days"), "{said}");
    // The clock is set right again, and the branch is fresh.
    let back = agent(&world, "+0").also_good();
    assert_eq!(back.stdout, "web-1: up to date at revision 1\n");
    assert!(!back.stderr.contains("clock"), "{}", back.stderr);
}

#[test]
fn a_clock_that_is_held_back_makes_no_old_branch_fresh_unnoticed() {
    let world = ready();
    agent(&world, "+6d").good();
    // An attacker holds the branch back, and sets the clock back as well.
    for pass in ["+1d", "+25h", "+1h"] {
        let told = agent(&world, pass).also_good().stderr;
        assert!(told.contains("this machine's clock was set back by "), "{told}");
    }
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains("clock       this machine's clock was set back"), "{status}");
    // The clock was ahead; a new index by a correct clock shows that.
    world.change_from_memory("Welcome", "Hello");
    assert!(agent(&world, "+0").also_good().stderr.contains("was set back by 6days"));
    let last = agent(&world, "+0").also_good();
    assert!(!last.stderr.contains("clock"), "{}", last.stderr);
}

#[test]
fn a_board_without_a_battery_switches_and_says_that_its_clock_is_behind() {
    let world = ready();
    let ran = agent(&world, "-20y").also_good();
    assert_eq!(ran.stdout, "web-1: switched to revision 1\n");
    assert!(ran.stderr.contains("this machine's clock is behind: it says 200"), "{}", ran.stderr);
    let status = world.agent("web-1", &["status"]).good();
    assert!(status.contains("clock       this machine's clock is behind"), "{status}");
}
