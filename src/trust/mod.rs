//! Verifies documents: keys, the canonical form, signatures, roots and their roles, and approvals.
//!
//! Trust starts at an [`Anchor`], which an operator gives to each machine. Each [`TrustedRoot`] verifies the next one, and
//! the [`Authority`] of each of its roles verifies everything else.
//!
//! The code here meets these threats: too few trusted keys, an altered document, a document of another kind or fleet, a key
//! that counts twice, a second rendering of one content, malleable signatures and keys of low order, a signature made for
//! another purpose, and a secret key that others can read. The only I/O here is that of key files and root files.
//! Finding documents (`branch`) and deciding what to do with a trusted one (`agent`, `publish`) do not belong here.

mod amend;
mod approval;
mod authority;
mod bin;
mod canonical;
mod document;
#[cfg(test)]
pub(crate) mod fixture;
mod growth;
mod key_location;
mod pin;
mod publisher_message;
mod root;
mod secret;
mod signature;
mod signed;
mod signed_error;
mod ssh;
mod status;
mod usable_key;

pub use amend::{AmendError, Amendment, RoleName};
pub use approval::{ApprovalFile, Approvals, EarlierApproval};
pub use authority::{Authority, AuthorityError};
pub use bin::{BinError, VerifiedBin, parse_bin};
pub use document::{DocumentError, verify_document};
pub use key_location::KeyLocation;
pub use pin::pin_of;
pub use publisher_message::{PublisherMessage, PublisherMessageError};
pub use root::{Anchor, AnchorError, AnchorLocation, RequiredSigners, RootError, TrustedRoot, fleet_of};
pub use secret::{SecretKey, SecretKeyError};
pub use signature::Signature;
pub use signed::{AddError, Signed, Verified, digest};
pub use signed_error::SignedError;
pub use ssh::{SshSignature, SshSignatureError};
pub use status::{StatusError, verify_status};

#[cfg(test)]
#[path = "splices_tests.rs"]
mod tests;
