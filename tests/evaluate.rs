//! Promise: an evaluation never builds, a broken host never hides a healthy one, and every evaluation ends in time.

use crate::support::world::{LOCAL_INPUTS, Ran, World, names, until};

/// Evaluates a flake whose outputs are `outputs`.
fn evaluate(world: &World, outputs: &str, arguments: &[&str]) -> Ran {
    let flake = format!(
        "{{ outputs = {{ self }}: let sys = import ./lib/host.nix {{ system = \"x86_64-linux\"; }}; in {outputs}; }}"
    );
    world.write("flake.nix", &flake);
    let path = format!("path:{}", world.at("work"));
    world.claveld(&[&["evaluate", &path], arguments].concat())
}

/// Whether a message has a position in the expression that Clavel passes to Nix.
fn shows_own_expression(message: &str) -> bool {
    ["«stdin»", "«string»"].iter().any(|position| message.contains(position))
}

#[test]
fn a_nixos_configuration_alone_is_enough() {
    let world = World::new();
    let found = evaluate(&world, "{ nixosConfigurations.web-1 = sys ./hosts/web-1.nix; }", &["--json"]).json();
    for kind in ["deployments", "units", "agents"] {
        assert_eq!(names(&found, kind), ["web-1"]);
    }
    assert_eq!(found["failures"], serde_json::json!([]));
    let deployment = &found["deployments"][0];
    assert_eq!(deployment["kind"], "Deployment");
    assert_eq!(deployment["specification"]["unit"], "web-1");
    assert_eq!(found["units"][0]["specification"], serde_json::json!({ "arch": "x86_64-linux", "type": "nixos" }));
}

#[test]
fn the_table_has_every_host_and_progress_stays_off_a_pipe() {
    let world = World::new();
    let ran = world.claveld(&["evaluate", &world.flake()]);
    assert_eq!(ran.stderr, "");
    let table = ran.good();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("DEPLOYMENT  UNIT"), "{table}");
    assert_eq!(lines.len(), 4, "{table}");
}

#[test]
fn every_kind_of_broken_host_is_a_failure_and_the_others_are_evaluated() {
    let world = World::new();
    let outputs = r#"{
      nixosConfigurations = {
        healthy = sys ./hosts/web-1.nix;
        throws = throw "no such thing";
        aborts = abort "enough";
        recurses = let x = x; in x;
        mistyped.config.system.build.toplevel = 1 + "a";
        lacking.config.system.build = { };
        asserts = assert false; { };
        unbuilt.config.system.build.toplevel = "not a store path";
      };
    }"#;
    let ran = evaluate(&world, outputs, &["--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = ran.json();
    assert_eq!(names(&found, "deployments"), ["healthy"]);
    let error = |name: &str| {
        let failures = found["failures"].as_array().unwrap();
        let failure = failures.iter().find(|failure| failure["name"] == name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(failure["attribute"], format!("nixosConfigurations.{name}"));
        let error = failure["error"].as_str().unwrap().to_owned();
        assert!(!shows_own_expression(&error), "{error}");
        error
    };
    for (name, message) in [
        ("throws", "no such thing"),
        ("aborts", "enough"),
        ("recurses", "infinite recursion"),
        ("mistyped", "cannot"),
        ("lacking", "`nixosConfigurations.lacking.config.system.build` has no `toplevel`; "),
        ("asserts", "assertion 'false' failed"),
        ("unbuilt", "is not a store path"),
    ] {
        assert!(error(name).contains(message), "{name}: {}", error(name));
    }
}

#[test]
fn data_that_ends_its_process_takes_nothing_with_it_that_is_told_ahead_of_the_hosts() {
    let world = World::new();
    for (broken, message) in [("abort \"enough\"", "enough"), ("throw \"no such path\"", "no such path")] {
        let outputs = format!(
            r#"rec {{
              nixosConfigurations.healthy = sys ./hosts/web-1.nix;
              clavel.deployments = builtins.listToAttrs (builtins.genList (n: {{
                name = "device-${{toString n}}";
                value.template.narId = "/nix/store/35ir4klckx5pcsb9drk2xjh46sppdcry-device";
              }}) 600) // {{ device-300.template.narId = {broken}; }};
              clavel.units = builtins.mapAttrs (_: _: {{ arch = "x86_64-linux"; }}) clavel.deployments;
            }}"#
        );
        let found = evaluate(&world, &outputs, &["--json"]).json();
        assert_eq!(names(&found, "deployments").len(), 600, "{broken}");
        assert!(names(&found, "deployments").contains(&"healthy".to_owned()), "{broken}");
        let failures = found["failures"].as_array().unwrap();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0]["attribute"], "clavel.deployments.device-300");
        assert!(failures[0]["error"].as_str().unwrap().contains(message), "{failures:?}");
    }
}

