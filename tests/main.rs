//! The tests of Clavel's promises, with real servers, real git and real Nix. Each file tests one promise, which its first line
//! states. `support` has what the tests share.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod activations;
mod agent;
mod approvals;
mod as_nix;
mod attacks;
mod bounds;
mod budget;
mod caches;
mod cage;
mod changes;
mod circles;
mod configuration;
mod daemons;
mod deliberate_return;
mod evaluate;
mod fleets;
mod format;
mod freshness;
mod gate;
mod generated;
mod growth;
mod histories;
mod holds;
mod incremental;
mod interruptions;
mod keys;
mod layers;
mod mirrors;
mod named_tests;
mod nixes;
mod one_push;
mod pin;
mod platforms;
mod private;
mod publications;
mod publish;
mod reasons;
mod rotation;
mod runbook;
mod setup;
mod signers;
mod sources;
mod support;
mod transports;
mod units;
mod wait_for_cache;
mod ways_back;
mod withdrawals;
