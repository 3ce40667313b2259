//! Promise of the tests: every test that depends on Nix's behaviour runs on the oldest supported Nix and on the newest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The promises that `.ci/run` does not run on the oldest Nix, each with its reason.
fn newest_alone() -> BTreeMap<String, String> {
    let text = read(&tests().join("any-nix"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).map(|(a, b)| (a.into(), b.trim().into())).collect()
}

/// The modules of `tests/main.rs`.
fn promises() -> BTreeSet<String> {
    let text = read(&tests().join("main.rs"));
    let modules = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    modules.filter(|module| *module != "support").map(str::to_owned).collect()
}

/// The source texts of a module.
fn sources(module: &str) -> Vec<String> {
    let folder = tests().join(module);
    if !folder.is_dir() {
        return vec![read(&tests().join(format!("{module}.rs")))];
    }
    std::fs::read_dir(folder).unwrap().map(|entry| read(&entry.unwrap().path())).collect()
}

#[test]
fn a_promise_that_runs_nix_by_itself_is_run_on_both() {
    let promises = promises();
    let programs = ["nix", "nix-store", "nix-env", "nix-instantiate", "strace"].map(|name| format!("\"{name}\""));
    for (module, reason) in newest_alone() {
        assert!(promises.contains(&module), "tests/any-nix names {module}, and tests/main.rs does not");
        assert!(!reason.is_empty(), "tests/any-nix does not say why {module} is there");
        for source in sources(&module).iter().filter(|_| module != "nixes" && module != "layers") {
            let run = programs.iter().find(|program| source.contains(*program));
            assert_eq!(run, None, "{module} runs Nix, and tests/any-nix keeps it from the oldest one");
        }
    }
}

#[test]
fn leaving_out_a_promise_leaves_out_no_other() {
    // The test harness skips every test whose path contains the words, at any place.
    for module in newest_alone().keys() {
        let left_out = promises().into_iter().filter(|other| format!("{other}::").contains(&format!("{module}::")));
        assert_eq!(left_out.collect::<Vec<_>>(), std::slice::from_ref(module));
        let inner = Path::new("attacks").join(format!("{module}.rs"));
        assert!(!tests().join(&inner).exists(), "{} would be left out with {module}", inner.display());
    }
}

#[test]
fn ci_reads_the_list_of_promises_for_the_newest_nix_alone() {
    let ci = read(&tests().with_file_name(".ci/run"));
    assert!(ci.contains("make test NIX=newest") && ci.contains("tests/any-nix"), "{ci}");
}