#[test]
fn a_host_of_another_shape_is_told_in_the_words_of_the_flake() {
    let world = World::new();
    let outputs = r#"{
      nixosConfigurations = { web-1 = null; "a.b" = x: x; top.config.system.build.toplevel = null; empty = { }; };
      homeConfigurations.alice = "no";
      systemConfigs.box = 5;
      clavel.deployments.one = null;
      clavel.deployments.two.template.narId = { };
      clavel.units.three = x: x;
      clavel.agents.four = [ ];
    }"#;
    let ran = evaluate(&world, outputs, &["--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = ran.json();
    let nixos = "has to be a NixOS system with config.system.build.toplevel";
    for (attribute, message) in [
        ("nixosConfigurations.web-1", format!("`nixosConfigurations.web-1` is null; it {nixos}")),
        ("nixosConfigurations.\"a.b\"", format!("`nixosConfigurations.\"a.b\"` is a function; it {nixos}")),
        (
            "nixosConfigurations.top",
            "`nixosConfigurations.top.config.system.build.toplevel` is null; it has to be a derivation".to_owned(),
        ),
        ("nixosConfigurations.empty", format!("`nixosConfigurations.empty` has no `config`; it {nixos}")),
        ("homeConfigurations.alice", "`homeConfigurations.alice` is a string; it has to be".to_owned()),
        ("systemConfigs.box", "`systemConfigs.box` is a number; it has to be".to_owned()),
        ("clavel.deployments.one", "`clavel.deployments.one` is null; it has to be a set".to_owned()),
        (
            "clavel.deployments.two",
            "`clavel.deployments.two.template.narId` is a set; it has to be a derivation".to_owned(),
        ),
        ("clavel.units.three", "`clavel.units.three` is a function; it has to be a set".to_owned()),
        ("clavel.agents.four", "`clavel.agents.four` is a list; it has to be a set".to_owned()),
    ] {
        let mut failures = found["failures"].as_array().unwrap().iter();
        let failure = failures.find(|failure| failure["attribute"] == attribute);
        let error = failure.unwrap_or_else(|| panic!("{attribute} in {found}"))["error"].as_str().unwrap();
        assert!(error.starts_with(&format!("error: {message}")), "{error}");
        assert!(error.contains("/flake.nix:") && error.lines().count() == 2, "{error}");
    }
    let whole = evaluate(&world, "{ nixosConfigurations = null; clavel = { }; }", &[]);
    whole.refused(1, "`nixosConfigurations` is null; it has to be a set");
    evaluate(&world, "{ clavel = null; }", &[]).refused(1, "`clavel` is null; it has to be a set");
}

#[test]
fn an_error_says_where_it_is_in_the_flake_and_the_whole_trace_where_it_is_asked_for() {
    let world = World::new();
    world.write("deep.nix", "let f = n: if n == 0 then throw \"too deep\" else f (n - 1) + 1; in f 3");
    let outputs = r#"{ nixosConfigurations = {
      flat = throw "oh no";
      deep.config.system.build.toplevel = builtins.addErrorContext "while evaluating the option `users':" (import ./deep.nix);
    }; }"#;
    let error = |found: &serde_json::Value, name: &str| -> String {
        let mut failures = found["failures"].as_array().unwrap().iter();
        failures.find(|failure| failure["name"] == name).unwrap()["error"].as_str().unwrap().to_owned()
    };
    let found = evaluate(&world, outputs, &["--json"]).json();
    let flat = error(&found, "flat");
    assert!(flat.starts_with("error: oh no\n") && flat.contains("/flake.nix:2:"), "{flat}");
    let deep = error(&found, "deep");
    assert!(deep.starts_with("error: too deep\n") && deep.contains("while evaluating the option `users'"), "{deep}");
    let places = |error: &str| error.matches("/deep.nix:").count();
    assert_eq!(places(&deep), 1, "{deep}");
    let verbose = error(&evaluate(&world, outputs, &["--json", "-v"]).json(), "deep");
    assert!(places(&verbose) > 3 && !shows_own_expression(&verbose), "{verbose}");
}

