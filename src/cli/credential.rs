//! The helper that answers `git` where it asks for a login. Each program gives itself to the `git` that it runs.

use std::ffi::OsStr;

use super::exit::Exit;
use super::output;
use crate::git::answer_credential;

pub(super) fn run(wish: &OsStr) -> Result<(), Exit> {
    output::bytes(&answer_credential(&wish.to_string_lossy()).map_err(Exit::machine)?)
}
