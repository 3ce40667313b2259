//! Promise: the daemons notice changes by themselves, survive failures, and end when they are told to.

use rustix::process::Signal;

use crate::support::world::{World, until};

#[test]
fn claveld_notices_a_push_and_the_agent_a_publication() {
    let world = World::new();
    world.configure_claveld("");
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    until("the first publication", || world.on_branch("deployments/web-1.json").is_some());
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "interval = \"100ms\"");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    until("the first revision runs", || world.motd("web-1").as_deref() == Some("Welcome to web-1"));

    // A broken push does not block the next one.
    let work = world.read_file("work/flake.nix");
    world.write("flake.nix", "{ no");
    world.push("Broken");
    world.write("flake.nix", &work);
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    until("the second revision is published", || {
        world.on_branch("deployments/web-1.json").is_some_and(|text| text.contains("\"revision\": 2"))
    });
    world.build(&["web-1"]);
    until("the second revision runs", || world.motd("web-1").as_deref() == Some("Hello to web-1"));
    for daemon in [&mut claveld, &mut agent] {
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait(), Some(0));
    }
}

#[test]
fn an_agent_that_is_told_to_end_leaves_its_activation_running() {
    let world = World::new();
    let gate = world.at("gate");
    world.edit(
        "hosts/web-1.nix",
        "activate = \"",
        &format!("activate = \"touch {gate}; while test -e {gate}.shut; do sleep 0.05; done; "),
    );
    world.write_file("gate.shut", "");
    world.push("Slow");
    world.publish().good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "interval = \"100ms\"");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    until("the activation is at work", || world.path("gate").exists());
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), Some(0));
    assert!(agent.said().contains("leaves the activation running"), "{}", agent.said());
    std::fs::remove_file(world.path("gate.shut")).unwrap();
    assert_eq!(world.agent("web-1", &["once"]).good(), "web-1: up to date at revision 1\n");
    assert_eq!(world.motd("web-1").as_deref(), Some("Welcome to web-1"));
    assert_eq!(world.agent("web-1", &["status", "--json"]).json()["deployments"]["web-1"]["running"]["revision"], 1);
}

#[test]
fn what_waits_is_logged_once_and_the_status_always_has_it() {
    let world = World::new();
    world.publish_from_memory(&[]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "interval = \"20ms\"");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    let last_pass = || world.agent("web-1", &["status", "--json"]).json()["lastPass"].clone();
    let mut passes = std::collections::BTreeSet::new();
    until("it has made several passes", || {
        let last = last_pass();
        passes.insert(last["clockBaseline"].to_string() + &last["at"].to_string());
        passes.len() > 3
    });
    assert_eq!(last_pass()["deployments"][0]["outcome"], "waiting");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), Some(0));
    for once in ["is not in any of its caches yet", "web-1: fetching"] {
        assert_eq!(agent.said().matches(once).count(), 1, "{}", agent.said());
    }
}

#[test]
fn sighup_makes_a_daemon_read_its_configuration_and_a_wrong_one_changes_nothing() {
    let world = World::published();
    world.configure_agent("web-1", &format!("file://{}", world.at("nowhere.git")), "interval = \"100ms\"");
    let mut agent = world.start(env!("CARGO_BIN_EXE_clavel-agent"), &["run", "--config", &world.at("web-1.toml")]);
    let says = |agent: &crate::support::world::Running, text: &str| until(text, || agent.said().contains(text));
    says(&agent, "cannot fetch branch");
    let first = world.read_file("web-1.toml");
    for (wrong, why) in
        [("name = ".to_owned(), "web-1.toml"), (first.replace("\"root.json\"", "\"no.json\""), "no.json")]
    {
        world.write_file("web-1.toml", &wrong);
        agent.signal(Signal::HUP);
        until(why, || agent.said().lines().any(|line| line.contains("the one of before stays") && line.contains(why)));
    }
    world.write_file("web-1.toml", &first.replace("nowhere.git", "fleet.git"));
    agent.signal(Signal::HUP);
    until("the new repository is used", || world.motd("web-1").as_deref() == Some("Welcome to web-1"));
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait(), Some(0));

    world.configure_claveld("");
    let good = world.read_file("claveld.toml");
    let before = world.tip();
    world.write_file("claveld.toml", &good.replace("flake = \"git+file", "flake = \"git+file:///nowhere?x=\"\n#\""));
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["run", "--config", &world.at("claveld.toml")]);
    says(&claveld, "nowhere");
    for (wrong, why) in
        [("[publish".to_owned(), "claveld.toml"), (good.replace("claveld-1.secret", "no.secret"), "no.secret")]
    {
        world.write_file("claveld.toml", &wrong);
        claveld.signal(Signal::HUP);
        until(why, || {
            claveld.said().lines().any(|line| line.contains("the one of before stays") && line.contains(why))
        });
    }
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Hello");
    world.write_file("claveld.toml", &good);
    claveld.signal(Signal::HUP);
    until("the new source is published", || world.tip() != before);
    claveld.signal(Signal::TERM);
    assert_eq!(claveld.wait(), Some(0));
}

#[test]
fn the_systemd_unit_and_the_nixos_module_confine_claveld_alike() {
    let read = |path: &str| std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let (unit, module) = (read("systemd/claveld.service"), read("nix/modules/claveld.nix"));
    assert!(unit.contains("\nLimitCORE=0\n"), "a core dump would hold the key that signs");
    let service = unit.split("[Service]").nth(1).unwrap().split("[Install]").next().unwrap();
    for line in service.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (setting, value) = line.split_once('=').unwrap();
        let in_nix = match (setting, value) {
            // The NixOS module sets paths of its own here.
            ("ExecStart" | "ExecReload" | "Environment", _) => continue,
            ("RestrictAddressFamilies", families) => {
                assert!(families.split(' ').all(|family| module.contains(&format!("\"{family}\"\n"))), "{line}");
                continue;
            }
            (_, "yes") => "true".to_owned(),
            (_, number) if number.parse::<u32>().is_ok() => number.to_owned(),
            (_, text) => format!("\"{text}\""),
        };
        assert!(module.contains(&format!("\n        {setting} = {in_nix};\n")), "{line} is not in the module");
    }
}
