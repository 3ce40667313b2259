//! A process that tells names and values while it goes on.

use std::collections::{BTreeSet, VecDeque};
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::error::EvaluateError;
use super::observe::Observation;
use super::outputs::{FlakeOutput, Names};
use super::record::Cost;
use super::told::{ProcessWord, Telling, read_trace};
use super::warnings::WarningText;
use crate::nix::SystemCalls;

/// The output of a run of Nix.
pub(super) struct RunOutput {
    pub(super) json: Result<Vec<u8>, EvaluateError>,
    pub(super) calls: SystemCalls,
    pub(super) cost: Cost,
}

pub(super) type TellerRun<'a> = Pin<Box<dyn Future<Output = Result<RunOutput, EvaluateError>> + 'a>>;
/// Finds out what a run used, from its system calls and the traces that say what the flake uses.
pub(super) type Observe<'a> = Box<dyn Fn(&SystemCalls, &[String]) -> Result<Observation, String> + 'a>;

/// A process that tells. It ends when this is dropped.
pub(super) struct Teller<'a> {
    /// The flake that it tells about, for errors.
    flake: String,
    run: TellerRun<'a>,
    observe: Observe<'a>,
    words: UnboundedReceiver<ProcessWord>,
    /// The traces that say what the flake uses.
    used: Vec<String>,
    /// The warnings since they were taken last.
    warnings: BTreeSet<WarningText>,
    /// What it told of values while its names were waited for.
    ahead: VecDeque<(Telling, Instant)>,
    /// The end of the process, where some of its words were not read yet.
    ended: Option<Result<RunOutput, EvaluateError>>,
}

/// The next thing that a process tells.
pub(super) enum Told {
    /// It goes on. It told this at that time.
    Telling(Telling, Instant),
    /// It ended.
    Ended(TellerEnd),
}

/// The end of a process.
pub(super) struct TellerEnd {
    /// Why it ended before it had told everything.
    pub(super) error: Option<EvaluateError>,
    /// Everything that it used, or why that is not known.
    pub(super) observed: Result<Observation, String>,
    pub(super) cost: Cost,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        flake: String,
        run: TellerRun<'a>,
        observe: Observe<'a>,
        words: UnboundedReceiver<ProcessWord>,
    ) -> Self {
        let (used, warnings, ahead) = (Vec::new(), BTreeSet::new(), VecDeque::new());
        Self { flake, run, observe, words, used, warnings, ahead, ended: None }
    }

    /// Waits until it has told the names of all `outputs`, and at most `patience` for each of its words. What it tells ahead of the last
    /// names is told by [`Teller::next`] afterwards.
    pub(super) async fn names(&mut self, outputs: &[FlakeOutput], patience: Duration) -> Result<Names, EvaluateError> {
        let mut names: Option<Names> = None;
        loop {
            match timeout(patience, self.hear()).await {
                Ok(Told::Telling(Telling::Names(more), _)) => match &mut names {
                    Some(names) => names.add(more),
                    None => names = Some(more),
                },
                Ok(Told::Telling(telling, at)) => self.ahead.push_back((telling, at)),
                Ok(Told::Ended(TellerEnd { error, .. })) => {
                    return Err(error.unwrap_or_else(|| self.misunderstood("nix told no names")));
                }
                Err(_) => {
                    let patience = humantime::format_duration(patience);
                    let why = format!("it did not list its hosts within {patience} (`timeout` below [evaluate])");
                    return Err(self.misunderstood(&why));
                }
            }
            if let Some(names) = names.take_if(|names| names.are_of(outputs)) {
                return Ok(names);
            }
        }
    }

    /// Whether it told something of values while its names were waited for.
    pub(super) fn has_told_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// The warnings of what it evaluated since they were taken last.
    pub(super) fn take_warnings(&mut self) -> BTreeSet<WarningText> {
        std::mem::take(&mut self.warnings)
    }

    /// Waits for the next thing that it tells. It may be called again when a call was given up.
    pub(super) async fn next(&mut self) -> Told {
        match self.ahead.pop_front() {
            Some((telling, at)) => Told::Telling(telling, at),
            None => self.hear().await,
        }
    }

    /// The same without what it told before.
    async fn hear(&mut self) -> Told {
        loop {
            let word = if self.ended.is_some() {
                self.words.try_recv().ok()
            } else {
                tokio::select! {
                    biased;
                    Some(word) = self.words.recv() => Some(word),
                    ended = &mut self.run => {
                        self.ended = Some(ended);
                        continue;
                    }
                }
            };
            let Some(word) = word else {
                if let Some(ended) = self.ended.take() {
                    return Told::Ended(self.end(ended));
                }
                continue;
            };
            let trace = match word {
                ProcessWord::Trace(trace) => trace,
                ProcessWord::Warning(text) => {
                    self.warnings.insert(text);
                    continue;
                }
            };
            match read_trace(&trace) {
                Ok(Some(telling)) => return Told::Telling(telling, Instant::now()),
                Ok(None) => self.used.push(trace),
                Err(error) => return Told::Ended(TellerEnd::unread(self.misunderstood(&error.to_string()))),
            }
        }
    }

    fn end(&self, ended: Result<RunOutput, EvaluateError>) -> TellerEnd {
        match ended {
            Ok(RunOutput { json, calls, cost }) => {
                TellerEnd { error: json.err(), observed: (self.observe)(&calls, &self.used), cost }
            }
            Err(error) => TellerEnd::unread(error),
        }
    }

    fn misunderstood(&self, why: &str) -> EvaluateError {
        EvaluateError::Answer { flake: self.flake.clone(), why: why.to_owned() }
    }
}

impl TellerEnd {
    /// The end of a process that was not seen to its end.
    fn unread(error: EvaluateError) -> Self {
        Self { error: Some(error), observed: Err("it did not end".to_owned()), cost: Cost::default() }
    }
}
