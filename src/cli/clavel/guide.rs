//! Prints the next steps after a fleet's first root was made, for `clavel init` and `clavel root sign`.

use std::path::{Path, PathBuf};

use super::setup::SetupFile;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::describe_error;
use crate::trust::{RoleName, TrustedRoot};

/// Prints the next steps for the first root, whose file is at `place`. `made` has the keys that were made with it, and `files` the
/// configurations.
pub(super) fn print_next_steps(
    place: &Path,
    file: &[u8],
    made: &[(RoleName, PathBuf)],
    files: &[SetupFile],
) -> Result<(), Exit> {
    match TrustedRoot::given(file) {
        Ok(root) => {
            output::line(format_args!("fleet     {}\n\nNext:", root.fleet()))?;
            let mut numbered = steps(place, &root, made, files).into_iter().zip(1..);
            numbered.try_for_each(|(step, number)| output::line(format_args!("  {number}. {step}")))
        }
        Err(missing) => output::line(format_args!(
            "The root does not count yet: {}\n\nNext, on each machine that has a root key:\n  clavel root sign {} --key FILE, or --ssh-key FILE",
            describe_error(&missing),
            place.display()
        )),
    }
}

fn steps(place: &Path, root: &TrustedRoot, made: &[(RoleName, PathBuf)], files: &[SetupFile]) -> Vec<String> {
    let place = place.display();
    let made = |role: RoleName| made.iter().find(|(of, _)| *of == role).map(|(_, path)| path.display());
    let mut steps = Vec::new();
    if let Some(key) = made(RoleName::Root) {
        steps.push(format!("keep {key} where there is no network: only `clavel root sign` and `next` need it"));
    }
    let file = |name: &str| files.iter().find(|file| file.path.ends_with(name)).map(|file| file.path.display());
    let is_elsewhere = |file: &&SetupFile| file.path.ends_with("claveld.toml") && !file.path.starts_with("/etc/clavel");
    let elsewhere = files.iter().find(is_elsewhere);
    let option = elsewhere.map(|file| format!(" --config {}", file.path.display())).unwrap_or_default();
    let key = made(RoleName::Publisher).map(|key| format!("\n       secret-key-file = \"{key}\"")).unwrap_or_default();
    steps.extend([
        match file("claveld.toml") {
            Some(config) => format!("read {config} and complete it: the repository, the flake, its caches"),
            None => format!("tell claveld, in claveld.toml below [publish]:\n       root = \"{place}\"{key}"),
        },
        match file("clavel-agent.toml") {
            Some(config) => format!("copy {config} to each machine as /etc/clavel/clavel-agent.toml, and set its name there"),
            None => format!(
                "tell each agent, in its clavel-agent.toml (the path of a copy of {place} works too):\n       root = \"{}\"",
                root.fleet()
            ),
        },
        format!("publish: `claveld once{option}` puts the root and the first deployments on the branch"),
        format!("before {}, and whenever a key changes, make the next root: `clavel root next`", root.root().expires),
    ]);
    steps
}
