//! Signing keys, made once per run from fixed seeds, and the JWK Sets that publish them.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use p256::ecdsa;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rsa::PrivateKey;
use rsa::signature::{RandomizedSigner, SignatureEncoding, Signer};
use rsa::traits::PublicKeyParts;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384, Sha512};

/// RSA keys at hand.
const RSA_KEYS: usize = 3;

/// A signing key and the name it is published under.
pub struct Key {
    /// Its `kid`.
    pub kid: String,
    private: Private,
}

enum Private {
    Rsa(Box<PrivateKey>),
    P256(ecdsa::SigningKey),
}

/// RSA key number `index`, 2048 bits.
///
/// # Panics
///
/// When `index` is 3 or more.
#[must_use]
pub fn rsa(index: usize) -> &'static Key {
    static KEYS: [OnceLock<Key>; RSA_KEYS] = [const { OnceLock::new() }; RSA_KEYS];
    KEYS[index].get_or_init(|| make_rsa(index, 2048))
}

/// An RSA key of 1024 bits: too small.
#[must_use]
pub fn small_rsa() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| make_rsa(RSA_KEYS, 1024))
}

/// A P-256 key.
#[must_use]
pub fn p256() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key {
        kid: "kid-p256".to_owned(),
        private: Private::P256(
            ecdsa::SigningKey::from_slice(&[0x42; 32]).expect("a valid P-256 scalar"),
        ),
    })
}

fn make_rsa(index: usize, bits: usize) -> Key {
    let seed = u64::try_from(index).expect("few keys");
    let mut random = StdRng::seed_from_u64(seed);
    let private = PrivateKey::new(&mut random, bits).expect("a key of this size can be made");
    Key {
        kid: format!("kid-rsa-{index}"),
        private: Private::Rsa(Box::new(private)),
    }
}

/// A JWK Set as Entra's: `use`, `kid`, `x5t`, no `alg`.
#[must_use]
pub fn jwks(keys: &[&Key]) -> Value {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
}

impl Key {
    /// The public half, as one JWK.
    #[must_use]
    pub fn jwk(&self) -> Value {
        match &self.private {
            Private::Rsa(key) => json!({
                "kty": "RSA", "use": "sig", "kid": self.kid, "x5t": self.kid,
                "n": URL_SAFE_NO_PAD.encode(key.n_bytes()),
                "e": URL_SAFE_NO_PAD.encode(key.e_bytes()),
            }),
            Private::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                json!({
                    "kty": "EC", "use": "sig", "kid": self.kid, "crv": "P-256",
                    "x": URL_SAFE_NO_PAD.encode(point.x().expect("not the point at infinity")),
                    "y": URL_SAFE_NO_PAD.encode(point.y().expect("not the point at infinity")),
                })
            }
        }
    }

    /// The same private key under another `kid`.
    #[must_use]
    pub fn named(&self, kid: &str) -> Self {
        let private = match &self.private {
            Private::Rsa(key) => Private::Rsa(key.clone()),
            Private::P256(key) => Private::P256(key.clone()),
        };
        Self {
            kid: kid.to_owned(),
            private,
        }
    }

    /// Signs `message` with the algorithm of that JWS name.
    ///
    /// # Panics
    ///
    /// When this key cannot sign with it.
    #[must_use]
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        use rsa::{pkcs1v15, pss};

        let random = &mut StdRng::seed_from_u64(1);
        match (&self.private, algorithm) {
            (Private::Rsa(key), "RS256") => pkcs1v15::SigningKey::<Sha256>::new(*key.clone())
                .sign(message)
                .to_vec(),
            (Private::Rsa(key), "RS384") => pkcs1v15::SigningKey::<Sha384>::new(*key.clone())
                .sign(message)
                .to_vec(),
            (Private::Rsa(key), "RS512") => pkcs1v15::SigningKey::<Sha512>::new(*key.clone())
                .sign(message)
                .to_vec(),
            (Private::Rsa(key), "PS256") => pss::SigningKey::<Sha256>::new(*key.clone())
                .sign_with_rng(random, message)
                .to_vec(),
            (Private::P256(key), "ES256") => {
                let signature: ecdsa::Signature = key.sign(message);
                signature.to_vec()
            }
            _ => panic!("{} does not sign {algorithm}", self.kid),
        }
    }
}
