//! What `claveld run` does while nothing waits for it: it learns what answers depend on, and it checks itself in the night.
//!
//! The self-check evaluates everything anew and compares. A difference is a mistake in Clavel: an answer was used again that did not hold.
//! The new answer is recorded, so that the next round publishes it.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::time::SystemTime;

use super::round::{RoundRunner, WrongAnswers};
use crate::disk::{self, Access, Durability};
use crate::model::{FlakeReference, SelfCheck, Timestamp};

/// What the work in the background found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The sources of which everything was learnt.
    pub(super) learnt: Vec<FlakeReference>,
    /// What the self-check found.
    pub(super) wrong: Vec<WrongAnswers>,
}

/// The work in the background. It ends when this is dropped, and goes on where it was with the next one.
#[derive(Default)]
pub(super) struct Background<'a>(Option<Pin<Box<dyn Future<Output = Found> + 'a>>>);

impl<'a> Background<'a> {
    /// Begins to learn about the sources in `unlearnt`, and then to check itself where that is due, unless something is going on.
    pub(super) fn begin(
        &mut self,
        runner: &Rc<RoundRunner<'a>>,
        unlearnt: Vec<FlakeReference>,
        check: &Rc<SelfCheckTimes>,
    ) {
        let is_due = check.next().is_some_and(|at| at <= SystemTime::now().into());
        if self.0.is_some() || unlearnt.is_empty() && !is_due {
            return;
        }
        let (runner, check) = (Rc::clone(runner), Rc::clone(check));
        self.0 = Some(Box::pin(async move {
            runner.learn_about(&unlearnt, &|_| ()).await;
            let wrong = if is_due { runner.check_itself().await } else { Vec::new() };
            if is_due {
                check.note();
            }
            Found { learnt: unlearnt, wrong }
        }));
    }

    /// Waits until the work is done; for ever where there is none.
    pub(super) async fn done(&mut self) -> Found {
        match &mut self.0 {
            Some(work) => {
                let found = work.await;
                self.0 = None;
                found
            }
            None => std::future::pending().await,
        }
    }

    /// Ends the work: something goes first.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

/// When claveld checks itself. A file says when it did so last, for the next claveld.
#[derive(Debug)]
pub(super) struct SelfCheckTimes {
    schedule: SelfCheck,
    file: PathBuf,
    last: Cell<Timestamp>,
}

impl SelfCheckTimes {
    /// The times by `schedule`. A claveld that never checked itself counts from now on.
    pub(super) fn new(schedule: SelfCheck, state_directory: &Path) -> Self {
        let file = state_directory.join("self-check");
        let last = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
        let times = Self { schedule, file, last: Cell::new(last.unwrap_or_else(|| SystemTime::now().into())) };
        if last.is_none() {
            times.note();
        }
        times
    }

    /// When the next check is due; none where there is to be none.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.schedule.next_after(self.last.get())
    }

    /// Notes that it checked itself now. Where the file cannot be written, it does not do so again at once all the same.
    fn note(&self) {
        let now = Timestamp::from(SystemTime::now());
        self.last.set(now);
        if let Err(error) =
            disk::replace(&self.file, format!("{now}\n").as_bytes(), Access::Owner, Durability::Unsynced)
        {
            tracing::warn!(path = %self.file.display(), %error, "cannot note when claveld checked itself");
        }
    }
}
