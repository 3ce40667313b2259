//! `clavel-agent run`

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::once::{line, note, told};
use crate::agent::{Pass, Retry, Settled};
use crate::cli::exit::Exit;
use crate::cli::{asked_to_stop, output};
use crate::config::AgentConfig;
use crate::store::Output;

pub(super) async fn run(config: &AgentConfig) -> Result<(), Exit> {
    let mut pass = Pass::open(config, Output::Capture)?;
    let (switching, stop) = (pass.switching(), AtomicBool::new(false));
    let mut passes = std::pin::pin!(passes(config, &mut pass, &stop));
    tokio::select! {
        stopped = asked_to_stop() => stopped.map_err(|error| Exit::machine(&error))?,
        () = &mut passes => {}
    }
    stop.store(true, Ordering::SeqCst);
    if switching.load(Ordering::SeqCst) {
        output::remark("asked to stop; finishing the activation first");
        passes.await;
    }
    Ok(())
}

/// Pass after pass until `stop`. What fails is told and tried again; what runs goes on running.
async fn passes(config: &AgentConfig, pass: &mut Pass<'_>, stop: &AtomicBool) {
    let mut said = String::new();
    while !stop.load(Ordering::SeqCst) {
        let outcome = pass.run(Retry::NewRevisions, &|event| output::remark(told(&event))).await;
        note(pass, &outcome);
        let lines = match &outcome {
            Ok(settled) => settled.iter().map(|(name, settled)| line(name, settled)).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        };
        let lines = pass.clock_trouble().map_or(lines.clone(), |trouble| format!("warning: {trouble}\n{lines}"));
        // A log that says the same every minute is read by nobody.
        if lines != said {
            match &outcome {
                Ok(settled) if settled.iter().any(|(_, s)| matches!(s, Settled::Failed(_))) => output::error(&lines),
                Ok(_) => output::remark(&lines),
                Err(refused) => output::error(refused),
            }
            said = lines;
        }
        if !stop.load(Ordering::SeqCst) {
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
