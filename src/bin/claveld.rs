//! `claveld`: evaluates sources and publishes what they give.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::claveld::main()
}
