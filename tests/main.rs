//! The promises of Clavel: one file a promise, and its first line says which.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod agent;
mod configuration;
mod daemons;
mod evaluate;
mod keys;
mod one_push;
mod publish;
mod support;
