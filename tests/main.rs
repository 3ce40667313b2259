//! The promises of Clavel, kept or broken in front of real servers, real git and real Nix.
//!
//! Each module is one promise, which its first line says. What the tests stand on is in `support`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

mod servers;
mod support;
