//! `clavel-agent run`: one pass after another until the process is told to stop.
//!
//! Arguments, signals and printing belong to `cli`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::news::gist_of;
use super::pass::Pass;
use super::pass::outcome::{Event, PassError, PassReport};
use super::service_manager;
use super::watch::BundleWatcher;
use crate::config::AgentConfig;
use crate::model::Name;
use crate::news::{News, Standing};
use crate::store::Output;

/// A report of the daemon.
#[derive(Debug)]
pub enum AgentEvent<'a> {
    /// Something happened during a pass.
    Pass(&'a Event<'a>),
    /// A pass ended with another result than the one before, or leaves something open that was last said a day ago.
    Ended(&'a PassReport),
    /// The daemon ends while this deployment is being activated, and leaves that running.
    LeavingActivation(&'a Name),
}

/// Runs passes until `stop` is ready. A pass that fails is reported, and the next one tries again. An activation that is under way
/// at the end goes on, and the next agent picks up its result.
pub async fn run<S>(config: &AgentConfig, stop: S, tell: &dyn Fn(&AgentEvent<'_>)) -> Result<S::Output, PassError>
where
    S: Future,
{
    let mut pass = Pass::open(config, Output::Capture)?;
    service_manager::tell_ready();
    let under_way = pass.activation_under_way();
    let stopped = {
        let mut passes = std::pin::pin!(run_passes(config, &mut pass, tell));
        tokio::select! {
            stopped = stop => {
                if let Some(deployment) = &*under_way.borrow() {
                    tell(&AgentEvent::LeavingActivation(deployment));
                }
                stopped
            }
            never = &mut passes => match never {},
            never = service_manager::keep_watchdog() => match never {},
        }
    };
    pass.pause()?;
    Ok(stopped)
}

async fn run_passes(config: &AgentConfig, pass: &mut Pass<'_>, tell: &dyn Fn(&AgentEvent<'_>)) -> Infallible {
    let mut ended = News::default();
    let told = RefCell::new(BTreeMap::<Option<Name>, News>::new());
    let mut watcher = BundleWatcher::of(config);
    loop {
        // Before the pass, so that it misses nothing that comes while it looks.
        if let Some(watcher) = &mut watcher {
            watcher.refresh(config);
        }
        let tell_news = |event: Event<'_>| {
            if is_news(&event, &mut told.borrow_mut(), Instant::now()) {
                tell(&AgentEvent::Pass(&event));
            }
        };
        let report = pass.run(&tell_news).await;
        service_manager::tell_status(&report.to_string());
        let (gist, standing) = gist_of(&report);
        if ended.is_news(&gist, standing, Instant::now()) {
            tell(&AgentEvent::Ended(&report));
        }
        let changed = async {
            match &mut watcher {
                Some(watcher) => watcher.changed().await,
                None => std::future::pending().await,
            }
        };
        // A bundle that came is read at once, and everything else after the interval.
        let _ = timeout(spread(config.interval), changed).await;
    }
}

/// Whether an event of a pass is to be told. One that waits for a cache is fetched anew at every pass, and metrics are written anew.
fn is_news(event: &Event<'_>, told: &mut BTreeMap<Option<Name>, News>, now: Instant) -> bool {
    let (about, gist) = match event {
        Event::Realising(order) => {
            let gist = format!("{} {}", order.deployment.revision, order.deployment.specification.template.nar_id);
            (Some(order.deployment.name.clone()), gist)
        }
        Event::MetricsNotWritten(_, error) => (None, error.kind().to_string()),
        _ => return true,
    };
    told.entry(about).or_default().is_news(&gist, Standing::Open, now)
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
