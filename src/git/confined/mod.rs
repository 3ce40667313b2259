//! A fetch in a process of its own, with limits on time, memory and disk: the only way in which Clavel's programs fetch.
//!
//! Nobody trusts a remote with the memory, the disk or the time of the program that asks. Each program runs itself anew with one
//! hidden command (`child`), which talks to the remote. The program reads the answer alone (`parent`), and leaves a server
//! alone that asks for it (`put_off`). Where the files of a repository on this machine say that the branch has not moved, nothing is started
//! (`unmoved`).
//!
//! Whether to keep, clear or discard the repository that was fetched into belongs to the callers.

mod child;
mod error;
mod limits;
mod parent;
mod put_off;
mod unmoved;

pub use child::{ChildError, FETCH_COMMAND, WhenBusy, answer};
pub use error::ConfinedFetchError;
pub use parent::{ConfinedFetch, lock_of};
