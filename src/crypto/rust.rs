//! Verification in Rust, by the RustCrypto crates.

use rsa::signature::Verifier;
use rsa::{pkcs1v15, pss};
use sha2::{Sha256, Sha384, Sha512};

use super::der;
use super::key::{KeyKind, PublicKey};
use crate::jwt::Algorithm;

/// A signature in the form that the host's verifier takes.
pub(super) enum HostForm {
    /// As it stands in the token.
    AsIs,
    /// ECDSA: DER in place of `r || s` (RFC 7518 section 3.4).
    Der(Vec<u8>),
    /// Not a signature at all.
    Malformed,
}

/// Whether `signature` over `message` is good.
pub(super) fn verify(
    algorithm: Algorithm,
    key: &PublicKey,
    message: &[u8],
    signature: &[u8],
) -> bool {
    match &key.kind {
        KeyKind::Rsa(key) => verify_rsa(algorithm, key, message, signature),
        KeyKind::P256(key) => p256::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
        KeyKind::P384(key) => p384::ecdsa::Signature::from_slice(signature)
            .is_ok_and(|signature| key.verify(message, &signature).is_ok()),
    }
}

fn verify_rsa(
    algorithm: Algorithm,
    key: &rsa::PublicKey,
    message: &[u8],
    signature: &[u8],
) -> bool {
    fn check<S, V>(verifier: &V, message: &[u8], signature: &[u8]) -> bool
    where
        S: for<'a> TryFrom<&'a [u8]>,
        V: Verifier<S>,
    {
        S::try_from(signature).is_ok_and(|signature| verifier.verify(message, &signature).is_ok())
    }
    let key = key.clone();
    match algorithm {
        Algorithm::Rs256 => check(
            &pkcs1v15::VerifyingKey::<Sha256>::new(key),
            message,
            signature,
        ),
        Algorithm::Rs384 => check(
            &pkcs1v15::VerifyingKey::<Sha384>::new(key),
            message,
            signature,
        ),
        Algorithm::Rs512 => check(
            &pkcs1v15::VerifyingKey::<Sha512>::new(key),
            message,
            signature,
        ),
        Algorithm::Ps256 => check(&pss::VerifyingKey::<Sha256>::new(key), message, signature),
        Algorithm::Ps384 => check(&pss::VerifyingKey::<Sha384>::new(key), message, signature),
        Algorithm::Ps512 => check(&pss::VerifyingKey::<Sha512>::new(key), message, signature),
        Algorithm::Es256 | Algorithm::Es384 => false,
    }
}

/// Turns a signature as it stands in a token into what the host's verifier takes.
pub(super) fn host_form(algorithm: Algorithm, signature: &[u8]) -> HostForm {
    let size = match algorithm {
        Algorithm::Es256 => 64,
        Algorithm::Es384 => 96,
        _ => return HostForm::AsIs,
    };
    match signature.split_at_checked(size / 2) {
        Some((r, s)) if signature.len() == size => HostForm::Der(der::unsigned_pair(r, s)),
        _ => HostForm::Malformed,
    }
}

/// What an honest host does with the form that it is given; stands in for one in tests.
#[cfg(test)]
pub(super) fn verify_host_form(
    hash: &str,
    spki: &[u8],
    signature: &[u8],
    message: &[u8],
) -> Option<bool> {
    use rsa::pkcs8::DecodePublicKey;

    if let Ok(key) = rsa::PublicKey::from_public_key_der(spki) {
        let algorithm = match hash {
            "sha256" => Algorithm::Rs256,
            "sha384" => Algorithm::Rs384,
            _ => Algorithm::Rs512,
        };
        return Some(verify_rsa(algorithm, &key, message, signature));
    }
    if let Ok(key) = p256::ecdsa::VerifyingKey::from_public_key_der(spki) {
        let signature = p256::ecdsa::Signature::from_der(signature).ok()?;
        return Some(key.verify(message, &signature).is_ok());
    }
    let key = p384::ecdsa::VerifyingKey::from_public_key_der(spki).ok()?;
    let signature = p384::ecdsa::Signature::from_der(signature).ok()?;
    Some(key.verify(message, &signature).is_ok())
}
