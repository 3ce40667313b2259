//! Git bundles: a branch in one file, which travels without a network.
//!
//! `header` is the text at the beginning of a bundle, `files` finds the bundles that a path or a pattern names, `read` takes one into a
//! repository, and `write` makes one. Nothing of a bundle is trusted: like everything that is fetched, it is read by a process with
//! limits, and kept apart until it is known to be complete.

#[cfg(test)]
mod damage_tests;
pub(super) mod error;
pub(super) mod files;
mod header;
pub(super) mod incoming;
mod read;
mod write;

pub use error::BundleError;
pub use files::{BundleFiles, BundleSearchError};
pub use header::BundleHeader;
pub use write::BundleWriteError;
