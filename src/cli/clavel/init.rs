//! `clavel init`

use std::path::{Path, PathBuf};

use super::amendment::RoleArguments;
use super::guide::next_steps;
use super::root::{RootFile, signed_by};
use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::model::KeyId;
use crate::trust::{RoleName, SecretKey, Signed};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder to make the root in, and the keys that nobody named.
    #[arg(default_value = ".")]
    folder: PathBuf,
    #[command(flatten)]
    roles: RoleArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Exit> {
    let Arguments { folder, roles } = arguments;
    std::fs::create_dir_all(folder)
        .map_err(|error| Exit::machine(&format!("cannot make {}: {error}", folder.display())))?;
    let place = folder.join("root.json");
    if place.exists() {
        let message = format!("{} is there already; `clavel root next` makes the one after it", place.display());
        return Err(Exit::new(Code::Configuration, message));
    }
    let mut told = roles.amendment(None)?;
    let mut made = Vec::new();
    let mut root_key = None;
    for (role, name) in [(RoleName::Root, "root-1"), (RoleName::Publisher, "claveld-1")] {
        if roles.names_nobody(role) {
            let (key, path) = new_key(folder, name)?;
            told.add.push((role, key.public().into()));
            made.push((role, path));
            if role == RoleName::Root {
                root_key = Some(key);
            }
        }
    }
    let root = told.first(roles.expires()).map_err(|error| Exit::new(Code::Configuration, error))?;
    let mut signed = Signed::unsigned(root);
    if let Some(key) = &root_key {
        signed.add(key).map_err(|error| Exit::new(Code::Configuration, error))?;
    }
    let file = RootFile::at(&place);
    file.write_new(&signed)?;
    tell(&place, &made, &signed.render())
}

fn new_key(folder: &Path, name: &str) -> Result<(SecretKey, PathBuf), Exit> {
    let id: KeyId = name.parse().map_err(|error| Exit::machine(&error))?;
    let (key, path) = (SecretKey::generate(id)?, folder.join(format!("{name}.secret")));
    key.write_new(&path)?;
    Ok((key, path))
}

/// Says what was made, and what comes next.
fn tell(place: &Path, made: &[(RoleName, PathBuf)], file: &[u8]) -> Result<(), Exit> {
    let what = |role: RoleName| match role {
        RoleName::Root => "the root key: it signs the next root; keep it where there is no network",
        RoleName::Publisher => "claveld's key",
        RoleName::Approver => "an approver's key",
    };
    let keys = made.iter().map(|(role, path)| vec![path.display().to_string(), what(*role).to_owned()]);
    let root = vec![place.display().to_string(), "the root: whose signatures count".to_owned()];
    output::table(&["made", "what it is"], keys.chain([root]))?;
    output::line("")?;
    signed_by(file)?;
    next_steps(place, file, made)
}
