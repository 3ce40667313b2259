//! `claveld run`: starts the daemon, and prints its events.

use super::ClaveldConfigArgument;
use super::print::{print_differences, print_event, print_news, print_reasons, report_lines};
use super::progress::Board;
use crate::claveld::{Daemon, DaemonEvent, RoundEvent};
use crate::cli::exit::Exit;
use crate::cli::{Signals, output};
use crate::evaluate::Progress;
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
        // A source that is broken is read, and the rest published, at every poll.
        DaemonEvent::Progress(RoundEvent::Evaluating { progress: Progress::Locking, .. } | RoundEvent::Publishing) => {}
        DaemonEvent::Progress(event) => print_event(board, event),
        DaemonEvent::RoundFinished(outcome, news) => {
            print_reasons(outcome);
            if outcome.report.commit.is_some() || !outcome.evaluations.is_empty() {
                report_lines(&outcome.report).into_iter().for_each(output::remark);
            }
            print_differences(outcome.differences());
            print_news(news);
        }
        DaemonEvent::PostponedPublished(report) => report_lines(report).into_iter().for_each(output::remark),
        DaemonEvent::PushedOn(report) => output::remark(report),
        DaemonEvent::News(news) => print_news(news),
        DaemonEvent::WrongAnswers(wrong) => print_differences(wrong.attributes.iter()),
        DaemonEvent::WatchFailed(failed) => output::error(describe_error(failed)),
    }
}
