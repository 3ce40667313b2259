//! Promise: what a command prints with `--json` is one document, in camel case, that the schema of the command describes; a failure too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::CommandFactory as _;
use clavel::cli;
use serde_json::Value;

use crate::support::world::{Ran, World};

const PROGRAMS: [(&str, &str); 3] = [
    ("clavel", env!("CARGO_BIN_EXE_clavel")),
    ("clavel-agent", env!("CARGO_BIN_EXE_clavel-agent")),
    ("claveld", env!("CARGO_BIN_EXE_claveld")),
];
/// The fields whose own fields are no words of Clavel's but names of documents, sources and attributes, or words of the branch.
const NAMED_BY_OTHERS: [&str; 6] = ["metadata", "sources", "broken", "unapproved", "deployments", "template"];

/// The commands that were run, each with the schema of its document.
struct Commands {
    schema_of: BTreeMap<&'static str, &'static str>,
    seen: BTreeSet<String>,
}

impl Commands {
    fn new() -> Self {
        let schemas = cli::output_schemas();
        let schema_of = schemas.iter().flat_map(|(name, commands, _)| commands.iter().map(|command| (*command, *name)));
        Self { schema_of: schema_of.collect(), seen: BTreeSet::new() }
    }

    /// Runs a command with `--json`, and returns its exit code and its document, which has to be valid.
    #[track_caller]
    fn run(&mut self, world: &World, command: &str, arguments: &[&str]) -> (i32, Value) {
        let mut words = command.split(' ');
        let program = words.next().unwrap();
        let (_, path) = PROGRAMS.into_iter().find(|(name, _)| *name == program).unwrap();
        let words: Vec<&str> = words.chain(arguments.iter().copied()).chain(["--json"]).collect();
        let Ran { code, stdout, stderr } = world.run(path, &words);
        let document: Value =
            serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{command}: {e}:\n{stdout}\n{stderr}"));
        let code = code.unwrap();
        if let Some(error) = document.get("error") {
            check(&document, "error");
            assert_eq!(error["exitCode"], code, "{document:#}");
            let message = error["message"].as_str().unwrap();
            assert!(!message.is_empty() && code != 0, "{document:#}");
            assert!(stderr.contains(message.lines().next().unwrap()), "{message}\n{stderr}");
        } else {
            check(&document, self.schema_of[command]);
            self.seen.insert(command.to_owned());
        }
        check_words(&document);
        (code, document)
    }

    /// The same, for a command that succeeds.
    #[track_caller]
    fn good(&mut self, world: &World, command: &str, arguments: &[&str]) -> Value {
        let (code, document) = self.run(world, command, arguments);
        assert_eq!(code, 0, "{command}: {document:#}");
        document
    }

    /// The same, for a command that fails before it has a document of its own.
    #[track_caller]
    fn fails(&mut self, world: &World, command: &str, arguments: &[&str], code: i32) {
        let (found, document) = self.run(world, command, arguments);
        assert_eq!((found, &document["error"]["exitCode"]), (code, &code.into()), "{command}: {document:#}");
    }

    /// Asserts that every command of these programs that takes `--json` printed a document of its own.
    fn assert_all_of(&self, programs: &[&str]) {
        let all = commands_with_json().into_iter();
        let missing: Vec<String> = all
            .filter(|command| programs.contains(&command.split(' ').next().unwrap()) && !self.seen.contains(command))
            .collect();
        assert_eq!(missing, [""; 0]);
    }
}

/// Asserts that the schema of that name describes `document`.
#[track_caller]
fn check(document: &Value, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("schemas/{name}.schema.json"));
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = schema.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{name}: {errors:#?}\n{document:#}");
    assert!(!schema.is_valid(&Value::Null), "{name} describes everything");
}

/// Asserts that the names of fields are in camel case.
#[track_caller]
fn check_words(document: &Value) {
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
                // An enum with data is a variant's word with the data behind it.
                let is_variant = fields.len() == 1;
                assert!(is_plain || is_variant && !name.contains('_'), "{name} in {document:#}");
                match value {
                    Value::Object(_) if NAMED_BY_OTHERS.contains(&name.as_str()) => {}
                    value => check_words(value),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(check_words),
        _ => {}
    }
}

