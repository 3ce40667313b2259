//! The progress of evaluations: one line that is updated on a terminal, plain lines elsewhere.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cli::output::{self, Spinner};
use crate::evaluate::{EvaluationWork, Item, Progress};
use crate::model::Source;

/// Up to this number, each evaluation gets a line. Where there are more, each tenth of them gets one.
const EACH: usize = 10;
/// The most attributes that one line names.
const NAMED: usize = 3;

/// Shows the progress of evaluations.
pub(super) struct Board {
    display: Display,
    state: Arc<Mutex<ProgressState>>,
    /// The tenths that the last plain line reported.
    tenths: RefCell<usize>,
}

enum Display {
    /// One line on a terminal.
    Live(Spinner),
    /// Plain lines, for the output of a push or for a log.
    Lines,
}

#[derive(Default)]
struct ProgressState {
    text: String,
    done: usize,
    of: usize,
    running: BTreeMap<Item, (Instant, Option<Duration>)>,
}

impl Board {
    /// Shows a line on the terminal; nothing where there is no terminal.
    pub(super) fn live() -> Self {
        let state = Arc::<Mutex<ProgressState>>::default();
        let shared = Arc::clone(&state);
        let line = move || shared.lock().unwrap_or_else(PoisonError::into_inner).line();
        Self { display: Display::Live(Spinner::new(line)), state, tenths: RefCell::default() }
    }

    /// Plain lines.
    pub(super) fn lines() -> Self {
        Self { display: Display::Lines, state: Arc::default(), tenths: RefCell::default() }
    }

    /// Shows the beginning of other work than an evaluation.
    pub(super) fn say(&self, text: &str) {
        self.state(|state| *state = ProgressState { text: text.to_owned(), ..ProgressState::default() });
        self.line(text);
    }

    /// Shows the progress of an evaluation of `source`.
    pub(super) fn advance(&self, source: &Source, progress: &Progress) {
        match progress {
            Progress::Locking => self.say(&format!("reading {}", source.flake)),
            Progress::Planned { revision, changed, of } => {
                let at = revision.as_ref().map(|revision| format!(" at {}", revision.short())).unwrap_or_default();
                self.say(&format!("evaluating {}{at}: {}", source.flake, share(*changed, *of)));
                self.state(|state| state.of = *changed);
                *self.tenths.borrow_mut() = 0;
            }
            Progress::Started { attribute, before } => self.state(|state| {
                state.running.insert(attribute.clone(), (Instant::now(), *before));
            }),
            Progress::Learning { done, of } => {
                if *done == 0 {
                    let text = format!("learning what {of} of them depend on; it may be interrupted");
                    self.state(|state| {
                        *state = ProgressState { text: text.clone(), of: *of, ..ProgressState::default() }
                    });
                    // A few are done so soon that a line would only distract.
                    if *of > EACH {
                        self.line(&text);
                    }
                }
                self.state(|state| state.done = *done);
            }
            Progress::Done { attribute, time, done, of } => {
                self.state(|state| {
                    state.running.remove(attribute);
                    state.done = *done;
                });
                let tenths = *done * 10 / (*of).max(1);
                if *of <= EACH {
                    self.line(&format!("evaluated {attribute} in {}", describe_time(*time)));
                } else if self.tenths.replace(tenths) != tenths {
                    self.line(&format!("evaluated {done} of {of}"));
                }
            }
        }
    }

    fn state(&self, change: impl FnOnce(&mut ProgressState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn line(&self, text: &str) {
        match &self.display {
            Display::Live(spinner) => spinner.redraw(),
            Display::Lines => output::remark(text),
        }
    }
}

impl ProgressState {
    fn line(&self) -> String {
        let mut line = self.text.clone();
        if self.of > 0 {
            let _ = write!(line, "; {} done", self.done);
        }
        for (at, (attribute, (since, before))) in self.running.iter().take(NAMED).enumerate() {
            let before = before.map(|before| format!(", last time {}", describe_time(before))).unwrap_or_default();
            let _ = write!(
                line,
                "{} {attribute} ({}{before})",
                if at == 0 { ":" } else { "," },
                describe_time(since.elapsed())
            );
        }
        line
    }
}

fn share(changed: usize, of: usize) -> String {
    match (changed, of) {
        (0, 0) => "it has nothing to evaluate".to_owned(),
        (0, of) => format!("none of {of}, because nothing that they depend on changed"),
        (changed, of) if changed == of => format!("all {of}"),
        (changed, of) => format!("{changed} of {of}"),
    }
}

/// Describes a duration: `0.4 s`, `75 s`.
fn describe_time(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} s", time.as_secs())
    }
}

/// Describes why attributes were evaluated, a line for each reason. It gives no lines where one reason holds for all attributes.
pub(super) fn reasons(work: &EvaluationWork) -> Vec<String> {
    /// The number of reasons that get a line.
    const MAX_REASONS: usize = 10;
    let mut by_reason: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for evaluated in &work.evaluated {
        by_reason.entry(evaluated.reason.to_string()).or_default().push(evaluated.attribute.to_string());
    }
    if work.unchanged == 0 && by_reason.len() < 2 {
        return Vec::new();
    }
    let line = |(why, attributes): (&String, &Vec<String>)| match attributes.get(NAMED..) {
        Some(more) if !more.is_empty() => {
            format!("evaluated {} and {} more: {why}", attributes[..NAMED].join(", "), more.len())
        }
        _ => format!("evaluated {}: {why}", attributes.join(", ")),
    };
    let mut lines: Vec<String> = by_reason.iter().take(MAX_REASONS).map(line).collect();
    if by_reason.len() > MAX_REASONS {
        lines.push(format!("and for {} more reasons", by_reason.len() - MAX_REASONS));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{EvalReason, EvaluatedAttribute};

    fn host(name: &str) -> Item {
        Item::try_from(vec!["nixosConfigurations".to_owned(), name.to_owned()]).unwrap()
    }

    #[test]
    fn the_line_names_what_runs_and_its_last_duration() {
        let board = Board::lines();
        let source = Source::bare("path:/fleet".parse().unwrap());
        board.advance(&source, &Progress::Planned { revision: None, changed: 2, of: 7 });
        let before = Some(Duration::from_secs(75));
        board.advance(&source, &Progress::Started { attribute: host("web-1"), before });
        let line = board.state.lock().unwrap().line();
        assert_eq!(line, "evaluating path:/fleet: 2 of 7; 0 done: nixosConfigurations.web-1 (0.0 s, last time 75 s)");
    }

    #[test]
    fn reasons_are_described_where_there_are_several() {
        let evaluated =
            |name: &str, reason| EvaluatedAttribute { attribute: host(name), reason, seconds: None, memory: None };
        let path = || EvalReason::Changed("a.nix".into());
        let all_new = EvaluationWork {
            evaluated: vec![evaluated("a", EvalReason::New), evaluated("b", EvalReason::New)],
            ..EvaluationWork::default()
        };
        assert_eq!(reasons(&all_new), [""; 0]);
        let some = EvaluationWork {
            evaluated: ["a", "b", "c", "d"].map(|name| evaluated(name, path())).into(),
            unchanged: 1,
            ..EvaluationWork::default()
        };
        assert_eq!(
            reasons(&some),
            ["evaluated nixosConfigurations.a, nixosConfigurations.b, nixosConfigurations.c and 1 more: a.nix changed"]
        );
    }
}
