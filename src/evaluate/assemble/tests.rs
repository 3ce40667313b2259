use serde_json::json;

use super::*;
use crate::evaluate::nix_value::tests::nix_value;

const HASH: &str = "35ir4klckx5pcsb9drk2xjh46sppdcry";
const KEY: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

fn source(substituters: &[&str]) -> Source {
    let flake = "git+https://git.example.org/fleet".parse().unwrap();
    let substituters: Vec<_> = substituters.iter().map(|s| s.parse().unwrap()).collect();
    Source { substituters: List::try_from(substituters).unwrap(), ..Source::bare(flake) }
}

fn run(source: &Source, answers: Vec<(FlakeOutput, &str, serde_json::Value)>) -> Drafts {
    run_all(
        source,
        answers.into_iter().map(|(output, name, value)| (output.item(name), Ok(nix_value(&value)))).collect(),
    )
}

const NIXOS: FlakeOutput = FlakeOutput::Hosts(&PLATFORMS[0]);
const DARWIN: FlakeOutput = FlakeOutput::Hosts(&PLATFORMS[1]);
const HOME: FlakeOutput = FlakeOutput::Hosts(&PLATFORMS[2]);
const SYSTEM: FlakeOutput = FlakeOutput::Hosts(&PLATFORMS[3]);

fn run_all(source: &Source, answers: ItemAnswers) -> Drafts {
    run_excluding(source, &[], answers)
}

fn run_excluding(source: &Source, excluded: &[&str], answers: ItemAnswers) -> Drafts {
    let excluded = excluded.iter().map(ToString::to_string).collect();
    let locked = LockedSource {
        flake: source.flake.clone(),
        locked: "git+https://git.example.org/fleet?rev=x".parse().unwrap(),
        hash: "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".parse().unwrap(),
        revision: Some("a".repeat(40).parse().unwrap()),
    };
    assemble(source, &locked, "2026-01-01T00:00:00Z".parse().unwrap(), &excluded, answers)
}

fn nar(name: &str) -> serde_json::Value {
    json!({ "path": format!("/nix/store/{HASH}-{name}"), "drv": format!("/nix/store/{HASH}-{name}.drv"), "system": "x86_64-linux" })
}

fn host(name: &str) -> serde_json::Value {
    json!({ "nar": nar(name), "substituters": ["https://host.example.org"], "substituters-public-keys": [KEY] })
}

fn failures(found: &Drafts) -> Vec<(String, &str)> {
    found.failures.iter().map(|f| (f.part.to_string(), f.error.as_str())).collect()
}

#[test]
fn a_nixos_host_alone_gives_deployment_unit_and_agent() {
    let found = run(&source(&[]), vec![(NIXOS, "web-1", host("web-1"))]);
    assert_eq!(failures(&found), []);
    let [deployment] = &found.deployments[..] else { panic!("{found:?}") };
    assert_eq!(deployment.specification.unit.as_str(), "web-1");
    assert_eq!(deployment.specification.template.substituters[0].as_str(), "https://host.example.org");
    let provenance = deployment.metadata.provenance().unwrap();
    assert_eq!(provenance.attribute.as_str(), "nixosConfigurations.web-1");
    assert!(provenance.drv_path.is_some());
    let [unit] = &found.units[..] else { panic!("{found:?}") };
    assert_eq!((unit.specification.unit_type, unit.specification.arch.as_str()), (UnitType::Nixos, "x86_64-linux"));
    let [agent] = &found.agents[..] else { panic!("{found:?}") };
    assert_eq!((agent.name.as_str(), agent.specification.deployments[0].as_str()), ("web-1", "web-1"));
}

#[test]
fn caches_come_from_the_deployment_then_the_source_then_the_host() {
    let declared = json!({ "template": { "substituters": ["https://own.example.org"] } });
    let first = |found: &Drafts| found.deployments[0].specification.template.substituters[0].to_string();
    let hosts = vec![(NIXOS, "web-1", host("web-1"))];
    let with_own = [hosts.clone(), vec![(FlakeOutput::Deployments, "web-1", declared)]].concat();
    assert_eq!(first(&run(&source(&["https://source.example.org"]), with_own)), "https://own.example.org");
    assert_eq!(first(&run(&source(&["https://source.example.org"]), hosts.clone())), "https://source.example.org");
    assert_eq!(first(&run(&source(&[]), hosts)), "https://host.example.org");
}

