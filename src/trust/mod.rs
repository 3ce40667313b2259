//! Keys, the canonical form of documents, signatures, and the roles that may sign.
//!
//! The only I/O here reads and writes key files and root files. `agent` decides what to do with a trusted document, and
//! `branch` knows where documents are.
//!
//! Threats met here: a document that nobody with authority signed, one that was altered, one that is passed off as
//! another kind (the signature binds the payload type), one key counted twice, a second way to write the same thing,
//! malleable or low-order signatures (strict verification), one that was made for another purpose (its namespace), a secret
//! that others can read or that is another user's.
//!
//! Trust starts at an [`Anchor`], which an operator gives to each machine. From there each [`TrustedRoot`] leads to the
//! next, and the [`Authority`] of each of its roles verifies everything else.

mod amend;
mod approval;
mod authority;
mod canonical;
mod document;
#[cfg(test)]
pub(crate) mod fixture;
mod key_location;
mod pin;
mod root;
mod secret;
mod signature;
mod signed;
mod ssh;
mod usable_key;

pub use amend::{AmendError, Amendment, RoleName};
pub use approval::{ApprovalFile, Approvals, EarlierApproval};
pub use authority::{Authority, AuthorityError};
pub use document::{DocumentError, verify_document};
pub use key_location::KeyLocation;
pub use pin::pin_of;
pub use root::{Anchor, AnchorError, AnchorPlace, RequiredSigners, RootError, TrustedRoot, fleet_of};
pub use secret::{SecretKey, SecretKeyError};
pub use signature::Signature;
pub use signed::{AddError, Signed, SignedError, Verified, digest};
pub use ssh::{SshSignature, SshSignatureError};

#[cfg(test)]
#[path = "splices_tests.rs"]
mod tests;
