//! `clavel-agent`: brings its unit to what the branch says.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::agent::main()
}