#[test]
fn the_clavel_output_declares_deployments_without_a_host() {
    let found = run(
        &source(&[]),
        vec![
            (
                FlakeOutput::Deployments,
                "router-1",
                json!({ "template": { "narId": nar("image") }, "metadata": { "site": "north" } }),
            ),
            (
                FlakeOutput::Deployments,
                "sensor",
                json!({ "unit": "board", "template": { "narId": { "path": format!("/nix/store/{HASH}-fw"), "drv": null, "system": null } } }),
            ),
            (FlakeOutput::Units, "board", json!({ "type": "command", "arch": "armv7l-linux" })),
            (FlakeOutput::Agents, "gateway", json!({ "deployments": ["sensor"] })),
        ],
    );
    assert_eq!(failures(&found), []);
    let names = |names: Vec<&Name>| names.into_iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(found.deployments.iter().map(|d| &d.name).collect()), ["router-1", "sensor"]);
    assert_eq!(names(found.units.iter().map(|d| &d.name).collect()), ["board", "router-1"]);
    assert_eq!(names(found.agents.iter().map(|d| &d.name).collect()), ["gateway", "router-1"]);
    assert_eq!(found.units[1].specification.unit_type, UnitType::Command);
    assert_eq!(found.deployments[0].metadata.get("site").unwrap().as_str(), "north");
}

#[test]
fn a_broken_host_is_a_failure_and_the_others_are_drafted() {
    let mut answers: ItemAnswers = BTreeMap::new();
    answers.insert(NIXOS.item("bad"), Err("error: no".to_owned()));
    answers.insert(NIXOS.item("good"), Ok(nix_value(&host("good"))));
    // It names a broken deployment, which is not its fault.
    answers.insert(FlakeOutput::Agents.item("bad"), Ok(nix_value(&json!({ "deployments": ["bad"] }))));
    let found = run_all(&source(&[]), answers);
    assert_eq!(failures(&found), [("nixosConfigurations.bad".to_owned(), "error: no")]);
    assert_eq!(found.deployments.len(), 1);
    assert_eq!(found.agents.len(), 2);
}

#[test]
fn a_broken_rule_is_a_failure_of_its_attribute() {
    let bad_nar = json!({ "path": "/tmp/x", "drv": null, "system": null });
    for (answers, attribute, why) in [
        (vec![(NIXOS, "my host", host("x"))], "nixosConfigurations.\"my host\"", "is not a name"),
        (vec![(NIXOS, "web", host("x")), (NIXOS, "WEB", host("x"))], "nixosConfigurations.WEB", "in case alone"),
        (
            vec![(FlakeOutput::Deployments, "a", json!({ "template": {} }))],
            "clavel.deployments.a",
            "no `template.narId`",
        ),
        (
            vec![(FlakeOutput::Deployments, "a", json!({ "tmplate": {} }))],
            "clavel.deployments.a",
            "unknown field `tmplate`",
        ),
        (
            vec![(FlakeOutput::Deployments, "a", json!({ "template": { "narId": bad_nar } }))],
            "clavel.deployments.a",
            "at `template.narId.path`",
        ),
        (
            vec![(
                FlakeOutput::Deployments,
                "a",
                json!({ "metadata": { "source": "x" }, "template": { "narId": nar("x") } }),
            )],
            "clavel.deployments.a",
            "Claveld writes it itself",
        ),
        (
            vec![
                (FlakeOutput::Deployments, "a", json!({ "template": { "narId": nar("x") } })),
                (FlakeOutput::Units, "a", json!({ "arch": "aarch64-linux" })),
            ],
            "clavel.units.a",
            "is for x86_64-linux",
        ),
        (
            vec![(DARWIN, "a", host("x"))],
            "darwinConfigurations.a",
            "of type darwin, which a machine of arch x86_64-linux",
        ),
        (
            vec![(FlakeOutput::Deployments, "a", json!({ "template": { "narId": nar("x") }, "mode": "boot" }))],
            "clavel.deployments.a",
            "of type command, which never uses `mode`",
        ),
        (
            vec![(NIXOS, "a", host("x")), (FlakeOutput::Deployments, "a", json!({ "mode": "sideways" }))],
            "clavel.deployments.a",
            "expected `switch` or `boot`",
        ),
        (vec![(FlakeOutput::Units, "a", json!({ "type": "toaster" }))], "clavel.units.a", "unknown variant `toaster`"),
        (vec![(FlakeOutput::Agents, "a", json!({ "deployments": ["no"] }))], "clavel.agents.a", "does not have"),
    ] {
        let found = run(&source(&[]), answers);
        let failures = failures(&found);
        assert!(failures.iter().any(|(a, e)| *a == attribute && e.contains(why)), "{failures:?}");
    }
}

