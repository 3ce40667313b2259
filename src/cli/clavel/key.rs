//! `clavel key`: makes keys, prints their public halves, and converts them for OpenSSH.

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
    /// Make a secret key in Nix's format, in a file that only its owner can read, and print its public half.
    #[command(after_help = "Example:\n  clavel key generate claveld-1 --output /etc/clavel/claveld-1.secret")]
    Generate {
        /// The key's name. Every key needs a name of its own: `claveld-1`, then `claveld-2`.
        name: KeyId,
        /// The new file to write it to. A file that exists already stays as it is.
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
    /// Write a secret key in OpenSSH's format, so that `ssh-add` can load it into an ssh-agent.
    #[command(
        after_help = "Example:\n  clavel key to-ssh claveld-1.secret --output claveld-1.ssh && ssh-add claveld-1.ssh && shred -u claveld-1.ssh"
    )]
    ToSsh {
        /// The secret key's file.
        file: PathBuf,
        /// The new file to write it to. A file that exists already stays as it is.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
}

/// Reads the public half of a key. Where the file is neither a secret key nor a public one, the error is about the secret key: it
/// says, for example, that others can read the file.
fn read_public_half(file: &str) -> Result<RoleKey, Exit> {
    match SecretKey::read(Path::new(file)) {
        Ok(key) => Ok(key.public().into()),
        // A pipe cannot be read a second time.
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
        Command::Public { file } => output::line(read_public_half(file)?),
        Command::ToSsh { file, output } => {
            SecretKey::read(file)?.write_new_for_openssh(output)?;
            output::remark(format_args!("wrote the secret key to {}; it has no passphrase", output.display()));
            Ok(())
        }
    }
}
