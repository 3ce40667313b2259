//! Promise: who asks for nix-eval-jobs gets it, and the same comes of it.
//!
//! The real program is not packaged where these tests run. A script stands in for it: it takes the arguments that the real
//! one documents, and prints lines in its form, which real Nix evaluates.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::world::{Ran, World};

const STAND_IN: &str = r#"#!/bin/sh
set -eu
workers= memory= expr=
while [ $# -gt 0 ]; do
    case $1 in
        --workers) workers=$2; shift 2 ;;
        --max-memory-size) memory=$2; shift 2 ;;
        --expr) expr=$2; shift 2 ;;
        --option | --extra-experimental-features) [ "$1" = --option ] && shift; shift 2 ;;
        --meta) shift ;;
        *) echo "nix-eval-jobs: unknown argument $1" >&2; exit 1 ;;
    esac
done
echo "$workers $memory" > "$(dirname "$0")/asked"
nix eval --raw --option pure-eval true --expr "
  let
    jobs = $expr;
    line = attr:
      let
        told = builtins.tryEval (if jobs.\${attr} ? type then builtins.deepSeq jobs.\${attr}.meta jobs.\${attr} else null);
        job = told.value;
      in
      if !told.success then [ (builtins.toJSON { inherit attr; attrPath = [ attr ]; error = \"error: it throws\"; }) ]
      else if job == null then [ ]
      else [ (builtins.toJSON { inherit attr; attrPath = [ attr ]; inherit (job) name system meta drvPath; outputs.out = job.outPath; }) ];
  in builtins.unsafeDiscardStringContext (builtins.concatStringsSep \"\n\" (builtins.concatMap line (builtins.attrNames jobs)))
"
"#;

fn evaluate(world: &World, arguments: &[&str]) -> Ran {
    evaluate_by(world, STAND_IN, arguments)
}

fn evaluate_by(world: &World, stand_in: &str, arguments: &[&str]) -> Ran {
    let program = world.path("bin/nix-eval-jobs");
    world.write_file("bin/nix-eval-jobs", stand_in);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:{}", world.at("bin"), std::env::var("PATH").unwrap());
    let (claveld, flake) = (env!("CARGO_BIN_EXE_claveld"), world.flake());
    let evaluate = [&path, claveld, "evaluate", &flake, "--json", "--processes", "3", "--memory", "3GiB"];
    world.run("env", &[&evaluate, arguments].concat())
}

/// Without the time.
fn documents(mut found: Value) -> Value {
    for kind in ["deployments", "units", "agents"] {
        for document in found[kind].as_array_mut().unwrap() {
            document["metadata"]["evaluatedAt"] = Value::Null;
        }
    }
    found.as_object_mut().unwrap().remove("work");
    found
}

#[test]
fn the_same_comes_of_it() {
    let world = World::new();
    let by_jobs = documents(evaluate(&world, &["--nix-eval-jobs"]).json());
    assert_eq!(world.read_file("bin/asked"), "3 1024\n");
    assert_eq!(by_jobs, documents(evaluate(&world, &[]).json()));
    assert_eq!(by_jobs["deployments"].as_array().unwrap().len(), 3);
}

#[test]
fn a_broken_host_is_told_and_hides_no_other() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "version = \"1\"", "version = throw \"no\"");
    world.push("web-1 breaks");
    let ran = evaluate(&world, &["--nix-eval-jobs"]);
    assert_eq!(ran.code, Some(1));
    let found = ran.json();
    assert_eq!(found["deployments"].as_array().unwrap().len(), 2);
    assert_eq!(found["failures"][0]["error"], "error: it throws");
}

#[test]
fn where_one_host_makes_it_give_up_claveld_evaluates_in_its_place() {
    let world = World::new();
    world.edit("hosts/web-1.nix", "version = \"1\"", "version = (x: x x) (x: x x)");
    world.push("web-1 has no end");
    let gives_up = "#!/bin/sh\necho '{\"attr\":\"0\",\"error\":\"error: half a truth\"}'\nkill -9 $$\n";
    let ran = evaluate_by(&world, gives_up, &["--nix-eval-jobs"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("nix-eval-jobs gave up"), "{}", ran.stderr);
    let found = ran.json();
    assert_eq!(found["deployments"].as_array().unwrap().len(), 2);
    assert_eq!(found["failures"].as_array().unwrap().len(), 1);
    let error = found["failures"][0]["error"].as_str().unwrap();
    assert!(error.contains("stack overflow") || error.contains("infinite recursion"), "{error}");
}

#[test]
fn where_it_is_missing_that_is_told() {
    let world = World::new();
    let ran = world.claveld(&["evaluate", &world.flake(), "--nix-eval-jobs"]);
    ran.refused(1, "cannot run `nix-eval-jobs`");
}
