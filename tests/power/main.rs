//! The tests of what Clavel promises about a power cut: the agent runs under its own systemd unit in a guest of qemu, which is killed at
//! random points, with what it has not written to its disk. `make test-power` runs them; docs/machines.md says what is real there.
//!
//! `CLAVEL_POWER_POINTS` is the number of cuts, and `CLAVEL_POWER_SEED` repeats a run with the same points.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod cuts;
mod fleet;
mod guest;
#[path = "../support/install.rs"]
mod install;
mod points;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use more of it")]
mod support;
