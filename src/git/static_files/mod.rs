//! A branch as plain files in a folder, on any HTTP server or on this machine: `static+https://…`, `static+http://…`, `static+file:///…`.
//!
//! The folder has one file that changes, the tip, and every other file is below `objects/` under its SHA-256 (docs/static-export.md). What
//! the files mean belongs to `branch`, which reads them by a [`ReadStatic`]; here they are asked for, compared with their digests, and laid
//! into the repository as a commit of those files that the reader needs.
//!
//! | what | files |
//! |---|---|
//! | names | `address` (the URL), `paths` |
//! | what `branch` is given | `transfer` |
//! | asking for one file | `source`, `http` |
//! | from the tip to a commit | `read`, `tip_record` (with which the next poll is one conditional request) |
//! | what can go wrong | `error` |

pub(super) mod address;
pub(super) mod error;
mod http;
mod paths;
mod read;
mod source;
mod tip_record;
pub(super) mod transfer;

pub use address::StaticUrl;
pub use error::StaticError;
pub use paths::{STATIC_TIP, static_object_path};
pub use transfer::{ReadStatic, StaticTransfer};
