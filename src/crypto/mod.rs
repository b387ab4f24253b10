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

    /// Keys of the known answers, and their signatures as they stand in a token.
    fn known() -> [(Algorithm, PublicKey, Vec<u8>); 3] {
        use known_answers as known;
        let tail = |spki: &[u8], size: usize| spki[spki.len() - size..].to_vec();
        // Behind the modulus stand the tag and size of the exponent, and its three bytes.
        let modulus = &tail(known::RSA_SPKI, 256 + 5)[..256];
        let rsa = PublicKey::rsa(modulus, &[1, 0, 1]).unwrap();
        let point = tail(known::P256_SPKI, 64);
        let p256 = PublicKey::p256(&point[..32], &point[32..]).unwrap();
        let point = tail(known::P384_SPKI, 96);
        let p384 = PublicKey::p384(&point[..48], &point[48..]).unwrap();
        let es256 = p256::ecdsa::Signature::from_der(known::ES256).unwrap();
        let es384 = p384::ecdsa::Signature::from_der(known::ES384).unwrap();
        [
            (Algorithm::Rs256, rsa, known::RS256.to_vec()),
            (Algorithm::Es256, p256, es256.to_bytes().to_vec()),
            (Algorithm::Es384, p384, es384.to_bytes().to_vec()),
        ]
    }

    #[test]
    fn the_host_and_rust_say_the_same_of_what_stands_in_tokens() {
        let (host, rust) = (Crypto::probe(Rc::new(Honest)), Crypto::pure());
        for (algorithm, key, signature) in known() {
            let longer = [&signature[..], &[0]].concat();
            let mut other = signature.clone();
            other[7] ^= 1;
            for (message, signature, good) in [
                (known_answers::MESSAGE, &signature, true),
                (b"another message", &signature, false),
                (known_answers::MESSAGE, &other, false),
                (known_answers::MESSAGE, &longer, false),
                (known_answers::MESSAGE, &Vec::new(), false),
            ] {
                let by_host = host.verify_by_host(algorithm, &key, message, signature);
                assert_eq!(by_host, Some(good), "{algorithm:?} {}", signature.len());
                for crypto in [&host, &rust] {
                    let found = crypto.verify(algorithm, &key, message, signature);
                    assert_eq!(found, good, "{algorithm:?} {}", signature.len());
                }
            }
            for unfit in Algorithm::ALL.into_iter().filter(|other| !key.fits(*other)) {
                assert!(!host.verify(unfit, &key, known_answers::MESSAGE, &signature));
            }
        }
    }

    /// A host that calls everything good but the known answer's other message.
    struct Liar;

    impl HostVerifier for Liar {
        fn verify(&self, _: &str, _: &[u8], _: &[u8], message: &[u8]) -> Option<bool> {
            Some(message != b"another message")
        }
    }

    #[test]
    fn the_host_is_asked_for_what_it_is_trusted_with_and_nothing_else() {
        let crypto = Crypto::probe(Rc::new(Liar));
        let [(_, rsa, _), (_, p256, _), _] = known();
        assert!(crypto.verify(Algorithm::Rs512, &rsa, b"x", b"any"));
        assert!(!crypto.verify(Algorithm::Ps256, &rsa, b"x", b"any"));
        assert!(crypto.verify(Algorithm::Es256, &p256, b"x", &[7; 64]));
        // What is no signature at all is not shown to it.
        assert!(!crypto.verify(Algorithm::Es256, &p256, b"x", &[7; 63]));
        assert!(!crypto.verify(Algorithm::Es256, &rsa, b"x", &[7; 64]));
    }
}
