//! What the promises share: a small world of Clavel's own, and real servers.

pub(crate) mod world;
