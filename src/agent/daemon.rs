//! `clavel-agent run`: one pass after another until the process is told to stop.
//!
//! Arguments, signals and printing belong to `cli`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::news::gist_of;
use super::pass::Pass;
use super::pass::outcome::{Event, PassError, PassReport};
use super::service_manager;
use super::watch::BundleWatcher;
use crate::config::AgentConfig;
use crate::model::{Name, describe_error};
use crate::news::{News, Standing};
use crate::process::{Invocation, ProcessError, successor};
use crate::store::Output;

/// How long a new program may take to say its version.
const TRIAL: Duration = Duration::from_secs(30);

/// A report of the daemon.
#[derive(Debug)]
pub enum AgentEvent<'a> {
    /// Something happened during a pass.
    Pass(&'a Event<'a>),
    /// A pass ended with another result than the one before, or leaves something open that was last said a day ago.
    Ended(&'a PassReport),
    /// The daemon ends while this deployment is being activated, and leaves that running.
    LeavingActivation(&'a Name),
    /// The daemon ends, because this file has replaced its program: the service manager starts that.
    Replaced(&'a Path),
    /// This file has replaced the daemon's program, and does not run. The daemon goes on.
    BadSuccessor(&'a Path, &'a ProcessError),
}

/// How the daemon ended.
#[derive(Debug)]
pub enum DaemonEnd<T> {
    /// It was told to stop.
    Stopped(T),
    /// A new program takes over.
    Replaced,
}

/// Runs passes until `stop` is ready. A pass that fails is reported, and the next one tries again. An activation that is under way
/// at the end goes on, and the next agent picks up its result. Under a service manager, it ends where its program was replaced.
pub async fn run<S>(
    config: &AgentConfig,
    stop: S,
    tell: &dyn Fn(&AgentEvent<'_>),
) -> Result<DaemonEnd<S::Output>, PassError>
where
    S: Future,
{
    let mut pass = Pass::open(config, Output::Capture)?;
    service_manager::tell_ready();
    let under_way = pass.activation_under_way();
    let ended = {
        let mut passes = std::pin::pin!(run_passes(config, &mut pass, tell));
        tokio::select! {
            stopped = stop => {
                if let Some(deployment) = &*under_way.borrow() {
                    tell(&AgentEvent::LeavingActivation(deployment));
                }
                DaemonEnd::Stopped(stopped)
            }
            () = &mut passes => DaemonEnd::Replaced,
            never = service_manager::keep_watchdog() => match never {},
        }
    };
    pass.pause()?;
    Ok(ended)
}

/// Runs passes until the program of this process was replaced.
async fn run_passes(config: &AgentConfig, pass: &mut Pass<'_>, tell: &dyn Fn(&AgentEvent<'_>)) {
    let mut tried = None;
    let mut ended = News::default();
    let told = RefCell::new(Told::new());
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
        if service_manager::is_watched() && is_replaced(&mut tried, tell).await {
            return;
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

/// Whether a program that runs has replaced that of this process. `tried` is the time of the file that was tried last.
async fn is_replaced(tried: &mut Option<SystemTime>, tell: &dyn Fn(&AgentEvent<'_>)) -> bool {
    let Some(file) = successor() else { return false };
    let written = file.metadata().and_then(|metadata| metadata.modified()).ok();
    if written.is_some() && *tried == written {
        return false;
    }
    *tried = written;
    // One that does not start would leave the machine without an agent.
    match Invocation::new(&file).arg("--version").within(TRIAL).run().await {
        Ok(_) => {
            tell(&AgentEvent::Replaced(&file));
            true
        }
        Err(error) => {
            tell(&AgentEvent::BadSuccessor(&file, &error));
            false
        }
    }
}

/// What was told last, by what it is about.
type Told = BTreeMap<(&'static str, Option<Name>), News>;

/// Whether an event of a pass is to be told. A branch with something that waits for a cache, or that fails, is read anew at every pass, and
/// fetched anew; and records and metrics are written anew.
fn is_news(event: &Event<'_>, told: &mut Told, now: Instant) -> bool {
    let (about, gist) = match event {
        Event::Fetched(tip) => (("branch", None), tip.to_string()),
        Event::Realising(order) => {
            let gist = format!("{} {}", order.deployment.revision, order.deployment.specification.template.nar_id);
            (("fetch", Some(order.deployment.name.clone())), gist)
        }
        Event::ReportNotSaved(error) => (("report", None), describe_error(*error)),
        Event::MetricsNotWritten(_, error) => (("metrics", None), error.kind().to_string()),
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
    use super::super::state::StateError;
    use super::*;

    #[test]
    fn what_is_the_same_at_every_pass_is_told_once() {
        let (mut told, now) = (Told::new(), Instant::now());
        let [one, two] = ["1", "2"].map(|digit| digit.repeat(40).parse().unwrap());
        let source = std::io::ErrorKind::StorageFull.into();
        let full = StateError::Io { act: "write", path: "/state/last-pass.json".into(), source };
        let mut is_told = |event: &Event<'_>| is_news(event, &mut told, now);
        assert!(is_told(&Event::Fetched(one)) && is_told(&Event::ReportNotSaved(&full)));
        assert!(!is_told(&Event::Fetched(one)) && !is_told(&Event::ReportNotSaved(&full)));
        assert!(is_told(&Event::Fetched(two)));
    }

    #[test]
    fn agents_are_spread_around_the_interval() {
        for _ in 0..100 {
            let spread = spread(Duration::from_mins(1));
            assert!((Duration::from_secs(54)..=Duration::from_secs(66)).contains(&spread));
        }
    }
}
