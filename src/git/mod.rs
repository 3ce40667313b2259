//! Bare git repositories: addresses, objects, refs, one atomic commit, fetch and push.
//!
//! All code that reads or writes a git object, a ref or a remote belongs here. Documents and signatures do not: `branch` reads
//! the meaning of the files, and `agent` and `claveld` decide when to fetch and publish.
//!
//! | what | files |
//! |---|---|
//! | names of commits, refs and remotes | `address`, `remote`, `remote_url` |
//! | how a remote is reached | `access`, `rules` (which for which URL), `proxy`, `credentials`, `login`, `netrc` and `credential_helper` (who Clavel is there), `certificates` (whom Clavel believes), `client_certificate`, `host_key` (of SSH), `git_settings` (all of it for `git`) |
//! | one repository and its refs | `repository`, `symbolic_ref`, `lock` (the lock files that git leaves) |
//! | reading a commit within limits | `objects`, `folder`, `snapshot`, `files`, `complete` (whether all of it is there) |
//! | making a commit and moving a ref | `commit`, `identity` (who makes it), `persist` (its objects on the disk), `shared` (for whom) |
//! | a branch in a file | `bundle` |
//! | a branch in a folder of plain files | `static_files` |
//! | HTTP | `http` |
//! | to and from a remote | `fetch`, `fetch_error`, `explain` (what others say), `ssh_words`, `leftovers` (of a fetch that was cut short), `noted` (small files about fetches), `medium` (a disk that may not answer), `push`, `http_trace` (the headers that git keeps to itself) |
//! | the commits of a push that git has not taken in | `preview` |

mod access;
mod address;
mod bundle;
mod certificates;
mod client_certificate;
mod commit;
mod complete;
mod confined;
mod credential_helper;
mod credentials;
mod explain;
mod fetch;
mod fetch_error;
mod files;
#[cfg(test)]
pub(crate) mod fixture;
mod folder;
mod git_settings;
mod host_key;
mod http;
mod http_trace;
mod identity;
mod leftovers;
mod lock;
mod login;
mod medium;
mod netrc;
mod noted;
mod objects;
mod persist;
mod preview;
mod proxy;
mod push;
mod remote;
mod remote_url;
mod repository;
mod rules;
mod shared;
mod snapshot;
mod ssh_words;
mod static_files;
mod symbolic_ref;

pub use access::{Access, SshAccess};
pub use address::{CommitId, RefName};
pub use bundle::{BundleError, BundleFiles, BundleHeader, BundleSearchError, BundleWriteError};
pub use certificates::CertificatesError;
pub use client_certificate::{ClientCertificate, ClientKey};
pub use commit::{Change, CommitError, NewCommit, Prepared, PreparedCommit};
pub use confined::{
    ChildError, ConfinedFetch, ConfinedFetchError, FETCH_COMMAND, WhenBusy, answer as answer_fetch, lock_of,
};
pub use credential_helper::{answer as answer_credential, is_call as is_credential_call};
pub use credentials::{Credentials, SecretLocation};
pub use fetch::{Depth, Fetched};
pub use fetch_error::Remedy;
pub use files::Files;
pub use host_key::HostKey;
pub use http::http_status;
pub use http::retry_after::MAX_RETRY_AFTER;
pub use identity::{Authorship, Identity, git_author};
pub use leftovers::Leftovers;
pub use lock::HeldLock;
pub use medium::on_medium;
pub use objects::{Mode, ObjectId, ReadError};
pub use preview::{Preview, PreviewError};
pub use proxy::ProxyUrl;
pub use push::{Push, PushError};
pub use remote::Remote;
pub use repository::{GitError, OpenError, Repository};
pub use rules::{AccessRule, AccessRules, ProgramAccess, UrlPrefix};
pub use snapshot::{Snapshot, TreeEntry};
pub use static_files::{ReadStatic, STATIC_TIP, StaticError, StaticTransfer, StaticUrl, static_object_path};
pub use symbolic_ref::{RefTarget, resolve_ref};