#[test]
fn a_long_error_keeps_its_beginning_and_its_end_and_shows_nothing_of_clavel() {
    let world = World::new();
    let outputs = r#"let
      repeat = n: text: builtins.concatStringsSep "" (builtins.genList (_: text) n);
      nest = n: value: if n == 0 then value else builtins.addErrorContext "while evaluating the option `o${toString n}':" (nest (n - 1) value);
    in { nixosConfigurations = {
      words.config.system.build.toplevel = throw "it begins\n${repeat 4000 "and goes on\n"}it ends";
      frames.config.system.build.toplevel = nest 2000 (throw "inside");
    }; }"#;
    let found = evaluate(&world, outputs, &["--json"]).json();
    let error = |name: &str| -> String {
        let mut failures = found["failures"].as_array().unwrap().iter();
        failures.find(|failure| failure["name"] == name).unwrap()["error"].as_str().unwrap().to_owned()
    };
    let words = error("words");
    for part in ["error: it begins\n", " bytes are left out here …]\n", "it ends"] {
        assert!(words.contains(part), "{part}: {}", words.len());
    }
    let frames = error("frames");
    assert!(frames.starts_with("error: inside\n") && frames.contains("the option `o1'"), "{frames}");
    for error in [words, frames] {
        assert!(!shows_own_expression(&error) && !error.contains("nar ="), "{error}");
        assert!(error.len() < 40_000, "{}", error.len());
    }
}

#[test]
fn a_lock_without_an_input_names_the_command_that_completes_it() {
    let world = World::new();
    world.write_file("dep/flake.nix", "{ outputs = { self }: { }; }");
    let flake = format!(
        "{{ inputs.dep.url = \"path:{}\"; outputs = {{ self, dep }}: {{ nixosConfigurations = {{ }}; }}; }}",
        world.at("dep")
    );
    world.write("flake.nix", &flake);
    let path = format!("path:{}", world.at("work"));
    world.claveld(&["evaluate", &path]).refused(1, "run `nix flake lock` in the flake, and commit the flake.lock");
    // The lock of another input.
    world.run("nix", &["flake", "lock", &path]).good();
    world.write("flake.nix", &flake.replace("inputs.dep.url", "inputs.more.url = \"github:a/b\"; inputs.dep.url"));
    let said = world.claveld(&["evaluate", &path]).refused(1, "run `nix flake lock`");
    assert!(!said.contains("--no-update-lock-file"), "{said}");
}

#[test]
fn the_broken_hosts_are_listed_below_the_table() {
    let world = World::new();
    let outputs = "{ nixosConfigurations = { good = sys ./hosts/web-1.nix; bad = throw \"oh no\"; }; }";
    let ran = evaluate(&world, outputs, &[]);
    assert!(ran.stdout.contains("good"), "{}", ran.stdout);
    ran.refused(1, "broken: nixosConfigurations.bad\n    error: oh no");
}

#[test]
fn names_that_nix_has_to_quote_are_quoted() {
    let world = World::new();
    let outputs = r#"{ nixosConfigurations = {
        "a.b" = sys ./hosts/web-1.nix;
        "db@home" = sys ./hosts/web-1.nix;
        "my host" = sys ./hosts/web-1.nix;
        "q\"${""}'" = throw "quoted";
        "c.d" = throw "dotted";
    }; }"#;
    let found = evaluate(&world, outputs, &["--json"]).json();
    assert_eq!(names(&found, "deployments"), ["a.b", "db@home"]);
    let failures = found["failures"].to_string();
    assert!(failures.contains("is not a name"), "{failures}");
    assert!(failures.contains("error: dotted"), "{failures}");
}

