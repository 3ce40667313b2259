//! `clavel`: the operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    clavel::cli::clavel::main()
}
