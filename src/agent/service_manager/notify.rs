//! What the agent tells the service manager that runs it (`sd_notify(3)`): that it is ready, how it stands, and that it still
//! works. Without a service manager nothing is told.
use std::convert::Infallible;

use sd_notify::NotifyState;

/// The most characters of the state in words. systemd shows it in one line.
const MAX_STATUS: usize = 200;

/// Tells that the agent is ready.
pub(in crate::agent) fn tell_ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells how the agent stands.
pub(in crate::agent) fn tell_status(status: &str) {
    let status: String = status.lines().next().unwrap_or_default().chars().take(MAX_STATUS).collect();
    tell(&[NotifyState::Status(&status)]);
}

/// Tells again and again that the agent works, where the service manager wants to know.
pub(in crate::agent) async fn keep_watchdog() -> Infallible {
    let Some(within) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(within / 3).await;
    }
}

/// Whether a service manager runs this agent, and starts it anew when it ends.
pub(in crate::agent) fn is_watched() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager how this agent stands");
    }
}
