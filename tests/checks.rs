//! Promise: `check` of each program names what is wrong with a set-up, looks at everything else all the same, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::support::http::HttpServer;
use crate::support::world::{Ran, World};

const CLAVELD: &str = env!("CARGO_BIN_EXE_claveld");
const AGENT: &str = env!("CARGO_BIN_EXE_clavel-agent");

/// The result of a check.
struct Checked {
    code: Option<i32>,
    report: Value,
}

impl Checked {
    fn of(ran: Ran) -> Self {
        let code = ran.code;
        let report = ran.json();
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/check.schema.json"));
        let schema = jsonschema::validator_for(&serde_json::from_str(&text.unwrap()).unwrap()).unwrap();
        assert!(schema.is_valid(&report), "{report:#}");
        Self { code, report }
    }

    fn findings(&self) -> &Vec<Value> {
        self.report["findings"].as_array().unwrap()
    }

    fn subjects(&self) -> BTreeSet<String> {
        self.findings().iter().map(|finding| finding["subject"].as_str().unwrap().to_owned()).collect()
    }

    /// The subjects of what is wrong.
    fn problems(&self) -> Vec<&str> {
        let problems = self.findings().iter().filter(|finding| finding["outcome"] == "problem");
        problems.map(|finding| finding["subject"].as_str().unwrap()).collect()
    }

    #[track_caller]
    fn also_good(self) -> Self {
        assert_eq!((self.code, self.problems()), (Some(0), Vec::new()), "{:#}", self.report);
        assert_eq!(self.report["ok"], true);
        self
    }

    /// Asserts that exactly this is wrong, that the finding says `text`, and that everything in `others` was looked at.
    #[track_caller]
    fn names(&self, problem: &str, text: &str, others: &BTreeSet<String>) {
        assert_eq!((self.code, self.problems()), (Some(1), vec![problem]), "{:#}", self.report);
        let finding = self.findings().iter().find(|finding| finding["subject"] == problem).unwrap();
        let said = format!("{} {}", finding["message"], finding["advice"]);
        assert!(said.contains(text), "{said}");
        let missing: Vec<_> = others.difference(&self.subjects()).cloned().collect();
        assert!(missing.iter().all(|subject| subject == problem), "{missing:?} were not looked at");
    }
}