/// Every command that takes `--json`, such as `clavel root show`.
fn commands_with_json() -> BTreeSet<String> {
    fn visit(command: &clap::Command, path: &str, found: &mut BTreeSet<String>) {
        if command.get_arguments().any(|argument| argument.get_id() == "json") {
            found.insert(path.to_owned());
        }
        for inner in command.get_subcommands() {
            visit(inner, &format!("{path} {}", inner.get_name()), found);
        }
    }
    let mut found = BTreeSet::new();
    for command in
        [cli::claveld::Arguments::command(), cli::agent::Arguments::command(), cli::clavel::Arguments::command()]
    {
        visit(&command, command.get_name(), &mut found);
    }
    found
}

#[test]
fn every_command_that_takes_json_has_a_schema() {
    let described: BTreeSet<String> = Commands::new().schema_of.into_keys().map(ToOwned::to_owned).collect();
    assert_eq!(described, commands_with_json());
}

#[test]
fn claveld_prints_failures_holds_waiting_deployments_and_withdrawals_as_data() {
    let world = World::new();
    let mut commands = Commands::new();
    let config = world.at("claveld.toml");
    let config = ["--config", config.as_str()];
    world.edit("flake.nix", "web-1 = host", "web-1 = builtins.trace \"warning: old\" host");
    world.push("Warn");
    let first = commands.good(&world, "claveld once", &config);
    assert_eq!(first["warnings"][0]["warnings"][0]["text"], "old");
    assert_eq!(first["report"]["signAnewAt"].as_str().unwrap().len(), 20);
    let flake = world.flake();
    assert_eq!(
        commands.good(&world, "claveld evaluate", &[&flake])["warnings"][0]["names"],
        serde_json::json!(["web-1"])
    );

    // A hold keeps a change back, and another host is broken.
    let held =
        commands.good(&world, "clavel hold", &[&["web-1", "--until", "3d", "--why", "no"], &config[..]].concat());
    assert_eq!(held["deployments"][0]["held"]["why"], "no");
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.edit("hosts/web-2.nix", "name = \"web-2\"", "name = throw \"no\"");
    world.push("One is held, one is broken");
    let (code, round) = commands.run(&world, "claveld once", &config);
    assert_eq!((code, &round["report"]["keptBack"][0]["name"]), (1, &"web-1".into()), "{round:#}");
    assert_eq!(round["failures"][0]["name"], "web-2");
    assert_eq!(commands.run(&world, "claveld evaluate", &[&flake]).0, 1);
    let (code, status) = commands.run(&world, "claveld status", &[&["--check"], &config[..]].concat());
    assert_eq!(code, 1, "{status:#}");
    commands.good(&world, "clavel release", &[&["web-1"], &config[..]].concat());
    world.edit("hosts/web-2.nix", "throw \"no\"", "\"web-2\"");
    world.push("Whole again");
    commands.good(&world, "claveld once", &config);
    let back = commands.good(&world, "clavel rollback", &[&["web-1", "--to", "1"], &config[..]].concat());
    assert_eq!(back["deployments"][0]["change"]["to"], 3);
    commands.good(&world, "clavel release", &[&["web-1"], &config[..]].concat());
    commands.run(&world, "claveld check", &config);

    // A deployment waits for its cache.
    let text = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &text.replace("[publish]", "[publish]\nwait-for-cache = true"));
    world.edit("hosts/web-2.nix", "version = \"1\"", "version = \"2\"");
    world.push("Not built yet");
    let round = commands.good(&world, "claveld once", &config);
    assert!(round["report"]["waiting"].as_array().unwrap().iter().any(|of| of["name"] == "web-2"), "{round:#}");
    // A source is broken as a whole.
    world.write("flake.nix", "{");
    world.push("A typo");
    let (code, round) = commands.run(&world, "claveld once", &config);
    assert!(code == 1 && round["sources"][0]["error"].is_string(), "{round:#}");
    // Its withdrawals wait for an operator.
    world.write("flake.nix", "{ outputs = { self }: { }; }");
    world.push("Nothing");
    let (code, round) = commands.run(&world, "claveld once", &config);
    assert!(code == 1 && round["report"]["withdrawals"][0]["of"] == 9, "{round:#}");
    let round = commands.good(&world, "claveld once", &[&["--allow-withdrawals", "9"], &config[..]].concat());
    assert_eq!(round["report"]["changes"][0]["to"], Value::Null);

    commands.fails(&world, "clavel hold", &[&["nothing"], &config[..]].concat(), 3);
    commands.fails(&world, "claveld status", &["--config", "/does/not/exist.toml"], 3);
    commands.fails(&world, "claveld evaluate", &["path:/does/not/exist"], 1);
    commands.fails(&world, "claveld once", &["--no-such-argument"], 2);
    commands.assert_all_of(&["claveld"]);
}