#[test]
fn names_that_are_equal_when_cut_are_two_failures() {
    let [a, b] = ["a", "b"].map(|end| "x".repeat(299) + end);
    let found = run(&source(&[]), vec![(NIXOS, &a, host("x")), (NIXOS, &b, host("x"))]);
    let [first, second] = &found.failures[..] else { panic!("{found:?}") };
    assert_eq!((&first.part, &second.part), (&FailedPart::Item(NIXOS.item(&a)), &FailedPart::Item(NIXOS.item(&b))));
    let json = serde_json::to_value(&found.failures).unwrap();
    assert_eq!(json[0]["name"], json!("x".repeat(200)));
    assert_eq!(json[0]["name"], json[1]["name"]);
    assert_eq!(json[1]["attribute"], json!(format!("nixosConfigurations.{b}")));
    assert!(json[1]["error"].as_str().unwrap().contains("is not a name"), "{json}");
}

#[test]
fn every_platform_gives_units_of_its_type() {
    let home = json!({ "nar": nar("home"), "substituters": [], "substituters-public-keys": [] });
    let mut air = host("air");
    air["nar"]["system"] = "aarch64-darwin".into();
    let below = Item { level: Some("x86_64-linux".to_owned()), ..SYSTEM.item("box") };
    let answers = [(DARWIN.item("air"), air), (HOME.item("alice@air"), home.clone()), (below, home)];
    let found = run_all(
        &source(&["https://source.example.org"]),
        answers.into_iter().map(|(item, value)| (item, Ok(nix_value(&value)))).collect(),
    );
    assert_eq!(failures(&found), []);
    let types: Vec<String> = found.units.iter().map(|unit| unit.specification.unit_type.to_string()).collect();
    assert_eq!(types, ["darwin", "home-manager", "system-manager"]);
    let attribute = |draft: &Draft<DeploymentSpecification>| draft.metadata.provenance().unwrap().attribute.to_string();
    let attributes: Vec<String> = found.deployments.iter().map(attribute).collect();
    assert_eq!(
        attributes,
        ["darwinConfigurations.air", "homeConfigurations.\"alice@air\"", "systemConfigs.x86_64-linux.box"]
    );
}

#[test]
fn a_name_in_two_outputs_is_a_failure_of_both() {
    let found = run(
        &source(&[]),
        vec![(NIXOS, "x", host("x")), (DARWIN, "x", host("x")), (HOME, "X", host("x")), (NIXOS, "y", host("y"))],
    );
    let attributes: Vec<String> = found.failures.iter().map(|f| f.part.to_string()).collect();
    assert_eq!(attributes, ["homeConfigurations.X", "darwinConfigurations.x", "nixosConfigurations.x"]);
    assert!(found.failures[1].error.contains("would both be the deployment `x`"), "{found:?}");
    assert_eq!(found.deployments.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["y"]);
    // A broken one has its name all the same.
    let answers = [(NIXOS.item("x"), Err("error: no".to_owned())), (DARWIN.item("x"), Ok(nix_value(&host("x"))))];
    let found = run_all(&source(&[]), answers.into_iter().collect());
    assert_eq!((found.failures.len(), found.deployments.len()), (2, 0));
}