#[test]
fn nothing_is_built_not_even_for_the_evaluation() {
    let world = World::new();
    let outputs = r#"{
      nixosConfigurations.good = sys ./hosts/web-1.nix;
      nixosConfigurations.imports.config.system.build.toplevel = import (derivation {
        name = "imported"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo '{}' > $out" ];
        salt = "SALT";
      });
    }"#;
    // A random salt, so that this was never built before.
    let outputs = outputs.replace("SALT", &world.at(""));
    let ran = evaluate(&world, &outputs, &["--json"]);
    assert_eq!(ran.code, Some(1));
    let found = ran.json();
    let error = found["failures"][0]["error"].as_str().unwrap();
    assert!(error.contains("allow-import-from-derivation"), "{error}");

    world.edit("hosts/web-1.nix", "Welcome", &world.at("Welcome"));
    let found = evaluate(&world, "{ nixosConfigurations.good = sys ./hosts/web-1.nix; }", &["--json"]).json();
    let path = found["deployments"][0]["specification"]["template"]["narId"].as_str().unwrap();
    let drv = found["deployments"][0]["metadata"]["drvPath"].as_str().unwrap();
    assert!(!std::path::Path::new(path).exists(), "{path} was built");
    assert!(std::path::Path::new(drv).exists(), "{drv} is there for CI to build");
}

