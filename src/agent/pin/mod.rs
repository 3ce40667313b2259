//! The pins of deployments. A pin is the digest of the content that a deployment's store path must have.
//!
//! `check` compares content with pins, without I/O. `fetch` fetches a pinned path so that nothing but the pinned content is
//! ever activated.

pub(super) mod check;
pub(super) mod fetch;
