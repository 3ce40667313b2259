//! Who said it, and is it what they said: keys, the canonical form, signatures, and who has the authority to sign.
//!
//! No I/O but key files. What follows from a document that is trusted belongs to `agent`; where it is kept, to
//! `repository`.
//!
//! Threats met here: a document that nobody with authority signed, one that was altered, one that is passed off as
//! another kind (the signature binds the payload type), one key counted twice, a second way to write the same thing,
//! malleable or low-order signatures (strict verification), one that was made for another purpose (its namespace), a secret
//! that others can read or that is another user's.
//!
//! Whom to believe follows from one thing that was known before: an [`Anchor`]. From it each [`TrustedRoot`] leads to the
//! next, and its roles are the [`Authority`]s that everything else is verified by.

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
