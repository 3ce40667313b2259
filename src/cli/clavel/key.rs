//! `clavel key …`

use std::path::PathBuf;

use clap::Subcommand;

use crate::cli::exit::Exit;
use crate::cli::output;
use crate::model::KeyId;
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
        /// The secret key's file, from Clavel or from `nix key generate-secret`.
        file: PathBuf,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Exit> {
    match command {
        Command::Generate { name, output } => {
            let key = SecretKey::generate(name.clone())?;
            key.write_new(output)?;
            output::remark(format_args!("wrote the secret key to {}", output.display()));
            output::line(key.public())
        }
        Command::Public { file } => output::line(SecretKey::read(file)?.public()),
    }
}
