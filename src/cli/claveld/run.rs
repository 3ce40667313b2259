//! `claveld run`: starts the daemon, and prints its events.

use super::print::{print_event, print_reasons, print_trouble, report_lines};
use super::progress::Board;
use crate::claveld::{Daemon, DaemonEvent};
use crate::cli::exit::Exit;
use crate::cli::{output, wait_for_stop_signal};
use crate::config::ClaveldConfig;
use crate::model::describe_error;

pub(super) async fn run(config: &ClaveldConfig) -> Result<(), Exit> {
    let board = Board::lines();
    let print = |event: DaemonEvent<'_>| print(&board, &event);
    let daemon = Daemon::new(config, &print)?;
    tokio::select! {
        stopped = wait_for_stop_signal() => stopped.map_err(Exit::machine),
        () = daemon.run() => Ok(()),
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
