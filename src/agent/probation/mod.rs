//! Probation: whether a revision stays, once it was activated.
//!
//! `trial` decides, without I/O: all checks have to hold for a while, a mirror has to be readable again, and a person may be asked.
//! `look` looks once at what a check is about. `files` has the report for `clavel-agent status` and the confirmation of a person.
//! The loop around them is `pass/prove.rs`.

pub(super) mod files;
pub(super) mod look;
pub(super) mod trial;
