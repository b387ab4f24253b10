//! Signatures of tokens: jwt-compact's `Algorithm` over the verifiers of [`crate::crypto`].

use std::borrow::Cow;
use std::convert::Infallible;

use jwt_compact::{AlgorithmExt as _, AlgorithmSignature, Empty};

use super::{Algorithm, ClaimError, Claims, UntrustedToken};
use crate::crypto::{Crypto, PublicKey};
use crate::policy::Issuer;

/// Why a token's signature or claims are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The signature is not the key's over this token.
    Signature,
    /// The token's registered claims are malformed.
    Malformed,
    /// A claim is missing or of the wrong type.
    Claim(ClaimError),
}

/// Verifies the signature and reads the claims; the only way from [`UntrustedToken`] to
/// [`Claims`].
///
/// # Errors
/// See [`VerifyError`].
pub fn verify(
    token: &UntrustedToken<'_>,
    algorithm: Algorithm,
    key: &PublicKey,
    crypto: &Crypto,
    issuer: &Issuer,
    wanted: &[String],
) -> Result<Claims, VerifyError> {
    let jws = Jws { algorithm, crypto };
    jws.validator::<Empty>(key)
        .validate(&token.jwt)
        .map_err(|error| match error {
            jwt_compact::ValidationError::MalformedClaims(_) => VerifyError::Malformed,
            _ => VerifyError::Signature,
        })?;
    Claims::read(&token.payload, issuer, wanted).map_err(VerifyError::Claim)
}

/// One algorithm, verified by whatever [`Crypto`] chose.
struct Jws<'a> {
    algorithm: Algorithm,
    crypto: &'a Crypto,
}

/// A signature as it stands in the token.
struct Signature(Vec<u8>);

impl AlgorithmSignature for Signature {
    fn try_from_slice(slice: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(slice.to_vec()))
    }

    fn as_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0)
    }
}

impl jwt_compact::Algorithm for Jws<'_> {
    // There is no value of this type: nothing here can sign.
    type SigningKey = Infallible;
    type VerifyingKey = PublicKey;
    type Signature = Signature;

    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.algorithm.name())
    }

    fn sign(&self, signing_key: &Infallible, _: &[u8]) -> Signature {
        match *signing_key {}
    }

    fn verify_signature(&self, signature: &Signature, key: &PublicKey, message: &[u8]) -> bool {
        self.crypto
            .verify(self.algorithm, key, message, &signature.0)
    }
}
