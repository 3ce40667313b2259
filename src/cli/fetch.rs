//! The fetching process, which each program starts by itself. It reads one request from standard input and prints the answer.

use super::exit::Exit;
use super::output;
use crate::branch::read_static;
use crate::git::answer_fetch;

pub(super) async fn run() -> Result<(), Exit> {
    let answer = answer_fetch(std::io::stdin(), read_static).await.map_err(|error| Exit::machine(&error))?;
    output::bytes(&answer)
}
