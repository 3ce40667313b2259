//! The fetching process, which the agent starts by itself. It reads one request from standard input and prints the answer.

use crate::agent::answer;
use crate::cli::exit::Exit;
use crate::cli::output;

pub(super) async fn run() -> Result<(), Exit> {
    let answer = answer(std::io::stdin()).await.map_err(|error| Exit::machine(&error))?;
    output::bytes(&answer)
}
