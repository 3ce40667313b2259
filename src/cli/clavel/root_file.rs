//! The file of a root: reads it, writes it, and prints who has signed it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use crate::cli::exit::{Code, Exit};
use crate::cli::output;
use crate::disk::{self, Access, Durability};
use crate::model::{BranchFile as _, Root, describe_error};
use crate::trust::Signed;

/// A file with a root, signed by any number of keys.
pub(super) struct RootFile<'a>(&'a Path);

impl<'a> RootFile<'a> {
    /// The file at `path`.
    pub(super) fn at(path: &'a Path) -> Self {
        Self(path)
    }

    /// Reads the file. The signatures are not verified here.
    pub(super) fn read(&self) -> Result<Signed<Root>, Exit> {
        let bytes = disk::read(self.0, Root::MAX_BYTES).map_err(|error| {
            let code = if error.kind() == ErrorKind::FileTooLarge { Code::Refused } else { Code::Configuration };
            Exit::new(code, format!("cannot read the root {}: {error}", self.0.display()))
        })?;
        let refuse = |error| Exit::new(Code::Refused, format!("{}: {}", self.0.display(), describe_error(&error)));
        Signed::parse(&bytes).map_err(refuse)
    }

    /// Writes a new file. A file that exists already stays as it is.
    pub(super) fn write_new(&self, root: &Signed<Root>) -> Result<(), Exit> {
        let file = File::create_new(self.0);
        let written = file.and_then(|mut file| file.write_all(&root.render()));
        written.map_err(|error| self.write_error(&error))
    }

    /// Replaces the file as a whole, or leaves it as it is.
    pub(super) fn replace(&self, root: &Signed<Root>) -> Result<(), Exit> {
        let replaced = disk::replace(self.0, &root.render(), Access::Unchanged, Durability::Synced);
        replaced.map_err(|error| self.write_error(&error))
    }

    fn write_error(&self, error: &std::io::Error) -> Exit {
        Exit::machine(format!("cannot write the root {}: {error}", self.0.display()))
    }
}

/// Prints who has signed a root.
pub(super) fn print_signers(file: &[u8]) -> Result<(), Exit> {
    let signed = Signed::<Root>::parse(file).map_err(|error| Exit::new(Code::Refused, error))?;
    let names: Vec<String> = signed.signatures().map(|signature| signature.keyid().to_string()).collect();
    let role = &signed.unverified().roles.root;
    let by = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
    output::line(format_args!("signed by {by}; it takes {} of {} root keys", role.threshold, role.keys.len()))
}
