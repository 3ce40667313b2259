//! `claveld`: evaluates sources, and publishes the result as signed documents.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::claveld::main()
}
