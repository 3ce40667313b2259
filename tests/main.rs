//! The promises of Clavel, kept or broken in front of real servers, real git and real Nix: one file a promise, and its
//! first line says which. What the tests stand on is in `support`.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod agent;
mod changes;
mod configuration;
mod daemons;
mod evaluate;
mod generated;
mod keys;
mod layers;
mod one_push;
mod publish;
mod support;
mod transports;