/// The files of the world with their content, without what Nix and git remember of what they were asked.
fn files(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![world.path("")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Nix makes the last two itself, whenever it opens a cache that is a folder.
            if ["cache-home", "home", "cache/log", "cache/realisations"].iter().any(|end| path.ends_with(end)) {
                continue;
            }
            let name = path.display().to_string();
            if let Ok(target) = path.read_link() {
                found.insert(name, target.into_os_string().into_encoded_bytes());
            } else if path.is_dir() {
                open.push(path);
                found.insert(name, Vec::new());
            } else {
                found.insert(name, std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    found
}

/// Runs a check, and asserts that it changed nothing.
#[track_caller]
fn unchanged(world: &World, run: impl FnOnce() -> Ran) -> Checked {
    let before = files(world);
    let checked = Checked::of(run());
    let after = files(world);
    let differing = |name: &&String| before.get(*name) != after.get(*name);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(differing).collect();
    assert!(changed.is_empty(), "the check changed {changed:?}");
    checked
}

fn claveld(world: &World) -> Checked {
    unchanged(world, || world.claveld(&["check", "--json", "--config", &world.at("claveld.toml")]))
}

fn agent(world: &World) -> Checked {
    unchanged(world, || world.agent("web-1", &["check", "--json"]))
}

/// A folder with every program of the PATH but one.
fn path_without(world: &World, program: &str) -> String {
    let folder = world.path(&format!("without-{program}"));
    std::fs::create_dir(&folder).unwrap();
    for place in std::env::split_paths(&std::env::var("PATH").unwrap()) {
        for entry in std::fs::read_dir(place).into_iter().flatten() {
            let path = entry.unwrap().path();
            let link = folder.join(path.file_name().unwrap());
            if path.file_name().unwrap() != program && !link.is_symlink() {
                symlink(&path, link).unwrap();
            }
        }
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_right_set_up_of_claveld_is_good_before_and_after_the_first_publication() {
    let world = World::new();
    let first = claveld(&world).also_good();
    assert!(first.report.to_string().contains("there is no branch `deployments` yet"), "{:#}", first.report);
    assert_eq!(world.tip(), "");
    world.publish_from_memory(&["web-1"]);
    let second = claveld(&world).also_good();
    for subject in ["nix", "nix store", "git", "isolation", "strace", "state folder", "root", "role of the keys"] {
        assert!(second.subjects().contains(subject), "{subject}");
    }
    let config = world.at("claveld.toml");
    let quiet = world.claveld(&["check", "--quiet", "--config", &config]).good();
    assert!(quiet.lines().last().unwrap().contains("0 problems"), "{quiet}");
    assert!(quiet.lines().all(|line| !line.starts_with("ok ")), "{quiet}");
}

#[test]
fn each_fault_of_claveld_is_named_and_everything_else_looked_at() {
    let world = World::published();
    let good = world.read_file("claveld.toml");
    let all = claveld(&world).also_good().subjects();
    world.clavel(&["key", "generate", "claveld-1", "--output", &world.at("stranger.secret")]).good();
    world.write_file("file", "");
    world.write_file("open.secret", &world.read_file("claveld-1.secret"));
    world.run("chmod", &["644", &world.at("open.secret")]).good();
    let (source, repository) =
        (format!("source {}", world.flake()), format!("repository = \"{}\"", world.at("fleet.git")));
    let gone = format!("git+file://{}?ref=main", world.at("gone.git"));
    let nowhere = world.flake().replace("ref=main", "ref=mian");
    let key = |name: &str| format!("signing key {}", world.at(name));
    for (from, to, problem, text) in [
        ("claveld-1.secret", "gone.secret", key("gone.secret"), "clavel key generate"),
        ("claveld-1.secret", "open.secret", key("open.secret"), "chmod 600"),
        ("claveld-1.secret", "stranger.secret", "role of the keys".into(), "among the publishers"),
        ("root.json", "gone.json", "trusted root".into(), "gone.json"),
        (&world.flake(), &gone, format!("source {gone}"), "gone.git"),
        (&world.flake(), &nowhere, format!("source {nowhere}"), "refs/heads/mian"),
        (&repository, &format!("repository = \"{}\"", world.at("gone.git")), "repository".into(), "gone.git"),
        (&world.at("claveld"), &world.at("file"), "state folder".into(), "is not a folder"),
    ] {
        assert!(good.contains(from), "{from}");
        world.write_file("claveld.toml", &good.replacen(from, to, 1));
        let others = all.iter().filter(|subject| {
            // They are named after what was broken, or depend on it.
            !subject.contains(&source) && !subject.starts_with("signing key")
        });
        claveld(&world).names(&problem, text, &others.cloned().collect());
    }
    world.write_file("claveld.toml", &good.replace("[publish]", "[pubish]"));
    let programs = ["nix", "nix store", "git"].map(str::to_owned).into();
    claveld(&world).names("configuration", "pubish", &programs);
}

#[test]
fn whether_claveld_may_push_to_another_machine_is_found_out_without_a_push() {
    const SECRET: &str = "dGhlIHNlY3JldCB0b2tlbg";
    let world = World::new();
    let (private, public) =
        (HttpServer::serve_private_git(&world.path(""), "git", SECRET), HttpServer::serve_git(&world.path("")));
    let good = world.read_file("claveld.toml");
    world.write_file("token", &format!("{SECRET}\n"));
    world.write_file("wrong", "wrong\n");
    let publish_to = |server: &HttpServer, token: &str| {
        let ca = server.certificate().display().to_string();
        let url = server.url();
        let table = format!("[[credentials]]\nurl = \"{url}\"\nca-file = \"{ca}\"\ntoken-file = \"{token}\"\n");
        let table = if url.starts_with("https") { table } else { String::new() };
        let from = format!("repository = \"{}\"", world.at("fleet.git"));
        let text = good.replace(&from, &format!("repository = \"{url}/fleet.git\""));
        world.write_file("claveld.toml", &format!("{text}{table}"));
        claveld(&world)
    };
    // There is no branch yet, and a push to it can be tried all the same.
    for _ in ["without a branch", "with it"] {
        let checked = publish_to(&private, "token").also_good();
        let all = checked.subjects();
        assert!(checked.report.to_string().contains("--dry-run"), "{:#}", checked.report);
        assert!(!checked.report.to_string().contains(SECRET));
        publish_to(&public, "").names("pushing", "the right to write", &all);
        let beside = all.iter().filter(|subject| !["pushing", "root"].contains(&subject.as_str()));
        publish_to(&private, "wrong").names("repository", "[[credentials]]", &beside.cloned().collect());
        world.write_file("claveld.toml", &good);
        world.publish_from_memory(&["web-1"]);
    }
}

#[test]
fn a_root_that_is_not_of_the_branch_and_a_hook_that_git_does_not_run_are_named() {
    let world = World::published();
    world.install_hook();
    let all = claveld(&world).also_good().subjects();
    let hook = world.at("fleet.git/hooks/post-receive");
    world.run("chmod", &["-x", &hook]).good();
    claveld(&world).names(&format!("hooks of source {}", world.flake()), &format!("chmod +x {hook}"), &all);
    world.run("chmod", &["+x", &hook]).good();
    world.clavel(&["init", &world.at("other")]).good();
    let good = world.read_file("claveld.toml");
    world.write_file("claveld.toml", &good.replace("root.json", "other/root.json"));
    claveld(&world).names("root", "clavel verify", &all);
}

#[test]
fn a_program_that_is_not_on_the_path_is_named() {
    let world = World::published();
    let all = claveld(&world).also_good().subjects();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    let of_agent = agent(&world).also_good().subjects();
    for (program, expected) in [("nix", "nix"), ("git", "git"), ("bwrap", "isolation")] {
        let path = path_without(&world, program);
        let check = |binary: &str, config: &str| {
            let arguments = ["check", "--json", "--config", &world.at(config)];
            unchanged(&world, || world.run_with(&[("PATH", &path)], binary, &arguments))
        };
        let checked = check(CLAVELD, "claveld.toml");
        assert_eq!(checked.code, Some(1));
        assert!(checked.problems().contains(&expected), "without {program}: {:#}", checked.report);
        assert!(all.is_subset(&checked.subjects()), "without {program}: {:#}", checked.report);
        if program != "bwrap" {
            let checked = check(AGENT, "web-1.toml");
            assert!(checked.problems().contains(&expected), "without {program}: {:#}", checked.report);
            let programs = ["nix", "git", "state folder", "trusted root"].map(str::to_owned);
            assert!(programs.iter().all(|subject| of_agent.contains(subject) && checked.subjects().contains(subject)));
        }
    }
}

#[test]
fn a_right_set_up_of_an_agent_is_good_before_and_after_its_first_pass() {
    let world = World::published();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    let first = agent(&world).also_good();
    for subject in ["nix", "agent web-1", "unit web-1", "profile of web-1", "root", "state folder", "trusted root"] {
        assert!(first.subjects().contains(subject), "{subject}");
    }
    assert!(first.report.to_string().contains("signed by a key that the deployment names"), "{:#}", first.report);
    assert!(!world.path("web-1/state").exists());
    world.agent("web-1", &["once"]).good();
    agent(&world).also_good();
}

#[test]
fn each_fault_of_an_agent_is_named_and_everything_else_looked_at() {
    let world = World::published();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    let all = agent(&world).also_good().subjects();
    let good = world.read_file("web-1.toml");
    world.clavel(&["init", &world.at("other")]).good();
    world.write_file("file", "");
    let before = ["nix", "nix store", "state folder", "trusted root"].map(str::to_owned);
    let (fleet, gone) = (world.at("fleet.git"), world.at("gone.git"));
    let branch: BTreeSet<String> = before.iter().cloned().chain([format!("mirror {fleet}"), "root".into()]).collect();
    for (from, to, problem, text, others) in [
        ("name = \"web-1\"", "nmae = \"web-1\"", "configuration", "nmae", &before[..2]),
        (
            "name = \"web-1\"",
            "name = \"web-9\"",
            "agent web-9",
            "misspelt",
            &branch.iter().cloned().collect::<Vec<_>>(),
        ),
        ("root.json", "gone.json", "trusted root", "clavel root show", &before),
        (&fleet, &gone, &format!("mirror {gone}"), "gone.git", &before),
        (
            "name = ",
            "system = \"riscv64-linux\"\nname = ",
            "deployment web-1",
            "riscv64-linux",
            &branch.iter().cloned().collect::<Vec<_>>(),
        ),
        ("[units.web-1]", "[units.web-9]", "deployment web-1", "web-9", &branch.iter().cloned().collect::<Vec<_>>()),
        ("web-1/state", "file", "state folder", "is not a folder", &before),
        ("web-1/profile", "file/profile", "profile of web-1", "file/profile", &all.iter().cloned().collect::<Vec<_>>()),
        (
            "[units.web-1]",
            "[units.web-1]\ncommand = [\"x\"]\n",
            "deployment web-1",
            "command",
            &branch.iter().cloned().collect::<Vec<_>>(),
        ),
    ] {
        assert!(good.contains(from), "{from}");
        world.write_file("web-1.toml", &good.replacen(from, to, 1));
        agent(&world).names(problem, text, &others.iter().cloned().collect());
    }
    world.write_file("web-1.toml", &good.replacen("root.json", "other/root.json", 1));
    agent(&world).names(&format!("branch at {fleet}"), "clavel verify", &before.into());
}

#[test]
fn one_mirror_of_two_that_is_out_of_reach_is_a_warning() {
    let world = World::published();
    let gone = world.at("gone.git");
    world.configure_agent("web-1", &gone, &format!("mirrors = [\"{}\"]", world.at("fleet.git")));
    let checked = agent(&world).also_good();
    let mirror = checked.findings().iter().find(|finding| finding["subject"] == format!("mirror {gone}")).unwrap();
    assert_eq!(mirror["outcome"], "warning");
}

#[test]
fn a_cache_that_does_not_answer_or_has_no_trusted_signature_is_named() {
    let world = World::published();
    world.configure_agent("web-1", &world.at("fleet.git"), "");
    let all = agent(&world).also_good().subjects();
    let cache = format!("cache file://{} for web-1", world.at("cache"));
    std::fs::rename(world.path("cache"), world.path("moved")).unwrap();
    agent(&world).names(&cache, "does not answer", &all);
    std::fs::rename(world.path("moved"), world.path("cache")).unwrap();
    let stored = |text: &str| {
        for entry in std::fs::read_dir(world.path("cache")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "narinfo") {
                let lines = std::fs::read_to_string(&path).unwrap();
                let kept: Vec<&str> = lines.lines().filter(|line| !line.starts_with(text)).collect();
                std::fs::write(&path, kept.join("\n") + "\n").unwrap();
            }
        }
    };
    stored("Sig:");
    agent(&world).names(&cache, "not signed by any key", &all);
}

#[test]
fn a_server_that_never_answers_does_not_make_a_check_hang() {
    let world = World::published();
    // The system accepts connections to it, and nobody reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/fleet.git", silent.local_addr().unwrap());
    let all = claveld(&world).also_good().subjects();
    let good = world.read_file("claveld.toml");
    let flake = format!("git+{url}?ref=main");
    world
        .write_file("claveld.toml", &format!("{}[evaluate]\ntimeout = \"2s\"\n", good.replace(&world.flake(), &flake)));
    let beside = all.iter().filter(|subject| !subject.contains("source ")).cloned().collect();
    claveld(&world).names(&format!("source {flake}"), "did not finish within 2s", &beside);
    world.configure_agent("web-1", &url, "[fetch]\ntimeout = \"2s\"");
    let beside = ["nix", "state folder", "trusted root"].map(str::to_owned).into();
    agent(&world).names(&format!("mirror {url}"), "took longer than 2s", &beside);
}

#[test]
fn an_operator_learns_whether_repository_root_and_keys_fit_together() {
    let world = World::published();
    let (fleet, root, key) = (world.at("fleet.git"), world.root(), world.at("root-1.secret"));
    let check = |repository: &str, root: &str, key: &str| {
        let arguments = ["check", "--json", "--repository", repository, "--root", root, "--key", key];
        unchanged(&world, || world.clavel(&arguments))
    };
    let good = check(&fleet, &root, &key).also_good();
    let all = ["git", "trusted root", "repository", "branch", "root"].map(str::to_owned).into();
    assert!(good.report.to_string().contains("a key of these roles: root"), "{:#}", good.report);
    let gone = world.at("gone");
    world.clavel(&["init", &world.at("other")]).good();
    let beside = ["git", "trusted root", "repository", "branch"].map(str::to_owned).into();
    check(&gone, &root, &key).names("repository", "CLAVEL_REPOSITORY", &beside);
    check(&fleet, &world.at("cache-1.secret"), &key).names("trusted root", "CLAVEL_ROOT", &beside);
    check(&fleet, &world.at("other/root.json"), &world.at("other/root-1.secret")).names("root", "same fleet", &beside);
    let stranger = world.at("cache-1.secret");
    check(&fleet, &root, &stranger).names(&format!("key {stranger}"), "has no role", &all);
    check(&fleet, &root, &gone).names(&format!("key {gone}"), "cannot read", &all);
}
