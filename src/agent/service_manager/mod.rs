//! The service manager of this machine, systemd: what it is told about the agent (`notify`), and the units that it runs for the agent
//! (`transient`). Without it, nothing is told, and activations run as plain processes.

mod notify;
mod transient;

pub(super) use notify::{is_watched, keep_watchdog, tell_ready, tell_status};
pub(super) use transient::{Manager, UnitName};
