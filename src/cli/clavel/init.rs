//! `clavel init`: makes the first root of a fleet, the keys that the arguments do not name, and the files of a set-up.

use std::path::{Path, PathBuf};

use super::amendment::RoleArguments;
use super::guide::print_next_steps;
use super::root_file::{RootFile, print_signers};
use super::setup::{SetupArguments, SetupFile};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::model::KeyId;
use crate::trust::{RoleName, SecretKey, Signed, TrustedRoot};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder for the root, and for the keys that no argument names.
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    roles: RoleArguments,
    #[command(flatten)]
    setup: SetupArguments,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Arguments { folder, roles, setup } = arguments;
    std::fs::create_dir_all(folder)
        .map_err(|error| Exit::machine(format!("cannot make {}: {error}", folder.display())))?;
    let place = folder.join("root.json");
    if place.exists() {
        let message = format!("{} is there already; `clavel root next` makes the one after it", place.display());
        return Err(Exit::new(Code::Configuration, message));
    }
    let mut amendment = roles.amendment(None)?;
    let mut made = Vec::new();
    let mut root_key = None;
    for (role, name) in [(RoleName::Root, "root-1"), (RoleName::Publisher, "claveld-1")] {
        if roles.has_no_key(role) {
            let (key, path) = new_key(folder, name)?;
            amendment.add.push((role, key.public().into()));
            made.push((role, path));
            if role == RoleName::Root {
                root_key = Some(key);
            }
        }
    }
    let root = amendment.first(roles.expires()).map_err(|error| Exit::new(Code::Configuration, error))?;
    let mut signed = Signed::unsigned(root);
    if let Some(key) = &root_key {
        signed.add(key).map_err(|error| Exit::new(Code::Configuration, error))?;
    }
    let file = RootFile::at(&place);
    file.write_new(&signed)?;
    let id = TrustedRoot::given(&signed.render()).ok().map(|root| root.fleet());
    let key =
        made.iter().find(|(role, _)| *role == RoleName::Publisher).and_then(|(_, path)| path.file_name()?.to_str());
    let files = setup.write(folder, id, key).await?;
    print_result(&place, &made, &files, &signed.render())
}

fn new_key(folder: &Path, name: &str) -> Result<(SecretKey, PathBuf), Exit> {
    let id: KeyId = name.parse().map_err(Exit::machine)?;
    let (key, path) = (SecretKey::generate(id)?, folder.join(format!("{name}.secret")));
    key.write_new(&path)?;
    Ok((key, path))
}

/// Prints what was made, and the next steps.
fn print_result(place: &Path, made: &[(RoleName, PathBuf)], files: &[SetupFile], file: &[u8]) -> Result<(), Exit> {
    let describe = |role: RoleName| match role {
        RoleName::Root => "the root key: it signs the next root; keep it where there is no network",
        RoleName::Publisher => "claveld's key",
        RoleName::Approver => "an approver's key",
    };
    let keys = made.iter().map(|(role, path)| vec![path.display().to_string(), describe(*role).to_owned()]);
    let root = vec![place.display().to_string(), "the root: whose signatures count".to_owned()];
    let files_made = files.iter().map(|file| vec![file.path.display().to_string(), file.about.to_owned()]);
    output::table(&["made", "what it is"], keys.chain([root]).chain(files_made))?;
    output::line("")?;
    print_signers(file)?;
    print_next_steps(place, file, made, files)
}
