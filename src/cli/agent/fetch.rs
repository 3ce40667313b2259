//! The fetching process, which the agent starts by itself. It reads one request from standard input and prints the answer.

use std::io::Read as _;

use crate::agent::answer;
use crate::cli::exit::Exit;
use crate::cli::output;

/// The most bytes of a request. Every request is shorter.
const MAX_REQUEST_BYTES: u64 = 1 << 20;

pub(super) async fn run() -> Result<(), Exit> {
    let mut request = Vec::new();
    let read = std::io::stdin().lock().take(MAX_REQUEST_BYTES).read_to_end(&mut request);
    read.map_err(|error| Exit::machine(format!("cannot read standard input: {error}")))?;
    let answer = answer(&request).await.map_err(Exit::machine)?;
    output::bytes(&answer)
}
