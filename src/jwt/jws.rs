//! Signatures of tokens: jwt-compact's `Algorithm` over the verifiers of [`crate::crypto`].

use std::borrow::Cow;
use std::convert::Infallible;

use jwt_compact::{Algorithm as _, AlgorithmSignature};

use super::{Algorithm, ClaimError, UntrustedToken, Verified};
use crate::crypto::{Crypto, PublicKey};
use crate::policy::Issuer;

/// Why a token's signature or claims are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The signature is not the key's over this token.
    Signature,
    /// A claim is missing or of the wrong type.
    Claim(ClaimError),
}

/// Verifies the signature and reads the claims; the only way from [`UntrustedToken`] to
/// [`Claims`](super::Claims).
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
) -> Result<Verified, VerifyError> {
    let verifier = JwsAlgorithm { algorithm, crypto };
    let signature = JwsSignature(Cow::Borrowed(&token.jws.signature));
    if token.algorithm() != algorithm.name()
        || !verifier.verify_signature(&signature, key, token.jws.signed)
    {
        return Err(VerifyError::Signature);
    }
    Verified::read(&token.payload, issuer, wanted).map_err(VerifyError::Claim)
}

/// One algorithm of RFC 7518, verified by whatever [`Crypto`] chose. It cannot sign.
pub struct JwsAlgorithm<'a> {
    /// Which algorithm.
    pub algorithm: Algorithm,
    /// Who verifies.
    pub crypto: &'a Crypto,
}

/// A signature as it stands in the token.
pub struct JwsSignature<'a>(Cow<'a, [u8]>);

impl AlgorithmSignature for JwsSignature<'_> {
    fn try_from_slice(slice: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(Cow::Owned(slice.to_vec())))
    }

    fn as_bytes(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0)
    }
}

impl<'a> jwt_compact::Algorithm for JwsAlgorithm<'a> {
    // There is no value of this type.
    type SigningKey = Infallible;
    type VerifyingKey = PublicKey;
    type Signature = JwsSignature<'a>;

    fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(self.algorithm.name())
    }

    fn sign(&self, signing_key: &Infallible, _: &[u8]) -> JwsSignature<'a> {
        match *signing_key {}
    }

    fn verify_signature(
        &self,
        signature: &JwsSignature<'a>,
        key: &PublicKey,
        message: &[u8],
    ) -> bool {
        self.crypto
            .verify(self.algorithm, key, message, &signature.0)
    }
}
