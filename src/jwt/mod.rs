//! Access tokens: from bytes to a verified caller.
//!
//! The types tell how far a token has come: [`UntrustedToken`] has the shape of a JWT and
//! nothing more, [`Claims`] exist only for a token whose signature is good, and a
//! [`Caller`] only for claims that hold now. Each is made by the check that it stands for.

mod algorithm;
mod cache;
mod caller;
mod claims;
mod jws;
mod token;

pub use algorithm::Algorithm;
pub use cache::{CachedToken, TokenCache};
pub use caller::{Caller, ClaimRefusal};
pub use claims::{ClaimError, Claims, Verified, Version};
pub use jws::{JwsAlgorithm, JwsSignature, VerifyError, verify};
pub use token::{Jws, MAX_TOKEN, TokenError, UntrustedToken};
