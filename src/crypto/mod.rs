//! Signature verification: by the host where it proves able, in Rust everywhere else.
//!
//! No cryptography is written here. The host's verifier (Envoy's `verify_signature` foreign
//! function, BoringSSL underneath) is about ten times as fast as Rust inside Wasm, but other
//! hosts lack it, and not every host's covers every algorithm. So each algorithm is tried once
//! at start with a known answer, and only what answers right is used.

mod der;
pub mod envoy;
mod key;
mod known_answers;
mod rust;

use std::rc::Rc;

pub use key::{KeyError, PublicKey};

use crate::jwt::Algorithm;

/// A verifier that the host offers.
pub trait HostVerifier {
    /// Verifies `signature` over `message`; ECDSA signatures are DER.
    ///
    /// `None` when the host has no such function or it failed: not an answer.
    fn verify(&self, hash: &str, spki: &[u8], signature: &[u8], message: &[u8]) -> Option<bool>;
}

/// Verifies signatures.
#[derive(Clone, Default)]
pub struct Crypto {
    host: Option<Rc<dyn HostVerifier>>,
    /// Algorithms whose known answers the host gave right.
    trusted_to_host: Vec<Algorithm>,
}

impl Crypto {
    /// Rust only.
    #[must_use]
    pub fn pure() -> Self {
        Self::default()
    }

    /// Tries the host on known answers and trusts it with what it gets right: a good signature
    /// accepted, and the same signature over another message refused.
    #[must_use]
    pub fn probe(host: Rc<dyn HostVerifier>) -> Self {
        use known_answers as known;
        let trusted_to_host = [
            (Algorithm::Rs256, known::RSA_SPKI, known::RS256),
            (Algorithm::Rs384, known::RSA_SPKI, known::RS384),
            (Algorithm::Rs512, known::RSA_SPKI, known::RS512),
            (Algorithm::Es256, known::P256_SPKI, known::ES256),
            (Algorithm::Es384, known::P384_SPKI, known::ES384),
        ]
        .into_iter()
        .filter(|(algorithm, spki, signature)| {
            let answer = |message| host.verify(hash_name(*algorithm), spki, signature, message);
            answer(known::MESSAGE) == Some(true) && answer(b"another message") == Some(false)
        })
        .map(|(algorithm, ..)| algorithm)
        .collect();
        Self {
            host: Some(host),
            trusted_to_host,
        }
    }

    /// The algorithms that the host verifies.
    #[must_use]
    pub fn by_host(&self) -> &[Algorithm] {
        &self.trusted_to_host
    }

    /// Whether `signature` (in its JWS form, RFC 7518 section 3) over `message` is good.
    ///
    /// `false` as well when the key does not fit the algorithm.
    #[must_use]
    pub fn verify(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        if !key.fits(algorithm) {
            return false;
        }
        self.verify_by_host(algorithm, key, message, signature)
            .unwrap_or_else(|| rust::verify(algorithm, key, message, signature))
    }

    fn verify_by_host(
        &self,
        algorithm: Algorithm,
        key: &PublicKey,
        message: &[u8],
        signature: &[u8],
    ) -> Option<bool> {
        let host = self.host.as_ref()?;
        if !self.trusted_to_host.contains(&algorithm) {
            return None;
        }
        let hash = hash_name(algorithm);
        match rust::host_form(algorithm, signature) {
            rust::HostForm::AsIs => host.verify(hash, key.spki(), signature, message),
            rust::HostForm::Der(der) => host.verify(hash, key.spki(), &der, message),
            rust::HostForm::Malformed => Some(false),
        }
    }
}

/// The hash of an algorithm, as the host names it.
fn hash_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Rs256 | Algorithm::Ps256 | Algorithm::Es256 => "sha256",
        Algorithm::Rs384 | Algorithm::Ps384 | Algorithm::Es384 => "sha384",
        Algorithm::Rs512 | Algorithm::Ps512 => "sha512",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose every answer is the same.
    struct Constant(Option<bool>);

    impl HostVerifier for Constant {
        fn verify(&self, _: &str, _: &[u8], _: &[u8], _: &[u8]) -> Option<bool> {
            self.0
        }
    }

    /// A host that verifies as Envoy does, by way of the Rust crates.
    struct Honest;

    impl HostVerifier for Honest {
        fn verify(
            &self,
            hash: &str,
            spki: &[u8],
            signature: &[u8],
            message: &[u8],
        ) -> Option<bool> {
            rust::verify_host_form(hash, spki, signature, message)
        }
    }

    #[test]
    fn a_host_that_says_yes_or_no_or_nothing_to_everything_is_not_trusted() {
        for answer in [Some(true), Some(false), None] {
            assert!(
                Crypto::probe(Rc::new(Constant(answer)))
                    .by_host()
                    .is_empty()
            );
        }
    }

    #[test]
    fn a_host_that_verifies_is_trusted_with_what_it_can() {
        let crypto = Crypto::probe(Rc::new(Honest));
        assert_eq!(
            crypto.by_host(),
            [
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Es256,
                Algorithm::Es384
            ]
        );
    }
}
