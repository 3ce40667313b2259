//! The tests of what Clavel promises about a whole machine: the agent runs under its own systemd unit on a booted Debian, and
//! switches it to systems with the shape of NixOS's. `make test-machines` runs them; docs/machines.md says what is real there.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod boots;
mod breakages;
mod claveld_unit;
mod failures;
mod fleet;
mod full_disk;
mod full_store;
#[path = "../support/install.rs"]
mod install;
mod journal;
mod killed_agent;
mod machine;
mod many_agents;
mod network;
mod own_unit;
mod probation;
mod restarts;
mod service;
#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the other tests use more of it")]
mod support;
mod switches;
mod systems;
mod way_back;