#[test]
fn nothing_goes_out_without_the_unit_and_the_agent_that_it_needs() {
    let text =
        json!({ "template": { "narId": { "path": format!("/nix/store/{HASH}-fw"), "drv": null, "system": null } } });
    let command = json!({ "type": "command", "arch": "x86_64-linux" });
    let unit = |value| (FlakeOutput::Units, "a", value);
    for (others, reasons) in [
        // The arch of the declared unit is not that of the system.
        (
            vec![(NIXOS, "a", host("a")), unit(json!({ "arch": "aarch64-linux" }))],
            ["its unit `a` is broken", "is for x86_64-linux"],
        ),
        // A misspelt unit: the deployment would go out as a `command`.
        (
            vec![
                (FlakeOutput::Deployments, "a", text.clone()),
                (FlakeOutput::Units, "aa", json!({ "type": "nixos", "arch": "x86_64-linux" })),
            ],
            ["correct its name", ""],
        ),
        // An agent that names a deployment that is not there.
        (
            vec![(NIXOS, "a", host("a")), (FlakeOutput::Agents, "g", json!({ "deployments": ["a", "b"] }))],
            ["its agent `g` is broken", "does not have"],
        ),
        // No agent takes it.
        (
            vec![
                (NIXOS, "a", host("a")),
                (NIXOS, "c", host("c")),
                (FlakeOutput::Agents, "a", json!({ "deployments": ["c"] })),
            ],
            ["no other agent does", ""],
        ),
    ] {
        let found = run(&source(&[]), others);
        let is_a = |name: &Name| name.as_str() == "a";
        assert!(
            !found.deployments.iter().any(|d| is_a(&d.name)) && !found.units.iter().any(|u| is_a(&u.name)),
            "{found:?}"
        );
        for reason in reasons {
            assert!(
                found.failures.iter().any(|failure| failure.error.contains(reason)),
                "{reason}: {:?}",
                found.failures
            );
        }
    }
    // Nix could not evaluate what the flake declares about the unit: nothing else is taken for it.
    let answers = [
        (FlakeOutput::Deployments.item("a"), Ok(nix_value(&text))),
        (FlakeOutput::Units.item("a"), Err("error: no".to_owned())),
    ];
    let found = run_all(&source(&[]), answers.into_iter().collect());
    assert_eq!((found.deployments.len(), found.units.len(), found.agents.len(), found.failures.len()), (0, 0, 0, 2));
    let found = run(&source(&[]), vec![(FlakeOutput::Deployments, "a", text), unit(command)]);
    assert_eq!((failures(&found), found.deployments.len()), (vec![], 1));
}

#[test]
fn a_unit_has_one_type() {
    let on_x = json!({ "unit": "x" });
    let both = vec![(NIXOS, "x", host("x")), (HOME, "alice@x", host("h")), (FlakeOutput::Deployments, "alice@x", on_x)];
    let found = run(&source(&[]), both.clone());
    let [(_, why), (other, follows)] = &failures(&found)[..] else { panic!("{found:?}") };
    assert!(why.contains("of type nixos and for one of type home-manager"), "{why}");
    assert_eq!((other.as_str(), *follows), ("nixosConfigurations.x", "its unit `x` is broken"));
    assert_eq!((found.deployments.len(), found.agents.len()), (0, 0));
    let found = run(&source(&[]), [both, vec![(FlakeOutput::Units, "x", json!({ "type": "container" }))]].concat());
    assert_eq!(failures(&found), []);
    assert_eq!(found.units[0].specification.unit_type, UnitType::Container);
}

#[test]
fn units_and_agents_follow_the_selected_deployments() {
    let answers = vec![
        (NIXOS, "web", host("web")),
        (FlakeOutput::Units, "web", json!({})),
        (FlakeOutput::Units, "old", json!({ "type": "command", "arch": "x86_64-linux" })),
        (FlakeOutput::Agents, "gateway", json!({ "deployments": ["web", "old"] })),
        (FlakeOutput::Agents, "old", json!({ "deployments": ["old"] })),
    ];
    let answers = answers.into_iter().map(|(output, name, value)| (output.item(name), Ok(nix_value(&value)))).collect();
    let source = Source { exclude: vec!["old".parse().unwrap()], ..source(&[]) };
    let found = run_excluding(&source, &["old"], answers);
    assert_eq!(failures(&found), []);
    assert_eq!(found.units.iter().map(|unit| unit.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let [agent] = &found.agents[..] else { panic!("{found:?}") };
    assert_eq!(agent.specification.deployments.iter().map(Name::as_str).collect::<Vec<_>>(), ["web"]);
}
