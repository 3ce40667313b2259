//! `clavel-agent run`: one pass after another until the process is told to stop.
//!
//! Arguments, signals and printing belong to `cli`.

use std::cell::Cell;
use std::time::Duration;

use super::decide::Retry;
use super::pass::Pass;
use super::pass::outcome::{Event, PassError, PassReport};
use crate::config::AgentConfig;
use crate::store::Output;

/// A report of the daemon.
#[derive(Debug)]
pub enum AgentEvent<'a> {
    /// Something happened during a pass.
    Pass(&'a Event<'a>),
    /// A pass ended with another result than the one before. A log that repeats itself every minute finds no reader.
    Ended(&'a PassReport),
    /// The daemon was told to stop while a unit is being switched, and finishes that first.
    FinishingPass,
}

/// Runs passes until `stop` is ready. A pass that fails is reported, and the next one tries again.
pub async fn run<S>(config: &AgentConfig, stop: S, tell: &dyn Fn(&AgentEvent<'_>)) -> Result<S::Output, PassError>
where
    S: Future,
{
    let mut pass = Pass::open(config, Output::Capture)?;
    let (switching, is_stopping) = (pass.switching(), Cell::new(false));
    let (mut passes, mut stop) =
        (std::pin::pin!(run_passes(config, &mut pass, &is_stopping, tell)), std::pin::pin!(stop));
    let stopped = tokio::select! {
        stopped = &mut stop => stopped,
        // The passes end only when they are told to.
        () = &mut passes => stop.await,
    };
    is_stopping.set(true);
    if switching.get() {
        tell(&AgentEvent::FinishingPass);
        passes.await;
    }
    Ok(stopped)
}

async fn run_passes(
    config: &AgentConfig,
    pass: &mut Pass<'_>,
    is_stopping: &Cell<bool>,
    tell: &dyn Fn(&AgentEvent<'_>),
) {
    let mut last = String::new();
    while !is_stopping.get() {
        let report = pass.run(Retry::NewRevisions, &|event| tell(&AgentEvent::Pass(&event))).await;
        let text = report.to_string();
        if text != last {
            tell(&AgentEvent::Ended(&report));
            last = text;
        }
        if !is_stopping.get() {
            tokio::time::sleep(spread(config.interval)).await;
        }
    }
}

/// `interval`, up to a tenth longer or shorter, so that ten thousand agents do not ask in the same second.
fn spread(interval: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX);
    interval.mul_f64(0.9 + 0.2 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_spread_around_the_interval() {
        for _ in 0..100 {
            let spread = spread(Duration::from_mins(1));
            assert!((Duration::from_secs(54)..=Duration::from_secs(66)).contains(&spread));
        }
    }
}
