//! `claveld run`: starts the daemon, and prints its events.

use super::ClaveldConfigArgument;
use super::print::{print_event, print_reasons, print_trouble, report_lines};
use super::progress::Board;
use crate::claveld::{Daemon, DaemonEvent};
use crate::cli::exit::Exit;
use crate::cli::{Signals, output};
use crate::model::describe_error;
use crate::stderr;

pub(super) async fn run(argument: &ClaveldConfigArgument) -> Result<(), Exit> {
    let mut config = argument.read()?;
    let mut signals = Signals::handle()?;
    stderr::never_wait();
    let board = Board::lines();
    let print = |event: DaemonEvent<'_>| print(&board, &event);
    let read = || {
        let new = argument.read()?;
        // Its keys have to be there as well.
        drop(Daemon::new(&new, &|_| ())?);
        Ok(new)
    };
    loop {
        let daemon = Daemon::new(&config, &print)?;
        let next = tokio::select! {
            next = signals.stop_or_reload(read) => next,
            () = daemon.run() => None,
        };
        match next {
            Some(new) => config = new,
            None => return Ok(()),
        }
    }
}

fn print(board: &Board, event: &DaemonEvent<'_>) {
    match event {
        DaemonEvent::Progress(event) => print_event(board, event),
        DaemonEvent::RoundFinished(outcome) => {
            print_reasons(outcome);
            report_lines(&outcome.report).into_iter().for_each(output::remark);
            print_trouble(outcome);
        }
        DaemonEvent::PostponedPublished(report) => report_lines(report).into_iter().for_each(output::remark),
        DaemonEvent::Postponed(postponed) => {
            postponed.waiting.iter().for_each(output::remark);
            postponed.kept_back.iter().for_each(output::remark);
        }
        DaemonEvent::PublishFailed(failed) => output::error(describe_error(failed)),
        DaemonEvent::WatchFailed(failed) => output::error(describe_error(failed)),
    }
}
