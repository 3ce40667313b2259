//! Clavel evaluates Nix flakes once, publishes what each machine should run as signed documents on a git branch, and
//! lets every machine fetch, verify and switch by itself.

pub mod agent;
pub mod branch;
pub mod changes;
pub mod claveld;
pub mod cli;
pub mod closures;
pub mod config;
pub mod disk;
pub mod evaluate;
pub mod git;
pub mod host;
pub mod metrics;
pub mod model;
pub mod news;
pub mod nix;
pub(crate) mod parallel;
pub mod process;
pub mod publish;
pub mod redact;
pub mod signers;
pub mod stderr;
pub mod stick;
pub mod store;
pub mod trust;
