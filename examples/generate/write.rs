//! What is generated from the programs' own definitions. The test `generated` writes the same and compares.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory as _;
use clap_complete::Shell;
use clavel::cli;
use clavel::closures::ManifestFile;
use clavel::model::{Agent, AgentStatus, Approval, Bin, Deployment, Index, Root, Unit, json};
use clavel::trust::Signed;
use schemars::{JsonSchema, Schema, schema_for};

/// Writes everything below `root`.
pub(crate) fn all(root: &Path) -> io::Result<()> {
    schema::<Signed<Deployment>>(root, "deployment")?;
    schema::<Signed<Unit>>(root, "unit")?;
    schema::<Signed<Agent>>(root, "agent")?;
    schema::<Signed<Index>>(root, "index")?;
    schema::<Bin>(root, "bin")?;
    schema::<Signed<Root>>(root, "root")?;
    schema::<Signed<Approval>>(root, "approval")?;
    schema::<Signed<AgentStatus>>(root, "status")?;
    schema::<ManifestFile>(root, "closures")?;
    for (name, _, schema) in cli::output_schemas() {
        write_schema(root, name, &schema)?;
    }
    for command in
        [cli::claveld::Arguments::command(), cli::agent::Arguments::command(), cli::clavel::Arguments::command()]
    {
        manual(root, &command)?;
        completions(root, command)?;
    }
    Ok(())
}

fn schema<T: JsonSchema>(root: &Path, name: &str) -> io::Result<()> {
    write_schema(root, name, &schema_for!(T))
}

fn write_schema(root: &Path, name: &str, schema: &Schema) -> io::Result<()> {
    write(&root.join(format!("schemas/{name}.schema.json")), &json::render(schema))
}

/// One page for the program and one for each of its commands.
fn manual(root: &Path, command: &clap::Command) -> io::Result<()> {
    let pages = root.join("share/man/man1");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)
}

fn completions(root: &Path, mut command: clap::Command) -> io::Result<()> {
    let name = command.get_name().to_owned();
    for (shell, path) in [
        (Shell::Bash, format!("share/bash-completion/completions/{name}")),
        (Shell::Zsh, format!("share/zsh/site-functions/_{name}")),
        (Shell::Fish, format!("share/fish/vendor_completions.d/{name}.fish")),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut script);
        write(&root.join(path), &script)?;
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, bytes)
}
