//! `clavel`: the operator's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::clavel::main()
}
