//! Promise: with `metrics-file`, each round and each pass leaves its metrics in a file that Prometheus reads.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::world::World;

/// The samples of a text in the format of Prometheus (version 0.0.4), by name and labels. It is stricter than Prometheus: each family has
/// its HELP, its TYPE and then all of its samples, and is a gauge of whole numbers.
fn parse(text: &str) -> BTreeMap<String, u64> {
    let (mut samples, mut families, mut current) = (BTreeMap::new(), BTreeSet::new(), String::new());
    assert!(text.ends_with('\n'), "{text}");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(name.starts_with("clavel") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            assert!(help.ends_with('.') && !help.contains('\\'), "{line}");
            assert_eq!(lines.next(), Some(format!("# TYPE {name} gauge").as_str()));
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            name.clone_into(&mut current);
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let rest = sample.strip_prefix(&current).unwrap_or_else(|| panic!("{line} is not of {current}"));
        check_labels(rest);
        assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} is there twice");
    }
    samples
}

/// Checks `{NAME="VALUE",…}`, or nothing.
fn check_labels(mut rest: &str) {
    let mut before = '{';
    while !rest.is_empty() && rest != "}" {
        rest = rest.strip_prefix(before).unwrap();
        let (name, value) = rest.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_lowercase()), "{name}");
        let mut escaped = false;
        let end = value.find(|c: char| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        (rest, before) = (&value[end.unwrap() + 1..], ',');
    }
}

/// Configures claveld with a file of metrics.
fn with_metrics(world: &World) {
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &format!("metrics-file = \"claveld.prom\"\n{config}"));
}

#[test]
fn claveld_leaves_the_metrics_of_each_round() {
    let world = World::new();
    with_metrics(&world);
    world.publish().good();
    let read = || parse(&world.read_file("claveld.prom"));
    let source = world.flake();
    let of = |name: &str| format!("claveld_source_{name}{{source=\"{source}\"}}");
    let first = read();
    for (sample, expected) in [
        ("claveld_last_round_success".to_owned(), 1),
        ("claveld_held_deployments".to_owned(), 0),
        (format!("claveld_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1),
        (of("up"), 1),
        (of("broken_attributes"), 0),
        (of("waiting_deployments"), 0),
        (format!("claveld_source_documents{{source=\"{source}\",kind=\"deployment\"}}"), 3),
    ] {
        assert_eq!(first.get(&sample), Some(&expected), "{sample} in {first:?}");
    }
    let issued = first["claveld_last_publication_timestamp_seconds"];
    assert_eq!(first["claveld_index_expiry_timestamp_seconds"], issued + 7 * 24 * 60 * 60);
    assert!(first["claveld_root_expiry_timestamp_seconds"] > first["claveld_last_round_timestamp_seconds"]);
    assert!(!first.contains_key(&of("unreachable_since_timestamp_seconds")));

    world.edit("hosts/web-2.nix", "version = \"1\";", "version = throw \"no version\";");
    world.push("Broken");
    world.publish().refused(1, "no version");
    assert_eq!(read()[&of("broken_attributes")], 1);
    std::fs::rename(world.path("fleet.git"), world.path("away.git")).unwrap();
    assert_ne!(world.publish().code, Some(0));
    let failed = read();
    assert_eq!((failed["claveld_last_round_success"], failed[&of("up")]), (0, 0));
    assert_eq!(failed[&of("broken_attributes")], 1);
}

#[test]
fn a_file_of_metrics_that_cannot_be_written_stops_nothing() {
    let world = World::new();
    let config = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &format!("metrics-file = \"nowhere/claveld.prom\"\n{config}"));
    let ran = world.publish();
    assert!(ran.stderr.contains("cannot write the metrics"), "{}", ran.stderr);
    ran.good();
    world.build(&["web-1"]);
    world.configure_agent("web-1", &format!("file://{}", world.at("fleet.git")), "metrics-file = \"nowhere/a.prom\"");
    let ran = world.agent("web-1", &["once"]);
    assert!(ran.stderr.contains("cannot write the metrics to "), "{}", ran.stderr);
    ran.good();
}

#[test]
fn an_agent_leaves_the_metrics_of_each_pass() {
    let world = World::published();
    let repository = format!("file://{}", world.at("fleet.git"));
    world.configure_agent("web-1", &repository, "metrics-file = \"web-1.prom\"");
    let read = || parse(&world.read_file("web-1.prom"));
    let state = |samples: &BTreeMap<String, u64>| {
        let is_in = |sample: &&String| sample.starts_with("clavel_agent_deployment_state") && samples[*sample] == 1;
        samples.keys().filter(is_in).cloned().collect::<Vec<_>>()
    };
    let is_in = |state: &str| [format!("clavel_agent_deployment_state{{deployment=\"web-1\",state=\"{state}\"}}")];
    let revision = |which: &str| format!("clavel_agent_deployment_{which}_revision{{deployment=\"web-1\"}}");
    world.agent("web-1", &["once"]).good();
    let first = read();
    assert_eq!(state(&first), is_in("running"));
    for (sample, expected) in [
        ("clavel_agent_last_pass_success".to_owned(), 1),
        ("clavel_agent_mirror_up{position=\"0\",host=\"\"}".to_owned(), 1),
        (revision("wanted"), 1),
        (revision("running"), 1),
    ] {
        assert_eq!(first.get(&sample), Some(&expected), "{sample} in {first:?}");
    }
    assert!(first["clavel_agent_index_expiry_timestamp_seconds"] > first["clavel_agent_last_pass_timestamp_seconds"]);
    assert!(first.contains_key("clavel_agent_root_expiry_timestamp_seconds"));

    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.push("Not built");
    world.publish().good();
    world.agent("web-1", &["once"]).good();
    let waiting = read();
    assert_eq!(state(&waiting), is_in("waiting"));
    assert_eq!((waiting[&revision("wanted")], waiting.get(&revision("running"))), (2, Some(&1)));

    std::fs::rename(world.path("fleet.git"), world.path("away.git")).unwrap();
    assert_ne!(world.agent("web-1", &["once"]).code, Some(0));
    let failed = read();
    assert_eq!(state(&failed), is_in("unknown"));
    assert_eq!(
        (failed["clavel_agent_last_pass_success"], failed["clavel_agent_mirror_up{position=\"0\",host=\"\"}"]),
        (0, 0)
    );
}