#[test]
fn a_flake_cannot_change_how_it_is_evaluated() {
    let world = World::new();
    let marker = world.at("marker");
    let flake = format!(
        "{{ nixConfig.allow-import-from-derivation = true; nixConfig.max-jobs = 4; nixConfig.pure-eval = false;
            outputs = {{ self }}: {{ nixosConfigurations.a.config.system.build.toplevel = import (derivation {{
              name = \"x\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\" \"touch {marker}; echo 1 > $out\" ]; }}); }}; }}"
    );
    world.write("flake.nix", &flake);
    let ran = world.claveld(&["evaluate", &format!("path:{}", world.at("work")), "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(!world.path("marker").exists());
}

#[test]
fn an_endless_evaluation_is_ended() {
    let world = World::new();
    let outputs = r"{ nixosConfigurations = {
        endless = builtins.foldl' (a: b: a + b) 0 (builtins.genList (n: builtins.length (builtins.genList (m: m) 100000)) 10000000);
        good = sys ./hosts/web-1.nix;
    }; }";
    let ran = evaluate(&world, outputs, &["--json", "--timeout", "2s"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let found = ran.json();
    assert_eq!(names(&found, "deployments"), ["good"]);
    let failures = found["failures"].to_string();
    assert!(failures.contains("did not finish within 2s"), "{failures}");
}

#[test]
fn a_killed_evaluation_is_reported_as_such() {
    let world = World::new();
    // The evaluation would run for hours, so there is time to kill it.
    let outputs = r"{ nixosConfigurations.slow = builtins.foldl' (a: b: a + b) 0
        (builtins.genList (n: builtins.length (builtins.genList (m: m) 100000)) 10000000); }";
    world.write("flake.nix", &format!("{{ outputs = {{ self }}: {outputs}; }}"));
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["evaluate", &format!("path:{}", world.at("work"))]);
    // The first process and the retry with all memory are both killed as the kernel would do it.
    for _ in 0..2 {
        let mut evaluator = None;
        until("nix evaluates", || {
            evaluator = evaluator_of(claveld.id());
            evaluator.is_some()
        });
        let pid = rustix::process::Pid::from_raw(evaluator.unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        until("the killed one is gone", || evaluator_of(claveld.id()) != evaluator);
    }
    assert_eq!(claveld.wait(), Some(1));
    assert!(claveld.said().contains("killed by signal 9 (most likely because memory ran out)"), "{}", claveld.said());
}

#[test]
fn evaluations_end_when_claveld_is_stopped() {
    let world = World::new();
    let outputs = r"{ nixosConfigurations.slow = builtins.foldl' (a: b: a + b) 0
        (builtins.genList (n: builtins.length (builtins.genList (m: m) 100000)) 10000000); }";
    world.write("flake.nix", &format!("{{ outputs = {{ self }}: {outputs}; }}"));
    let mut claveld = world.start(env!("CARGO_BIN_EXE_claveld"), &["evaluate", &format!("path:{}", world.at("work"))]);
    let mut evaluator = None;
    until("nix evaluates", || {
        evaluator = evaluator_of(claveld.id());
        evaluator.is_some()
    });
    claveld.signal(rustix::process::Signal::INT);
    assert_eq!(claveld.wait(), Some(8));
    assert!(claveld.said().contains("stopped before the work was done"), "{}", claveld.said());
    let stat = format!("/proc/{}/stat", evaluator.unwrap());
    until("nix ends", || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

/// The process below `parent` that has evaluated for longer than it takes to list the names.
fn evaluator_of(parent: u32) -> Option<i32> {
    /// Hundredths of a second (`proc_pid_stat(5)`, field 14).
    const TICKS: u64 = 30;
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().find_map(|child| {
        if let Some(below) = evaluator_of(child.parse().ok()?) {
            return Some(below);
        }
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let used: u64 = fields.split_whitespace().nth(11)?.parse().ok()?;
        (used > TICKS).then(|| child.parse().ok()).flatten()
    })
}

#[test]
fn a_reference_that_is_no_flake_is_an_error() {
    let world = World::new();
    world.write_file("empty/x", "");
    world.claveld(&["evaluate", &format!("path:{}", world.at("empty"))]).refused(1, "flake.nix");
    world.claveld(&["evaluate", "path:/does/not/exist"]).refused(1, "cannot read the source path:/does/not/exist");
    world.claveld(&["evaluate", "--", "--impure"]).refused(2, "may not begin with `-`");
    world.claveld(&["evaluate", ".#web-1"]).refused(2, "without `#`");
    evaluate(&world, "{ clavel.machines = { }; }", &[]).refused(1, "the `clavel` output of");
    let error = evaluate(&world, "{ nixosConfigurations = throw \"all broken\"; }", &[]).refused(1, "all broken");
    assert!(!shows_own_expression(&error), "{error}");
}

#[test]
fn an_evaluation_does_not_change_the_flake() {
    let world = World::new();
    world.claveld(&["evaluate", &world.at("work")]).good();
    assert!(!world.path("work/flake.lock").exists());
    let status = world.git(&["-C", &world.at("work"), "status", "--porcelain"]);
    assert_eq!(status, "");
}

#[test]
fn a_dirty_work_tree_is_evaluated_as_it_is() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "version = \"1\"", "version = \"dirty\"");
    let table = world.claveld(&["evaluate", &world.at("work")]).good();
    assert!(table.contains("nixos-system-web-1-dirty"), "{table}");
}

#[test]
fn a_time_after_the_year_9999_stops_nothing() {
    let world = World::new();
    world.configure_claveld("");
    // The last change of an input, as a lock states it.
    world.write_file("dep/flake.nix", "{ outputs = { self }: { }; }");
    world.write("flake.nix", &format!(
        "{{ inputs.dep.url = \"path:{}\"; outputs = {{ self, dep }}: {{ nixosConfigurations.web-1 = import ./lib/host.nix {{ system = \"x86_64-linux\"; }} ./hosts/web-1.nix; }}; }}",
        world.at("dep")
    ));
    let path = format!("path:{}", world.at("work"));
    world.git(&["-C", &world.at("work"), "add", "-A"]);
    world.run("nix", &["flake", "lock", &path]).good();
    let lock = world.read_file("work/flake.lock");
    let now = lock.split("\"lastModified\": ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    for late in ["253402300800", "99999999999999"] {
        world.write("flake.lock", &lock.replace(&now, late));
        let ran = world.claveld(&[&["evaluate", &path, "--json"], &LOCAL_INPUTS[..]].concat());
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        // Some versions of Nix refuse such a lock, which is then the failure of the source.
        assert!(matches!(ran.code, Some(0 | 1)), "{}", ran.stderr);
    }
}