#[test]
fn clavel_prints_what_is_on_a_branch_as_data() {
    let world = World::new();
    let mut commands = Commands::new();
    world.publish_with_nix(&["web-1"]);
    world.change_with_nix("Welcome", "Hello");
    let (repository, root, config) = (world.at("fleet.git"), world.root(), world.at("claveld.toml"));
    let branch = ["--repository", repository.as_str(), "--root", root.as_str()];
    for command in ["clavel list", "clavel verify", "clavel check"] {
        commands.good(&world, command, &branch);
    }
    for kind in ["deployment", "unit", "agent"] {
        commands.good(&world, "clavel show", &[&["web-1", "--kind", kind], &branch[..]].concat());
    }
    commands.good(&world, "clavel history", &[&["web-1"], &branch[..]].concat());
    let bundle = world.at("fleet.bundle");
    world.clavel(&["bundle", "create", &bundle, "--repository", &repository]).good();
    commands.good(&world, "clavel bundle inspect", &[&bundle]);
    commands.good(&world, "clavel bundle verify", &[&bundle, "--root", &root]);
    // A bundle with closures, and the status that an agent leaves beside it.
    let stick = world.at("stick/fleet.bundle");
    std::fs::create_dir(world.path("stick")).unwrap();
    let closures = ["--store", &world.at("writer"), "--closures", "web-1"];
    world.clavel(&[&["bundle", "create", &stick], &branch[..], &closures].concat()).good();
    let shown = commands.good(&world, "clavel bundle inspect", &[&stick]);
    assert!(shown["closures"]["paths"].as_u64().unwrap() > 0, "{shown:#}");
    let verified = commands.good(&world, "clavel bundle verify", &[&stick, "--root", &root]);
    assert_eq!(verified["closures"], shown["closures"]);
    world.configure_agent("web-1", &stick, "");
    world.agent("web-1", &["once"]).good();
    let left = commands.good(&world, "clavel-agent status", &["--config", &world.at("web-1.toml")]);
    assert!(left["lastPass"]["left"][0]["at"].is_string(), "{left:#}");
    check(&serde_json::from_str(&world.read_file("stick/clavel-status/web-1.json")).unwrap(), "status");
    world.write_file("stick/clavel-status/web-2.json", "{");
    let seen = world.at("seen.json");
    let machines =
        commands.good(&world, "clavel bundle status", &[&world.at("stick"), "--root", &root, "--seen", &seen]);
    assert_eq!(machines["machines"][0]["status"]["deployments"][0]["revision"], 2);
    assert!(machines["machines"][1]["problem"].is_string(), "{machines:#}");
    let diff = commands.good(&world, "clavel diff", &[&["web-1"], &branch[..]].concat());
    assert_eq!((&diff["from"], &diff["to"]), (&1.into(), &2.into()));
    let derivation = |of: &str| {
        let metadata = world.document(&format!("deployments/{of}.json"))["metadata"].clone();
        metadata["drvPath"].as_str().unwrap().to_owned()
    };
    commands.good(&world, "clavel diff", &[&derivation("web-1"), &derivation("web-2")]);
    commands.good(&world, "clavel diff", &[&derivation("web-1"), "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-x.drv"]);
    commands.good(&world, "clavel root show", &[&root]);
    for command in ["clavel hold", "clavel release"] {
        commands.good(&world, command, &["web-1", "--config", &config]);
    }
    commands.good(&world, "clavel rollback", &["web-1", "--to", "1", "--config", &config]);

    commands.fails(&world, "clavel list", &["--repository", "/does/not/exist"], 4);
    commands.fails(&world, "clavel show", &[&["nothing"], &branch[..]].concat(), 5);
    commands.fails(&world, "clavel verify", &["--repository", &repository], 3);
    commands.fails(&world, "clavel history", &[], 2);
    commands.assert_all_of(&["clavel"]);
    // Somebody altered a document: `verify` has a document of its own, which says so.
    let altered = world.on_branch("deployments/web-1.json").unwrap().replace("nar", "rar");
    world.tamper(&BTreeMap::from([("deployments/web-1.json", Some(altered))]));
    let (code, verified) = commands.run(&world, "clavel verify", &branch);
    assert!(code == 5 && !verified["errors"].as_array().unwrap().is_empty(), "{verified:#}");
    // Without `--json`, a failure prints no data.
    let ran = world.clavel(&["list", "--repository", "/does/not/exist"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), ""));
}

