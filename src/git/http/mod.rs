//! HTTP by libcurl: what git's protocol needs of it, and what every connection of Clavel's has.
//!
//! The connections of gix would do, but for three things: they show no client certificate, they keep no header of a refusal, and they
//! take a redirect to any host for a part of the repository's.
//!
//! | what | files |
//! |---|---|
//! | one connection: deadlines, proxy, client certificate | `connection` |
//! | whether a redirect is followed, and with what | `redirect` |
//! | for how long a server wants to be left alone | `retry_after` |
//! | git's requests over it | `transport` |
//! | a plain request, as a check of a machine makes it | `status` |

pub(super) mod connection;
mod redirect;
pub(super) mod retry_after;
mod status;
mod transport;

pub use status::http_status;
pub(super) use transport::GitHttp;
