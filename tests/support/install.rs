//! Installs Clavel for a machine, as `make install` does.

use std::path::Path;

use crate::support::{program, run};

/// Installs the programs in the folder `programs`, and all that belongs to them, into `folder`.
pub(crate) fn install(folder: &Path, programs: &Path) {
    let mut make = program("make");
    // A make that runs these tests tells its variables to one below it.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL").current_dir(env!("CARGO_MANIFEST_DIR"));
    // `--old-file` leaves out the release build.
    make.args(["--silent", "--old-file=build", "install", "PREFIX=/usr/local"]);
    make.arg(format!("DESTDIR={}", folder.display())).arg(format!("PROGRAMS={}", programs.display()));
    run(&mut make);
}