#[test]
fn the_agent_prints_its_passes_as_data() {
    let world = World::new();
    let mut commands = Commands::new();
    world.publish_from_memory(&["web-1"]);
    let repository = format!("file://{}", world.at("fleet.git"));
    let config = |unit: &str| world.at(&format!("{unit}.toml"));
    world.configure_agent("web-1", &repository, "");
    let web = config("web-1");
    let web = ["--config", web.as_str()];
    commands.good(&world, "clavel-agent status", &web);
    assert_eq!(commands.good(&world, "clavel-agent plan", &web)[0]["action"], "activate");
    let pass = commands.good(&world, "clavel-agent once", &web);
    assert_eq!(pass[0]["outcome"], "switched");
    assert_eq!(commands.good(&world, "clavel-agent once", &web)[0]["outcome"], "up-to-date");
    let status = commands.good(&world, "clavel-agent status", &web);
    assert_eq!(status["deployments"]["web-1"]["state"], "confirmed");
    commands.run(&world, "clavel-agent check", &web);

    // No cache has this one yet.
    world.edit("hosts/web-1.nix", "Welcome", "Hello");
    world.publish_from_memory(&[]);
    assert_eq!(commands.good(&world, "clavel-agent once", &web)[0]["outcome"], "waiting");
    commands.good(&world, "clavel-agent status", &web);
    // The activation of this one fails, and there is a way back; and one with a unit that nothing is for.
    world.edit("hosts/web-1.nix", "activate = \"", "activate = \"exit 1; ");
    world.publish_from_memory(&["web-1"]);
    let text = world.read_file("web-1.toml");
    world.write_file("web-1.toml", &format!("{text}[units.other]\nprofile = \"other\"\n"));
    let (code, pass) = commands.run(&world, "clavel-agent once", &web);
    assert_eq!((code, &pass[0]["outcome"]), (7, &"failed".into()), "{pass:#}");
    assert!(pass.as_array().unwrap().iter().any(|entry| entry["outcome"] == "warning"), "{pass:#}");
    let status = commands.good(&world, "clavel-agent status", &web);
    assert_eq!(status["lastPass"]["ok"], false);
    commands.run(&world, "clavel-agent check", &web);

    // Its branch is gone.
    std::fs::rename(world.path("fleet.git"), world.path("gone.git")).unwrap();
    commands.fails(&world, "clavel-agent once", &web, 4);
    commands.fails(&world, "clavel-agent plan", &web, 4);
    commands.fails(&world, "clavel-agent once", &["--config", "/does/not/exist.toml"], 3);
    commands.fails(&world, "clavel-agent once", &["--quiet"], 2);
    commands.assert_all_of(&["clavel-agent"]);
}
