//! Writes the JSON Schemas, man pages, completions and test vectors that are in the repository: `make generate`.

use std::path::PathBuf;
use std::process::ExitCode;

mod vectors;
mod write;

fn main() -> ExitCode {
    let root = std::env::args_os().nth(1).map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    match write::all(&root).and_then(|()| vectors::all(&root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, root = %root.display(), "cannot write");
            ExitCode::FAILURE
        }
    }
}
