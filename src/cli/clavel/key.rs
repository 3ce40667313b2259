//! `clavel key …`

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::keys::role_key;
use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::{KeyId, RoleKey};
use crate::trust::SecretKey;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a secret key in Nix's format. Its file is readable by its owner alone; its public half is printed.
    #[command(after_help = "Example:\n  clavel key generate claveld-1 --output /etc/clavel/claveld-1.secret")]
    Generate {
        /// The key's name. Give every key another one: `claveld-1`, then `claveld-2`.
        name: KeyId,
        /// The file to write it to. One that is there already is left as it is.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Print the public half of a secret key.
    #[command(after_help = "Example:\n  clavel key public /etc/clavel/claveld-1.secret")]
    Public {
        /// The secret key's file, from Clavel or from `nix key generate-secret`; or the public half of an OpenSSH key.
        #[arg(value_name = "[NAME=]FILE")]
        file: String,
    },
    /// Write a secret key as OpenSSH writes it, for `ssh-add` to load into an agent.
    #[command(
        after_help = "Example:\n  clavel key to-ssh claveld-1.secret --output claveld-1.ssh && ssh-add claveld-1.ssh && shred -u claveld-1.ssh"
    )]
    ToSsh {
        /// The secret key's file.
        file: PathBuf,
        /// The file to write it to. One that is there already is left as it is.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// A secret key's file that cannot be read, or others can, is told as such.
fn public_half(file: &str) -> Result<RoleKey, Exit> {
    match SecretKey::read(Path::new(file)) {
        Ok(key) => Ok(key.public().into()),
        // What came through a pipe cannot be read again.
        Err(error) if std::fs::metadata(file).is_ok_and(|about| about.file_type().is_fifo()) => Err(error.into()),
        Err(error) => role_key(file).map_err(|_| error.into()),
    }
}

pub(super) fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Generate { name, output } => {
            let key = SecretKey::generate(name.clone())?;
            key.write_new(output)?;
            output::remark(format_args!("wrote the secret key to {}", output.display()));
            output::line(key.public())
        }
        Command::Public { file } => output::line(public_half(file)?),
        Command::ToSsh { file, output } => {
            SecretKey::read(file)?.write_new_for_openssh(output)?;
            output::remark(format_args!("wrote the secret key to {}; it has no passphrase", output.display()));
            Ok(())
        }
    }
}
