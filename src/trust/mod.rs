//! Who said it, and is it what they said: keys, the canonical form, signatures, and who has the authority to sign.
//!
//! No I/O but key files. What follows from a document that is trusted belongs to `agent`; where it is kept, to
//! `repository`.
//!
//! Threats met here: a document that nobody with authority signed, one that was altered, one that is passed off as
//! another kind (the signature binds the payload type), one key counted twice, a second way to write the same thing,
//! malleable or low-order signatures (strict verification), a secret that others can read.
//!
//! The root of trust (roles, thresholds and their rotation) has its place here: today an [`Authority`] is made from the
//! keys of a configuration; a verified root will make it then, and nothing else changes.

mod authority;
mod canonical;
mod listed;
mod secret;
mod signed;

pub use authority::{Authority, AuthorityError};
pub use listed::{ListedError, verify_listed};
pub use secret::{SecretKey, SecretKeyError};
pub use signed::{Signature, Signed, SignedError, Verified, digest};
