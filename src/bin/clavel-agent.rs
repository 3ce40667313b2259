//! `clavel-agent`: fetches and verifies the branch, and activates what it says for this machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::agent::main()
}
